//! How long a crashed container waits: at once the first time, then 10 s doubling to 5 min, forgotten after a good run.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_mins(5);
/// A container that ran this long has earned a fresh start.
const FORGET: Duration = Duration::from_mins(10);

/// Backoff of one container. Pure.
#[derive(Debug, Clone, Default)]
pub(super) struct Backoff {
    /// The next wait and when it was last raised.
    raised: Option<(Duration, Instant)>,
}

impl Backoff {
    /// How long a container that ended at `ended` must wait.
    pub(super) fn wait(&mut self, ended: Instant) -> Duration {
        let wait = match self.raised {
            Some((wait, raised)) if ended.saturating_duration_since(raised) < FORGET => wait,
            _ => Duration::ZERO,
        };
        let next = if wait.is_zero() { FIRST } else { (wait * 2).min(MAX) };
        self.raised = Some((next, ended + wait));
        wait
    }

    /// As [`wait`](Self::wait), for what was never tried without a wait: pulling an image.
    pub(super) fn wait_at_once(&mut self, ended: Instant) -> Duration {
        match self.wait(ended) {
            Duration::ZERO => self.wait(ended),
            wait => wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_five_minutes_and_are_forgotten() {
        let mut now = Instant::now();
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = backoff.wait(now);
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.wait(now + Duration::from_secs(599)).as_secs(), 300);
        assert_eq!(backoff.wait(now + Duration::from_secs(5000)).as_secs(), 0);
        assert_eq!(Backoff::default().wait_at_once(now).as_secs(), 10);
    }
}
