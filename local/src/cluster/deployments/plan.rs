//! Which pods to make and which to remove: (deployment, its pods, now) → plan. Pure.
//!
//! The rules are those of Kubernetes' Deployment and ReplicaSet controllers, as one: pods of the current template are
//! *new*, all others *old*; a rollout never has more than `replicas + maxSurge` pods nor fewer than
//! `replicas - maxUnavailable` available ones.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    apimachinery::pkg::util::intstr::IntOrString,
};

/// Label that says which template a pod came from.
pub(super) const TEMPLATE_HASH: &str = "pod-template-hash";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// So many pods of the current template.
    pub(super) create: usize,
    /// Names of pods to remove.
    pub(super) delete: Vec<String>,
}

/// Pods of a deployment, sorted out.
pub(super) struct Census<'a> {
    /// Of the current template.
    pub(super) new: Vec<&'a Pod>,
    /// Of earlier ones.
    pub(super) old: Vec<&'a Pod>,
    /// Over, but still there.
    pub(super) dead: Vec<&'a Pod>,
}

/// Sorts pods; those being deleted are not counted.
pub(super) fn census<'a>(hash: &str, pods: &'a [Arc<Pod>]) -> Census<'a> {
    let mut census = Census { new: Vec::new(), old: Vec::new(), dead: Vec::new() };
    for pod in pods.iter().map(|pod| &**pod).filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(TEMPLATE_HASH));
        if matches!(phase, Some("Failed" | "Succeeded")) {
            census.dead.push(pod);
        } else if label.is_some_and(|label| label == hash) {
            census.new.push(pod);
        } else {
            census.old.push(pod);
        }
    }
    census
}

/// Since when a pod is ready.
pub(super) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    Some(ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

/// Whether a pod has been ready for `minReadySeconds`.
pub(super) fn available(deployment: &Deployment, pod: &Pod, now: Timestamp) -> bool {
    let wait = deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    ready_since(pod).is_some_and(|since| wait <= 0 || now.as_second() - since.as_second() >= i64::from(wait))
}

/// How many pods the deployment wants.
pub(super) fn replicas(deployment: &Deployment) -> usize {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    usize::try_from(wanted).unwrap_or(0)
}

/// (`maxSurge`, `maxUnavailable`) as numbers; never both zero.
pub(super) fn slack(deployment: &Deployment) -> (usize, usize) {
    let wanted = replicas(deployment);
    let rolling = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref()?.rolling_update.as_ref());
    let number = |value: Option<&IntOrString>, round_up: bool| {
        let (percent, count) = match value {
            Some(IntOrString::Int(count)) => (None, usize::try_from(*count).unwrap_or(0)),
            Some(IntOrString::String(text)) => match text.strip_suffix('%').and_then(|p| p.parse::<usize>().ok()) {
                Some(percent) => (Some(percent), 0),
                None => (None, text.parse().unwrap_or(0)),
            },
            None => (Some(25), 0),
        };
        percent.map_or(count, |percent| {
            let hundredths = wanted.saturating_mul(percent);
            if round_up { hundredths.div_ceil(100) } else { hundredths / 100 }
        })
    };
    let surge = number(rolling.and_then(|rolling| rolling.max_surge.as_ref()), true);
    let unavailable = number(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable.min(wanted)) }
}

