//! The Ingress and the placeholder Services that a Route stands for.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    autoscaling::PROTOCOL_H2C,
    labels::{networking, serving as labels},
    names,
    networking::{
        HttpIngressPath, HttpIngressRule, Ingress, IngressBackendSplit, IngressRule, IngressSpec, StringMatch,
        VISIBILITY_CLUSTER_LOCAL, VISIBILITY_EXTERNAL,
    },
    serving::Route,
    settings::Feature,
};
use k8s_openapi::{
    api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service, ServicePort, ServiceSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::ResourceExt;

use super::{
    domains::{self, InvalidDomain},
    rollout::{self, Rollout},
    traffic::{RevisionTarget, Traffic},
};
use crate::{engine::world::ACTIVATOR_SERVICE, owner, settings::Settings};

const TAG_TO_HOST: &str = "networking.internal.knative.dev/tag-to-host";
const INGRESS_CLASS_OLD: &str = "networking.knative.dev/ingress-class";
const HTTP_PROTOCOL: [&str; 2] = ["networking.knative.dev/http-protocol", "networking.knative.dev/httpProtocol"];

/// The Ingress of resolved traffic; `cluster_local` says of each tag whether only the cluster may reach it.
pub fn ingress(
    route: &Route,
    traffic: &Traffic,
    rollout: &Rollout,
    cluster_local: &BTreeMap<String, bool>,
    settings: &Settings,
) -> Result<Ingress, InvalidDomain> {
    let mut rules = Vec::new();
    let mut tag_to_host: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (tag, targets) in &traffic.by_tag {
        let local_only = cluster_local.get(tag).copied().unwrap_or_default();
        let visibilities: &[bool] = if local_only { &[true] } else { &[true, false] };
        for local in visibilities {
            let host = domains::domain_name(route, tag, *local, settings)?;
            if !tag.is_empty() {
                tag_to_host.entry(tag).or_default().push(host.clone());
            }
            let hosts =
                if *local { domains::expanded(&host, &settings.cluster_domain) } else { BTreeSet::from([host]) };
            rules.push(IngressRule {
                hosts: hosts.into_iter().collect(),
                visibility: Some(if *local { VISIBILITY_CLUSTER_LOCAL } else { VISIBILITY_EXTERNAL }.to_owned()),
                http: Some(HttpIngressRule { paths: paths(route, tag, targets, traffic, rollout, settings) }),
            });
        }
    }
    let mut annotations = ingress_annotations(route.annotations(), settings);
    // Both are plain data; an unreadable annotation would only mean "no rollout under way".
    let state = serde_json::to_string(rollout).unwrap_or_default();
    annotations.insert(rollout::ANNOTATION.to_owned(), state);
    if !tag_to_host.is_empty() {
        annotations.insert(TAG_TO_HOST.to_owned(), serde_json::to_string(&tag_to_host).unwrap_or_default());
    }
    let labels = owner::with(route.labels().clone(), labels::ROUTE, route.name_any());
    let labels = owner::with(labels, labels::ROUTE_NAMESPACE, route.namespace().unwrap_or_default());
    Ok(Ingress {
        metadata: owner::child_metadata(route, ingress_name(route), labels, annotations),
        spec: IngressSpec { http_option: Some(http_option(route.annotations(), settings)), tls: Vec::new(), rules },
        status: None,
    })
}

/// Name of the Route's Ingress.
pub fn ingress_name(route: &Route) -> String {
    names::child_name(&route.name_any(), "")
}

/// Annotations of an Ingress whose owner has these: the class is told, by the owner or by the settings.
pub fn ingress_annotations(of_owner: &owner::Map, settings: &Settings) -> owner::Map {
    let left_out = [INGRESS_CLASS_OLD, networking::CERTIFICATE_CLASS_OLD];
    let mut annotations = owner::without(of_owner, |key| owner::is_its_own(key) || left_out.contains(&key));
    annotations
        .entry(networking::INGRESS_CLASS.to_owned())
        .or_insert_with(|| of_owner.get(INGRESS_CLASS_OLD).unwrap_or(&settings.network.ingress_class).clone());
    annotations
}

/// Whether plain requests are served or sent to https.
pub fn http_option(annotations: &owner::Map, settings: &Settings) -> String {
    let annotated = HTTP_PROTOCOL.iter().find_map(|key| annotations.get(*key)).map(|v| v.to_ascii_lowercase());
    let redirected = match annotated.as_deref() {
        Some(value) => value == "redirected",
        None => settings.network.http_redirected,
    };
    if redirected { "Redirected" } else { "Enabled" }.to_owned()
}

/// Paths of one host: its split, before it the splits of tags by header where that is switched on.
fn paths(
    route: &Route,
    tag: &str,
    targets: &[RevisionTarget],
    traffic: &Traffic,
    rollout: &Rollout,
    settings: &Settings,
) -> Vec<HttpIngressPath> {
    let mut base = path(route, tag, targets, rollout, settings);
    if settings.features.tag_header_based_routing != Feature::Enabled {
        return vec![base];
    }
    if !tag.is_empty() {
        base.append_headers.insert("Knative-Serving-Tag".to_owned(), tag.to_owned());
        return vec![base];
    }
    base.append_headers.insert("Knative-Serving-Default-Route".to_owned(), "true".to_owned());
    let by_header = traffic.by_tag.iter().filter(|(tag, _)| !tag.is_empty()).map(|(tag, targets)| HttpIngressPath {
        headers: BTreeMap::from([("Knative-Serving-Tag".to_owned(), StringMatch { exact: Some(tag.clone()) })]),
        ..path(route, tag, targets, rollout, settings)
    });
    by_header.chain([base.clone()]).collect()
}

fn path(
    route: &Route,
    tag: &str,
    targets: &[RevisionTarget],
    rollout: &Rollout,
    settings: &Settings,
) -> HttpIngressPath {
    let namespace = route.namespace().unwrap_or_default();
    let split = |target: &RevisionTarget, (revision, percent): (&str, i64)| IngressBackendSplit {
        service_namespace: namespace.clone(),
        service_name: revision.to_owned(),
        service_port: IntOrString::Int(match (settings.network.system_internal_tls, target.protocol) {
            (true, _) => 443,
            (false, PROTOCOL_H2C) => 81,
            (false, _) => 80,
        }),
        percent: Some(percent),
        append_headers: BTreeMap::from([
            ("Knative-Serving-Namespace".to_owned(), namespace.clone()),
            ("Knative-Serving-Revision".to_owned(), revision.to_owned()),
        ]),
    };
    let splits = targets.iter().filter(|target| target.percent != 0).flat_map(|target| {
        shares(target, tag, rollout).into_iter().map(|share| split(target, share)).collect::<Vec<_>>()
    });
    HttpIngressPath { splits: splits.collect(), ..HttpIngressPath::default() }
}

/// The Revisions that a target's share lies on, with theirs: one, or several while a rollout is under way.
pub fn shares<'a>(target: &'a RevisionTarget, tag: &str, rollout: &'a Rollout) -> Vec<(&'a str, i64)> {
    let under_way = rollout.of(tag, &target.configuration).filter(|c| target.latest && c.revisions.len() > 1);
    match under_way {
        Some(c) => c.revisions.iter().map(|r| (r.revision_name.as_str(), r.percent)).collect(),
        None => vec![(&target.revision, target.percent)],
    }
}

