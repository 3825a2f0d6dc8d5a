//! Certificates that a namespace shares: of all hosts of a domain, for the namespaces that
//! `namespace-wildcard-cert-selector` chooses, and of its sidecars, for `system-internal-tls`.

use std::collections::BTreeSet;

use api::labels::networking;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, ResourceExt,
    core::{Selector, SelectorExt},
};

use super::{desired, ensure};
use crate::{
    context::{Context, ReconcileError},
    engine::{
        queue::Outcome,
        world::{Key, wildcard_index},
    },
    owner::Map,
    settings::Settings,
};

/// Brings the Certificates of one namespace for whole domains up to date.
pub async fn reconcile(context: &Context, key: &Key) -> Result<Outcome, ReconcileError> {
    let Some(namespace) = context.world.namespaces.get("", &key.name) else {
        context.forget(key);
        return Ok(Outcome::Settled);
    };
    if namespace.metadata.deletion_timestamp.is_some() {
        return Ok(Outcome::Settled);
    }
    let settings = context.settings.load_full();
    let wanted = domains(&namespace, &settings);
    let class = class(namespace.annotations(), &settings);
    for (domain, host) in &wanted {
        // Somebody may have given one that is as good.
        let there = context.world.certificates.indexed(&wildcard_index(&key.name, domain));
        if there.iter().any(|certificate| certificate.spec.dns_names.contains(host)) {
            continue;
        }
        let want = desired::of_domain(&namespace, host, domain, &class);
        if ensure(context, namespace.as_ref(), want).await?.is_none() {
            return Err(ReconcileError::NotOwned(format!("namespace {} does not own Certificate of {host}", key.name)));
        }
    }
    let kept: BTreeSet<&str> = wanted.iter().map(|(domain, _)| domain.as_str()).collect();
    for certificate in context.world.certificates.indexed(&namespace.uid().unwrap_or_default()) {
        let domain = certificate.labels().get(networking::WILDCARD_DOMAIN);
        if domain.is_some_and(|domain| !kept.contains(domain.as_str())) {
            context.writer.delete(certificate.as_ref()).await?;
        }
    }
    Ok(Outcome::Settled)
}

/// The domains of which a namespace is to have a certificate, each with the name for all hosts.
fn domains(namespace: &Namespace, settings: &Settings) -> Vec<(String, String)> {
    let selector = settings.network.namespace_wildcard_cert_selector.clone();
    let chosen = selector.and_then(|selector| Selector::try_from(selector).ok());
    if !chosen.is_some_and(|selector| selector.matches(namespace.labels())) {
        return Vec::new();
    }
    let (name, none) = (namespace.name_any(), Map::new());
    let host = |domain: &str| {
        settings.network.domain_name(&api::settings::TemplateValues {
            name: "*",
            namespace: &name,
            domain,
            annotations: &none,
            labels: &none,
        })
    };
    let all = settings.domain.wildcards().map(|domain| (domain.to_owned(), host(domain)));
    // A template that puts something before the name has no name for all hosts.
    all.filter(|(_, host)| host.strip_prefix("*.").is_some_and(|rest| !rest.is_empty())).collect()
}

fn class(annotations: &Map, settings: &Settings) -> String {
    annotations.get(networking::CERTIFICATE_CLASS).unwrap_or(&settings.network.certificate_class).clone()
}

/// Sees to the Certificate of the sidecars in a namespace; says why none of them can start yet. `annotations` are those
/// of the Revision that wants one.
pub async fn for_sidecars(
    context: &Context,
    settings: &Settings,
    namespace: &str,
    annotations: &Map,
) -> Result<Option<String>, ReconcileError> {
    let Some(owner) = context.world.namespaces.get("", namespace) else {
        return Ok(Some(format!("namespace {namespace} is not there")));
    };
    let want = desired::of_sidecars(&owner, &class(annotations, settings));
    if ensure(context, owner.as_ref(), want).await?.is_none() {
        let name = desired::SIDECARS;
        return Err(ReconcileError::NotOwned(format!("namespace {namespace} does not own Certificate {name}")));
    }
    Ok(None)
}

