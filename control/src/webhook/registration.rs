//! What the API server is told of the webhook: which questions it asks, where, and whom it trusts. Pure.

use api::crds::CONVERSION_PATH;
use kube::api::GroupVersionKind;
use serde_json::{Value, json};

use super::{
    Config,
    answer::{CONFIGURATION, DEFAULTING, VALIDATION},
};
use crate::admission;

/// Kind and group of what is registered; both are of `admissionregistration.k8s.io/v1`.
pub const KINDS: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// The kind with its group and version.
pub fn kind(name: &str) -> GroupVersionKind {
    GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", name)
}

/// Name of the one that fills in defaults (upstream's).
const MUTATING: &str = "webhook.serving.knative.dev";

/// All objects: kind, name, and the object as it is applied. `trust` is PEM.
pub fn objects(config: &Config, trust: &str) -> Vec<(&'static str, &'static str, Value)> {
    let [mutating, validating] = KINDS;
    vec![
        (mutating, MUTATING, object(mutating, MUTATING, &hook(config, trust, MUTATING, DEFAULTING, &ours()))),
        (
            validating,
            admission::VALIDATION,
            object(validating, admission::VALIDATION, &hook(config, trust, admission::VALIDATION, VALIDATION, &ours())),
        ),
        (validating, admission::CONFIGURATION, {
            let maps = json!([rule("", &["v1"], &["configmaps"])]);
            let mut hook = hook(config, trust, admission::CONFIGURATION, CONFIGURATION, &maps);
            let system = json!({ "kubernetes.io/metadata.name": config.system_namespace });
            hook["namespaceSelector"] = json!({ "matchLabels": system });
            object(validating, admission::CONFIGURATION, &hook)
        }),
    ]
}

/// Definitions whose kinds are spoken in more than one version.
pub const CONVERTED: [&str; 4] = [
    "services.serving.knative.dev",
    "configurations.serving.knative.dev",
    "revisions.serving.knative.dev",
    "routes.serving.knative.dev",
];

/// What a definition says of who changes versions, as a merge patch.
pub fn conversion(config: &Config, trust: &str) -> Value {
    let client = client(config, trust, CONVERSION_PATH);
    let webhook = json!({ "clientConfig": client, "conversionReviewVersions": ["v1"] });
    json!({ "spec": { "conversion": { "strategy": "Webhook", "webhook": webhook } } })
}

fn object(kind: &str, name: &str, hook: &Value) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": { "name": name, "labels": { "app.kubernetes.io/name": "knative-serving", "app.kubernetes.io/component": "webhook" } },
        "webhooks": [hook],
    })
}

/// How the API server finds the webhook, and whom it trusts. Of the two ways the other one is null, for a patch.
fn client(config: &Config, trust: &str, path: &str) -> Value {
    let url = config.url.as_ref().map(|url| format!("{}{path}", url.trim_end_matches('/')));
    let service = url
        .is_none()
        .then(|| json!({ "name": config.service, "namespace": config.system_namespace, "path": path, "port": 443 }));
    json!({ "url": url, "service": service, "caBundle": k8s_openapi::ByteString(trust.as_bytes().to_vec()) })
}

fn hook(config: &Config, trust: &str, name: &str, path: &str, rules: &Value) -> Value {
    let mut client = client(config, trust, path);
    if let Some(client) = client.as_object_mut() {
        client.retain(|_, value| !value.is_null());
    }
    json!({
        "name": name, "admissionReviewVersions": ["v1"], "clientConfig": client, "rules": rules,
        // An object that nobody judged would be found out only when it does not run.
        "failurePolicy": "Fail", "sideEffects": "None", "timeoutSeconds": 10, "matchPolicy": "Equivalent",
    })
}

/// The kinds that are judged (see [`admission::handles`]).
fn ours() -> Value {
    json!([
        rule("serving.knative.dev", &["v1"], &["services", "configurations", "revisions", "routes"]),
        rule("serving.knative.dev", &["v1beta1"], &["domainmappings"]),
        rule("autoscaling.internal.knative.dev", &["v1alpha1"], &["podautoscalers"]),
    ])
}

fn rule(group: &str, versions: &[&str], resources: &[&str]) -> Value {
    json!({
        "apiGroups": [group], "apiVersions": versions, "resources": resources,
        "operations": ["CREATE", "UPDATE"], "scope": "Namespaced",
    })
}

/// Whom the certificate must name: the Service in all its forms, or the host of the URL.
pub fn names(config: &Config) -> Vec<String> {
    if let Some(url) = &config.url {
        let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let host = rest.split('/').next().unwrap_or_default();
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        return vec![host.trim_matches(['[', ']']).to_owned()];
    }
    let (service, namespace) = (&config.service, &config.system_namespace);
    vec![
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.{}", config.cluster_domain),
        format!("{service}.{namespace}"),
        service.clone(),
    ]
}
