//! A deployment's status as Kubernetes words it. Pure.

use std::sync::Arc;

use jiff::{Timestamp, ToSpan as _};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentCondition, DeploymentStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::plan::{available, census, ready_since, replicas, slack};

const PROGRESS_DEADLINE: i32 = 600;
const COMPLETE: &str = "NewReplicaSetAvailable";
const EXCEEDED: &str = "ProgressDeadlineExceeded";

/// The status, and when it must be looked at again even if nothing happens.
pub(super) fn status(
    deployment: &Deployment,
    hash: &str,
    template_is_new: bool,
    pods: &[Arc<Pod>],
    failure: Option<&str>,
    now: Timestamp,
) -> (DeploymentStatus, Option<Timestamp>) {
    let wanted = replicas(deployment);
    let census = census(hash, pods);
    let live = || census.new.iter().chain(&census.old);
    let is_available = |pod: &&&Pod| available(deployment, pod, now);
    let number = |count: usize| Some(i32::try_from(count).unwrap_or(i32::MAX));
    let total = census.new.len() + census.old.len();
    let (ready, available) =
        (live().filter(|pod| ready_since(pod).is_some()).count(), live().filter(is_available).count());
    let old_status = deployment.status.clone().unwrap_or_default();
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        // Zeros are written: a merge patch does not remove what is left out.
        replicas: number(total),
        updated_replicas: number(census.new.len()),
        ready_replicas: number(ready),
        available_replicas: number(available),
        unavailable_replicas: number(wanted.max(total).saturating_sub(available)),
        ..DeploymentStatus::default()
    };

    let old = |kind: &str| old_status.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    let mut conditions = Vec::new();
    let fewest = wanted - slack(deployment).1.min(wanted);
    let (enough, reason, message) = if available >= fewest {
        (true, "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        (false, "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    conditions.push(condition(old("Available"), "Available", enough, reason, message, false, now));

    let mut look_again = None;
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let who = format!("ReplicaSet \"{name}-{hash}\"");
    let before = old("Progressing");
    let was_complete = before.is_some_and(|condition| condition.reason.as_deref() == Some(COMPLETE));
    let progress = if was_complete && census.old.is_empty() && !template_is_new {
        // A rollout that is over stays over, whatever the number of pods does later.
        before.cloned()
    } else {
        let complete = census.old.is_empty() && census.new.len() == wanted && available >= wanted;
        let count = |value: Option<i32>| value.unwrap_or(0);
        let moved = before.is_none()
            || template_is_new
            || count(status.updated_replicas) > count(old_status.updated_replicas)
            || count(status.ready_replicas) > count(old_status.ready_replicas)
            || count(status.available_replicas) > count(old_status.available_replicas)
            || total - census.new.len()
                < usize::try_from(count(old_status.replicas) - count(old_status.updated_replicas)).unwrap_or(0);
        let deadline = deployment.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds);
        let deadline = i64::from(deadline.unwrap_or(PROGRESS_DEADLINE)).seconds();
        let since = before.and_then(|condition| condition.last_update_time.as_ref()).map_or(now, |time| time.0);
        let until = since.checked_add(deadline).unwrap_or(Timestamp::MAX);
        let exceeded = before.is_some_and(|condition| condition.reason.as_deref() == Some(EXCEEDED));
        if complete {
            let message = format!("{who} has successfully progressed.");
            Some(condition(before, "Progressing", true, COMPLETE, &message, true, now))
        } else if moved {
            look_again = now.checked_add(deadline).ok();
            let message = format!("{who} is progressing.");
            Some(condition(before, "Progressing", true, "ReplicaSetUpdated", &message, true, now))
        } else if exceeded || until <= now {
            let message = format!("{who} has timed out progressing.");
            Some(condition(before, "Progressing", false, EXCEEDED, &message, false, now))
        } else {
            look_again = Some(until);
            before.cloned()
        }
    };
    conditions.extend(progress);
    if let Some(failure) = failure {
        conditions.push(condition(old("ReplicaFailure"), "ReplicaFailure", true, "FailedCreate", failure, false, now));
    }
    status.conditions = Some(conditions);
    let wait = deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let soon = live()
        .filter(|pod| !self::available(deployment, pod, now))
        .filter_map(|pod| ready_since(pod)?.checked_add(i64::from(wait).seconds()).ok())
        .min();
    (status, look_again.into_iter().chain(soon).min())
}

