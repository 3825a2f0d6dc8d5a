//! The manifests under `deploy/`: the kinds are those of the Rust types, a real API server takes all of it, and each
//! process has the rights that it needs and no more.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test cannot do without has failed it"
)]

#[allow(dead_code, reason = "shared with tests that need more of it")]
#[path = "real_server/cluster.rs"]
mod cluster;

use std::path::Path;

use cluster::Cluster;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{
    api::{Api, ApiResource, DynamicObject, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

#[test]
fn the_kinds_are_those_of_the_types() {
    let file = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds.yaml")).unwrap();
    let made = local::crds::yaml().unwrap();
    assert!(
        file == made,
        "deploy/crds.yaml is not what the types say: `dormouse crds > deploy/crds.yaml` writes it anew"
    );
}

/// Who may do what: account, verb, `group/resource[/subresource]`, namespace, and whether.
const RIGHTS: &[(&str, &str, &str, &str, bool)] = &[
    ("activator", "watch", "networking.internal.knative.dev/ingresses", "default", true),
    ("activator", "list", "/endpoints", "default", true),
    ("activator", "get", "/secrets", "default", true),
    ("activator", "list", "/configmaps", "knative-serving", true),
    ("activator", "list", "/configmaps", "default", false),
    ("activator", "patch", "serving.knative.dev/revisions", "default", false),
    ("activator", "create", "/pods", "default", false),
    ("activator", "delete", "/secrets", "knative-serving", false),
    ("autoscaler", "patch", "apps/deployments/scale", "default", true),
    ("autoscaler", "patch", "apps/deployments", "default", false),
    ("autoscaler", "patch", "autoscaling.internal.knative.dev/podautoscalers/status", "default", true),
    ("autoscaler", "patch", "autoscaling.internal.knative.dev/podautoscalers", "default", false),
    ("autoscaler", "create", "networking.internal.knative.dev/serverlessservices", "default", true),
    ("autoscaler", "patch", "/pods", "default", true),
    ("autoscaler", "delete", "/pods", "default", false),
    ("autoscaler", "update", "coordination.k8s.io/leases", "knative-serving", true),
    ("autoscaler", "update", "coordination.k8s.io/leases", "default", false),
    ("autoscaler", "patch", "discovery.k8s.io/endpointslices", "knative-serving", true),
    ("autoscaler", "get", "/secrets", "knative-serving", false),
    ("controller", "create", "apps/deployments", "default", true),
    ("controller", "update", "serving.knative.dev/services/status", "default", true),
    ("controller", "update", "serving.knative.dev/services", "default", false),
    ("controller", "delete", "serving.knative.dev/revisions", "default", true),
    ("controller", "update", "serving.knative.dev/configurations/finalizers", "default", true),
    ("controller", "create", "networking.internal.knative.dev/clusterdomainclaims", "", true),
    ("controller", "create", "/endpoints", "default", true),
    ("controller", "get", "/secrets", "default", true),
    ("controller", "update", "coordination.k8s.io/leases", "knative-serving", true),
    ("controller", "update", "coordination.k8s.io/leases", "default", false),
    ("controller", "list", "/secrets", "default", false),
    ("controller", "update", "/secrets", "knative-serving", false),
    ("controller", "create", "/pods", "default", false),
    ("webhook", "update", "/secrets", "knative-serving", true),
    ("webhook", "update", "/secrets", "default", false),
    ("webhook", "patch", "admissionregistration.k8s.io/mutatingwebhookconfigurations", "", true),
    ("webhook", "list", "serving.knative.dev/services", "default", false),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server_takes_it_and_rights_are_least() {
    let real = Cluster::find().await;
    let said = real.apply_manifests("none").await;
    for object in ["deployment.apps/activator", "deployment.apps/webhook", "service/gateway"] {
        assert!(said.contains(object), "{object} in\n{said}");
    }
    // Once more: nothing of it is somebody else's.
    real.apply_manifests("server").await;

    // What no admission judges is judged by rules in the definitions.
    cluster::install_crds(&real.client()).await;
    for (group, kind, plural, mut spec, wrong, why) in [
        (
            "networking.internal.knative.dev",
            "ClusterDomainClaim",
            "clusterdomainclaims",
            json!({ "namespace": "a" }),
            "namespace",
            "want the namespace",
        ),
        (
            "networking.internal.knative.dev",
            "Certificate",
            "certificates",
            json!({ "dnsNames": ["a.b"], "secretName": "s" }),
            "secretName",
            "and a secretName",
        ),
        ("caching.internal.knative.dev", "Image", "images", json!({ "image": "a" }), "image", "want an image"),
        (
            "networking.internal.knative.dev",
            "ServerlessService",
            "serverlessservices",
            json!({ "mode": "Serve", "objectRef": {}, "protocolType": "http1" }),
            "mode",
            "want a mode of",
        ),
    ] {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1alpha1", kind), plural);
        let api: Api<DynamicObject> = match kind {
            "ClusterDomainClaim" => Api::all_with(real.client(), &resource),
            _ => Api::default_namespaced_with(real.client(), &resource),
        };
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let object = |spec: &Value| {
            let (api_version, metadata) = (format!("{group}/v1alpha1"), json!({ "name": "a.b" }));
            let object = json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec });
            serde_json::from_value(object).unwrap()
        };
        api.create(&dry, &object(&spec)).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
        spec[wrong] = if wrong == "mode" { "Sleep".into() } else { "".into() };
        let error = api.create(&dry, &object(&spec)).await.unwrap_err().to_string();
        assert!(error.contains(why), "{kind}: {error}");
    }

    let reviews: Api<SubjectAccessReview> = Api::all(real.client());
    let mut wrong = Vec::new();
    for (account, verb, what, namespace, allowed) in RIGHTS {
        let mut parts = what.split('/').map(str::to_owned);
        let attributes = ResourceAttributes {
            group: parts.next(),
            resource: parts.next(),
            subresource: parts.next(),
            verb: Some((*verb).to_owned()),
            namespace: Some((*namespace).to_owned()).filter(|namespace| !namespace.is_empty()),
            ..ResourceAttributes::default()
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:knative-serving:{account}")),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
        if answer.status.unwrap().allowed != *allowed {
            wrong.push(format!("{account} {verb} {what} in {namespace:?}: want {allowed}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