/// What to do now.
pub(super) fn plan(deployment: &Deployment, hash: &str, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let wanted = replicas(deployment);
    let Census { mut new, mut old, dead } = census(hash, pods);
    let mut plan = Plan { create: 0, delete: dead.iter().map(|pod| name(pod)).collect() };
    new.sort_by_key(|pod| rank(pod));
    old.sort_by_key(|pod| rank(pod));
    plan.delete.extend(new.iter().take(new.len().saturating_sub(wanted)).map(|pod| name(pod)));
    let recreate =
        deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref()?.type_.as_deref()) == Some("Recreate");
    let missing = wanted.saturating_sub(new.len());
    if old.is_empty() {
        plan.create = missing;
        return plan;
    }
    if recreate || wanted == 0 {
        plan.delete.extend(old.iter().map(|pod| name(pod)));
        return plan;
    }
    let (surge, unavailable) = slack(deployment);
    plan.create = missing.min((wanted + surge).saturating_sub(new.len() + old.len()));
    let is_available = |pod: &&&Pod| available(deployment, pod, now);
    let new_available = new.iter().filter(is_available).count();
    let fewest = wanted - unavailable;
    // Unavailable old pods first: they come first in rank. All that may go without falling below the fewest, where a
    // new pod that is not available yet counts as missing.
    let spare = (new.len() + old.len()).saturating_sub(fewest + new.len().saturating_sub(new_available));
    let (sick, well): (Vec<&Pod>, Vec<&Pod>) = old.iter().partition(|pod| !available(deployment, pod, now));
    let sick_gone = sick.len().min(spare);
    plan.delete.extend(sick.iter().take(sick_gone).map(|pod| name(pod)));
    let well_spare = (new_available + well.len()).saturating_sub(fewest).min(spare - sick_gone);
    plan.delete.extend(well.iter().take(well_spare).map(|pod| name(pod)));
    plan
}

fn name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