/// A condition; its times move only with what they belong to (`touch`: progress is news even when the words are not).
fn condition(
    old: Option<&DeploymentCondition>,
    kind: &str,
    state: bool,
    reason: &str,
    message: &str,
    touch: bool,
    now: Timestamp,
) -> DeploymentCondition {
    let status = if state { "True" } else { "False" };
    let same_status = old.filter(|old| old.status == status);
    let same = same_status.filter(|old| old.reason.as_deref() == Some(reason) && (!touch || reason == COMPLETE));
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: same.map_or(Some(Time(now)), |old| old.last_update_time.clone()),
        last_transition_time: same_status.map_or(Some(Time(now)), |old| old.last_transition_time.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::deployments::plan::TEMPLATE_HASH;
    use serde_json::json;

    fn deployment(replicas: i32) -> Deployment {
        serde_json::from_value(json!({"metadata": {"name": "d", "generation": 3}, "spec": {"replicas": replicas,
            "progressDeadlineSeconds": 60, "selector": {}, "template": {},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0}}}}))
        .unwrap()
    }

    fn pod(hash: &str, ready: bool) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "p", "labels": {TEMPLATE_HASH: hash}}, "status": {
                "phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}}))
            .unwrap(),
        )
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// `type=status/reason` of every condition.
    fn words(status: &DeploymentStatus) -> String {
        let conditions = status.conditions.iter().flatten();
        let words = conditions.map(|c| format!("{}={}/{}", c.type_, c.status, c.reason.as_deref().unwrap_or("")));
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_rollout_from_start_to_end_and_to_zero() {
        let mut d = deployment(1);
        let step = |d: &mut Deployment, pods: &[Arc<Pod>], second| {
            let (status, again) = status(d, "h", false, pods, None, at(second));
            d.status = Some(status.clone());
            (words(&status), again)
        };
        let (text, again) = step(&mut d, &[], 0);
        assert_eq!(text, "Available=False/MinimumReplicasUnavailable Progressing=True/ReplicaSetUpdated");
        assert_eq!(again, Some(at(60)));
        let (_, again) = step(&mut d, &[pod("h", false)], 10);
        assert_eq!(again, Some(at(70)), "a new pod is progress");
        let (_, again) = step(&mut d, &[pod("h", false)], 20);
        assert_eq!(again, Some(at(70)), "time is not");
        let (text, _) = step(&mut d, &[pod("h", true)], 30);
        assert_eq!(text, "Available=True/MinimumReplicasAvailable Progressing=True/NewReplicaSetAvailable");
        let status = d.status.clone().unwrap();
        assert_eq!(
            (status.observed_generation, status.ready_replicas, status.unavailable_replicas),
            (Some(3), Some(1), Some(0))
        );
        d.spec.as_mut().unwrap().replicas = Some(0);
        let (text, _) = step(&mut d, &[], 40);
        assert_eq!(text, "Available=True/MinimumReplicasAvailable Progressing=True/NewReplicaSetAvailable");
        // Woken again: a pod that never gets ready is not a failed rollout.
        d.spec.as_mut().unwrap().replicas = Some(1);
        let (text, again) = step(&mut d, &[pod("h", false)], 1000);
        assert_eq!(text, "Available=False/MinimumReplicasUnavailable Progressing=True/NewReplicaSetAvailable");
        assert_eq!(again, None);
    }

    #[test]
    fn no_progress_in_time_is_said_and_can_be_made_good() {
        let mut d = deployment(1);
        d.status = Some(status(&d, "h", false, &[pod("h", false)], None, at(0)).0);
        let (late, _) = status(&d, "h", false, &[pod("h", false)], None, at(60));
        assert!(words(&late).ends_with("Progressing=False/ProgressDeadlineExceeded"), "{}", words(&late));
        d.status = Some(late);
        let (still, _) = status(&d, "h", false, &[pod("h", false)], None, at(61));
        assert_eq!(Some(&still), d.status.as_ref(), "nothing new, nothing to write");
        let (good, _) = status(&d, "h", false, &[pod("h", true)], None, at(70));
        assert!(words(&good).ends_with("Progressing=True/NewReplicaSetAvailable"));
    }

    #[test]
    fn a_failing_creation_is_named() {
        let (status, _) = status(&deployment(1), "h", false, &[], Some("quota"), at(0));
        let last = status.conditions.unwrap().pop().unwrap();
        assert_eq!((last.type_.as_str(), last.message.as_deref()), ("ReplicaFailure", Some("quota")));
    }
}
