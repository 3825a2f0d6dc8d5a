//! A revision's objects as they are in a cluster at rest, and about as large.

use serde_json::{Value, json};

use crate::cluster::Cluster;

const CREATED: &str = "2026-01-01T00:00:00Z";
pub(super) const NAMESPACE: &str = "default";

/// How they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Revisions {
    /// At zero.
    Idle,
    /// With three pods.
    Active,
}

pub(super) fn name(nth: usize) -> String {
    format!("bench-{nth:06}-00001")
}

fn uid(kind: usize, nth: usize) -> String {
    format!("00000000-0000-4000-8{kind:03}-{nth:012}")
}

pub(super) fn apply(cluster: &Cluster, which: Revisions, nth: usize) {
    let name = name(nth);
    let autoscaling = "/apis/autoscaling.internal.knative.dev/v1alpha1";
    cluster.object(&format!("{autoscaling}/podautoscalers"), &name, pod_autoscaler(which, nth));
    cluster.object(&format!("{autoscaling}/metrics"), &name, metric(nth));
    let sks = "/apis/networking.internal.knative.dev/v1alpha1/serverlessservices";
    cluster.object(sks, &name, serverless_service(which, nth));
    cluster.object("/apis/apps/v1/deployments", &format!("{name}-deployment"), deployment(which, nth));
    if which == Revisions::Active {
        for pod in 0..3 {
            cluster.object("/api/v1/pods", &format!("{name}-{pod}"), self::pod(nth, pod));
        }
    }
}

fn labels(nth: usize) -> Value {
    let service = format!("bench-{nth:06}");
    json!({
        "app": name(nth), "serving.knative.dev/configuration": service, "serving.knative.dev/service": service,
        "serving.knative.dev/configurationGeneration": "1", "serving.knative.dev/configurationUID": uid(1, nth),
        "serving.knative.dev/revision": name(nth), "serving.knative.dev/revisionUID": uid(2, nth),
        "serving.knative.dev/serviceUID": uid(3, nth),
    })
}

fn metadata(nth: usize, kind: usize, name: &str) -> Value {
    json!({
        "name": name, "namespace": NAMESPACE, "uid": uid(kind, nth), "generation": 1, "creationTimestamp": CREATED,
        "labels": labels(nth),
        "annotations": {
            "autoscaling.knative.dev/class": "kpa.autoscaling.knative.dev", "serving.knative.dev/creator": "bench",
        },
        "ownerReferences": [{ "apiVersion": "autoscaling.internal.knative.dev/v1alpha1", "kind": "PodAutoscaler",
            "name": name, "uid": uid(4, nth), "controller": true, "blockOwnerDeletion": true }],
    })
}

fn target(nth: usize) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": format!("{}-deployment", name(nth)) })
}

fn condition(type_: &str, status: &str) -> Value {
    json!({ "type": type_, "status": status, "lastTransitionTime": CREATED })
}

fn pod_autoscaler(which: Revisions, nth: usize) -> Value {
    let name = name(nth);
    let mut object = json!({
        "apiVersion": "autoscaling.internal.knative.dev/v1alpha1", "kind": "PodAutoscaler",
        "metadata": metadata(nth, 4, &name),
        "spec": { "protocolType": "http1", "reachability": "Reachable", "scaleTargetRef": target(nth) },
    });
    let (scale, active, ready) = match which {
        Revisions::Active => (3, condition("Active", "True"), condition("Ready", "True")),
        Revisions::Idle => {
            let because = |type_: &str| {
                json!({ "type": type_, "status": "False", "reason": "NoTraffic",
                    "message": "The target is not receiving traffic.", "lastTransitionTime": CREATED })
            };
            (0, because("Active"), because("Ready"))
        }
    };
    object["status"] = json!({
        "observedGeneration": 1, "desiredScale": scale, "actualScale": scale,
        "serviceName": name, "metricsServiceName": format!("{name}-private"),
        "conditions": [active, ready, condition("SKSReady", "True"), condition("ScaleTargetInitialized", "True")],
    });
    object
}

fn serverless_service(which: Revisions, nth: usize) -> Value {
    let name = name(nth);
    let (mode, activators) = match which {
        // With less than the burst capacity to spare, activators stay in the path.
        Revisions::Idle => ("Proxy", 3),
        Revisions::Active => ("Proxy", 6),
    };
    json!({
        "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "ServerlessService",
        "metadata": metadata(nth, 5, &name),
        "spec": { "mode": mode, "objectRef": target(nth), "protocolType": "http1", "numActivators": activators },
        "status": {
            "observedGeneration": 1, "serviceName": name, "privateServiceName": format!("{name}-private"),
            "conditions": [condition("ActivatorEndpointsPopulated", "True"), condition("EndpointsPopulated", "True"),
                condition("Ready", "True")],
        },
    })
}

fn metric(nth: usize) -> Value {
    let name = name(nth);
    json!({
        "apiVersion": "autoscaling.internal.knative.dev/v1alpha1", "kind": "Metric",
        "metadata": metadata(nth, 6, &name),
        "spec": { "stableWindow": 60_000_000_000_u64, "panicWindow": 6_000_000_000_u64,
            "scrapeTarget": format!("{name}-private") },
    })
}

fn deployment(which: Revisions, nth: usize) -> Value {
    let replicas = if which == Revisions::Idle { 0 } else { 3 };
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": metadata(nth, 7, &format!("{}-deployment", name(nth))),
        "spec": { "replicas": replicas, "selector": {}, "template": { "spec": { "containers": [
            { "name": "user-container", "image": "registry.example.com/bench/app:1" },
            { "name": "queue-proxy", "image": "registry.example.com/queue-proxy:1" },
        ] } } },
    })
}

/// Each pod has an address of its own in 127.64.0.0/10.
fn pod(nth: usize, pod: usize) -> Value {
    let number = nth * 3 + pod;
    let ip = format!("127.{}.{}.{}", 64 + number / 62_500, number / 250 % 250, 1 + number % 250);
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata(number, 8, &format!("{}-{pod}", name(nth))),
        "spec": { "containers": [{ "name": "user-container" }] },
        "status": { "phase": "Running", "podIP": ip, "startTime": CREATED,
            "conditions": [{ "type": "Ready", "status": "True" }] },
    })
    .with_labels(nth)
}

trait WithLabels {
    fn with_labels(self, nth: usize) -> Self;
}

impl WithLabels for Value {
    /// A pod's own number is not its revision's.
    fn with_labels(mut self, nth: usize) -> Self {
        self["metadata"]["labels"] = labels(nth);
        self
    }
}
