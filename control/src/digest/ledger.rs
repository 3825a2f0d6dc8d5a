//! Which Revisions wait for an answer, and when one that failed is tried again. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    time::{Duration, Instant},
};

/// First pause after a failure; doubles with each further one (upstream's numbers).
const SHORTEST: Duration = Duration::from_secs(1);
/// Longest pause after a failure.
pub const LONGEST: Duration = Duration::from_secs(1000);

/// What is known of a Revision's images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// All of them: image to digest with name, empty where a tag is left as it is.
    Known(BTreeMap<String, String>),
    /// Not yet; the asker is woken.
    Asked,
    /// It did not work, for this reason; to be asked again after this time. Told once.
    Failed {
        /// For the user.
        why: String,
        /// When to ask again.
        again: Duration,
    },
    /// It did not work and is not tried again before this time.
    Paused(Duration),
}

#[derive(Debug)]
enum State {
    Asking,
    Known(BTreeMap<String, String>),
    Failed(String),
    Paused(Instant),
}

/// See the module. Of each key there is one entry from its first question until it is forgotten.
#[derive(Debug)]
pub struct Ledger<K> {
    entries: HashMap<K, (State, u32)>,
}

impl<K> Default for Ledger<K> {
    fn default() -> Self {
        Self { entries: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash> Ledger<K> {
    /// What is known, and whether the caller has to ask now.
    pub fn ask(&mut self, key: &K, now: Instant) -> (Answer, bool) {
        let Some((state, failures)) = self.entries.get_mut(key) else {
            self.entries.insert(key.clone(), (State::Asking, 0));
            return (Answer::Asked, true);
        };
        match state {
            State::Asking => (Answer::Asked, false),
            State::Known(digests) => (Answer::Known(digests.clone()), false),
            State::Failed(why) => {
                let (why, again) = (std::mem::take(why), pause(*failures));
                *state = State::Paused(now + again);
                (Answer::Failed { why, again }, false)
            }
            State::Paused(until) if now < *until => (Answer::Paused(*until - now), false),
            State::Paused(_) => {
                *state = State::Asking;
                (Answer::Asked, true)
            }
        }
    }

    /// The answer to what was asked; nobody's any more if it was forgotten meanwhile.
    pub fn answered(&mut self, key: &K, answer: Result<BTreeMap<String, String>, String>) {
        let Some((state, failures)) = self.entries.get_mut(key) else { return };
        *state = match answer {
            Ok(digests) => State::Known(digests),
            Err(why) => {
                *failures = failures.saturating_add(1);
                State::Failed(why)
            }
        };
    }

    /// Nobody will ask again.
    pub fn forget(&mut self, key: &K) {
        self.entries.remove(key);
    }
}

fn pause(failures: u32) -> Duration {
    SHORTEST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_question_at_a_time_and_its_answer_stays() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        assert_eq!(ledger.ask(&1, now), (Answer::Asked, true));
        assert_eq!(ledger.ask(&1, now), (Answer::Asked, false));
        assert_eq!(ledger.ask(&2, now), (Answer::Asked, true));
        let digests = BTreeMap::from([("a".to_owned(), "a@sha256:1".to_owned())]);
        ledger.answered(&1, Ok(digests.clone()));
        for _ in 0..2 {
            assert_eq!(ledger.ask(&1, now), (Answer::Known(digests.clone()), false));
        }
        ledger.forget(&1);
        ledger.answered(&1, Ok(digests));
        assert_eq!(ledger.ask(&1, now), (Answer::Asked, true), "an answer to nobody is not kept");
    }

    #[test]
    fn what_fails_is_told_once_and_tried_ever_later() {
        let (mut ledger, mut now) = (Ledger::default(), Instant::now());
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000] {
            assert_eq!(ledger.ask(&1, now), (Answer::Asked, true));
            ledger.answered(&1, Err("no".to_owned()));
            let again = Duration::from_secs(seconds);
            assert_eq!(ledger.ask(&1, now), (Answer::Failed { why: "no".to_owned(), again }, false));
            let half = again / 2;
            now += half;
            assert_eq!(ledger.ask(&1, now), (Answer::Paused(half), false));
            now += half;
        }
    }
}
