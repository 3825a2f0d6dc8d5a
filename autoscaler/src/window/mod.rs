//! Averages and maxima over a moving window of seconds. Pure: callers say what time it is.
//!
//! - [`Window`]: one-second buckets with a linear or an exponentially weighted average.
//! - [`MaxWindow`]: the largest value of the last while, for the scale-down delay.
//!
//! Behaviour as upstream `pkg/autoscaler/aggregation`; the cases S35 to S41 of its tests are at the feet of the files.

mod average;
mod max;

pub use average::{Weighting, Window};
pub use max::MaxWindow;
