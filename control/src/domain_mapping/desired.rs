//! What follows from a DomainMapping: the name that its host leads to, the claim, the Ingress. Pure.

use std::collections::BTreeMap;

use api::{
    labels::{networking, serving as labels},
    names,
    networking::{
        Certificate, ClusterDomainClaim, ClusterDomainClaimSpec, HttpIngressPath, HttpIngressRule, Ingress,
        IngressBackendSplit, IngressRule, IngressSpec, IngressTls, VISIBILITY_EXTERNAL,
    },
    serving::{Addressable, DomainMapping},
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{ResourceExt, api::ObjectMeta};

use crate::{
    certificate::{self, desired::Wish},
    engine::world::World,
    owner,
    route::desired::{http_option, ingress_annotations},
    settings::Settings,
};

/// Why a DomainMapping leads nowhere, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// There is no such object.
    #[error("failed to get object {namespace}/{name}: {resource} {name:?} not found")]
    Missing {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// Plural and group.
        resource: &'static str,
    },
    /// It has no address yet.
    #[error("address not set for {0}")]
    NoAddress(String),
    /// It has one without a host.
    #[error("hostname missing in address of {0}")]
    NoHost(String),
    /// Its address is more than a host.
    #[error("resolved URI {0:?} contains a path")]
    Path(String),
    /// Its address is not one of the cluster.
    #[error("resolved URI {0:?} must be of the form {{name}}.{{namespace}}.svc.{1}")]
    Form(String, String),
    /// It is in another namespace.
    #[error("resolved URI {0:?} must be in same namespace as DomainMapping")]
    Namespace(String),
    /// A kind that is not looked for.
    #[error("{0} is none of Service and Route (serving.knative.dev/v1) and Service (v1)")]
    Kind(String),
}

/// The host inside the cluster that a DomainMapping leads to.
pub fn resolve(mapping: &DomainMapping, world: &World, cluster_domain: &str) -> Result<String, Unresolved> {
    let namespace = mapping.namespace().unwrap_or_default();
    let target = &mapping.spec.target;
    let missing = |resource| Unresolved::Missing { namespace: namespace.clone(), name: target.name.clone(), resource };
    let told = || {
        format!(
            "Kind = {}, Namespace = {}, Name = {}, APIVersion = {}, Group = {}, Address = {}",
            target.kind,
            target.namespace.as_deref().unwrap_or_default(),
            target.name,
            target.api_version,
            target.group.as_deref().unwrap_or_default(),
            target.address.as_deref().unwrap_or_default()
        )
    };
    let address = match (target.api_version.as_str(), target.kind.as_str()) {
        ("serving.knative.dev/v1", "Service") => {
            let service = world.services.get(&namespace, &target.name);
            let service = service.ok_or_else(|| missing("services.serving.knative.dev"))?;
            service.status.as_ref().and_then(|status| status.address.clone())
        }
        ("serving.knative.dev/v1", "Route") => {
            let route = world.routes.get(&namespace, &target.name);
            let route = route.ok_or_else(|| missing("routes.serving.knative.dev"))?;
            route.status.as_ref().and_then(|status| status.address.clone())
        }
        ("v1", "Service") => {
            if !world.core_services.has(&namespace, &target.name) {
                return Err(missing("services"));
            }
            let host = names::service_host(&target.name, &namespace, cluster_domain);
            Some(Addressable { url: Some(format!("http://{host}")) })
        }
        _ => return Err(Unresolved::Kind(told())),
    };
    let url = address.ok_or_else(|| Unresolved::NoAddress(told()))?.url.unwrap_or_default();
    inside(&url, &namespace, cluster_domain).map_err(|wrong| wrong(url.clone(), told(), cluster_domain.to_owned()))
}

type Wrong = fn(String, String, String) -> Unresolved;

/// The host of an address, if it is `NAME.NAMESPACE.svc.DOMAIN` and nothing more.
fn inside(url: &str, namespace: &str, cluster_domain: &str) -> Result<String, Wrong> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.is_empty() {
        return Err(|_, told, _| Unresolved::NoHost(told));
    }
    if !path.trim_end_matches('/').is_empty() {
        return Err(|url, _, _| Unresolved::Path(url));
    }
    let parts = host.strip_suffix(&format!(".svc.{cluster_domain}")).and_then(|name| name.split_once('.'));
    match parts {
        Some((name, of)) if !name.is_empty() && !of.contains('.') => {
            if of == namespace {
                Ok(host.to_owned())
            } else {
                Err(|url, _, _| Unresolved::Namespace(url))
            }
        }
        _ => Err(|url, _, domain| Unresolved::Form(url, domain)),
    }
}

