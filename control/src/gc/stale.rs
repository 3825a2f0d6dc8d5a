//! Which revisions go. Pure (upstream `pkg/reconciler/gc/collector.go`).
//!
//! Unused are those that the labeler has put in reserve, less the latest ready one and those that are marked to stay. Of
//! them as many as `min-non-active-revisions` stay in any case, and no more than `max-non-active-revisions`; in between
//! age decides.

use std::{sync::Arc, time::Duration};

use api::{
    labels::serving,
    serving::{ROUTING_RESERVE, Revision},
    settings::Gc,
};
use jiff::Timestamp;
use kube::ResourceExt;

/// What is to be done.
#[derive(Debug, Default)]
pub struct Verdict {
    /// These go, the longest unused first.
    pub go: Vec<Arc<Revision>>,
    /// When another one may be stale.
    pub again_in: Option<Duration>,
}

/// Judges all revisions of a Configuration, whose latest ready one is `latest_ready`.
pub fn judge(revisions: &[Arc<Revision>], latest_ready: Option<&str>, rules: &Gc, now: Timestamp) -> Verdict {
    let mut verdict = Verdict::default();
    let mut unused: Vec<(Timestamp, &Arc<Revision>)> = revisions
        .iter()
        .filter(|revision| is_unused(revision, latest_ready))
        .map(|revision| (last_active(revision), revision))
        .collect();
    // By name as well, so that it is the same ones whoever asks.
    unused.sort_by_key(|(at, revision)| (*at, revision.name_any()));
    let mut may_go = unused.len().saturating_sub(rules.min_non_active);
    let mut kept = Vec::new();
    for (active, revision) in unused {
        if may_go == 0 {
            kept.push(revision);
            continue;
        }
        match stale_in(revision, active, rules, now) {
            Some(Duration::ZERO) => {
                verdict.go.push(Arc::clone(revision));
                may_go -= 1;
            }
            wait => {
                verdict.again_in = verdict.again_in.into_iter().chain(wait).min();
                kept.push(revision);
            }
        }
    }
    let surplus = rules.max_non_active.map_or(0, |most| kept.len().saturating_sub(most));
    verdict.go.extend(kept.into_iter().take(surplus).cloned());
    verdict
}

fn is_unused(revision: &Revision, latest_ready: Option<&str>) -> bool {
    let marked = revision.annotations().get(serving::NO_GC).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let reserve = revision.labels().get(serving::ROUTING_STATE).is_some_and(|state| state == ROUTING_RESERVE);
    reserve && !marked && latest_ready != revision.metadata.name.as_deref()
}

/// When its routing state changed last, else when it was made.
fn last_active(revision: &Revision) -> Timestamp {
    let modified = revision.annotations().get(serving::ROUTING_STATE_MODIFIED).and_then(|text| text.parse().ok());
    modified.unwrap_or_else(|| created(revision))
}

fn created(revision: &Revision) -> Timestamp {
    revision.creation_timestamp().map_or(Timestamp::MAX, |time| time.0)
}

