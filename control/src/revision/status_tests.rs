//! What a Revision says of Deployments, pods and PodAutoscalers in every state.

use std::sync::Arc;

use api::{autoscaling::PodAutoscalerStatus, conditions};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{status::*, *};

fn at() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn fresh() -> RevisionStatus {
    let mut status = RevisionStatus::default();
    CONDITIONS.manage(&mut status.conditions, at()).initialize();
    status
}

fn told(status: &RevisionStatus, type_: &str) -> (String, String, String) {
    let c = conditions::get(&status.conditions, type_).unwrap();
    (c.status.clone(), c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default())
}

fn triple(status: &str, reason: &str, message: &str) -> (String, String, String) {
    (status.into(), reason.into(), message.into())
}

fn deployment(replicas: i32, status: &Value) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {}, "spec": {"replicas": replicas, "selector": {}, "template": {}}, "status": status,
    }))
    .unwrap()
}

fn pod(status: &Value) -> Arc<Pod> {
    Arc::new(serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap())
}

fn container(state: &Value, last: &Value) -> Value {
    json!({"containerStatuses": [
        {"name": "queue-proxy", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ErrImagePull"}}},
        {"name": "user-container", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state, "lastState": last},
    ]})
}

#[test]
fn deployments_are_told_as_upstream_does() {
    let progressing =
        |s: &str| json!({"conditions": [{"type": "Progressing", "status": s, "reason": "R", "message": "M"}]});
    let cases = [
        (json!({}), triple("Unknown", "Deploying", "")),
        (progressing("True"), triple("True", "", "")),
        (progressing("Unknown"), triple("Unknown", "R", "M")),
        (progressing("False"), triple("False", "R", "M")),
        (
            json!({"conditions": [
                {"type": "Progressing", "status": "True"},
                {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"},
            ]}),
            triple("False", "FailedCreate", "quota"),
        ),
    ];
    for (status, want) in cases {
        let mut revision = fresh();
        propagate_deployment(&mut revision, &deployment(1, &status), &[], false, at());
        assert_eq!(told(&revision, RESOURCES_AVAILABLE), want, "{status}");
    }
}

#[test]
fn pods_that_cannot_run_are_told_at_once() {
    let waiting = |reason: &str| json!({"waiting": {"reason": reason, "message": "why"}});
    let ended = |code: i32, message: Option<&str>| json!({"terminated": {"exitCode": code, "message": message}});
    let none = json!({});
    let cases = [
        (
            container(&waiting("ImagePullBackOff"), &none),
            RESOURCES_AVAILABLE,
            triple("False", "ImagePullBackOff", "why"),
        ),
        (container(&waiting("ErrImagePull"), &none), RESOURCES_AVAILABLE, triple("False", "ErrImagePull", "why")),
        (
            container(&waiting("CreateContainerError"), &none),
            RESOURCES_AVAILABLE,
            triple("False", "CreateContainerError", "why"),
        ),
        (container(&waiting("ContainerCreating"), &none), RESOURCES_AVAILABLE, triple("Unknown", "Deploying", "")),
        (
            container(&waiting("CrashLoopBackOff"), &ended(5, Some("boom"))),
            CONTAINER_HEALTHY,
            triple("False", "ExitCode5", "Container failed with: boom"),
        ),
        (
            container(&ended(42, Some("boom")), &none),
            CONTAINER_HEALTHY,
            triple("False", "ExitCode42", "Container failed with: boom"),
        ),
        (
            container(&waiting("CrashLoopBackOff"), &ended(0, None)),
            CONTAINER_HEALTHY,
            triple("False", "ExitCode0", "Container failed with: container exited with no error"),
        ),
        (
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}]}),
            RESOURCES_AVAILABLE,
            triple("False", "Unschedulable", "no room"),
        ),
    ];
    for (status, type_, want) in cases {
        let mut revision = fresh();
        propagate_deployment(&mut revision, &deployment(1, &json!({})), &[pod(&status)], false, at());
        assert_eq!(told(&revision, type_), want, "{status}");
    }
}