/// Why the Secret of the sidecars in a namespace cannot be used yet.
pub async fn missing(context: &Context, namespace: &str) -> Option<String> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let why = match secrets.get_opt(desired::SIDECARS).await {
        Ok(Some(secret)) => {
            let data = secret.data.unwrap_or_default();
            let lacks = |key: &str| !data.contains_key(key);
            let what = [("tls.crt", "public cert"), ("tls.key", "private key")];
            format!("{} not found", what.iter().find(|(key, _)| lacks(key))?.1)
        }
        Ok(None) => "secret could not be found".to_owned(),
        Err(error) => error.to_string(),
    };
    Some(format!("certificate in secret {namespace}/{} is not ready yet: {why}", desired::SIDECARS))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(selector: &str, template: &str) -> Settings {
        let mut settings = Settings::new("cluster.local");
        let map = |all: &[(&str, &str)]| all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let domains = [
            ("example.com", ""),
            ("example.org", "selector: {app: a}"),
            ("example.net", "{type: wildcard, selector: {app: b}}"),
        ];
        settings.apply("config-domain", &map(&domains)).unwrap();
        let network = [("namespace-wildcard-cert-selector", selector), ("domain-template", template)];
        settings.apply("config-network", &map(&network)).unwrap();
        settings
    }

    fn namespace(labels: &serde_json::Value) -> Namespace {
        serde_json::from_value(json!({ "metadata": { "name": "shop", "uid": "u", "labels": labels } })).unwrap()
    }

    #[test]
    fn chosen_namespaces_get_one_for_each_domain() {
        let usual = "{{.Name}}.{{.Namespace}}.{{.Domain}}";
        let both = vec![
            ("example.com".to_owned(), "*.shop.example.com".to_owned()),
            ("example.net".to_owned(), "*.shop.example.net".to_owned()),
        ];
        let not = "matchExpressions: [{key: kind, operator: NotIn, values: [internal]}]";
        for (selector, labels, want) in [
            ("", json!({}), vec![]),
            ("{}", json!({}), both.clone()),
            (not, json!({ "kind": "internal" }), vec![]),
            (not, json!({ "kind": "public" }), both.clone()),
            ("matchLabels: {tls: \"on\"}", json!({ "tls": "on" }), both.clone()),
        ] {
            assert_eq!(domains(&namespace(&labels), &settings(selector, usual)), want, "{selector} {labels}");
        }
        assert!(domains(&namespace(&json!({})), &settings("{}", "x-{{.Name}}.{{.Domain}}")).is_empty());
        let mut settings = Settings::new("cluster.local");
        let bad = [("namespace-wildcard-cert-selector".to_owned(), "- a".to_owned())].into();
        assert!(settings.apply("config-network", &bad).is_err());
    }

    #[test]
    fn both_are_the_namespaces() {
        let of_domain = desired::of_domain(&namespace(&json!({})), "*.shop.example.com", "example.com", "c");
        let got = serde_json::to_value(of_domain).unwrap();
        assert_eq!(got["metadata"]["name"], "shop.example.com");
        assert_eq!(got["metadata"]["namespace"], "shop");
        assert_eq!(got["metadata"]["ownerReferences"][0]["kind"], "Namespace");
        assert_eq!(got["metadata"]["labels"], json!({ "networking.knative.dev/wildcardDomain": "example.com" }));
        assert_eq!(got["spec"], json!({ "dnsNames": ["*.shop.example.com"], "secretName": "shop.example.com" }));
        let got = serde_json::to_value(desired::of_sidecars(&namespace(&json!({})), "c")).unwrap();
        assert_eq!(got["metadata"]["labels"], json!({ "networking.knative.dev/certificate-type": "system-internal" }));
        let hosts = json!(["kn-user-shop", "data-plane.knative.dev"]);
        assert_eq!(got["spec"], json!({ "dnsNames": hosts, "secretName": "serving-certs" }));
    }
}
