//! The sidecar: measures and limits concurrency, probes, reports, drains.
//!
//! It sits in every pod between the network and the user's container, takes each request in on 8012 and sends it to
//! `127.0.0.1:USER_PORT`. In the order things happen:
//!
//! 1. [`config`]: environment → [`Config`]; certificates for the TLS port, if they are mounted.
//! 2. [`probe`]: is this request a probe? [`readiness`] answers whether the app is ready.
//! 3. [`drainer`]: a pod that goes away fails its probes and serves on until it is quiet.
//! 4. [`stats`]: every other request counts, from here to its last byte; [`broadcast`] tells who listens.
//! 5. [`breaker`]: a slot, or a place in the line for one.
//! 6. [`handler`] forwards with the engine of the `proxy` crate; [`forwarded`] adds one header.
//! 7. [`side_ports`]: drain, stat, [`metrics`], profiles.
//! 8. The crate `telemetry` writes the log and, if asked, a line per request, follows the sampled ones ([`traces`] says
//!    which spans they have), and sends traces and metrics to a collector; [`observability`] says what of it is wanted.
//!
//! One thread, no lock, no Kubernetes API. The page "what happens to a request" is `README.md` of this crate.

pub mod breaker;
pub mod broadcast;
pub mod config;
pub mod drainer;
pub mod forwarded;
pub mod handler;
pub mod metrics;
pub mod observability;
pub mod probe;
pub mod readiness;
mod resource;
mod run;
pub mod side_ports;
pub mod sidecar;
mod start;
pub mod stats;
pub mod traces;

pub use config::{Config, ConfigError};
pub use run::{Addresses, Error, QueueProxy};
pub use start::main_from_env;
