//! Repeats the decisions of a saved decision log and compares: `dormouse replay FILE`. Pure but for its caller's file.

use std::fmt;

use crate::{
    algorithm::{Decision, Inputs, Reason, decide, decide::State},
    ledger::{Account, Entry},
    moment::Moment,
};

/// Why a log cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not what `/debug/decisions/NAMESPACE/REVISION` answers.
    #[error("not a decision log (want the JSON of /debug/decisions/NAMESPACE/REVISION): {0}")]
    Format(#[from] serde_json::Error),
    /// A time of an entry is none.
    #[error("decision {entry}: bad time {text:?}: {error}")]
    Time {
        /// Its place in the log, from 1.
        entry: usize,
        /// What stands there.
        text: String,
        /// What is wrong with it.
        error: jiff::Error,
    },
}

/// What a replay found.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// `namespace/name`.
    pub revision: String,
    /// Decisions that came out the same.
    pub same: usize,
    /// The first that did not.
    pub difference: Option<Difference>,
}

/// A decision that came out otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Its place in the log, from 1.
    pub entry: usize,
    /// When it was made.
    pub at: String,
    /// As logged: pods, excess burst capacity, reasons.
    pub logged: (i32, i32, Vec<Reason>),
    /// As decided now; `None`: the inputs are refused.
    pub decided: Option<(i32, i32, Vec<Reason>)>,
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.difference {
            None => write!(f, "{}: {} decisions, all as logged", self.revision, self.same),
            Some(d) => {
                writeln!(f, "{}: decision {} at {} differs", self.revision, d.entry, d.at)?;
                let (pods, excess, reasons) = &d.logged;
                writeln!(f, "  logged:  {pods} pods, excess burst capacity {excess}, {reasons:?}")?;
                match &d.decided {
                    Some((pods, excess, reasons)) => {
                        write!(f, "  decided: {pods} pods, excess burst capacity {excess}, {reasons:?}")
                    }
                    None => write!(f, "  decided: nothing, the inputs are no numbers"),
                }
            }
        }
    }
}

/// Replays the JSON of a decision log, up to the first difference.
pub fn replay(json: &[u8]) -> Result<Replay, Error> {
    let account: Account = serde_json::from_slice(json)?;
    for (nth, entry) in account.decisions.iter().enumerate() {
        let logged = (entry.desired, entry.excess_burst_capacity, entry.reasons.clone());
        let decided = again(&account, entry, nth + 1)?.map(|decision| {
            (decision.desired, decision.excess_burst_capacity, decision.reasons.iter().collect::<Vec<_>>())
        });
        if decided.as_ref() != Some(&logged) {
            let difference = Difference { entry: nth + 1, at: entry.last.clone(), logged, decided };
            return Ok(Replay { revision: account.revision, same: nth, difference: Some(difference) });
        }
    }
    Ok(Replay { same: account.decisions.len(), revision: account.revision, difference: None })
}

fn again(account: &Account, entry: &Entry, nth: usize) -> Result<Option<Decision>, Error> {
    let bad = |error| Error::Time { entry: nth, text: entry.last.clone(), error };
    let at = Moment::from_timestamp(entry.last.parse().map_err(bad)?);
    let scaling = entry.settings.as_ref().unwrap_or(&account.settings);
    let mut state = State::after(&entry.before, scaling, at);
    let Entry { stable, panic, ready, reachable, .. } = *entry;
    Ok(decide(scaling, &mut state, Inputs { stable, panic, ready, reachable }, at))
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        algorithm::RevisionScaling,
        ledger::{Ledger, Outcome},
    };

    fn log(scaling: RevisionScaling, loads: &[(f64, f64, i32)], step: u64) -> Account {
        let (mut state, mut ledger, scaling) = (State::default(), Ledger::default(), Arc::new(scaling));
        let mut now = Moment::from_seconds(1_800_000_000);
        for (stable, panic, ready) in loads {
            let inputs = Inputs { stable: *stable, panic: *panic, ready: *ready, reachable: true };
            let before = state.before(&scaling, now);
            let decision = decide(&scaling, &mut state, inputs, now).unwrap();
            ledger.record(now, &scaling, before, inputs, decision);
            now = now.plus(Duration::from_millis(step));
        }
        Account {
            revision: "ns/rev".into(),
            desired: 0,
            ready: 0,
            outcome: Outcome::default(),
            panicking: state.in_panic(),
            decisions: ledger.entries(&scaling),
            settings: (*scaling).clone(),
        }
    }

    proptest! {
        #[test]
        fn every_log_replays_to_the_same_answers(
            loads in prop::collection::vec((0u32..2_000_000, 0u32..2_000_000, 0i32..40), 1..60),
            delay in 0u64..40, step in 1u64..9_000,
        ) {
            let scaling = RevisionScaling { scale_down_delay: Duration::from_secs(delay), ..RevisionScaling::default() };
            let loads: Vec<_> = loads.into_iter().map(|(s, p, r)| (f64::from(s) / 1e3, f64::from(p) / 1e3, r)).collect();
            let json = serde_json::to_vec(&log(scaling, &loads, step)).unwrap();
            let replay = replay(&json).unwrap();
            prop_assert_eq!(&replay.difference, &None, "{}", replay);
        }
    }

    #[test]
    fn the_first_difference_is_shown() {
        let mut account = log(RevisionScaling::default(), &[(70.0, 70.0, 1), (700.0, 700.0, 1), (0.0, 0.0, 10)], 2000);
        account.decisions[1].desired = 3;
        let found = replay(&serde_json::to_vec(&account).unwrap()).unwrap();
        assert_eq!((found.same, found.difference.as_ref().map(|d| d.entry)), (1, Some(2)));
        let text = found.to_string();
        assert!(text.contains("logged:  3 pods") && text.contains("decided: 10 pods"), "{text}");
        account.decisions[1].last = "soon".into();
        assert!(matches!(replay(&serde_json::to_vec(&account).unwrap()), Err(Error::Time { entry: 2, .. })));
        assert!(matches!(replay(b"{}"), Err(Error::Format(_))));
    }
}
