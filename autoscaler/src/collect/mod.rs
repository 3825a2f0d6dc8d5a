//! Where load comes from: frames of activators over a websocket ([`server`]); queue-proxies that tell when something
//! changes ([`listeners`]), or else are asked once a second ([`scrape`]). All of it ends as [`Load`], four windows per
//! revision; [`Pods`] says whom to listen to and whom to ask.

pub mod http;
pub mod listeners;
mod load;
pub mod mesh;
pub mod pod;
mod pods;
pub mod prometheus;
pub mod scrape;
pub mod server;
pub mod stream;

pub use listeners::Heard;
pub use load::{Load, is_plausible};
pub use pods::{Candidate, Counts, DELETION_COST, PodPhase, PodView, Pods};