/// Order of removal, first to go first: not running, not ready, cheap, lately ready, often restarted, young.
fn rank(pod: &Pod) -> impl Ord + use<> {
    use std::cmp::Reverse;
    let status = pod.status.as_ref();
    let running = status.and_then(|status| status.phase.as_deref()) == Some("Running");
    let cost = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DELETION_COST));
    let cost: i32 = cost.and_then(|cost| cost.parse().ok()).unwrap_or(0);
    let restarts = status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let restarts: i32 = restarts.map(|container| container.restart_count).max().unwrap_or(0);
    let ready = ready_since(pod);
    let born = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (running, ready.is_some(), cost, Reverse(ready), Reverse(restarts), Reverse(born), name(pod))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(replicas: usize) -> Deployment {
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}});
        let spec = json!({"replicas": replicas, "strategy": strategy, "selector": {}, "template": {}});
        serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": spec})).unwrap()
    }

    /// `n1+` is a ready pod of the new template, `o2-` one of an old template that is not ready, `!` is being deleted,
    /// `x` has failed. Creation follows the number.
    fn pods(words: &str) -> Vec<Arc<Pod>> {
        let pod = |word: &str| {
            let (name, mark) = word.split_at(2);
            let hash = if name.starts_with('n') { "new" } else { "old" };
            let time = format!("2026-01-01T00:00:0{}Z", &name[1..]);
            let ready = if mark == "+" { "True" } else { "False" };
            let mut pod = json!({
                "metadata": {"name": name, "labels": {TEMPLATE_HASH: hash}, "creationTimestamp": time},
                "status": {"phase": if mark == "x" { "Failed" } else { "Running" },
                           "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": time}]}});
            if mark == "!" {
                pod["metadata"]["deletionTimestamp"] = json!(time);
            }
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        words.split_whitespace().map(pod).collect()
    }

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    #[test]
    fn plans() {
        for (what, replicas, before, create, delete) in [
            ("from zero", 1, "", 1, ""),
            ("several at once", 5, "n1+ n2+", 3, ""),
            ("as wanted", 2, "n1+ n2-", 0, ""),
            ("to zero", 0, "n1+ n2-", 0, "n2 n1"),
            ("not ready goes first", 1, "n1- n2+", 0, "n1"),
            ("youngest goes first", 1, "n1+ n2+ n3+", 0, "n3 n2"),
            ("those being deleted do not count", 1, "n1!", 1, ""),
            ("failed ones are replaced", 1, "n1x", 1, "n1"),
            ("rollout starts with the surge", 2, "o1+ o2+", 1, ""),
            ("rollout waits for the new one", 2, "o1+ o2+ n3-", 0, ""),
            ("rollout goes on", 2, "o1+ o2+ n3+", 0, "o2"),
            ("rollout makes the next", 2, "o1+ n3+", 1, ""),
            ("rollout ends", 2, "o1+ n3+ n4+", 0, "o1"),
            ("sick old ones go early", 2, "o1- o2- n3+", 0, "o2"),
            ("a lone sick old one waits for its successor", 1, "o1- n2-", 0, ""),
            ("rollout at zero", 0, "o1+", 0, "o1"),
        ] {
            let plan = plan(&deployment(replicas), "new", &pods(before), now());
            assert_eq!((plan.create, plan.delete.join(" ").as_str()), (create, delete), "{what}");
        }
    }

    #[test]
    fn deletion_cost_counts_among_ready_pods() {
        let mut all = pods("n1+ n2+");
        let cheap = Arc::make_mut(&mut all[0]);
        cheap.metadata.annotations = Some([(DELETION_COST.to_owned(), "-5".to_owned())].into());
        assert_eq!(plan(&deployment(1), "new", &all, now()).delete, ["n1"]);
    }

    #[test]
    fn recreate_removes_all_before_it_makes_any() {
        let mut deployment = deployment(1);
        deployment.spec.as_mut().unwrap().strategy = serde_json::from_value(json!({"type": "Recreate"})).unwrap();
        let first = plan(&deployment, "new", &pods("o1+"), now());
        assert_eq!((first.create, first.delete.join(" ").as_str()), (0, "o1"));
        assert_eq!(plan(&deployment, "new", &pods(""), now()).create, 1);
    }

    #[test]
    fn slack_rounds_as_kubernetes_does() {
        let with = |replicas: usize, surge: serde_json::Value, unavailable: serde_json::Value| {
            let mut d = deployment(replicas);
            let rolling = json!({"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
            d.spec.as_mut().unwrap().strategy = serde_json::from_value(rolling).unwrap();
            slack(&d)
        };
        assert_eq!(with(10, json!("25%"), json!("25%")), (3, 2));
        assert_eq!(with(1, json!("25%"), json!("25%")), (1, 0));
        assert_eq!(with(4, json!(0), json!(0)), (0, 1));
        assert_eq!(with(4, json!(null), json!(2)), (1, 2));
        assert_eq!(with(4, json!("junk"), json!(-3)), (0, 1));
    }

    proptest::proptest! {
        /// Following the plan, with new pods becoming ready, any mix of pods reaches the wish, and a rollout never
        /// has fewer available pods than it began with or wants, nor more pods than it may.
        #[test]
        fn every_rollout_converges_within_bounds(wanted in 0usize..6, old in 0usize..6, new in 0usize..6) {
            let words: Vec<String> = (0..old).map(|n| format!("o{n}+")).chain((0..new).map(|n| format!("n{n}+"))).collect();
            let mut all = pods(&words.join(" "));
            let deployment = deployment(wanted);
            let fewest = wanted.min(old + new);
            let most = (old + new).max(wanted + slack(&deployment).0);
            for round in 0..50 {
                let plan = plan(&deployment, "new", &all, now());
                if plan == Plan::default() {
                    break;
                }
                proptest::prop_assert!(round < 49, "no end");
                all.retain(|pod| !plan.delete.contains(&name(pod)));
                for n in 0..plan.create {
                    let mut pod = (*pods("n9+")[0]).clone();
                    pod.metadata.name = Some(format!("made-{round}-{n}"));
                    all.push(Arc::new(pod));
                }
                proptest::prop_assert!(all.len() <= most);
                proptest::prop_assert!(all.len() >= fewest);
            }
            proptest::prop_assert_eq!(all.len(), wanted);
            let current = all.iter().filter(|pod| pod.metadata.labels.as_ref().unwrap()[TEMPLATE_HASH] == "new");
            proptest::prop_assert_eq!(current.count(), wanted);
        }
    }
}
