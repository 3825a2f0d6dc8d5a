//! Turns measured load into a wanted number of pods and applies it.
//!
//! What comes in: frames from activators ([`collect::server`]), reports of queue-proxies ([`collect::scrape`]), and
//! the state of the cluster ([`apply::watch`]). What goes out: replicas of Deployments, the mode of
//! ServerlessServices, and the status of PodAutoscalers ([`apply::write`]). Between them stands one state machine over
//! all revisions ([`decider::Engine`]) and the rules it follows ([`algorithm`], [`window`]): pure functions of
//! (settings, samples, now).
//!
//! In the order in which it happens: a frame says that a request waits for a revision at zero → the engine adds it to
//! the revision's [`collect::Load`] → [`algorithm::decide()`] says how many pods and why → [`apply::plan`] says what
//! must be written → the scale is patched. There is no timer, no cache miss and no lock in between.
//!
//! Not here: what happens to the scale (the node's business), and routing (the activator's).

pub mod algorithm;
pub mod apply;
pub mod clock;
pub mod collect;
pub mod config;
pub mod decider;
pub mod election;
pub mod hpa;
pub mod key;
pub mod ledger;
pub mod metrics;
pub mod moment;
pub mod ownership;
pub mod replay;
mod service;
mod shares;
mod standalone;
pub mod window;

pub use config::Config;
pub use service::{Autoscaler, Error};
pub use standalone::main_from_env;
