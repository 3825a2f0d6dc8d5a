//! The queue-proxy container: every variable of the sidecar's contract, its ports and its readiness probe.

use std::collections::BTreeMap;

use api::{autoscaling::PROTOCOL_H2C, labels::serving as labels, ports, probe, serving::Revision, settings::Feature};
use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, HTTPHeader, ObjectFieldSelector,
        Probe, ResourceRequirements, SeccompProfile, SecurityContext, TCPSocketAction,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use kube::ResourceExt;

use super::user_containers::{configuration_name, port_number, protocol, serving_container, sidecars, user_port};
use crate::settings::Settings;

/// Name of the container.
pub const NAME: &str = "queue-proxy";
const LOCAL: &str = "127.0.0.1";
const PORT_NAME_HTTPS: &str = "https-port";
const PORT_NAME_PROFILING: &str = "profiling-port";

/// The container.
pub fn build(revision: &Revision, settings: &Settings, default_image: &str, system_namespace: &str) -> Container {
    let image = match settings.deployment.queue_sidecar_image.as_str() {
        "" => default_image,
        image => image,
    };
    let serving_port = if protocol(revision) == PROTOCOL_H2C { ports::H2C } else { ports::HTTP1 };
    let user_probe = serving_container(revision).and_then(|c| c.readiness_probe.as_ref());
    Container {
        name: NAME.to_owned(),
        image: Some(image.to_owned()),
        resources: Some(resources(revision, settings)),
        ports: Some(container_ports(settings, serving_port)),
        readiness_probe: user_probe.map(|p| kubelet_probe(p, serving_port)),
        security_context: Some(security_context()),
        env: Some(environment(revision, settings, system_namespace, serving_port)),
        ..Container::default()
    }
}

fn container_ports(settings: &Settings, serving_port: u16) -> Vec<ContainerPort> {
    let port = |name: &str, number: u16| ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        ..ContainerPort::default()
    };
    let mut list = vec![
        port(ports::NAME_AUTOSCALING_METRICS, ports::AUTOSCALING_METRICS),
        port(ports::NAME_USER_METRICS, ports::USER_METRICS),
    ];
    if settings.observability.runtime.profiling == "enabled" {
        list.push(port(PORT_NAME_PROFILING, ports::PROFILING));
    }
    list.push(port(ports::NAME_QUEUE, serving_port));
    list.push(port(PORT_NAME_HTTPS, ports::HTTPS));
    list
}

/// What the kubelet asks: queue-proxy, with the user's rhythm.
fn kubelet_probe(user: &Probe, serving_port: u16) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            port: IntOrString::Int(i32::from(serving_port)),
            http_headers: Some(vec![HTTPHeader { name: "K-Network-Probe".to_owned(), value: probe::QUEUE.to_owned() }]),
            ..HTTPGetAction::default()
        }),
        exec: None,
        grpc: None,
        tcp_socket: None,
        ..user.clone()
    }
}

fn security_context() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..SecurityContext::default()
    }
}

/// Requests and limits: ConfigMap, then the feature's defaults, then annotations.
fn resources(revision: &Revision, settings: &Settings) -> ResourceRequirements {
    let mut requests = quantities(&settings.deployment.queue_requests);
    let mut limits = quantities(&settings.deployment.queue_limits);
    if settings.features.queue_proxy_resource_defaults == Feature::Enabled {
        requests.entry("memory".to_owned()).or_insert_with(|| Quantity("400Mi".to_owned()));
        limits.entry("cpu".to_owned()).or_insert_with(|| Quantity("1000m".to_owned()));
        limits.entry("memory".to_owned()).or_insert_with(|| Quantity("800Mi".to_owned()));
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        for (what, map) in [("request", &mut requests), ("limit", &mut limits)] {
            let key = format!("queue.sidecar.serving.knative.dev/{name}-resource-{what}");
            if let Some(value) = revision.annotations().get(&key).filter(|v| crate::admission::quantity::is_quantity(v))
            {
                map.insert(name.to_owned(), Quantity(value.clone()));
            }
        }
    }
    ResourceRequirements { requests: Some(requests), limits: (!limits.is_empty()).then_some(limits), claims: None }
}

fn quantities(map: &BTreeMap<&'static str, String>) -> BTreeMap<String, Quantity> {
    map.iter().map(|(k, v)| ((*k).to_owned(), Quantity(v.clone()))).collect()
}