#[test]
fn a_deadline_makes_any_waiting_reason_count() {
    let late =
        json!({"conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]});
    let stuck = pod(&container(&json!({"waiting": {"reason": "ContainerCreating", "message": "volume"}}), &json!({})));
    let mut revision = fresh();
    propagate_deployment(&mut revision, &deployment(1, &late), &[stuck], false, at());
    assert_eq!(told(&revision, RESOURCES_AVAILABLE), triple("False", "ContainerCreating", "volume"));
}

#[test]
fn available_pods_hide_a_crashing_one_and_a_ready_one_heals() {
    let crashing = pod(&container(&json!({}), &json!({"terminated": {"exitCode": 1}})));
    let mut revision = fresh();
    propagate_deployment(&mut revision, &deployment(2, &json!({})), std::slice::from_ref(&crashing), false, at());
    assert_eq!(told(&revision, CONTAINER_HEALTHY).0, "False");
    let healed =
        json!({"availableReplicas": 1, "readyReplicas": 1, "conditions": [{"type": "Progressing", "status": "True"}]});
    propagate_deployment(&mut revision, &deployment(2, &healed), &[crashing], false, at());
    assert_eq!(told(&revision, "Ready").0, "True");
}

#[test]
fn a_revision_that_was_given_up_keeps_saying_why() {
    let mut revision = fresh();
    let bad = pod(&container(&json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}), &json!({})));
    propagate_deployment(&mut revision, &deployment(1, &json!({})), &[bad], false, at());
    let idle = json!({"conditions": [{"type": "Progressing", "status": "True"}]});
    propagate_deployment(&mut revision, &deployment(0, &idle), &[], false, at());
    assert_eq!(told(&revision, "Ready"), triple("False", "ErrImagePull", "no such image"));
}

fn autoscaler(ready: Option<&str>, initialized: &str, service: &str) -> PodAutoscalerStatus {
    let mut list = vec![json!({"type": "ScaleTargetInitialized", "status": initialized})];
    list.extend(ready.map(|r| json!({"type": "Ready", "status": r, "reason": "Queued", "message": "m"})));
    serde_json::from_value(json!({
        "conditions": list, "serviceName": service, "actualScale": 1, "desiredScale": -1,
    }))
    .unwrap()
}

#[test]
fn the_autoscaler_has_the_last_word_on_activity() {
    let ready = |s: &RevisionStatus| told(s, "Ready").0;
    let mut revision = fresh();
    propagate_autoscaler(&mut revision, &PodAutoscalerStatus::default(), at());
    assert_eq!(told(&revision, ACTIVE), triple("Unknown", "Deploying", ""));

    propagate_autoscaler(&mut revision, &autoscaler(Some("Unknown"), "Unknown", ""), at());
    assert_eq!(told(&revision, ACTIVE), triple("Unknown", "Queued", "m"));
    assert_eq!(ready(&revision), "Unknown");

    propagate_autoscaler(&mut revision, &autoscaler(Some("True"), "True", "rev"), at());
    assert_eq!((ready(&revision).as_str(), told(&revision, ACTIVE).0.as_str()), ("True", "True"));
    assert_eq!((revision.actual_replicas, revision.desired_replicas), (Some(1), None));

    propagate_autoscaler(&mut revision, &autoscaler(Some("False"), "True", "rev"), at());
    assert_eq!((ready(&revision).as_str(), told(&revision, ACTIVE).0.as_str()), ("True", "False"), "asleep is ready");

    let mut never = fresh();
    propagate_autoscaler(&mut never, &autoscaler(Some("False"), "Unknown", "rev"), at());
    assert_eq!(told(&never, "Ready"), triple("False", "ProgressDeadlineExceeded", "Initial scale was never achieved"));

    let mut failed = fresh();
    CONDITIONS.manage(&mut failed.conditions, at()).mark_false(CONTAINER_HEALTHY, "ExitCode1", "x");
    propagate_autoscaler(&mut failed, &autoscaler(Some("True"), "True", "rev"), at());
    assert_eq!(told(&failed, "Ready").1, "ExitCode1", "it does not hide a failure");
}
