//! The door: Host to revision to slot to pod; holds a request while its revision wakes.
//!
//! What comes in is a request for a host; what goes out is the same request to a pod that has room for it, as soon as
//! there is one. In the order in which it happens:
//!
//! 1. [`server`]: sockets and threads; one runtime per core for requests, one thread for everything else. Which socket
//!    it was, says [`entrance`].
//! 2. [`handler`]: probes, then which revision, then wait and send, then answer.
//! 3. [`table`]: host, path and headers → weighted backends, as an immutable snapshot.
//! 4. [`revision`]: settings, slots and counts of one revision in one object.
//! 5. [`throttle`]: exact slots per pod, first come first served.
//! 6. [`report`]: requests in flight, told to the autoscaler; the first one at once.
//! 7. [`endpoints`]: pods come and go; each is asked by itself whether it can serve.
//! 8. [`wake`]: the phases of a wake-up as seen from here; [`metrics`], [`traces`]; the crate `telemetry` has the rest.
//!
//! Off the request path: [`watch`] (API server) → [`feed`] → [`world`] (the single writer of all of the above).
//! [`certificates`] are those of the gateway's TLS, [`internal_tls`] those between the cluster's own parts; [`shared`] is
//! what threads have in common; [`config`] what they are told at the start, [`live`] what may change later; [`observe`]
//! what of the telemetry is on, and [`side_ports`] shows it; [`standalone`] is the process of its own.

pub mod certificates;
pub mod config;
pub mod endpoints;
pub mod entrance;
pub mod feed;
pub mod handler;
pub mod internal_tls;
pub mod live;
pub mod metrics;
pub mod observe;
pub mod report;
pub mod revision;
pub mod server;
pub mod shared;
pub mod side_ports;
pub mod standalone;
pub mod table;
pub mod throttle;
pub mod traces;
pub mod wake;
pub mod watch;
pub mod world;

pub use certificates::SecretName;
pub use config::{Config, ConfigError, Routing};
pub use feed::{Change, Feed};
pub use live::LiveSettings;
pub use server::{Activator, Error};
pub use standalone::{main_from_env, main_with};
