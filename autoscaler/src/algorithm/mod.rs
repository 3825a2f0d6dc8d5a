//! The rules, as pure functions of (settings, state, samples, now): no async, no clock, no socket.
//!
//! In the order in which a revision meets them:
//! - [`scaling`]: settings and annotations → [`RevisionScaling`], a type that cannot be wrong.
//! - [`sampling`]: which pods to ask for their load.
//! - [`decide`]: load → wanted pods, spare capacity, and why.
//! - [`bounds`]: min, max and initial scale.
//! - [`keep_warm`]: pods kept although nobody asks.
//! - [`zero`]: when the last pod may go.
//! - [`activators`]: how many activators carry the revision.
//! - [`condition`]: what the PodAutoscaler's status says about it.

pub mod activators;
pub mod bounds;
pub mod condition;
pub mod decide;
pub mod keep_warm;
pub mod sampling;
pub mod scaling;
pub mod zero;

pub use decide::{Decision, Inputs, Reason, State, decide};
pub use scaling::{MetricKind, RevisionScaling};
