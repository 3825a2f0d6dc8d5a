//! What Certificates there should be, and what cert-manager is asked for them (upstream
//! `pkg/reconciler/{route,certificate}/resources`). Pure.

use api::{
    labels::networking,
    networking::{Certificate, CertificateSpec},
    settings::{CertManager, parse_bool},
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use crate::owner;

/// Longest common name.
const LONGEST: usize = 63;
/// Before a domain that stands for a host of it that is too long.
const SHORT: &str = "k.";
/// Name of the Certificate of the sidecars in a namespace, and of its Secret.
pub const SIDECARS: &str = "serving-certs";

/// One Certificate.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// Its name, and that of its Secret.
    pub name: &'a str,
    /// Its hosts.
    pub hosts: &'a [String],
    /// The domain that they lie under.
    pub domain: &'a str,
    /// [`networking::EXTERNAL_DOMAIN`] or [`networking::CLUSTER_LOCAL_DOMAIN`].
    pub kind: &'static str,
    /// Label that names the owner.
    pub owner_label: &'static str,
    /// Class where the owner names none.
    pub class: &'a str,
}

/// The Certificate of an owner.
pub fn certificate<O: Resource<DynamicType = ()>>(owner: &O, wish: Wish<'_>) -> Certificate {
    let mut annotations =
        owner::without(owner.annotations(), |key| owner::is_its_own(key) || key == networking::CERTIFICATE_CLASS_OLD);
    annotations.entry(networking::CERTIFICATE_CLASS.to_owned()).or_insert_with(|| {
        owner.annotations().get(networking::CERTIFICATE_CLASS_OLD).map_or_else(|| wish.class.to_owned(), Clone::clone)
    });
    let labels = owner::Map::from([
        (wish.owner_label.to_owned(), owner.name_any()),
        (networking::CERTIFICATE_TYPE.to_owned(), wish.kind.to_owned()),
    ]);
    Certificate {
        metadata: owner::child_metadata(owner, wish.name.to_owned(), labels, annotations),
        spec: CertificateSpec {
            dns_names: wish.hosts.to_vec(),
            domain: Some(wish.domain.to_owned()),
            secret_name: wish.name.to_owned(),
        },
        status: None,
    }
}

/// Of all hosts of a domain in a namespace, which are `*.REST`.
pub fn of_domain(namespace: &Namespace, host: &str, domain: &str, class: &str) -> Certificate {
    let name = host.split_once('.').map_or(host, |(_, rest)| rest);
    let labels = owner::Map::from([(networking::WILDCARD_DOMAIN.to_owned(), domain.to_owned())]);
    shared(namespace, name, labels, vec![host.to_owned()], class)
}

/// Of the sidecars in a namespace, for `system-internal-tls`.
pub fn of_sidecars(namespace: &Namespace, class: &str) -> Certificate {
    let labels = owner::Map::from([(networking::CERTIFICATE_TYPE.to_owned(), networking::SYSTEM_INTERNAL.to_owned())]);
    let user = format!("kn-user-{}", namespace.name_any().to_lowercase());
    shared(namespace, SIDECARS, labels, vec![user, "data-plane.knative.dev".to_owned()], class)
}

fn shared(namespace: &Namespace, name: &str, labels: owner::Map, hosts: Vec<String>, class: &str) -> Certificate {
    let annotations = owner::Map::from([(networking::CERTIFICATE_CLASS.to_owned(), class.to_owned())]);
    let mut metadata = owner::child_metadata(namespace, name.to_owned(), labels, annotations);
    metadata.namespace = Some(namespace.name_any());
    let spec = CertificateSpec { dns_names: hosts, domain: None, secret_name: name.to_owned() };
    Certificate { metadata, spec, status: None }
}

/// Name of a Route's Certificate for a tag.
pub fn route_certificate_name(uid: &str, tag: &str) -> String {
    if tag.is_empty() { format!("route-{uid}") } else { format!("route-{uid}-{}", checksum(tag)) }
}

