//! The objects as a controller writes them, as far as an activator reads them, and about as large.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::peers::Protocol;

pub(super) const REVISIONS: &str = "/apis/serving.knative.dev/v1/revisions";
pub(super) const ENDPOINTS: &str = "/api/v1/endpoints";
pub(super) const INGRESSES: &str = "/apis/networking.internal.knative.dev/v1alpha1/ingresses";

pub(super) const CONFIG_MAPS: &str = "/api/v1/namespaces/knative-serving/configmaps";

const NAMESPACE: &str = "default";
const CREATED: &str = "2026-01-01T00:00:00Z";

/// A revision of a bench, of the same number in name and host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Revision {
    pub(crate) nth: usize,
    /// `containerConcurrency`.
    pub(crate) limit: u32,
    pub(crate) protocol: Protocol,
}

impl Revision {
    pub(crate) fn name(self) -> String {
        format!("bench-{:06}-00001", self.nth)
    }

    /// What its requests name; the first is the host that all peers are asked for.
    pub(crate) fn host(self) -> String {
        if self.nth == 0 { "bench.example.com".to_owned() } else { format!("bench-{:06}.example.com", self.nth) }
    }

    /// The name of its port tells the protocol, in a pod and in its Endpoints.
    fn port_name(self, in_endpoints: bool) -> &'static str {
        match (self.protocol, in_endpoints) {
            (Protocol::Http1, true) => "http",
            (Protocol::Http1, false) => "http1",
            (Protocol::H2c, true) => "http2",
            (Protocol::H2c, false) => "h2c",
        }
    }
}

/// The pods of a revision, by addresses on one port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pods<'a> {
    /// What Kubernetes calls ready; the activator asks them once more.
    pub(crate) ready: &'a [Ipv4Addr],
    /// Those that start.
    pub(crate) not_ready: &'a [Ipv4Addr],
    pub(crate) port: u16,
}

pub(super) fn revision(of: Revision) -> Value {
    let service = format!("bench-{:06}", of.nth);
    json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
        "metadata": {
            "name": of.name(), "namespace": NAMESPACE, "uid": uid(of.nth), "creationTimestamp": CREATED, "generation": 1,
            "labels": {
                "serving.knative.dev/service": service, "serving.knative.dev/serviceUID": uid(of.nth),
                "serving.knative.dev/configuration": service, "serving.knative.dev/configurationUID": uid(of.nth),
                "serving.knative.dev/configurationGeneration": "1", "serving.knative.dev/routingState": "active",
            },
            "annotations": { "serving.knative.dev/creator": "bench", "serving.knative.dev/routes": service },
        },
        "spec": {
            "containerConcurrency": of.limit, "timeoutSeconds": 300, "enableServiceLinks": false,
            "containers": [{
                "name": "user-container", "image": "registry.example.com/bench/app:1",
                "ports": [{ "containerPort": 8080, "name": of.port_name(false), "protocol": "TCP" }],
                "readinessProbe": { "successThreshold": 1, "tcpSocket": { "port": 0 } }, "resources": {},
            }],
        },
        "status": { "observedGeneration": 1, "conditions": [
            { "type": "Active", "status": "False", "reason": "NoTraffic", "severity": "Info", "lastTransitionTime": CREATED },
            { "type": "ContainerHealthy", "status": "True", "lastTransitionTime": CREATED },
            { "type": "Ready", "status": "True", "lastTransitionTime": CREATED },
            { "type": "ResourcesAvailable", "status": "True", "lastTransitionTime": CREATED },
        ] },
    })
}

pub(super) fn endpoints(of: Revision, pods: Pods<'_>) -> Value {
    let list = |ips: &[Ipv4Addr]| ips.iter().map(|ip| json!({ "ip": ip.to_string() })).collect::<Vec<_>>();
    let port = json!([{ "name": of.port_name(true), "port": pods.port, "protocol": "TCP" }]);
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": format!("{}-private", of.name()), "namespace": NAMESPACE, "uid": uid(of.nth),
            "creationTimestamp": CREATED,
            "labels": {
                "networking.internal.knative.dev/serviceType": "Private",
                "serving.knative.dev/revision": of.name(), "serving.knative.dev/revisionUID": uid(of.nth),
            },
        },
        "subsets": [{ "addresses": list(pods.ready), "notReadyAddresses": list(pods.not_ready), "ports": port }],
    })
}

pub(super) fn ingress(of: Revision) -> Value {
    let service = format!("bench-{:06}", of.nth);
    json!({
        "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
        "metadata": {
            "name": service, "namespace": NAMESPACE, "uid": uid(of.nth), "creationTimestamp": CREATED, "generation": 1,
            "labels": { "serving.knative.dev/service": service, "serving.knative.dev/route": service },
            "annotations": { "networking.knative.dev/ingress.class": "dormouse.ingress.networking.knative.dev" },
        },
        "spec": { "httpOption": "Enabled", "rules": [{
            "hosts": [of.host()], "visibility": "ExternalIP",
            "http": { "paths": [{ "splits": [{
                "serviceName": of.name(), "serviceNamespace": NAMESPACE, "servicePort": 80, "percent": 100,
                "appendHeaders": {
                    "Knative-Serving-Namespace": NAMESPACE, "Knative-Serving-Revision": of.name(),
                },
            }] }] },
        }] },
    })
}

/// `config-observability` of a cluster that wants Prometheus pages.
pub(super) fn observability() -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "config-observability", "namespace": "knative-serving" },
        "data": { "metrics-protocol": "prometheus" },
    })
}

fn uid(nth: usize) -> String {
    format!("00000000-0000-4000-8000-{nth:012}")
}
