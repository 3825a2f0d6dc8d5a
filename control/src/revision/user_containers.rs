//! The user's containers as they run: told their port and names, drained through queue-proxy, probed by it.

use api::{
    labels::serving as labels,
    ports,
    serving::{ContainerStatus, Revision},
};
use k8s_openapi::{
    api::core::v1::{Container, ContainerPort, EnvVar, HTTPGetAction, Lifecycle, LifecycleHandler, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt;

use crate::engine::world::controller_of;

/// Port of a user container that names none.
pub const DEFAULT_PORT: i32 = 8080;
/// Name that the port gets in the Deployment; the user's own name for it only tells the protocol.
const USER_PORT_NAME: &str = "user-port";
/// Where queue-proxy is asked to drain before the user container is stopped.
const DRAIN_PATH: &str = "/wait-for-drain";

/// The container that serves: the only one, or the one with a port.
pub fn serving_container(revision: &Revision) -> Option<&Container> {
    let containers = &revision.spec.pod.containers;
    match containers.as_slice() {
        [only] => Some(only),
        many => many.iter().find(|c| has_ports(c)),
    }
}

/// The containers beside it.
pub fn sidecars(revision: &Revision) -> impl Iterator<Item = &Container> {
    let several = revision.spec.pod.containers.len() > 1;
    revision.spec.pod.containers.iter().filter(move |c| several && !has_ports(c))
}

fn has_ports(container: &Container) -> bool {
    container.ports.as_ref().is_some_and(|p| !p.is_empty())
}

/// Port on which the user's process listens.
pub fn user_port(revision: &Revision) -> i32 {
    serving_container(revision)
        .and_then(|c| c.ports.as_ref()?.first())
        .map(|p| p.container_port)
        .filter(|port| *port != 0)
        .unwrap_or(DEFAULT_PORT)
}

/// `h2c` where the user's port is named so, else `http1`.
pub fn protocol(revision: &Revision) -> &'static str {
    let name = serving_container(revision).and_then(|c| c.ports.as_ref()?.first()?.name.as_deref());
    if name == Some(api::autoscaling::PROTOCOL_H2C) {
        api::autoscaling::PROTOCOL_H2C
    } else {
        api::autoscaling::PROTOCOL_HTTP1
    }
}

/// Name of the Configuration that controls the Revision; empty for one made by hand.
pub fn configuration_name(revision: &Revision) -> String {
    controller_of(revision).filter(|o| o.kind == "Configuration").map(|o| o.name.clone()).unwrap_or_default()
}

/// All of them, in the user's order.
pub fn build(revision: &Revision, own_probe_ports: bool) -> Vec<Container> {
    let containers = &revision.spec.pod.containers;
    let resolved = revision.status.as_ref().map(|s| s.container_statuses.as_slice()).unwrap_or_default();
    containers
        .iter()
        .enumerate()
        .map(|(i, container)| {
            let mut built = container.clone();
            if has_ports(container) || containers.len() == 1 {
                serve(&mut built, revision, own_probe_ports);
            }
            finish(&mut built, revision);
            if let Some(digest) = digest_of(resolved.get(i)) {
                built.image = Some(digest);
            }
            built
        })
        .collect()
}

fn digest_of(status: Option<&ContainerStatus>) -> Option<String> {
    status?.image_digest.clone().filter(|d| !d.is_empty())
}

fn serve(container: &mut Container, revision: &Revision, own_probe_ports: bool) {
    let port = user_port(revision);
    container.ports = Some(vec![ContainerPort {
        name: Some(USER_PORT_NAME.to_owned()),
        container_port: port,
        ..ContainerPort::default()
    }]);
    container.env.get_or_insert_default().push(variable("PORT", port.to_string()));
    if let Some(probe) = &mut container.liveness_probe {
        aim(probe, port, own_probe_ports);
    }
}

fn finish(container: &mut Container, revision: &Revision) {
    container.lifecycle = Some(Lifecycle {
        pre_stop: Some(LifecycleHandler {
            http_get: Some(HTTPGetAction {
                path: Some(DRAIN_PATH.to_owned()),
                port: IntOrString::Int(i32::from(ports::QUEUE_ADMIN)),
                ..HTTPGetAction::default()
            }),
            ..LifecycleHandler::default()
        }),
        ..Lifecycle::default()
    });
    container.env.get_or_insert_default().extend([
        variable("K_REVISION", revision.name_any()),
        variable("K_CONFIGURATION", label(revision, labels::CONFIGURATION)),
        variable("K_SERVICE", label(revision, labels::SERVICE)),
    ]);
    container.stdin = None;
    container.tty = None;
    if container.termination_message_policy.as_deref().unwrap_or_default().is_empty() {
        container.termination_message_policy = Some("FallbackToLogsOnError".to_owned());
    }
    // What queue-proxy can check it checks itself, at once and as often as it likes; only exec is left to the kubelet.
    container.readiness_probe = container.readiness_probe.take().filter(|p| p.exec.is_some());
}

fn label(revision: &Revision, key: &str) -> String {
    revision.labels().get(key).cloned().unwrap_or_default()
}

/// Points a liveness probe at the user's port, unless it may name one of its own and does.
fn aim(probe: &mut Probe, port: i32, own_ports: bool) {
    let at = match (&mut probe.http_get, &mut probe.tcp_socket) {
        (Some(http), _) => &mut http.port,
        (None, Some(tcp)) => &mut tcp.port,
        (None, None) => return,
    };
    if !own_ports || port_number(at) == 0 {
        *at = IntOrString::Int(port);
    }
}

/// The number of a port; 0 for a name, as Go's `IntValue` has it.
pub fn port_number(port: &IntOrString) -> i32 {
    match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => text.parse().unwrap_or_default(),
    }
}

fn variable(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value), value_from: None }
}
