//! The work queue as a pure state machine: which key may be worked on now.
//!
//! Invariants: a key is worked on by at most one worker; a key added while it is worked on runs once more afterwards;
//! however often a waiting key is added, it runs once; keys start in the order in which they became ready. Failing
//! keys come back with growing delay, and an event brings them back at once. No clock and no task in here: the
//! caller passes `now`, [`super::work`] is the shell around it.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::Hash,
    time::{Duration, Instant},
};

/// First delay after a failure; doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
/// Longest delay after a failure.
const BACKOFF_LAST: Duration = Duration::from_secs(30);

/// How work on a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do until something changes.
    Settled,
    /// Look again after this time even if nothing changes.
    Again(Duration),
    /// Did not work; try again with growing delay.
    Failed,
}

impl Outcome {
    /// Looks again after this time, if it is sooner.
    #[must_use]
    pub fn or_after(self, again: Option<Duration>) -> Self {
        match (self, again) {
            (Self::Settled, Some(again)) => Self::Again(again),
            (Self::Again(one), Some(other)) => Self::Again(one.min(other)),
            (outcome, _) => outcome,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Queue<K> {
    ready: VecDeque<K>,
    waiting: HashSet<K>,
    /// Keys being worked on; true = add again when done.
    running: HashMap<K, bool>,
    later: BTreeMap<(Instant, u64), K>,
    later_of: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    sequence: u64,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            running: HashMap::new(),
            later: BTreeMap::new(),
            later_of: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
        }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// Something about this key changed.
    pub fn add(&mut self, key: K) {
        if let Some(again) = self.running.get_mut(&key) {
            *again = true;
        } else if self.waiting.insert(key.clone()) {
            self.forget_later(&key);
            self.ready.push_back(key);
        }
    }

    /// The next key to work on; it counts as running until [`Self::done`].
    pub fn take(&mut self, now: Instant) -> Option<K> {
        self.wake(now);
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.running.insert(key.clone(), false);
        Some(key)
    }

    /// Work on a key ended.
    pub fn done(&mut self, key: K, outcome: Outcome, now: Instant) {
        let again = self.running.remove(&key).unwrap_or(false);
        let delay = match outcome {
            Outcome::Settled => {
                self.failures.remove(&key);
                None
            }
            Outcome::Again(delay) => {
                self.failures.remove(&key);
                Some(delay)
            }
            Outcome::Failed => {
                let failures = self.failures.entry(key.clone()).or_default();
                *failures = failures.saturating_add(1);
                Some(backoff(*failures))
            }
        };
        // After a failure an event during the work does not cut the delay short: it may be our own write's echo.
        if again && outcome != Outcome::Failed {
            self.add(key);
        } else if let Some(delay) = delay {
            self.add_at(key, now + delay);
        }
    }

    /// When [`Self::take`] should be called again though nothing was added.
    pub fn next_wake(&self) -> Option<Instant> {
        self.later.keys().next().map(|(at, _)| *at)
    }

    /// Keys waiting to be worked on now.
    pub fn depth(&self) -> usize {
        self.ready.len()
    }

    fn add_at(&mut self, key: K, at: Instant) {
        if self.waiting.contains(&key) {
            return;
        }
        self.forget_later(&key);
        self.sequence += 1;
        self.later.insert((at, self.sequence), key.clone());
        self.later_of.insert(key, (at, self.sequence));
    }

    fn wake(&mut self, now: Instant) {
        while let Some((slot, key)) = self.later.first_key_value() {
            if slot.0 > now {
                break;
            }
            let key = key.clone();
            self.add(key);
        }
    }

    fn forget_later(&mut self, key: &K) {
        if let Some(slot) = self.later_of.remove(key) {
            self.later.remove(&slot);
        }
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_FIRST.saturating_mul(1_u32 << failures.saturating_sub(1).min(20)).min(BACKOFF_LAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_runs_alone_and_once_more_when_it_changed_meanwhile() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.take(now), Some("a"));
        assert_eq!(queue.take(now), None, "waiting twice is waiting once");
        queue.add("a");
        assert_eq!(queue.take(now), None, "not beside itself");
        queue.done("a", Outcome::Settled, now);
        assert_eq!(queue.take(now), Some("a"));
        queue.done("a", Outcome::Settled, now);
        assert_eq!(queue.take(now), None);
    }

    #[test]
    fn failures_come_back_later_and_later_until_success() {
        let mut now = Instant::now();
        let mut queue = Queue::default();
        queue.add("a");
        for expected in [5, 10, 20, 40] {
            assert_eq!(queue.take(now), Some("a"));
            queue.done("a", Outcome::Failed, now);
            assert_eq!(queue.take(now), None);
            assert_eq!(queue.next_wake(), Some(now + Duration::from_millis(expected)));
            now += Duration::from_millis(expected);
        }
        assert_eq!(queue.take(now), Some("a"));
        queue.done("a", Outcome::Settled, now);
        queue.add("a");
        queue.take(now);
        queue.done("a", Outcome::Failed, now);
        assert_eq!(queue.next_wake(), Some(now + Duration::from_millis(5)), "success forgets the failures");
        assert_eq!(backoff(u32::MAX), BACKOFF_LAST);
    }

    #[test]
    fn an_event_cuts_a_delay_short_and_the_delay_is_gone() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add("a");
        queue.take(now);
        queue.done("a", Outcome::Again(Duration::from_secs(60)), now);
        queue.add("a");
        assert_eq!(queue.take(now), Some("a"));
        queue.done("a", Outcome::Settled, now);
        assert_eq!(queue.next_wake(), None);
    }

    proptest::proptest! {
        #[test]
        fn every_added_key_is_taken_and_none_twice_at_a_time(
            steps in proptest::collection::vec((0_u8..3, 0_u8..6), 0..200)
        ) {
            let now = Instant::now();
            let mut queue = Queue::default();
            let mut owed = HashSet::new();
            let mut running = HashSet::new();
            for (step, key) in steps {
                match step {
                    0 => { queue.add(key); owed.insert(key); }
                    1 => if let Some(taken) = queue.take(now) {
                        proptest::prop_assert!(running.insert(taken), "{taken} is already running");
                        owed.remove(&taken);
                    },
                    _ => if let Some(done) = running.iter().next().copied() {
                        running.remove(&done);
                        queue.done(done, Outcome::Settled, now);
                    },
                }
            }
            for key in running { queue.done(key, Outcome::Settled, now); }
            while let Some(key) = queue.take(now) { owed.remove(&key); queue.done(key, Outcome::Settled, now); }
            proptest::prop_assert!(owed.is_empty());
        }
    }
}
