//! How a Revision is, from how its Deployment, its pods and its PodAutoscaler are (upstream `revision_lifecycle.go`,
//! `k8s_lifecycle.go`).
//!
//! Unlike upstream, a pod that cannot start (its image is not to be had, its container cannot be made) is told at
//! once and not only after the progress deadline of ten minutes: the user waits for exactly this message.

use api::{
    autoscaling::PodAutoscalerStatus,
    conditions::{self, Condition, ConditionSet, Editor, READY},
    serving::RevisionStatus,
};
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::ContainerStatus, core::v1::Pod};

use super::queue_container;

/// Condition: the Deployment can have its pods.
pub const RESOURCES_AVAILABLE: &str = "ResourcesAvailable";
/// Condition: the user's containers run.
pub const CONTAINER_HEALTHY: &str = "ContainerHealthy";
/// Condition (informational): there are pods, or they are on their way.
pub const ACTIVE: &str = "Active";
const SCALE_TARGET_INITIALIZED: &str = "ScaleTargetInitialized";
const DEPLOYING: &str = "Deploying";
const DEADLINE: &str = "ProgressDeadlineExceeded";
const NEVER_SCALED: &str = "Initial scale was never achieved";

/// The conditions of a Revision.
pub const CONDITIONS: ConditionSet = ConditionSet { dependents: &[RESOURCES_AVAILABLE, CONTAINER_HEALTHY] };

/// Reasons of a waiting container that time alone does not heal; the user must know.
const CANNOT_START: [&str; 8] = [
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerError",
    "CreateContainerConfigError",
    "RunContainerError",
    "ImageInspectError",
];

/// It is not known yet which images the tags mean; nothing runs before.
pub fn resolving(status: &mut RevisionStatus, now: Timestamp) {
    edit(status, now).mark_unknown(RESOURCES_AVAILABLE, "ResolvingDigests", "");
}

/// A registry does not say which image a tag means.
pub fn image_missing(status: &mut RevisionStatus, why: &str, now: Timestamp) {
    edit(status, now).mark_false(CONTAINER_HEALTHY, "ContainerMissing", why);
}

/// With `system-internal-tls` a sidecar does not start without its certificate.
pub fn sidecar_certificate_missing(status: &mut RevisionStatus, why: &str, now: Timestamp) {
    edit(status, now).mark_unknown(RESOURCES_AVAILABLE, "CertificateNotReady", why);
}

/// The Deployment was just made.
pub fn deploying(status: &mut RevisionStatus, now: Timestamp) {
    edit(status, now).mark_unknown(RESOURCES_AVAILABLE, DEPLOYING, "").mark_unknown(CONTAINER_HEALTHY, DEPLOYING, "");
}

/// An object that has our child's name is somebody else's.
pub fn not_owned(status: &mut RevisionStatus, kind: &str, name: &str, now: Timestamp) {
    let message = crate::owner::not_owned_message(kind, name);
    edit(status, now).mark_false(RESOURCES_AVAILABLE, "NotOwned", &message);
}

/// Takes over what Deployment and pods say.
pub fn propagate_deployment(
    status: &mut RevisionStatus,
    deployment: &Deployment,
    pods: &[std::sync::Arc<Pod>],
    always_schedulable: bool,
    now: Timestamp,
) {
    let replicas = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    let seen = deployment.status.as_ref();
    // A revision that was given up keeps saying why: a Deployment at zero has nothing to complain of.
    let given_up = replicas == 0 && seen_failing(status);
    if !given_up {
        rollout(status, deployment, now);
    }
    if replicas > 0 && seen.and_then(|s| s.available_replicas).unwrap_or_default() == 0 {
        let timed_out = has_timed_out(deployment);
        // All pods of a revision are alike; the first that says something speaks for them.
        for pod in pods {
            if pod.metadata.deletion_timestamp.is_none() && tell_pod(status, pod, always_schedulable, timed_out, now) {
                break;
            }
        }
    }
    if seen.and_then(|s| s.ready_replicas).unwrap_or_default() > 0 {
        edit(status, now).mark_true(CONTAINER_HEALTHY);
    }
}

fn seen_failing(status: &RevisionStatus) -> bool {
    conditions::get(&status.conditions, RESOURCES_AVAILABLE)
        .is_some_and(|c| c.is_false() && c.reason.as_deref().is_some_and(|r| CANNOT_START.contains(&r)))
}

