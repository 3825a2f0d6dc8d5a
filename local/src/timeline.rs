//! Wake-ups as the whole system saw them: the marks of activator, autoscaler and node merged into one timeline each.
//!
//! Pure apart from the clock that came with the marks. [`crate::up`] feeds it; the screen and the console show it.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, SystemTime},
};

use api::timeline::{Mark, Phase};
use serde::Serialize;

/// Finished wake-ups to remember; the oldest go first.
const KEPT: usize = 1024;
/// Wake-ups under way to remember: one a revision. More than this and the oldest is forgotten.
const MAX_OPEN: usize = 10_000;

/// The autoscaler may decide before the activator has said that the request waits; its marks then belong to the
/// wake-up if they are no older than this.
const EARLY: Duration = Duration::from_secs(1);

/// One wake-up so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WakeUp {
    /// Namespace of the revision.
    pub namespace: String,
    /// Name of the revision.
    pub revision: String,
    /// When the first request found no pod.
    #[serde(serialize_with = "unix_millis")]
    pub started: SystemTime,
    /// Each phase seen, with microseconds since `started`, in the order in which they came.
    pub phases: Vec<Step>,
}

/// One phase of a wake-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Which.
    pub phase: Phase,
    /// Microseconds since the wake-up began.
    pub at_us: u64,
}

impl WakeUp {
    /// Whether the first byte is out.
    pub fn finished(&self) -> bool {
        self.phases.iter().any(|s| s.phase == Phase::FirstByte)
    }

    /// From the request to its first byte, or to the last phase seen.
    pub fn total(&self) -> Duration {
        Duration::from_micros(self.phases.iter().map(|s| s.at_us).max().unwrap_or(0))
    }
}

fn unix_millis<S: serde::Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let ms = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    serializer.serialize_u64(ms)
}

/// All wake-ups: those under way, and the last ones that finished.
#[derive(Debug, Default)]
pub struct Timelines {
    open: HashMap<(String, String), WakeUp>,
    early: HashMap<(String, String), Vec<(Phase, SystemTime)>>,
    done: VecDeque<WakeUp>,
}

impl Timelines {
    /// Takes one mark in. Returns the wake-up it belongs to when it said something new. Marks of revisions that no
    /// request waits for (a deploy, a scale-up) belong to none; a phase counts once, at its first mark.
    pub fn record(&mut self, mark: Mark) -> Option<&WakeUp> {
        let key = (mark.namespace, mark.revision);
        if mark.phase == Phase::Queued {
            if self.open.contains_key(&key) {
                return None;
            }
            if self.open.len() >= MAX_OPEN {
                let oldest = self.open.iter().min_by_key(|(_, w)| w.started).map(|(k, _)| k.clone());
                oldest.and_then(|k| self.open.remove(&k));
            }
            let mut phases = vec![Step { phase: Phase::Queued, at_us: 0 }];
            let early = self.early.remove(&key).unwrap_or_default();
            let recent = |at: SystemTime| mark.at.duration_since(at).is_ok_and(|age| age <= EARLY);
            phases.extend(early.into_iter().filter(|(_, at)| recent(*at)).map(|(phase, _)| Step { phase, at_us: 0 }));
            let wake = WakeUp { namespace: key.0.clone(), revision: key.1.clone(), started: mark.at, phases };
            return Some(self.open.entry(key).or_insert(wake));
        }
        if !self.open.contains_key(&key) {
            self.keep_early(key, mark.phase, mark.at);
            return None;
        }
        let wake = self.open.get_mut(&key)?;
        if wake.phases.iter().any(|s| s.phase == mark.phase) {
            return None;
        }
        let at_us = mark.at.duration_since(wake.started).map_or(0, |d| d.as_micros() as u64);
        wake.phases.push(Step { phase: mark.phase, at_us });
        if mark.phase != Phase::FirstByte {
            return self.open.get(&key);
        }
        let wake = self.open.remove(&key)?;
        if self.done.len() == KEPT {
            self.done.pop_front();
        }
        self.done.push_back(wake);
        self.done.back()
    }

    fn keep_early(&mut self, key: (String, String), phase: Phase, at: SystemTime) {
        if !matches!(phase, Phase::Decided | Phase::ScaleWritten) {
            return;
        }
        if self.early.len() >= MAX_OPEN {
            self.early.clear();
        }
        let marks = self.early.entry(key).or_default();
        marks.retain(|(p, _)| *p != phase);
        marks.push((phase, at));
    }

    /// Finished wake-ups, oldest first.
    pub fn finished(&self) -> impl DoubleEndedIterator<Item = &WakeUp> {
        self.done.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(phase: Phase, us: u64) -> Mark {
        Mark {
            namespace: "ns".into(),
            revision: "rev".into(),
            phase,
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(1) + Duration::from_micros(us),
        }
    }

    #[test]
    fn a_wake_up_grows_phase_by_phase_and_ends_with_its_first_byte() {
        let mut t = Timelines::default();
        for (i, phase) in Phase::ALL.into_iter().enumerate() {
            let wake = t.record(mark(phase, i as u64 * 100)).unwrap();
            assert_eq!(wake.phases.len(), i + 1);
            assert_eq!(wake.finished(), phase == Phase::FirstByte);
        }
        let done: Vec<_> = t.finished().collect();
        assert_eq!((done.len(), done[0].total()), (1, Duration::from_micros(600)));
        assert_eq!(t.record(mark(Phase::Ready, 700)), None, "late marks of a finished wake-up belong to none");
    }

    #[test]
    fn only_the_first_mark_of_a_phase_counts() {
        let mut t = Timelines::default();
        let later = 5_000_000;
        assert_eq!(t.record(mark(Phase::Decided, 0)), None, "nobody waits");
        t.record(mark(Phase::Queued, later));
        assert_eq!(t.record(mark(Phase::Queued, later + 5)), None);
        assert!(t.record(mark(Phase::Decided, later + 10)).is_some());
        assert_eq!(t.record(mark(Phase::Decided, later + 20)), None);
    }

    #[test]
    fn a_decision_just_before_the_wait_belongs_to_it() {
        let mut t = Timelines::default();
        let second = 1_000_000;
        t.record(mark(Phase::Decided, 0));
        t.record(mark(Phase::ScaleWritten, 2 * second - 5));
        let wake = t.record(mark(Phase::Queued, 2 * second)).unwrap();
        let phases: Vec<_> = wake.phases.iter().map(|s| (s.phase, s.at_us)).collect();
        assert_eq!(phases, [(Phase::Queued, 0), (Phase::ScaleWritten, 0)], "the old decision was another wake-up's");
    }

    #[test]
    fn history_is_bounded() {
        let mut t = Timelines::default();
        for i in 0..2 * KEPT as u64 {
            t.record(mark(Phase::Queued, i));
            t.record(mark(Phase::FirstByte, i + 1));
        }
        assert_eq!(t.finished().count(), KEPT);
    }
}
