//! Endpoints and Services → addresses. Pure.

use std::net::{IpAddr, SocketAddr};

use api::labels::{networking, serving};
use api::ports::{NAME_H2C, NAME_HTTP1};
use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::ResourceExt;

use crate::revision::{Protocol, RevisionKey};
use crate::throttle::subset::{Share, share_of};

/// The pods of a revision as Kubernetes sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Passing their readiness probe.
    pub ready: Vec<SocketAddr>,
    /// Not yet, or no longer.
    pub not_ready: Vec<SocketAddr>,
}

/// The same by protocol, because Endpoints may come before the Revision that says which one counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByProtocol {
    /// Of ports for HTTP/1.
    pub http1: Addresses,
    /// Of ports for h2c.
    pub h2c: Addresses,
}

impl ByProtocol {
    /// Those of an Endpoints object; `None` if there are none at all.
    pub fn of(endpoints: &Endpoints) -> Option<Self> {
        let of = |protocol| addresses(endpoints, protocol);
        let both = Self { http1: of(Protocol::Http1), h2c: of(Protocol::H2c) };
        (both != Self::default()).then_some(both)
    }
}

/// Where the private Service of a revision is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterIp {
    ip: IpAddr,
    http1: Option<u16>,
    h2c: Option<u16>,
}

impl ClusterIp {
    /// Its address for a protocol, by the port's name.
    pub fn at(self, protocol: Protocol) -> Option<SocketAddr> {
        let port = match protocol {
            Protocol::Http1 => self.http1,
            Protocol::H2c => self.h2c,
        };
        port.map(|port| SocketAddr::new(self.ip, port))
    }
}

/// The revision whose private Service this is, by its name. Of a name that was cut short only the label can tell whose it
/// is, and the name whether that is true.
pub fn private_service_of(service: &Service) -> Option<RevisionKey> {
    let name = service.metadata.name.as_deref()?;
    let labelled = service.labels().get(serving::REVISION).map(String::as_str);
    let revision = [labelled, name.strip_suffix("-private")]
        .into_iter()
        .flatten()
        .find(|revision| api::names::private_service(revision) == name)?;
    Some(RevisionKey::new(&service.namespace().unwrap_or_default(), revision))
}

/// A Service's cluster IP; `None` if it has none.
pub fn cluster_ip(service: &Service) -> Option<ClusterIp> {
    let spec = service.spec.as_ref()?;
    let ip = spec.cluster_ip.as_deref()?.parse().ok()?;
    let port = |protocol| {
        let port = spec.ports.iter().flatten().find(|port| port.name.as_deref() == Some(port_name(protocol)))?;
        u16::try_from(port.port).ok()
    };
    Some(ClusterIp { ip, http1: port(Protocol::Http1), h2c: port(Protocol::H2c) })
}

/// The revision an Endpoints object belongs to, and whether it is the private one.
pub fn owner(endpoints: &Endpoints) -> Option<(RevisionKey, bool)> {
    let labels = endpoints.labels();
    let private = match labels.get(networking::SERVICE_TYPE)?.as_str() {
        networking::SERVICE_TYPE_PRIVATE => true,
        networking::SERVICE_TYPE_PUBLIC => false,
        _ => return None,
    };
    let revision = labels.get(serving::REVISION).filter(|name| !name.is_empty())?;
    Some((RevisionKey::new(&endpoints.namespace().unwrap_or_default(), revision), private))
}

fn port_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => NAME_HTTP1,
        Protocol::H2c => NAME_H2C,
    }
}

/// The addresses of the subsets that have the protocol's port.
fn addresses(endpoints: &Endpoints, protocol: Protocol) -> Addresses {
    let mut found = Addresses::default();
    for subset in endpoints.subsets.iter().flatten() {
        let port = subset.ports.iter().flatten().find(|port| port.name.as_deref() == Some(port_name(protocol)));
        let Some(port) = port.and_then(|port| u16::try_from(port.port).ok()) else { continue };
        let parse = |ip: &str| ip.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, port));
        found.ready.extend(subset.addresses.iter().flatten().filter_map(|address| parse(&address.ip)));
        found.not_ready.extend(subset.not_ready_addresses.iter().flatten().filter_map(|address| parse(&address.ip)));
    }
    found
}

