//! What was decided and why: a bounded ring per revision, as JSON at `/debug/decisions/NAMESPACE/REVISION`.
//!
//! Only decisions that differ from the one before are kept, with the number of times they were repeated; so the ring
//! reaches back over the last changes, not over the last minute.

use std::collections::VecDeque;

use serde::Serialize;

use crate::{
    algorithm::{Decision, Inputs, RevisionScaling, bounds::Clamp, decide::Reasons, zero::ZeroStep},
    moment::Moment,
};

/// Kept per revision.
const CAPACITY: usize = 32;

/// One decision with what it was made from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// When it was made first.
    pub at: String,
    /// How often the same was decided since.
    pub repeated: u32,
    /// Average over the stable window, at the last repetition.
    pub stable: f64,
    /// Average over the panic window.
    pub panic: f64,
    /// Ready pods.
    pub ready: i32,
    /// Whether the revision was reachable.
    pub reachable: bool,
    /// Wanted pods before bounds.
    pub desired: i32,
    /// Excess burst capacity.
    pub excess_burst_capacity: i32,
    /// Why.
    pub reasons: Vec<crate::algorithm::Reason>,
}

/// What became of the last decision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// Pods asked for after bounds and scale-to-zero, -1 = unknown.
    pub want: i32,
    /// Which bound moved it.
    pub bound: Option<Clamp>,
    /// At zero: where the revision is on its way there.
    pub scale_to_zero: Option<ZeroStep>,
}

/// The answer to "why?".
#[derive(Debug, Clone, PartialEq, Serialize)]
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

#[derive(Debug, Clone, Copy)]
struct Kept {
    at: Moment,
    repeated: u32,
    inputs: Inputs,
    decision: Decision,
}

/// The ring.
#[derive(Debug, Default)]
pub struct Ledger(VecDeque<Kept>);

impl Ledger {
    /// Adds a decision.
    pub fn record(&mut self, at: Moment, inputs: Inputs, decision: Decision) {
        let same = |a: &Kept| {
            let key = |i: &Inputs, d: &Decision| -> (i32, i32, bool, Reasons) {
                (d.desired, i.ready, i.reachable, d.reasons)
            };
            key(&a.inputs, &a.decision) == key(&inputs, &decision)
        };
        match self.0.back_mut() {
            Some(last) if same(last) => {
                last.repeated = last.repeated.saturating_add(1);
                last.inputs = inputs;
                last.decision = decision;
            }
            _ => {
                if self.0.len() == CAPACITY {
                    self.0.pop_front();
                }
                self.0.push_back(Kept { at, repeated: 0, inputs, decision });
            }
        }
    }

    /// All of it, oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        self.0
            .iter()
            .map(|kept| Entry {
                at: kept.at.timestamp().to_string(),
                repeated: kept.repeated,
                stable: kept.inputs.stable,
                panic: kept.inputs.panic,
                ready: kept.inputs.ready,
                reachable: kept.inputs.reachable,
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
        let inputs = Inputs { stable: 1.0, panic: 1.0, ready: 1, reachable: true };
        let decision = |desired| Decision { desired, excess_burst_capacity: 0, reasons: Reasons::default() };
        for second in 0..10 {
            ledger.record(Moment::from_seconds(second), inputs, decision(1));
        }
        assert_eq!(ledger.entries().len(), 1);
        assert_eq!(ledger.entries()[0].repeated, 9);
        for desired in 0..100 {
            ledger.record(Moment::from_seconds(100), inputs, decision(desired));
        }
        let entries = ledger.entries();
        assert_eq!((entries.len(), entries[CAPACITY - 1].desired), (CAPACITY, 99));
    }
}
