//! What was decided and why: a bounded ring per revision, as JSON at `/debug/decisions/NAMESPACE/REVISION`.
//!
//! Only decisions that differ from the one before are kept, with the number of times they were repeated; so the ring
//! reaches back over the last changes, not over the last minute. Each entry holds all that its decision was made from,
//! so that [`crate::replay`] comes to the same answer.

use std::{collections::VecDeque, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    algorithm::{
        Decision, Inputs, Reason, RevisionScaling,
        bounds::Clamp,
        decide::{Before, Reasons},
        zero::ZeroStep,
    },
    moment::Moment,
};

/// Kept per revision.
const CAPACITY: usize = 32;
/// Kept of a revision that sleeps.
const CAPACITY_AT_REST: usize = 4;

/// One decision with what it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was made first.
    pub at: String,
    /// When it was made last; the numbers are of then.
    pub last: String,
    /// How often the same was decided after the first time.
    pub repeated: u32,
    /// Average over the stable window.
    pub stable: f64,
    /// Average over the panic window.
    pub panic: f64,
    /// Ready pods.
    pub ready: i32,
    /// Whether the revision was reachable.
    pub reachable: bool,
    /// What earlier decisions had left.
    pub before: Before,
    /// The settings of then, where they were others than now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<RevisionScaling>,
    /// Wanted pods before bounds.
    pub desired: i32,
    /// Excess burst capacity.
    pub excess_burst_capacity: i32,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// What became of the last decision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Pods asked for after bounds and scale-to-zero, -1 = unknown.
    pub want: i32,
    /// Which bound moved it.
    pub bound: Option<Clamp>,
    /// At zero: where the revision is on its way there.
    pub scale_to_zero: Option<ZeroStep>,
}

/// The answer to "why?".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// `namespace/name`.
    pub revision: String,
    /// The revision's settings, with which each decision can be repeated.
    pub settings: RevisionScaling,
    /// Last decision, -1 before the first.
    pub desired: i32,
    /// Ready pods.
    pub ready: i32,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether the revision is in panic.
    pub panicking: bool,
    /// Oldest first.
    pub decisions: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Kept {
    at: Moment,
    last: Moment,
    repeated: u32,
    settings: Arc<RevisionScaling>,
    before: Before,
    inputs: Inputs,
    decision: Decision,
}

/// The ring.
#[derive(Debug, Default)]
pub struct Ledger(VecDeque<Kept>);

impl Ledger {
    /// Adds a decision, made at `at` from the other three.
    pub fn record(
        &mut self,
        at: Moment,
        settings: &Arc<RevisionScaling>,
        before: Before,
        inputs: Inputs,
        decision: Decision,
    ) {
        let same = |a: &Kept| {
            let key = |i: &Inputs, d: &Decision| -> (i32, i32, bool, Reasons) {
                (d.desired, i.ready, i.reachable, d.reasons)
            };
            key(&a.inputs, &a.decision) == key(&inputs, &decision) && Arc::ptr_eq(&a.settings, settings)
        };
        match self.0.back_mut() {
            Some(last) if same(last) => {
                last.repeated = last.repeated.saturating_add(1);
                (last.last, last.before, last.inputs, last.decision) = (at, before, inputs, decision);
            }
            _ => {
                if self.0.len() == CAPACITY {
                    self.0.pop_front();
                }
                let settings = Arc::clone(settings);
                self.0.push_back(Kept { at, last: at, repeated: 0, settings, before, inputs, decision });
            }
        }
    }

    /// Lets go of all but the newest few.
    pub fn shrink(&mut self) {
        let surplus = self.0.len().saturating_sub(CAPACITY_AT_REST);
        self.0.drain(..surplus);
        self.0.shrink_to_fit();
    }

    /// All of it, oldest first. `settings`: the present ones.
    pub fn entries(&self, settings: &RevisionScaling) -> Vec<Entry> {
        self.0
            .iter()
            .map(|kept| Entry {
                at: kept.at.timestamp().to_string(),
                last: kept.last.timestamp().to_string(),
                repeated: kept.repeated,
                stable: kept.inputs.stable,
                panic: kept.inputs.panic,
                ready: kept.inputs.ready,
                reachable: kept.inputs.reachable,
                before: kept.before,
                settings: (*kept.settings != *settings).then(|| (*kept.settings).clone()),
                desired: kept.decision.desired,
                excess_burst_capacity: kept.decision.excess_burst_capacity,
                reasons: kept.decision.reasons.iter().collect(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_counted_and_the_ring_is_bounded() {
        let mut ledger = Ledger::default();
        let settings = Arc::new(RevisionScaling::default());
        let inputs = Inputs { stable: 1.0, panic: 1.0, ready: 1, reachable: true };
        let decision = |desired| Decision { desired, excess_burst_capacity: 0, reasons: Reasons::default() };
        let mut record = |second, desired| {
            ledger.record(Moment::from_seconds(second), &settings, Before::default(), inputs, decision(desired));
            ledger.entries(&settings)
        };
        for second in 0..10 {
            record(second, 1);
        }
        let entries = record(10, 1);
        assert_eq!((entries.len(), entries[0].repeated), (1, 10));
        assert_eq!(
            (entries[0].at.as_str(), entries[0].last.as_str()),
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:10Z")
        );
        for desired in 0..100 {
            record(100, desired);
        }
        let entries = record(101, 99);
        assert_eq!((entries.len(), entries[CAPACITY - 1].desired), (CAPACITY, 99));
        ledger.shrink();
        assert_eq!(ledger.entries(&settings)[CAPACITY_AT_REST - 1].desired, 99);
    }
}
