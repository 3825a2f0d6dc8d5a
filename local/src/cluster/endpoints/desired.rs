//! The Endpoints of a Service, from its pods. Pure.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use k8s_openapi::{
    api::core::v1::{
        EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service, ServicePort,
    },
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};

/// Whether a Service's selector picks a pod. A Service without one has its Endpoints from somebody else.
pub(super) fn selects(service: &Service, pod: &Pod) -> bool {
    let Some(selector) = selector(service) else { return false };
    let labels = pod.metadata.labels.as_ref();
    service.metadata.namespace == pod.metadata.namespace
        && selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// The selector, if there is one.
pub(super) fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let selector = service.spec.as_ref()?.selector.as_ref()?;
    (!selector.is_empty()).then_some(selector)
}

/// The Endpoints object that belongs to a Service now.
pub(super) fn endpoints<'a>(service: &Service, pods: impl Iterator<Item = &'a Arc<Pod>>) -> Endpoints {
    let spec = service.spec.as_ref();
    let all_ready = spec.and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    // Pods whose ports are the same share a subset.
    let mut subsets: Vec<(Vec<EndpointPort>, Vec<EndpointAddress>, Vec<EndpointAddress>)> = Vec::new();
    for pod in pods.filter(|pod| selects(service, pod)) {
        let Some(address) = address(pod) else { continue };
        let ports: Vec<EndpointPort> =
            spec.iter().flat_map(|spec| spec.ports.iter().flatten()).filter_map(|port| resolve(port, pod)).collect();
        let at = subsets.iter().position(|(known, ..)| *known == ports).unwrap_or_else(|| {
            subsets.push((ports, Vec::new(), Vec::new()));
            subsets.len() - 1
        });
        let (_, ready, not_ready) = &mut subsets[at];
        if all_ready || is_ready(pod) { ready.push(address) } else { not_ready.push(address) }
    }
    let by_ip = |address: &EndpointAddress| address.ip.parse::<Ipv4Addr>().ok();
    let filled = |addresses: Vec<EndpointAddress>| (!addresses.is_empty()).then_some(addresses);
    let mut subsets: Vec<EndpointSubset> = subsets
        .into_iter()
        .map(|(ports, mut ready, mut not_ready)| {
            ready.sort_by_key(by_ip);
            not_ready.sort_by_key(by_ip);
            EndpointSubset {
                addresses: filled(ready),
                not_ready_addresses: filled(not_ready),
                ports: (!ports.is_empty()).then_some(ports),
            }
        })
        .collect();
    // The order of a hash map must not show as a change.
    subsets.sort_by_key(|subset| serde_json::to_string(&subset.ports).unwrap_or_default());
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: service.metadata.labels.clone(),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Service".to_owned(),
                name: service.metadata.name.clone().unwrap_or_default(),
                uid: service.metadata.uid.clone().unwrap_or_default(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        subsets: Some(subsets),
    }
}

/// A pod's place in Endpoints: it has an address, is not over and not on its way out.
fn address(pod: &Pod) -> Option<EndpointAddress> {
    let status = pod.status.as_ref()?;
    if pod.metadata.deletion_timestamp.is_some() || matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        return None;
    }
    Some(EndpointAddress {
        ip: status.pod_ip.clone().filter(|ip| !ip.is_empty())?,
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..EndpointAddress::default()
    })
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// A Service's port on a pod; a name that no container has leaves it out.
fn resolve(port: &ServicePort, pod: &Pod) -> Option<EndpointPort> {
    let number = match &port.target_port {
        Some(IntOrString::Int(number)) if *number > 0 => *number,
        None | Some(IntOrString::Int(_)) => port.port,
        Some(IntOrString::String(name)) => {
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
            ports.find(|declared| declared.name.as_ref() == Some(name))?.container_port
        }
    };
    Some(EndpointPort {
        name: port.name.clone(),
        port: number,
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service() -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "r-private", "namespace": "ns", "uid": "u", "labels": {"serviceType": "Private"}},
            "spec": {"selector": {"rev": "r"}, "ports": [
                {"name": "http", "port": 80, "targetPort": 8012},
                {"name": "http-autometric", "port": 9090, "targetPort": "http-autometric"},
                {"name": "lost", "port": 1, "targetPort": "no-such-port"}]}}))
        .unwrap()
    }

    fn pod(name: &str, ip: Option<&str>, ready: bool) -> Value {
        json!({"metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"rev": "r", "x": "y"}},
            "spec": {"nodeName": "dormouse", "containers": [
                {"name": "user"}, {"name": "queue-proxy", "ports": [{"name": "http-autometric", "containerPort": 9090}]}]},
            "status": {"phase": "Running", "podIP": ip,
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}})
    }

    fn made(service: &Service, pods: &[Value]) -> Endpoints {
        let pods: Vec<Arc<Pod>> =
            pods.iter().map(|pod| Arc::new(serde_json::from_value(pod.clone()).unwrap())).collect();
        endpoints(service, pods.iter())
    }

    fn ips(addresses: Option<&Vec<EndpointAddress>>) -> Vec<&str> {
        addresses.into_iter().flatten().map(|address| address.ip.as_str()).collect()
    }

    #[test]
    fn pods_are_sorted_into_ready_and_not() {
        let pods = [
            pod("c", Some("127.9.0.10"), true),
            pod("a", Some("127.9.0.9"), true),
            pod("b", Some("127.9.0.3"), false),
            pod("no-ip", None, false),
        ];
        let made = made(&service(), &pods);
        assert_eq!(made.metadata.labels.unwrap()["serviceType"], "Private");
        let [subset] = &made.subsets.unwrap()[..] else { panic!("one subset") };
        assert_eq!(ips(subset.addresses.as_ref()), ["127.9.0.9", "127.9.0.10"]);
        assert_eq!(ips(subset.not_ready_addresses.as_ref()), ["127.9.0.3"]);
        let target = subset.addresses.as_ref().unwrap()[0].target_ref.as_ref().unwrap();
        assert_eq!((target.kind.as_deref(), target.name.as_deref()), (Some("Pod"), Some("a")));
        let ports: Vec<_> = subset.ports.iter().flatten().map(|p| (p.name.as_deref().unwrap(), p.port)).collect();
        assert_eq!(ports, [("http", 8012), ("http-autometric", 9090)]);
    }

    #[test]
    fn who_does_not_belong_is_left_out() {
        let change = |edit: fn(&mut Value)| {
            let mut pod = pod("a", Some("127.9.0.2"), true);
            edit(&mut pod);
            made(&service(), &[pod]).subsets.unwrap().len()
        };
        assert_eq!(change(|_| {}), 1);
        assert_eq!(change(|pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")), 0);
        assert_eq!(change(|pod| pod["metadata"]["labels"]["rev"] = json!("other")), 0);
        assert_eq!(change(|pod| pod["metadata"]["namespace"] = json!("other")), 0);
        assert_eq!(change(|pod| pod["status"]["phase"] = json!("Failed")), 0);
        let mut bare = service();
        bare.spec.as_mut().unwrap().selector = None;
        assert_eq!(made(&bare, &[pod("a", Some("127.9.0.2"), true)]).subsets.unwrap().len(), 0);
    }

    #[test]
    fn not_ready_addresses_can_be_published() {
        let mut service = service();
        service.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
        let made = made(&service, &[pod("a", Some("127.9.0.2"), false)]);
        assert_eq!(ips(made.subsets.unwrap()[0].addresses.as_ref()), ["127.9.0.2"]);
    }
}
