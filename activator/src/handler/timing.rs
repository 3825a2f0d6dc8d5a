//! Where the time of one request went, for `Server-Timing`. Pure.
//!
//! | metric | is |
//! |---|---|
//! | `dormouse-wait` | in line, all turns together; 0 for a request that found a free slot |
//! | `dormouse-ready` | of it, until a pod could serve: the wake-up that this request saw |
//! | `dormouse-turn` | of it, from then on until it was this request's turn |
//! | `dormouse-pod` | the rest until the answer's head: to the pod, in the pod, and ours |
//!
//! The second and third are there only for a request that waited for a wake-up. Durations are milliseconds.

use std::fmt::Write;
use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    waited: Option<Duration>,
    /// From joining the line to a pod, and from there to the turn.
    woken: Option<(Duration, Duration)>,
}

impl Timing {
    /// It stood in line; `ready`: when a pod came, if that is what it waited for.
    pub fn waited(&mut self, joined: Instant, ready: Option<Instant>, turn: Instant) {
        let between = |from: Instant, to: Instant| to.saturating_duration_since(from);
        self.waited = Some(self.waited.unwrap_or_default() + between(joined, turn));
        if let Some(ready) = ready {
            let (before, after) = self.woken.unwrap_or_default();
            self.woken = Some((before + between(joined, ready), after + between(ready, turn)));
        }
    }

    /// Whether it stood in line at all.
    pub fn has_waited(&self) -> bool {
        self.waited.is_some()
    }

    /// The header, `total` after the arrival.
    pub fn header(&self, total: Duration) -> String {
        let waited = self.waited.unwrap_or_default();
        let mut header = String::with_capacity(128);
        add(&mut header, "dormouse-wait;dur=", waited);
        if let Some((ready, turn)) = self.woken {
            add(&mut header, ", dormouse-ready;dur=", ready);
            add(&mut header, ", dormouse-turn;dur=", turn);
        }
        add(&mut header, ", dormouse-pod;dur=", total.saturating_sub(waited));
        header
    }
}

/// Whole numbers: to print a fraction takes longer than all the rest of a request's bookkeeping.
fn add(header: &mut String, name: &str, duration: Duration) {
    let us = duration.as_micros();
    let _ = write!(header, "{name}{}.{:03}", us / 1000, us % 1000); // to a string; it cannot fail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_lists_the_phases_that_the_request_saw() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let total = Duration::from_millis(1000);
        let mut timing = Timing::default();
        assert_eq!(timing.header(total), "dormouse-wait;dur=0.000, dormouse-pod;dur=1000.000");
        assert!(!timing.has_waited());
        timing.waited(at(0), None, at(200));
        assert_eq!(timing.header(total), "dormouse-wait;dur=200.000, dormouse-pod;dur=800.000");
        timing.waited(at(300), Some(at(390)), at(400));
        let woken =
            "dormouse-wait;dur=300.000, dormouse-ready;dur=90.000, dormouse-turn;dur=10.000, dormouse-pod;dur=700.000";
        assert_eq!(timing.header(total), woken);
    }
}