/// The Deployment's own conditions: no news of progress is Deploying, a failing ReplicaSet beats progress.
fn rollout(status: &mut RevisionStatus, deployment: &Deployment, now: Timestamp) {
    let found = deployment.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let of = |type_: &str| found.iter().find(|c| c.type_ == type_);
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    let mut editor = edit(status, now);
    if let Some(failure) = of("ReplicaFailure").filter(|c| c.status == "True") {
        editor.mark_false(RESOURCES_AVAILABLE, &text(&failure.reason), &text(&failure.message));
        return;
    }
    match of("Progressing") {
        Some(c) if c.status == "True" => editor.mark_true(RESOURCES_AVAILABLE),
        Some(c) if c.status == "False" => editor.mark_false(RESOURCES_AVAILABLE, &text(&c.reason), &text(&c.message)),
        Some(c) => editor.mark_unknown(RESOURCES_AVAILABLE, &text(&c.reason), &text(&c.message)),
        None => editor.mark_unknown(RESOURCES_AVAILABLE, DEPLOYING, ""),
    };
}

/// Marks what is wrong with one pod; false when nothing is.
fn tell_pod(status: &mut RevisionStatus, pod: &Pod, always_schedulable: bool, timed_out: bool, now: Timestamp) -> bool {
    let Some(pod_status) = &pod.status else { return false };
    let mut told = false;
    let unscheduled = pod_status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(condition) = unscheduled.filter(|_| !always_schedulable) {
        let (reason, message) = (condition.reason.clone(), condition.message.clone());
        edit(status, now).mark_false(RESOURCES_AVAILABLE, &reason.unwrap_or_default(), &message.unwrap_or_default());
        told = true;
    }
    let all = pod_status.init_container_statuses.iter().flatten().chain(pod_status.container_statuses.iter().flatten());
    for container in all.filter(|c| c.name != queue_container::NAME) {
        if let Some((type_, reason, message)) = container_failure(container, timed_out) {
            edit(status, now).mark_false(type_, &reason, &message);
            return true;
        }
    }
    told
}

/// What is wrong with a container: condition, reason, message.
fn container_failure(container: &ContainerStatus, timed_out: bool) -> Option<(&'static str, String, String)> {
    let terminated = [container.last_state.as_ref(), container.state.as_ref()]
        .into_iter()
        .flatten()
        .find_map(|state| state.terminated.as_ref());
    if let Some(terminated) = terminated {
        let mut message = terminated.message.clone().unwrap_or_default();
        if terminated.exit_code == 0 && message.is_empty() {
            "container exited with no error".clone_into(&mut message);
        }
        let reason = format!("ExitCode{}", terminated.exit_code);
        return Some((CONTAINER_HEALTHY, reason, format!("Container failed with: {message}")));
    }
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.clone().unwrap_or_default();
    (timed_out || CANNOT_START.contains(&reason.as_str()))
        .then(|| (RESOURCES_AVAILABLE, reason, waiting.message.clone().unwrap_or_default()))
}

fn has_timed_out(deployment: &Deployment) -> bool {
    let found = deployment.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    found.iter().any(|c| c.type_ == "Progressing" && c.status == "False" && c.reason.as_deref() == Some(DEADLINE))
}

/// Takes over what the PodAutoscaler says.
pub fn propagate_autoscaler(status: &mut RevisionStatus, autoscaler: &PodAutoscalerStatus, now: Timestamp) {
    let is_false = |s: &RevisionStatus, t: &str| conditions::get(&s.conditions, t).is_some_and(Condition::is_false);
    let unavailable = is_false(status, RESOURCES_AVAILABLE) || is_false(status, CONTAINER_HEALTHY);
    status.actual_replicas = autoscaler.actual_scale.filter(|n| *n >= 0);
    status.desired_replicas = autoscaler.desired_scale.filter(|n| *n >= 0);
    let Some(ready) = conditions::get(&autoscaler.conditions, READY) else {
        let mut editor = edit(status, now);
        editor.mark_unknown(ACTIVE, DEPLOYING, "");
        if !unavailable {
            editor.mark_unknown(RESOURCES_AVAILABLE, DEPLOYING, "");
        }
        return;
    };
    let initialized = conditions::is_true(&autoscaler.conditions, SCALE_TARGET_INITIALIZED);
    let has_service = autoscaler.service_name.as_deref().is_some_and(|n| !n.is_empty());
    if initialized && !unavailable {
        // It can be initialized only with a pod that was ready.
        edit(status, now).mark_true(RESOURCES_AVAILABLE).mark_true(CONTAINER_HEALTHY);
    }
    if conditions::is_true(&status.conditions, RESOURCES_AVAILABLE) && !(has_service && initialized) {
        // With an initial scale of 0 the Deployment is content from the start; traffic could not come yet.
        edit(status, now).mark_unknown(RESOURCES_AVAILABLE, DEPLOYING, "");
    }
    let mut editor = edit(status, now);
    if ready.is_false() && !initialized && !unavailable && has_service {
        // Scaled to zero without ever having been up: activation failed.
        editor.mark_false(RESOURCES_AVAILABLE, DEADLINE, NEVER_SCALED);
    }
    editor.follow(ACTIVE, ready);
}

fn edit(status: &mut RevisionStatus, now: Timestamp) -> Editor<'_> {
    CONDITIONS.manage(&mut status.conditions, now)
}
