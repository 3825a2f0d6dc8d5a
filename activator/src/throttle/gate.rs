//! No herd onto the first pod: how a revision without a limit lets in those who waited for it to wake. Pure.
//!
//! Without a limit every pod has room for everybody, so the first pod to come up would get all waiters within a
//! millisecond, although its siblings follow. So: if a revision that had no pod gets its first ones, while Kubernetes
//! has announced others that do not answer yet, and more wait than [`FIRST_BATCH`] per pod, the gate closes: each pod
//! gets at most [`FIRST_BATCH`] requests at a time. It opens when
//! 1. no announced pod is pending any more, or
//! 2. [`LONGEST`] after it closed: a sibling that never answers delays nobody for longer.
//!
//! Meanwhile requests that end let others in, as with a limit, so waiting is never idle; a wake-up with few waiters,
//! or with a single pod, never meets the gate.

use std::time::{Duration, Instant};

/// Requests per pod while the gate is closed: what upstream's autoscaler wants of a pod unless told otherwise
/// (`container-concurrency-target-default`).
// One in the model of all threads' orders: a hundred waiters have too many.
pub const FIRST_BATCH: u32 = if cfg!(feature = "loom") { 1 } else { 100 };
/// The longest that pending pods are waited for. Pods of one scale-up come within this time of each other when they
/// start at the same time; those that need longer find the load spread by the choice of two.
pub const LONGEST: Duration = Duration::from_secs(1);

/// What there is to see when pods change.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Before the change no pod could serve.
    pub was_asleep: bool,
    /// Pods that can serve now.
    pub usable: usize,
    /// Pods announced that cannot yet.
    pub pending: usize,
    /// Requests in line.
    pub waiting: usize,
}

/// Open unless it says until when not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gate {
    until: Option<Instant>,
}

impl Gate {
    /// Pods changed. Returns when [`Gate::time`] must be told, if the gate has closed.
    pub fn pods(&mut self, seen: Seen, now: Instant) -> Option<Instant> {
        self.time(now);
        if seen.pending == 0 {
            self.until = None;
            return None;
        }
        let herd = seen.waiting > seen.usable.saturating_mul(FIRST_BATCH as usize);
        if seen.was_asleep && seen.usable > 0 && herd && self.until.is_none() {
            self.until = Some(now + LONGEST);
            return self.until;
        }
        None
    }

    /// It is now; whether that opens the gate.
    pub fn time(&mut self, now: Instant) -> bool {
        let opens = self.until.is_some_and(|until| now >= until);
        if opens {
            self.until = None;
        }
        opens
    }

    /// Whether pods get [`FIRST_BATCH`] only.
    pub fn is_closed(self) -> bool {
        self.until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERD: Seen = Seen { was_asleep: true, usable: 1, pending: 1, waiting: 101 };

    #[test]
    fn closes_for_a_herd_at_the_first_pod_only() {
        let now = Instant::now();
        let cases = [
            (HERD, true, "a herd"),
            (Seen { waiting: 100, ..HERD }, false, "few enough for the pod"),
            (Seen { usable: 2, ..HERD }, false, "few enough for two pods"),
            (Seen { pending: 0, ..HERD }, false, "no sibling will come"),
            (Seen { usable: 0, ..HERD }, false, "nowhere to go anyway"),
            (Seen { was_asleep: false, ..HERD }, false, "awake before"),
        ];
        for (seen, closes, why) in cases {
            let mut gate = Gate::default();
            assert_eq!(gate.pods(seen, now), closes.then(|| now + LONGEST), "{why}");
            assert_eq!(gate.is_closed(), closes, "{why}");
        }
    }

    #[test]
    fn opens_when_the_last_pod_is_there_or_time_is_up() {
        let now = Instant::now();
        let closed = || {
            let mut gate = Gate::default();
            gate.pods(HERD, now);
            gate
        };
        let mut gate = closed();
        assert_eq!(gate.pods(Seen { was_asleep: false, usable: 2, ..HERD }, now), None);
        assert!(gate.is_closed(), "one is still to come");
        gate.pods(Seen { was_asleep: false, usable: 3, pending: 0, ..HERD }, now);
        assert!(!gate.is_closed());

        let mut gate = closed();
        assert!(!gate.time(now + LONGEST / 2) && gate.is_closed());
        assert!(gate.time(now + LONGEST) && !gate.is_closed());
        assert!(!gate.time(now + LONGEST), "once");

        // A flicker of the only pod does not start the time anew.
        let mut gate = closed();
        gate.pods(Seen { usable: 0, was_asleep: false, ..HERD }, now + LONGEST / 2);
        assert_eq!(gate.pods(HERD, now + LONGEST / 2), None);
        assert!(gate.time(now + LONGEST));
    }
}