/// The claim of the DomainMapping's namespace to its host.
pub fn claim(mapping: &DomainMapping) -> ClusterDomainClaim {
    ClusterDomainClaim {
        metadata: ObjectMeta { name: Some(mapping.name_any()), ..ObjectMeta::default() },
        spec: ClusterDomainClaimSpec { namespace: mapping.namespace().unwrap_or_default() },
    }
}

/// The Certificate of its host.
pub fn certificate(mapping: &DomainMapping, settings: &Settings) -> Certificate {
    let host = mapping.name_any();
    certificate::desired::certificate(
        mapping,
        Wish {
            name: &names::child_name(&host, ""),
            hosts: std::slice::from_ref(&host),
            domain: &host,
            kind: networking::EXTERNAL_DOMAIN,
            owner_label: labels::DOMAIN_MAPPING_UID,
            class: &settings.network.certificate_class,
        },
    )
}

/// Name of its Ingress.
pub fn ingress_name(mapping: &DomainMapping) -> String {
    names::child_name(&mapping.name_any(), "")
}

/// The Ingress that serves the mapped host as `host`, which is of the form that [`resolve`] gives.
pub fn ingress(mapping: &DomainMapping, host: &str, settings: &Settings) -> Ingress {
    let (name, namespace) = (mapping.name_any(), mapping.namespace().unwrap_or_default());
    let backend = host.split('.').next().unwrap_or_default();
    let split = IngressBackendSplit {
        service_namespace: namespace.clone(),
        service_name: backend.to_owned(),
        service_port: IntOrString::Int(80),
        percent: Some(100),
        append_headers: BTreeMap::from([("K-Original-Host".to_owned(), name.clone())]),
    };
    let path =
        HttpIngressPath { rewrite_host: Some(host.to_owned()), splits: vec![split], ..HttpIngressPath::default() };
    let rule = IngressRule {
        hosts: vec![name.clone()],
        visibility: Some(VISIBILITY_EXTERNAL.to_owned()),
        http: Some(HttpIngressRule { paths: vec![path] }),
    };
    let tls = mapping.spec.tls.iter().map(|tls| IngressTls {
        hosts: vec![name.clone()],
        secret_name: tls.secret_name.clone(),
        secret_namespace: namespace.clone(),
    });
    let of_owner = mapping.labels().clone();
    let of_owner = owner::with(of_owner, labels::DOMAIN_MAPPING_UID, mapping.uid().unwrap_or_default());
    let of_owner = owner::with(of_owner, labels::DOMAIN_MAPPING_NAMESPACE, namespace.clone());
    let annotations = ingress_annotations(mapping.annotations(), settings);
    Ingress {
        metadata: owner::child_metadata(mapping, ingress_name(mapping), of_owner, annotations),
        spec: IngressSpec {
            http_option: Some(http_option(mapping.annotations(), settings)),
            tls: tls.collect(),
            rules: vec![rule],
        },
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn mapping(target: &Value) -> DomainMapping {
        serde_json::from_value(json!({
            "apiVersion": "serving.knative.dev/v1beta1", "kind": "DomainMapping",
            "metadata": { "name": "shop.example.org", "namespace": "ns", "uid": "u", "labels": { "team": "a" },
                "annotations": { "note": "x", "kubectl.kubernetes.io/last-applied-configuration": "{}" } },
            "spec": { "ref": target },
        }))
        .unwrap()
    }

    fn world() -> World {
        let world = World::new("knative-serving");
        let metadata = |name: &str| json!({ "name": name, "namespace": "ns", "uid": name, "resourceVersion": "1" });
        let addressed = |kind: &str, name: &str, url: Option<&str>| {
            json!({ "apiVersion": "serving.knative.dev/v1", "kind": kind, "metadata": metadata(name),
                "spec": { "template": { "spec": { "containers": [] } } },
                "status": { "address": url.map(|url| json!({ "url": url })) } })
        };
        for (name, url) in [
            ("good", Some("http://good.ns.svc.cluster.local")),
            ("slash", Some("http://good.ns.svc.cluster.local/")),
            ("path", Some("http://good.ns.svc.cluster.local/x")),
            ("outside", Some("http://good.ns.example.com")),
            ("deep", Some("http://a.good.ns.svc.cluster.local")),
            ("away", Some("http://good.other.svc.cluster.local")),
            ("hostless", Some("")),
            ("young", None),
        ] {
            world.observe::<api::serving::Service>(serde_json::from_value(addressed("Service", name, url)).unwrap());
        }
        let route = addressed("Route", "way", Some("http://way.ns.svc.cluster.local"));
        world.observe::<api::serving::Route>(serde_json::from_value(route).unwrap());
        let plain = json!({ "metadata": metadata("plain") });
        world.observe::<k8s_openapi::api::core::v1::Service>(serde_json::from_value(plain).unwrap());
        world
    }

    #[test]
    fn what_a_reference_leads_to() {
        let world = world();
        let told = |name: &str| {
            format!(
                "Kind = Service, Namespace = , Name = {name}, APIVersion = serving.knative.dev/v1, Group = , Address = "
            )
        };
        let serving = "serving.knative.dev/v1";
        for (api_version, kind, name, want) in [
            (serving, "Service", "good", Ok("good.ns.svc.cluster.local")),
            (serving, "Service", "slash", Ok("good.ns.svc.cluster.local")),
            (serving, "Route", "way", Ok("way.ns.svc.cluster.local")),
            ("v1", "Service", "plain", Ok("plain.ns.svc.cluster.local")),
            (serving, "Service", "path", Err(r#"resolved URI "http://good.ns.svc.cluster.local/x" contains a path"#)),
            (
                serving,
                "Service",
                "outside",
                Err(
                    r#"resolved URI "http://good.ns.example.com" must be of the form {name}.{namespace}.svc.cluster.local"#,
                ),
            ),
            (
                serving,
                "Service",
                "deep",
                Err(
                    r#"resolved URI "http://a.good.ns.svc.cluster.local" must be of the form {name}.{namespace}.svc.cluster.local"#,
                ),
            ),
            (
                serving,
                "Service",
                "away",
                Err(r#"resolved URI "http://good.other.svc.cluster.local" must be in same namespace as DomainMapping"#),
            ),
            (serving, "Service", "hostless", Err(&*format!("hostname missing in address of {}", told("hostless")))),
            (serving, "Service", "young", Err(&*format!("address not set for {}", told("young")))),
            (
                serving,
                "Service",
                "none",
                Err(r#"failed to get object ns/none: services.serving.knative.dev "none" not found"#),
            ),
            (
                serving,
                "Route",
                "none",
                Err(r#"failed to get object ns/none: routes.serving.knative.dev "none" not found"#),
            ),
            ("v1", "Service", "none", Err(r#"failed to get object ns/none: services "none" not found"#)),
        ] {
            let mapping = mapping(&json!({ "apiVersion": api_version, "kind": kind, "name": name }));
            let got = resolve(&mapping, &world, "cluster.local").map_err(|error| error.to_string());
            assert_eq!(got.as_deref().map_err(String::as_str), want, "{kind} {name}");
        }
        let other = mapping(&json!({ "apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "b" }));
        assert!(matches!(resolve(&other, &world, "cluster.local"), Err(Unresolved::Kind(_))));
    }

    #[test]
    fn the_ingress_leads_to_the_name_inside() {
        let mut settings = Settings::new("cluster.local");
        settings.network.ingress_class = "some".to_owned();
        let mut mapping = mapping(&json!({}));
        let made = ingress(&mapping, "good.ns.svc.cluster.local", &settings);
        let want: Ingress = serde_json::from_value(json!({
            "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
            "metadata": {
                "name": "shop.example.org", "namespace": "ns",
                "annotations": { "note": "x", "networking.knative.dev/ingress.class": "some" },
                "labels": { "team": "a", "serving.knative.dev/domainMappingUID": "u",
                    "serving.knative.dev/domainMappingNamespace": "ns" },
                "ownerReferences": [{ "apiVersion": "serving.knative.dev/v1beta1", "kind": "DomainMapping",
                    "name": "shop.example.org", "uid": "u", "controller": true, "blockOwnerDeletion": true }],
            },
            "spec": { "httpOption": "Enabled", "rules": [{
                "hosts": ["shop.example.org"], "visibility": "ExternalIP",
                "http": { "paths": [{ "rewriteHost": "good.ns.svc.cluster.local", "splits": [{
                    "serviceNamespace": "ns", "serviceName": "good", "servicePort": 80, "percent": 100,
                    "appendHeaders": { "K-Original-Host": "shop.example.org" } }] }] },
            }] },
        }))
        .unwrap();
        assert_eq!(made, want);
        mapping.spec.tls = Some(api::serving::SecretTls { secret_name: "cert".to_owned() });
        let made = ingress(&mapping, "good.ns.svc.cluster.local", &settings);
        assert_eq!(made.spec.tls[0].hosts, ["shop.example.org"]);
        assert_eq!((made.spec.tls[0].secret_name.as_str(), made.spec.tls[0].secret_namespace.as_str()), ("cert", "ns"));
    }
}
