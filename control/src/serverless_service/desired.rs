//! The two Services of a revision and whose addresses the public one leads to.

use std::{cmp::min, collections::BTreeSet};

use api::{
    autoscaling::PROTOCOL_H2C,
    hash,
    labels::networking,
    names,
    networking::{MODE_SERVE, ServerlessService},
    ports,
};
use k8s_openapi::{
    api::core::v1::{EndpointPort, EndpointSubset, Endpoints, Service, ServicePort, ServiceSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::ResourceExt;

use crate::owner::{self, Map};

const HTTP_PORT: i32 = 80;
const H2C_PORT: i32 = 81;
const HTTPS_PORT: i32 = 443;
const NAME_HTTPS: &str = "https";
const APP_PROTOCOL_H2C: &str = "kubernetes.io/h2c";

/// The Service that selects the revision's pods.
pub fn private_service(sks: &ServerlessService, selector: Map) -> Service {
    let backend = backend_port(sks);
    let (name, app_protocol) = (port_name(sks), app_protocol(sks));
    let numbered = |port: u16, name: &str| ServicePort {
        name: Some(name.to_owned()),
        protocol: Some("TCP".to_owned()),
        port: i32::from(port),
        target_port: Some(IntOrString::String(name.to_owned())),
        ..ServicePort::default()
    };
    Service {
        metadata: metadata(sks, names::private_service(&sks.name_any()), networking::SERVICE_TYPE_PRIVATE),
        spec: Some(ServiceSpec {
            ports: Some(vec![
                data_port(name, app_protocol, HTTP_PORT, backend),
                data_port(NAME_HTTPS, None, HTTPS_PORT, ports::HTTPS),
                numbered(ports::AUTOSCALING_METRICS, ports::NAME_AUTOSCALING_METRICS),
                numbered(ports::USER_METRICS, ports::NAME_USER_METRICS),
                // Istio opens a listener for a port only where some Service has it as its own.
                data_port(&format!("{name}-istio"), None, i32::from(backend), backend),
            ]),
            selector: Some(selector),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The Service that clients use; nobody but us fills its Endpoints.
pub fn public_service(sks: &ServerlessService) -> Service {
    let outer = if is_h2c(sks) { H2C_PORT } else { HTTP_PORT };
    Service {
        metadata: metadata(sks, sks.name_any(), networking::SERVICE_TYPE_PUBLIC),
        spec: Some(ServiceSpec {
            ports: Some(vec![
                data_port(port_name(sks), app_protocol(sks), outer, backend_port(sks)),
                data_port(NAME_HTTPS, None, HTTPS_PORT, ports::HTTPS),
            ]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The Endpoints of the public Service with these subsets.
pub fn public_endpoints(sks: &ServerlessService, subsets: Vec<EndpointSubset>) -> Endpoints {
    Endpoints {
        metadata: metadata(sks, sks.name_any(), networking::SERVICE_TYPE_PUBLIC),
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

/// What backs the public Service.
#[derive(Debug, Clone, PartialEq)]
pub struct Backing {
    /// Subsets of its Endpoints.
    pub subsets: Vec<EndpointSubset>,
    /// Some pod of the revision is ready.
    pub has_pods: bool,
    /// Activators are in the path, or should be.
    pub by_activator: bool,
}

/// Decides it: activators in Proxy mode and whenever no pod is ready; pods in Serve mode and whenever there is no
/// activator. Empty Endpoints would make the ingress layer answer 503, so the better of two bad choices is taken.
pub fn backing(sks: &ServerlessService, private: Option<&Endpoints>, activators: Option<&Endpoints>) -> Backing {
    let pods = private.and_then(|e| e.subsets.as_deref()).unwrap_or_default();
    let activators = activators.and_then(|e| e.subsets.as_deref()).unwrap_or_default();
    let has_pods = ready(pods) > 0;
    let asked_to_serve = sks.spec.mode.as_deref() == Some(MODE_SERVE);
    let serve = ready(activators) == 0 || asked_to_serve && has_pods;
    let chosen = if serve {
        pods.to_vec()
    } else {
        let wanted = usize::try_from(sks.spec.num_activators.unwrap_or_default()).unwrap_or_default();
        subset(activators, &sks.name_any(), wanted)
    };
    Backing { subsets: serving_ports(sks, chosen), has_pods, by_activator: !has_pods || !asked_to_serve }
}

/// Addresses that can take requests.
fn ready(subsets: &[EndpointSubset]) -> usize {
    subsets.iter().filter_map(|s| s.addresses.as_ref()).map(Vec::len).sum()
}

/// The part of the activators that carries this revision; the same part in every replica. 0 = all.
fn subset(subsets: &[EndpointSubset], revision: &str, wanted: usize) -> Vec<EndpointSubset> {
    let all: BTreeSet<&str> =
        subsets.iter().flat_map(|s| s.addresses.iter().flatten()).map(|a| a.ip.as_str()).collect();
    if wanted == 0 || all.len() <= wanted {
        return subsets.to_vec();
    }
    let candidates: Vec<&str> = all.into_iter().collect();
    let chosen: BTreeSet<&str> =
        hash::choose_subset(&candidates, min(wanted, candidates.len()), revision).into_iter().collect();
    subsets
        .iter()
        .filter_map(|s| {
            let addresses: Vec<_> =
                s.addresses.iter().flatten().filter(|a| chosen.contains(a.ip.as_str())).cloned().collect();
            let kept = EndpointSubset { addresses: Some(addresses), ..s.clone() };
            kept.addresses.as_ref().is_some_and(|a| !a.is_empty()).then_some(kept)
        })
        .collect()
}

/// Clients need the data ports only. Those are known by number; by name too, for an activator that listens elsewhere.
fn serving_ports(sks: &ServerlessService, subsets: Vec<EndpointSubset>) -> Vec<EndpointSubset> {
    let numbers = [i32::from(backend_port(sks)), i32::from(ports::HTTPS)];
    let is_data = |p: &EndpointPort| numbers.contains(&p.port) || p.name.as_deref() == Some(port_name(sks));
    subsets
        .into_iter()
        .map(|mut s| {
            s.ports = s.ports.map(|p| p.into_iter().filter(is_data).collect());
            s
        })
        .collect()
}

fn is_h2c(sks: &ServerlessService) -> bool {
    sks.spec.protocol_type == PROTOCOL_H2C
}

fn backend_port(sks: &ServerlessService) -> u16 {
    if is_h2c(sks) { ports::H2C } else { ports::HTTP1 }
}

fn port_name(sks: &ServerlessService) -> &'static str {
    if is_h2c(sks) { ports::NAME_H2C } else { ports::NAME_HTTP1 }
}

fn app_protocol(sks: &ServerlessService) -> Option<&'static str> {
    is_h2c(sks).then_some(APP_PROTOCOL_H2C)
}

fn data_port(name: &str, app_protocol: Option<&str>, port: i32, target: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        protocol: Some("TCP".to_owned()),
        app_protocol: app_protocol.map(str::to_owned),
        port,
        target_port: Some(IntOrString::Int(i32::from(target))),
        ..ServicePort::default()
    }
}

fn metadata(sks: &ServerlessService, name: String, service_type: &str) -> ObjectMeta {
    let labels = owner::with(sks.labels().clone(), networking::SKS, sks.name_any());
    let labels = owner::with(labels, networking::SERVICE_TYPE, service_type);
    owner::child_metadata(sks, name, labels, sks.annotations().clone())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sks(mode: &str, protocol: &str, activators: i32) -> ServerlessService {
        serde_json::from_value(json!({
            "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "ServerlessService",
            "metadata": {
                "name": "rev", "namespace": "ns", "uid": "k1",
                "labels": {"serving.knative.dev/revision": "rev", "serving.knative.dev/revisionUID": "r1", "app": "rev"},
            },
            "spec": {"mode": mode, "protocolType": protocol, "numActivators": activators, "objectRef": {}},
        }))
        .unwrap()
    }

    fn endpoints(ips: &[&str]) -> Endpoints {
        let addresses: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        let subsets = if ips.is_empty() {
            json!([{"notReadyAddresses": [{"ip": "10.9.9.9"}], "ports": [{"port": 8012}]}])
        } else {
            json!([{"addresses": addresses, "ports": [
                {"name": "http", "port": 8012}, {"name": "https", "port": 8112}, {"name": "http-autometric", "port": 9090}
            ]}])
        };
        serde_json::from_value(json!({"metadata": {"name": "x"}, "subsets": subsets})).unwrap()
    }

    fn addresses(backing: &Backing) -> Vec<&str> {
        backing.subsets.iter().flat_map(|s| s.addresses.iter().flatten()).map(|a| a.ip.as_str()).collect()
    }

    #[test]
    fn the_mode_yields_to_what_there_is() {
        let (pods, activators, none) = (&["10.0.0.1", "10.0.0.2"][..], &["10.1.0.1"][..], &[][..]);
        let cases = [
            ("Serve", pods, activators, pods, true, false),
            ("Serve", none, activators, activators, false, true),
            ("Serve", pods, none, pods, true, false),
            ("Proxy", pods, activators, activators, true, true),
            ("Proxy", pods, none, pods, true, true),
            ("Proxy", none, none, none, false, true),
        ];
        for (mode, pods, activators, want, has_pods, by_activator) in cases {
            let (private, shared) = (endpoints(pods), endpoints(activators));
            let got = backing(&sks(mode, "http1", 0), Some(&private), Some(&shared));
            assert_eq!(addresses(&got), want, "{mode} {pods:?} {activators:?}");
            assert_eq!((got.has_pods, got.by_activator), (has_pods, by_activator), "{mode} {pods:?} {activators:?}");
        }
        assert!(!backing(&sks("Proxy", "http1", 2), None, None).has_pods, "nothing exists yet");
    }

    #[test]
    fn activators_are_a_stable_part_and_only_data_ports_show() {
        let all: Vec<String> = (1..=7).map(|i| format!("10.0.0.{i}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let got = backing(&sks("Proxy", "http1", 2), None, Some(&endpoints(&all)));
        assert_eq!(addresses(&got), ["10.0.0.2", "10.0.0.3"], "upstream's vector for `rev`, 2 of 7");
        let ports: Vec<i32> = got.subsets[0].ports.iter().flatten().map(|p| p.port).collect();
        assert_eq!(ports, [8012, 8112]);
        let mut elsewhere = endpoints(&["127.0.0.1"]);
        elsewhere.subsets.as_mut().unwrap()[0].ports.as_mut().unwrap()[0].port = 8080;
        let got = backing(&sks("Proxy", "http1", 0), None, Some(&elsewhere));
        assert_eq!(got.subsets[0].ports.as_ref().unwrap()[0].port, 8080, "an activator on a port of its own");
    }

    #[test]
    fn services_are_whole() {
        let got = serde_json::to_value(private_service(
            &sks("Serve", "h2c", 0),
            Map::from([("serving.knative.dev/revisionUID".into(), "r1".into())]),
        ))
        .unwrap();
        assert_eq!(got["metadata"]["name"], "rev-private");
        assert_eq!(
            got["metadata"]["labels"],
            json!({
                "serving.knative.dev/revision": "rev", "serving.knative.dev/revisionUID": "r1", "app": "rev",
                "networking.internal.knative.dev/serverlessservice": "rev",
                "networking.internal.knative.dev/serviceType": "Private",
            })
        );
        assert_eq!(
            got["spec"],
            json!({
                "selector": {"serving.knative.dev/revisionUID": "r1"},
                "ports": [
                    {"name": "http2", "protocol": "TCP", "appProtocol": "kubernetes.io/h2c", "port": 80, "targetPort": 8013},
                    {"name": "https", "protocol": "TCP", "port": 443, "targetPort": 8112},
                    {"name": "http-autometric", "protocol": "TCP", "port": 9090, "targetPort": "http-autometric"},
                    {"name": "http-usermetric", "protocol": "TCP", "port": 9091, "targetPort": "http-usermetric"},
                    {"name": "http2-istio", "protocol": "TCP", "port": 8013, "targetPort": 8013},
                ],
            })
        );
        let got = serde_json::to_value(public_service(&sks("Serve", "http1", 0))).unwrap();
        assert_eq!(
            got["spec"],
            json!({"ports": [
                {"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8012},
                {"name": "https", "protocol": "TCP", "port": 443, "targetPort": 8112},
            ]})
        );
    }
}