/// How long until a revision is stale, zero if it is; `None` if it never will be.
fn stale_in(revision: &Revision, active: Timestamp, rules: &Gc, now: Timestamp) -> Option<Duration> {
    let ends = [(rules.retain_since_create, created(revision)), (rules.retain_since_last_active, active)];
    let waits = ends.into_iter().filter_map(|(kept, since)| {
        let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        kept.map(|kept| kept.saturating_sub(passed))
    });
    waits.max()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HOUR: i64 = 3600;
    /// A moment with room before it.
    const NOW: i64 = 1_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A revision in reserve, made and last used so many hours ago.
    fn revision(name: &str, made: i64, used: i64) -> Revision {
        let ago = |hours: i64| at(NOW - hours * HOUR).to_string();
        serde_json::from_value(json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
            "metadata": { "name": name, "namespace": "ns", "uid": name, "creationTimestamp": ago(made),
                "labels": { serving::ROUTING_STATE: "reserve" },
                "annotations": { serving::ROUTING_STATE_MODIFIED: ago(used) } },
            "spec": { "containers": [{ "image": "i" }] },
        }))
        .unwrap()
    }

    fn rules(create: Option<u64>, active: Option<u64>, min: usize, max: Option<usize>) -> Gc {
        Gc {
            retain_since_create: create.map(Duration::from_hours),
            retain_since_last_active: active.map(Duration::from_hours),
            min_non_active: min,
            max_non_active: max,
        }
    }

    fn gone(revisions: Vec<Revision>, rules: &Gc) -> Vec<String> {
        let revisions: Vec<Arc<Revision>> = revisions.into_iter().map(Arc::new).collect();
        let verdict = judge(&revisions, Some("latest"), rules, at(NOW));
        verdict.go.iter().map(|revision| revision.name_any()).collect()
    }

    #[test]
    fn age_and_last_use_protect() {
        let both = rules(Some(5), Some(10), 0, None);
        for (made, used, goes) in [(12, 11, true), (4, 11, false), (12, 9, false), (5, 5, false), (11, 10, true)] {
            let want: &[&str] = if goes { &["r"] } else { &[] };
            assert_eq!(gone(vec![revision("r", made, used)], &both), want, "made {made}, used {used} hours ago");
        }
        let one = |rules: &Gc| gone(vec![revision("r", 100, 100)], rules);
        assert!(one(&rules(None, None, 0, None)).is_empty(), "without a rule none is stale");
        assert_eq!(one(&rules(None, Some(1), 0, None)), ["r"]);
        assert_eq!(one(&rules(Some(1), None, 0, None)), ["r"]);
    }

    #[test]
    fn what_is_used_or_marked_stays() {
        let at_once = rules(Some(0), Some(0), 0, Some(0));
        let with = |change: &dyn Fn(&mut Revision)| {
            let mut one = revision("r", 100, 100);
            change(&mut one);
            gone(vec![one], &at_once)
        };
        assert_eq!(with(&|_| {}), ["r"]);
        assert!(with(&|one| one.metadata.name = Some("latest".into())).is_empty());
        for state in ["active", "pending"] {
            let set = |one: &mut Revision| {
                one.labels_mut().insert(serving::ROUTING_STATE.to_owned(), state.to_owned());
            };
            assert!(with(&set).is_empty(), "{state}");
        }
        assert!(with(&|one| one.metadata.labels = None).is_empty(), "nobody has said yet that it is unused");
        let marked = |value: &'static str| {
            move |one: &mut Revision| {
                one.annotations_mut().insert(serving::NO_GC.to_owned(), value.to_owned());
            }
        };
        assert!(with(&marked("True")).is_empty());
        assert_eq!(with(&marked("false")), ["r"]);
    }

    #[test]
    fn some_stay_in_any_case_and_no_more_than_some() {
        let three = || vec![revision("b", 30, 20), revision("c", 30, 10), revision("a", 30, 30)];
        let stale = |min, max| gone(three(), &rules(Some(1), Some(1), min, max));
        assert_eq!(stale(0, None), ["a", "b", "c"]);
        assert_eq!(stale(1, None), ["a", "b"], "the longest unused first");
        assert!(stale(3, None).is_empty());
        let fresh = |max| gone(three(), &rules(Some(100), None, 0, max));
        assert_eq!(fresh(Some(1)), ["a", "b"], "too many, whatever their age");
        assert_eq!(fresh(Some(0)), ["a", "b", "c"]);
        assert!(fresh(Some(3)).is_empty() && fresh(None).is_empty());
        let mixed = vec![revision("old", 50, 50), revision("new", 1, 1), revision("newer", 1, 0)];
        assert_eq!(gone(mixed, &rules(Some(10), Some(10), 0, Some(1))), ["old", "new"]);
    }

    #[test]
    fn it_says_when_to_look_again() {
        let all = [revision("x", 3, 1), revision("y", 2, 2)].map(Arc::new);
        let again = |rules: &Gc| judge(&all, None, rules, at(NOW)).again_in;
        assert_eq!(again(&rules(Some(4), Some(6), 0, None)), Some(Duration::from_hours(4)));
        assert_eq!(again(&rules(None, None, 0, None)), None);
        assert_eq!(again(&rules(Some(4), Some(6), 2, None)), None, "these stay whatever their age");
    }
}
