//! Where load comes from: frames of activators over a websocket ([`server`]), and queue-proxies, asked once a second
//! ([`scrape`]). Both end as [`Load`], four windows per revision; [`Pods`] says whom to ask.

pub mod http;
mod load;
pub mod mesh;
pub mod pod;
mod pods;
pub mod prometheus;
pub mod scrape;
pub mod server;

pub use load::{Load, is_plausible};
pub use pods::{Candidate, Counts, DELETION_COST, PodPhase, PodView, Pods};
