//! The one clock of the process: wall-clock time that never jumps.
//!
//! The wall clock is read once; from then on time is that plus what the monotonic clock counted. So a stepped wall
//! clock neither empties the windows nor sends pods to sleep, and tests can run on tokio's paused time.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::moment::Moment;

/// Tells the time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: Moment,
    start: Instant,
}

impl Clock {
    /// Reads the wall clock.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall: Moment::default().plus(since_epoch), start: Instant::now() }
    }

    /// Now.
    pub fn now(&self) -> Moment {
        self.wall.plus(self.start.elapsed())
    }

    /// When the monotonic clock will show `moment`.
    pub fn instant(&self, moment: Moment) -> Instant {
        self.start + moment.since(self.wall)
    }
}
