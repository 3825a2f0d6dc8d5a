//! What the API server is told of the webhook: which questions it asks, where, and whom it trusts. Pure.

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

fn object(kind: &str, name: &str, hook: &Value) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": { "name": name, "labels": { "app.kubernetes.io/name": "knative-serving", "app.kubernetes.io/component": "webhook" } },
        "webhooks": [hook],
    })
}

fn hook(config: &Config, trust: &str, name: &str, path: &str, rules: &Value) -> Value {
    let mut client = match &config.url {
        Some(url) => json!({ "url": format!("{}{path}", url.trim_end_matches('/')) }),
        None => json!({ "service": {
            "name": config.service, "namespace": config.system_namespace, "path": path, "port": 443 } }),
    };
    client["caBundle"] = json!(k8s_openapi::ByteString(trust.as_bytes().to_vec()));
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
