//! Is the app ready? The user's probes, run by the sidecar when somebody asks.
//!
//! Nothing runs ahead of the first question and nothing is cached; callers that come while a check runs share its
//! result. A question with a *hold* is answered the moment the app is ready: instead of upstream's 50 ms grid a failed
//! attempt is repeated after 2 % of the time waited so far, so the delay we add stays 2 % of the app's own start.
//!
//! [`Readiness`] is the parsed definition, [`Gate`] the shared running state, [`check`] one attempt of one probe.

pub mod check;
mod definition;
mod gate;
mod https;
mod redirect;

pub use definition::{Action, Probe, ProbeError, Readiness};
pub use gate::Gate;
