//! Every revision's runner, without a task or a ticker for any of them.
//!
//! [`Engine`] is a state machine over all revisions: [`Event`]s go in, [`Effect`]s come out, and it says when it wants
//! to be asked again. It reads no clock and opens no socket; [`crate::Autoscaler::run`] is the loop around it. So one
//! report that wakes a revision is decided and its write is on the way within the same call.

mod engine;
mod event;
mod listen;
mod load;
mod objects;
mod record;
mod revision;
mod schedule;
mod send;

pub use engine::Engine;
pub use event::{Change, Effect, Event, Kind, ProbeTarget, Settings, Write, Written};
