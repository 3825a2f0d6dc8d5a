//! One subject while its samples come in.

use std::collections::BTreeMap;

use super::Step;
use crate::{
    peers::{Kind, Peer, Running},
    process::CpuTime,
    report::quantile,
};

/// One pass of one subject.
pub(super) struct Entry {
    pub(super) name: &'static str,
    /// What stands before its metrics, for a further pass of the same subject.
    pub(super) prefix: &'static str,
    /// `None` is `direct`.
    pub(super) peer: Option<Peer>,
    pub(super) running: Option<Running>,
    /// One value a round.
    samples: BTreeMap<&'static str, Vec<f64>>,
    /// Why it is out of everything.
    pub(super) gone: Option<String>,
    /// Why it is out of a step.
    pub(super) failed: BTreeMap<Step, String>,
}

impl Entry {
    pub(super) fn new(name: &'static str, prefix: &'static str, peer: Option<Peer>) -> Self {
        Self { name, prefix, peer, running: None, samples: BTreeMap::new(), gone: None, failed: BTreeMap::new() }
    }

    pub(super) fn is(&self, kind: Kind) -> bool {
        self.peer.as_ref().is_some_and(|peer| peer.kind == kind)
    }

    /// The program that the bench is about, in its leanest form.
    pub(super) fn is_first_of_ours(&self) -> bool {
        self.name == "dormouse" && self.prefix.is_empty()
    }

    pub(super) fn add(&mut self, metric: &'static str, value: f64) {
        self.samples.entry(metric).or_default().push(value);
    }

    /// Time on a core so far; `None` where there is no proxy.
    pub(super) fn cpu(&self) -> Option<CpuTime> {
        self.running.as_ref().map(Running::cpu)
    }

    /// Lines logged so far; `None` where there is no log to read.
    pub(super) fn lines(&self) -> Option<u64> {
        self.running.as_ref().and_then(Running::lines)
    }

    pub(super) fn median(&self, metric: &str) -> Option<f64> {
        self.samples.get(metric).map(|samples| quantile(samples, 0.5))
    }

    /// The median of this entry's value over the other's, each taken within one round: what slowed the machine down
    /// in a round slowed both.
    pub(super) fn median_ratio(&self, other: &Self, metric: &str) -> Option<f64> {
        let (ours, theirs) = (self.samples.get(metric)?, other.samples.get(metric)?);
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        Some(quantile(&ratios, 0.5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        let (mut ours, mut theirs) = (Entry::new("dormouse", "", None), Entry::new("relay", "", None));
        // The machine was three times slower in the last two rounds.
        for (a, b) in [(20.0, 10.0), (66.0, 30.0), (60.0, 30.0)] {
            ours.add("cpu_us_per_request", a);
            theirs.add("cpu_us_per_request", b);
        }
        assert_eq!(ours.median_ratio(&theirs, "cpu_us_per_request"), Some(2.0));
        assert_eq!(ours.median_ratio(&theirs, "p50_us"), None);
    }
}