/// Where our own gateway is, inside the cluster.
#[derive(Debug, Clone, Copy)]
pub struct Gateway<'a> {
    /// The ConfigMaps.
    pub settings: &'a Settings,
    /// Namespace of the system.
    pub system_namespace: &'a str,
}

/// Host of our own gateway inside the cluster.
pub fn gateway_domain(around: Gateway<'_>) -> String {
    names::service_host(ACTIVATOR_SERVICE, around.system_namespace, &around.settings.cluster_domain)
}

/// Whether our own gateway serves the Ingress.
pub fn is_ours(ingress: &Ingress) -> bool {
    ingress.annotations().get(networking::INGRESS_CLASS).is_some_and(|c| c == networking::DORMOUSE_INGRESS_CLASS)
}

/// The Service that keeps a tag's name free for it and leads inside the cluster to where the Ingress is served.
///
/// Before the Ingress has an address it is an ExternalName of the Route's own host; then what the ingress layer says.
pub fn placeholder(
    route: &Route,
    tag: &str,
    ingress: Option<&Ingress>,
    is_private: bool,
    around: Gateway<'_>,
) -> Result<(Service, Option<Endpoints>), InvalidDomain> {
    let settings = around.settings;
    let name = domains::host_name(route, tag, settings);
    let metadata = placeholder_metadata(route, name);
    let port = ServicePort {
        name: Some("http2".to_owned()),
        app_protocol: Some("kubernetes.io/h2c".to_owned()),
        port: 80,
        target_port: Some(IntOrString::Int(80)),
        ..ServicePort::default()
    };
    let external = |name: String, affinity: Option<&str>| ServiceSpec {
        type_: Some("ExternalName".to_owned()),
        external_name: Some(name),
        session_affinity: affinity.map(str::to_owned),
        ports: Some(vec![port.clone()]),
        ..ServiceSpec::default()
    };
    let balancer = ingress.and_then(|i| i.status.as_ref()).and_then(|s| {
        let private = s.private_load_balancer.as_ref();
        let public = s.public_load_balancer.as_ref().filter(|_| !is_private);
        private.filter(|b| is_private || !b.ingress.is_empty()).or(public)?.ingress.first().cloned()
    });
    let given = |name: Option<String>| name.filter(|n| !n.is_empty());
    let mut endpoints = None;
    let spec = match balancer {
        Some(b) if b.ip.as_deref().is_some_and(|ip| !ip.is_empty()) => {
            endpoints = Some(balancer_endpoints(&metadata, b.ip.unwrap_or_default()));
            ServiceSpec {
                type_: Some("ClusterIP".to_owned()),
                cluster_ip: Some("None".to_owned()),
                ports: Some(vec![port]),
                ..ServiceSpec::default()
            }
        }
        Some(b) if b.domain_internal.as_deref().is_some_and(|d| !d.is_empty()) => {
            external(b.domain_internal.unwrap_or_default(), Some("None"))
        }
        Some(b) if b.mesh_only == Some(true) => ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            ports: Some(vec![ServicePort { name: Some("http".to_owned()), port: 80, ..ServicePort::default() }]),
            ..ServiceSpec::default()
        },
        Some(b) if given(b.domain.clone()).is_some() => external(b.domain.unwrap_or_default(), None),
        // Where our own gateway is found is known beforehand: the Service is right from its first write.
        _ if ingress.is_some_and(is_ours) => external(gateway_domain(around), Some("None")),
        _ => external(domains::domain_name(route, tag, is_route_local(route), settings)?, Some("None")),
    };
    Ok((Service { metadata, spec: Some(spec), status: None }, endpoints))
}

fn is_route_local(route: &Route) -> bool {
    route.labels().get(networking::VISIBILITY).is_some_and(|v| v == networking::CLUSTER_LOCAL)
}

fn placeholder_metadata(route: &Route, name: String) -> ObjectMeta {
    // Visibility can be set on the Service of one tag; it must not come from the Route.
    let labels = owner::without(route.labels(), |key| key == networking::VISIBILITY);
    let labels = owner::with(labels, labels::ROUTE, route.name_any());
    owner::child_metadata(route, name, labels, owner::without(route.annotations(), owner::is_its_own))
}

fn balancer_endpoints(metadata: &ObjectMeta, ip: String) -> Endpoints {
    Endpoints {
        metadata: metadata.clone(),
        subsets: Some(vec![EndpointSubset {
            addresses: Some(vec![EndpointAddress { ip, ..EndpointAddress::default() }]),
            ports: Some(vec![EndpointPort {
                name: Some("http2".to_owned()),
                app_protocol: Some("kubernetes.io/h2c".to_owned()),
                port: 80,
                protocol: None,
            }]),
            not_ready_addresses: None,
        }]),
    }
}