fn environment(revision: &Revision, settings: &Settings, system_namespace: &str, serving_port: u16) -> Vec<EnvVar> {
    let spec = &revision.spec;
    let multi_probing = settings.features.multi_container_probing == Feature::Enabled;
    let full_duplex = revision.annotations().get(labels::HTTP_FULL_DUPLEX);
    let full_duplex = full_duplex.is_some_and(|v| v.eq_ignore_ascii_case("enabled"));
    let tls = |name: &str| settings.deployment.queue_tls.get(name).cloned().unwrap_or_default();
    // The type holds nothing that cannot be JSON; queue-proxy takes an empty variable as "all off".
    let observability = serde_json::to_string(&settings.observability).unwrap_or_default();
    let number = |n: Option<i64>| n.unwrap_or_default().to_string();
    vec![
        value("SERVING_NAMESPACE", revision.namespace().unwrap_or_default()),
        value("SERVING_SERVICE", revision.labels().get(labels::SERVICE).cloned().unwrap_or_default()),
        value("SERVING_CONFIGURATION", configuration_name(revision)),
        value("SERVING_REVISION", revision.name_any()),
        value("QUEUE_SERVING_PORT", serving_port.to_string()),
        value("QUEUE_SERVING_TLS_PORT", ports::HTTPS.to_string()),
        value("CONTAINER_CONCURRENCY", number(spec.container_concurrency)),
        value("REVISION_TIMEOUT_SECONDS", number(spec.timeout_seconds)),
        value("REVISION_RESPONSE_START_TIMEOUT_SECONDS", number(spec.response_start_timeout_seconds)),
        value("REVISION_IDLE_TIMEOUT_SECONDS", number(spec.idle_timeout_seconds)),
        field("SERVING_POD", None, "metadata.name"),
        field("SERVING_POD_IP", None, "status.podIP"),
        value("SERVING_LOGGING_CONFIG", settings.logging_config.clone()),
        value("SERVING_LOGGING_LEVEL", settings.queue_log_level.clone()),
        value("USER_PORT", user_port(revision).to_string()),
        value("SYSTEM_NAMESPACE", system_namespace.to_owned()),
        value("SERVING_READINESS_PROBE", readiness_probe(revision, multi_probing)),
        field("HOST_IP", Some("v1"), "status.hostIP"),
        value("ENABLE_HTTP2_AUTO_DETECTION", (settings.features.autodetect_http2 == Feature::Enabled).to_string()),
        value("ENABLE_HTTP_FULL_DUPLEX", full_duplex.to_string()),
        value("ROOT_CA", settings.deployment.queue_root_ca.clone()),
        value("QUEUE_PROXY_TLS_MIN_VERSION", tls("min-version")),
        value("QUEUE_PROXY_TLS_MAX_VERSION", tls("max-version")),
        value("QUEUE_PROXY_TLS_CIPHER_SUITES", tls("cipher-suites")),
        value("QUEUE_PROXY_TLS_CURVE_PREFERENCES", tls("curve-preferences")),
        value("ENABLE_MULTI_CONTAINER_PROBES", multi_probing.to_string()),
        value("OBSERVABILITY_CONFIG", observability),
    ]
}

fn value(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value), value_from: None }
}

fn field(name: &str, api_version: Option<&str>, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: api_version.map(str::to_owned),
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
    }
}

/// JSON of the probe that queue-proxy runs; of an array with the sidecars' where those are probed too.
fn readiness_probe(revision: &Revision, multi: bool) -> String {
    let user = serving_container(revision)
        .and_then(|c| c.readiness_probe.clone())
        .map(|p| local_probe(p, user_port(revision)));
    // Probes are plain data; an empty variable would mean "always ready", which only a broken serializer could cause.
    if multi {
        let sidecars = sidecars(revision)
            .filter_map(|c| c.readiness_probe.clone())
            .filter(|p| p.exec.is_none())
            .map(|p| local_probe(p, 0));
        let all: Vec<Probe> = user.into_iter().chain(sidecars).collect();
        serde_json::to_string(&all).unwrap_or_default()
    } else {
        user.map(|p| serde_json::to_string(&p).unwrap_or_default()).unwrap_or_default()
    }
}

/// The probe as seen from beside the user container: on loopback, with a number for a port.
fn local_probe(mut probe: Probe, user_port: i32) -> Probe {
    let given = |port: i32| if port == 0 { user_port } else { port };
    if let Some(http) = &mut probe.http_get {
        http.host = Some(LOCAL.to_owned());
        http.port = IntOrString::Int(given(port_number(&http.port)));
        if http.scheme.as_deref().unwrap_or_default().is_empty() {
            http.scheme = Some("HTTP".to_owned());
        }
    } else if let Some(tcp) = &mut probe.tcp_socket {
        tcp.host = Some(LOCAL.to_owned());
        tcp.port = IntOrString::Int(given(port_number(&tcp.port)));
    } else if probe.exec.take().is_some() {
        // The command runs in the user container, by the kubelet; from here an open port must do.
        probe.tcp_socket = Some(TCPSocketAction { host: Some(LOCAL.to_owned()), port: IntOrString::Int(user_port) });
    } else if let Some(grpc) = &mut probe.grpc {
        grpc.port = given(grpc.port);
    }
    if probe.period_seconds.unwrap_or_default() > 0 && probe.timeout_seconds.unwrap_or_default() < 1 {
        probe.timeout_seconds = Some(1);
    }
    probe
}
