//! One wake-up of one revision: from the first request that found no pod to the first byte of an answer.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::timeline::{Observer, Phase};

use crate::revision::RevisionKey;

/// The wake-up under way, if any. Locked only by requests that wait and by changes of pods.
#[derive(Debug, Default)]
pub struct Wake {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stage: Stage,
    /// When the last wake-up got its pod; those who stood in line then tell it.
    ready: Option<Instant>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Stage {
    #[default]
    None,
    Queued(Instant),
    Ready {
        queued: Instant,
        ready: Instant,
    },
}

/// How long the parts of a finished wake-up took, as the activator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phases {
    /// First request waiting → a pod can serve.
    pub to_ready: Duration,
    /// A pod can serve → first byte of an answer.
    pub to_first_byte: Duration,
}

impl Wake {
    /// A request waits and no pod is there.
    pub fn queued(&self, key: &RevisionKey, observer: &Observer, now: Instant) {
        let mut state = self.lock();
        // A wake-up whose first byte never came (its client left) makes way for the next.
        if !matches!(state.stage, Stage::Queued(_)) {
            state.stage = Stage::Queued(now);
            drop(state);
            observer.mark(&key.namespace, &key.name, Phase::Queued);
        }
    }

    /// A pod can serve.
    pub fn ready(&self, key: &RevisionKey, observer: &Observer, now: Instant) {
        let mut state = self.lock();
        if let Stage::Queued(queued) = state.stage {
            *state = State { stage: Stage::Ready { queued, ready: now }, ready: Some(now) };
            drop(state);
            observer.mark(&key.namespace, &key.name, Phase::Ready);
        }
    }

    /// An answer to a request that waited begins. Returns the phases if this ends the wake-up.
    pub fn first_byte(&self, key: &RevisionKey, observer: &Observer, now: Instant) -> Option<Phases> {
        let mut state = self.lock();
        let Stage::Ready { queued, ready } = state.stage else { return None };
        state.stage = Stage::None;
        drop(state);
        observer.mark(&key.namespace, &key.name, Phase::FirstByte);
        Some(Phases {
            to_ready: ready.saturating_duration_since(queued),
            to_first_byte: now.saturating_duration_since(ready),
        })
    }

    /// Nobody waits any more and no pod came.
    pub fn abandoned(&self) {
        let mut state = self.lock();
        if matches!(state.stage, Stage::Queued(_)) {
            state.stage = Stage::None;
        }
    }

    /// When a pod came for those who have been in line since a moment; `None` if it was not that they waited for.
    pub fn ready_since(&self, joined: Instant) -> Option<Instant> {
        self.lock().ready.filter(|ready| *ready >= joined)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use Phase::{FirstByte, Queued, Ready};

    #[test]
    fn each_phase_is_marked_once_per_wake_up() {
        let marks = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&marks);
        let observer = Observer::new(move |mark| seen.lock().unwrap().push(mark.phase));
        let (key, wake, t0) = (RevisionKey::new("n", "r"), Wake::default(), Instant::now());
        let at = |ms| t0 + Duration::from_millis(ms);
        wake.ready(&key, &observer, at(0));
        assert_eq!(wake.first_byte(&key, &observer, at(0)), None);
        for _ in 0..2 {
            wake.queued(&key, &observer, at(1));
            wake.queued(&key, &observer, at(2));
            wake.ready(&key, &observer, at(11));
            wake.ready(&key, &observer, at(12));
            let phases = wake.first_byte(&key, &observer, at(14)).unwrap();
            assert_eq!(phases.to_ready, Duration::from_millis(10));
            assert_eq!(phases.to_first_byte, Duration::from_millis(3));
            assert_eq!(wake.first_byte(&key, &observer, at(15)), None);
        }
        assert_eq!((wake.ready_since(at(1)), wake.ready_since(at(12))), (Some(at(11)), None));
        wake.queued(&key, &observer, at(20));
        wake.abandoned();
        wake.ready(&key, &observer, at(21));
        assert_eq!(*marks.lock().unwrap(), [Queued, Ready, FirstByte, Queued, Ready, FirstByte, Queued]);
    }
}