/// Our place among the activators of a revision, from its public Endpoints; `None` if we are not listed (then they list
/// pods, or the revision is carried by others: the last known place stays).
pub fn share(endpoints: &Endpoints, protocol: Protocol, own_ip: &str) -> Option<Share> {
    let mut activators = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        if subset.ports.iter().flatten().any(|port| port.name.as_deref() == Some(port_name(protocol))) {
            activators.extend(subset.addresses.iter().flatten().map(|address| address.ip.as_str()));
        }
    }
    share_of(own_ip, &mut activators)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn endpoints(subsets: &serde_json::Value) -> Endpoints {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": { "name": "r-private", "namespace": "n", "labels": {
                "networking.internal.knative.dev/serviceType": "Private",
                "serving.knative.dev/revision": "r", "serving.knative.dev/revisionUID": "u" } },
            "subsets": subsets,
        }))
        .unwrap()
    }

    #[test]
    fn t53_only_subsets_with_the_wanted_port_count() {
        let object = endpoints(&json!([
            { "addresses": [{ "ip": "10.0.0.1" }, { "ip": "2001:db8::1" }], "notReadyAddresses": [{ "ip": "10.0.0.2" }],
              "ports": [{ "name": "http", "port": 8012 }, { "name": "other", "port": 1 }] },
            { "addresses": [{ "ip": "10.0.0.3" }], "ports": [{ "name": "http2", "port": 8013 }] },
            { "addresses": [{ "ip": "10.0.0.4" }] },
        ]));
        let http1 = addresses(&object, Protocol::Http1);
        assert_eq!(http1.ready, ["10.0.0.1:8012".parse().unwrap(), "[2001:db8::1]:8012".parse().unwrap()]);
        assert_eq!(http1.not_ready, ["10.0.0.2:8012".parse().unwrap()]);
        assert_eq!(addresses(&object, Protocol::H2c).ready, ["10.0.0.3:8013".parse().unwrap()]);
        assert_eq!(owner(&object), Some((RevisionKey::new("n", "r"), true)));
    }

    #[test]
    fn t18_own_place_comes_from_the_public_endpoints() {
        let object = endpoints(&json!([
            { "addresses": [{ "ip": "130.0.0.2" }, { "ip": "130.0.0.1" }], "ports": [{ "name": "http2", "port": 8013 }] },
        ]));
        assert_eq!(share(&object, Protocol::H2c, "130.0.0.2"), Some(Share { index: Some(1), activators: 2 }));
        assert_eq!(share(&object, Protocol::Http1, "130.0.0.2"), None);
        assert_eq!(share(&object, Protocol::H2c, "9.9.9.9"), None);
    }

    fn service(name: &str, ip: &str, labels: &serde_json::Value) -> Service {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name, "namespace": "n", "labels": labels },
            "spec": { "clusterIP": ip, "ports": [
                { "name": "http2", "port": 80 }, { "name": "https", "port": 443 }, { "name": "http-autometric", "port": 9090 } ] },
        }))
        .unwrap()
    }

    #[test]
    fn t51_t53_a_private_service_is_known_by_its_name_and_its_port_by_name() {
        let here = cluster_ip(&service("r-private", "10.96.0.7", &json!({}))).unwrap();
        assert_eq!(here.at(Protocol::H2c), Some("10.96.0.7:80".parse().unwrap()));
        assert_eq!(here.at(Protocol::Http1), None, "no such port");
        assert_eq!(cluster_ip(&service("r-private", "None", &json!({}))), None, "headless");
        assert_eq!(cluster_ip(&service("r-private", "", &json!({}))), None);

        let long = "a".repeat(60);
        let cut = api::names::private_service(&long);
        let owner = |name: &str, labels: serde_json::Value| private_service_of(&service(name, "", &labels));
        let label = |revision: &str| json!({ "serving.knative.dev/revision": revision });
        assert_eq!(owner("r-private", json!({})), Some(RevisionKey::new("n", "r")));
        assert_eq!(owner(&cut, label(&long)), Some(RevisionKey::new("n", &long)));
        assert_eq!(owner("r", label("r")), None, "the public one");
        assert_eq!(owner("other-private", label("r")), Some(RevisionKey::new("n", "other")), "the name decides");
    }
}