/// Adler-32, by which upstream and cert-manager shorten texts.
pub fn checksum(text: &str) -> u32 {
    adler2::adler32_slice(text.as_bytes())
}

/// Whether the owner wants no certificates for its hosts.
pub fn is_switched_off(annotations: &owner::Map) -> bool {
    let found = networking::NO_EXTERNAL_DOMAIN_TLS.iter().find_map(|key| annotations.get(*key));
    found.and_then(|value| parse_bool(value)) == Some(true)
}

/// Whether a certificate for whole domains is good for these hosts too.
pub fn covers(certificate: &Certificate, hosts: &[String]) -> bool {
    let rest = |host: &str| host.split_once('.').map(|(_, rest)| rest.to_owned());
    let domains: Vec<String> = certificate.spec.dns_names.iter().filter_map(|name| rest(name)).collect();
    hosts.iter().all(|host| rest(host).is_some_and(|rest| domains.contains(&rest)))
}

/// Why cert-manager is not asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Reason of the condition.
    pub reason: &'static str,
    /// Message of the condition.
    pub message: String,
}

/// cert-manager's Certificate.
pub fn cert_manager(certificate: &Certificate, issuers: &CertManager) -> Result<Value, Refused> {
    let spec = &certificate.spec;
    let first = spec.dns_names.first().map(String::as_str).unwrap_or_default();
    let common = common_name(first, spec.domain.as_deref().unwrap_or_default())?;
    let shortened = (common != first).then(|| common.clone());
    let hosts: Vec<String> = shortened.into_iter().chain(spec.dns_names.iter().cloned()).collect();
    let kind = certificate.labels().get(networking::CERTIFICATE_TYPE).map(String::as_str);
    let issuer = match kind.unwrap_or(networking::EXTERNAL_DOMAIN) {
        networking::EXTERNAL_DOMAIN => &issuers.external,
        networking::CLUSTER_LOCAL_DOMAIN => &issuers.cluster_local,
        networking::SYSTEM_INTERNAL => &issuers.system_internal,
        other => {
            return Err(Refused {
                reason: "certificate type invalid",
                message: format!("error creating cert-manager certificate: certificate type {other} is invalid"),
            });
        }
    };
    let mut reference = json!({ "name": issuer.name, "kind": issuer.kind });
    if !issuer.group.is_empty() {
        reference["group"] = issuer.group.clone().into();
    }
    Ok(json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Certificate",
        "metadata": owner::child_metadata(
            certificate,
            certificate.name_any(),
            certificate.labels().clone(),
            certificate.annotations().clone(),
        ),
        "spec": {
            "commonName": common, "secretName": spec.secret_name, "dnsNames": hosts, "issuerRef": reference,
            "secretTemplate": { "labels": { networking::CERTIFICATE_UID: certificate.uid().unwrap_or_default() } },
        },
    }))
}

/// The first host, or a short name under its domain where that is too long.
fn common_name(host: &str, domain: &str) -> Result<String, Refused> {
    if host.len() <= LONGEST {
        return Ok(host.to_owned());
    }
    let why = if domain.is_empty() {
        format!("CommonName ({host}) too long and field spec.Domain on Kcert is empty, cannot attempt to shorten")
    } else if domain == host {
        format!("CommonName ({host}) longer than 63 characters")
    } else if domain.len() > LONGEST - SHORT.len() {
        format!(
            "CommonName ({domain})(length: {}) too long, prepending short prefix of ({SHORT})(length: {}) will be \
             longer than 64 bytes",
            domain.len(),
            SHORT.len()
        )
    } else {
        return Ok(format!("{SHORT}{domain}"));
    };
    Err(Refused { reason: "CommonName Too Long", message: format!("error creating cert-manager certificate: {why}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(hosts: &[&str], domain: &str, kind: &str) -> Certificate {
        serde_json::from_value(json!({
            "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Certificate",
            "metadata": { "name": "c", "namespace": "ns", "uid": "u", "labels": { networking::CERTIFICATE_TYPE: kind },
                "annotations": { networking::CERTIFICATE_CLASS: networking::CERT_MANAGER_CLASS } },
            "spec": { "dnsNames": hosts, "domain": domain, "secretName": "c" },
        }))
        .unwrap()
    }

    #[test]
    fn cert_manager_is_asked_by_the_issuer_of_the_kind_of_host() {
        let mut issuers = CertManager::default();
        issuers.cluster_local.name = "inside".to_owned();
        issuers.external.group = "example.com".to_owned();
        let got = cert_manager(&wanted(&["a.ns.example.com"], "example.com", "external-domain"), &issuers).unwrap();
        assert_eq!(
            got["spec"],
            json!({
                "commonName": "a.ns.example.com", "secretName": "c", "dnsNames": ["a.ns.example.com"],
                "issuerRef": { "name": "knative-selfsigned-issuer", "kind": "ClusterIssuer", "group": "example.com" },
                "secretTemplate": { "labels": { "networking.internal.knative.dev/certificate-uid": "u" } },
            })
        );
        assert_eq!(got["metadata"]["ownerReferences"][0]["kind"], "Certificate");
        let got = cert_manager(&wanted(&["a.ns"], "svc.cluster.local", "cluster-local-domain"), &issuers).unwrap();
        assert_eq!(got["spec"]["issuerRef"]["name"], "inside");
        let refused = cert_manager(&wanted(&["a.ns"], "", "other"), &issuers).unwrap_err();
        assert_eq!(refused.message, "error creating cert-manager certificate: certificate type other is invalid");
    }

    /// Upstream's cases.
    #[test]
    fn long_hosts_are_shortened_where_that_can_be() {
        let long = format!("{}.ns.example.com", "a".repeat(60));
        let got = cert_manager(
            &wanted(&[&long, "b.ns.example.com"], "example.com", "external-domain"),
            &CertManager::default(),
        );
        let got = got.unwrap();
        assert_eq!(got["spec"]["commonName"], "k.example.com");
        assert_eq!(got["spec"]["dnsNames"], json!(["k.example.com", long, "b.ns.example.com"]));
        let domain = "d".repeat(62);
        for (domain, why) in [
            ("", "too long and field spec.Domain on Kcert is empty, cannot attempt to shorten".to_owned()),
            (long.as_str(), "longer than 63 characters".to_owned()),
            (domain.as_str(), "(length: 62) too long, prepending short prefix of (k.)(length: 2)".to_owned()),
        ] {
            let refused =
                cert_manager(&wanted(&[&long], domain, "external-domain"), &CertManager::default()).unwrap_err();
            assert_eq!(refused.reason, "CommonName Too Long");
            assert!(refused.message.contains(&why), "{}", refused.message);
        }
    }

    #[test]
    fn names_and_sums_are_upstreams() {
        assert_eq!(checksum("Wikipedia"), 300_286_872);
        assert_eq!(route_certificate_name("12-34", ""), "route-12-34");
        assert_eq!(route_certificate_name("12-34", "v1"), format!("route-12-34-{}", checksum("v1")));
    }

    #[test]
    fn a_wildcard_covers_what_lies_right_under_it() {
        let wild = wanted(&["*.ns.example.com"], "example.com", "external-domain");
        for (hosts, want) in [
            (&["a.ns.example.com"][..], true),
            (&["a.ns.example.com", "b.ns.example.com"], true),
            (&["a.other.example.com"], false),
            (&["x.a.ns.example.com"], false),
            (&["plain"], false),
        ] {
            let hosts: Vec<String> = hosts.iter().map(|h| (*h).to_owned()).collect();
            assert_eq!(covers(&wild, &hosts), want, "{hosts:?}");
        }
    }
}
