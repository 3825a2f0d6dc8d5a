use serde_json::json;

use super::*;
use crate::revision::Settings;
use api::labels::networking::DORMOUSE_INGRESS_CLASS as CLASS;
use api::networking::Ingress;

fn revisions(names: &[&str]) -> Revisions {
    let revisions = Revisions::default();
    for name in names {
        let object = json!({ "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
            "metadata": { "name": name, "namespace": "ns" }, "spec": { "containers": [{ "image": "i" }] } });
        let settings = Settings::of(&serde_json::from_value(object).unwrap());
        revisions.apply(&RevisionKey::new("ns", name), settings, &crate::throttle::Lines::each(10));
    }
    revisions
}

fn parts(host: &str) -> request::Parts {
    http::Request::get("/").header(HOST, host).body(()).unwrap().into_parts().0
}

fn told(fault: &Fault) -> (u16, &'static str, String) {
    (fault.status().as_u16(), fault.reason(), fault.body().into_owned())
}

#[test]
fn t62_identity_by_headers_or_service_host() {
    let known = revisions(&["rev"]);
    let find = |headers: &[(&'static str, &'static str)], host: &str| {
        let headers = headers.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect();
        by_identity(&headers, host.as_bytes(), "cluster.local", &known).map(|found| found.revision.key.to_string())
    };
    let both = [("knative-serving-namespace", "ns"), ("knative-serving-revision", "rev")];
    assert_eq!(find(&both, "whatever").unwrap(), "ns/rev");
    assert_eq!(find(&[], "rev.ns.svc.cluster.local").unwrap(), "ns/rev");
    assert_eq!(find(&[], "rev.ns.svc.cluster.local:80").unwrap(), "ns/rev");
    // One header alone does not count.
    assert_eq!(find(&both[..1], "rev.ns.svc.cluster.local").unwrap(), "ns/rev");
    for host in ["rev.ns", "rev.ns.svc", "rev.ns.svc.other.domain", "rev.ns.pod.cluster.local", ""] {
        assert_eq!(told(&find(&[], host).unwrap_err()).0, 404, "{host}");
    }
    let other = [("knative-serving-namespace", "ns"), ("knative-serving-revision", "other")];
    let text = "Error getting active endpoint: revision.serving.knative.dev \"other\" not found\n";
    assert_eq!(told(&find(&other, "x").unwrap_err()), (404, "unknown-revision", text.to_owned()));
}

#[test]
fn a_gateway_serves_external_rules_only_and_says_so() {
    let rule = |host: &str, visibility: &str, more: serde_json::Value| {
        let mut path = json!({ "splits": [{ "serviceNamespace": "ns", "serviceName": "rev", "servicePort": 80 }] });
        path.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "hosts": [host], "visibility": visibility, "http": { "paths": [path] } })
    };
    let ingress: Ingress = serde_json::from_value(json!({
        "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
        "metadata": { "name": "i", "namespace": "ns", "annotations": { "networking.knative.dev/ingress.class": CLASS } },
        "spec": { "rules": [
            rule("out.example.com", "ExternalIP", json!({})),
            rule("in.ns.svc.cluster.local", "ClusterLocal", json!({})),
            rule("mapped.example.com", "ExternalIP",
                json!({ "rewriteHost": "in.ns.svc.cluster.local", "splits": [
                    { "serviceNamespace": "ns", "serviceName": "in", "servicePort": 80 } ] })),
            rule("gone.example.com", "ExternalIP", json!({ "splits": [
                    { "serviceNamespace": "ns", "serviceName": "gone", "servicePort": 80 } ] })),
        ] },
    }))
    .unwrap();
    let (table, _) = crate::table::build::table([&ingress], CLASS);
    let known = revisions(&["rev"]);
    let find = |host: &str| by_table(&table, &known, &parts(host), |_| 0);
    assert_eq!(find("out.example.com:80").unwrap().revision.key.to_string(), "ns/rev");
    let mapped = find("mapped.example.com").unwrap();
    assert_eq!(mapped.revision.key.to_string(), "ns/rev");
    assert_eq!(mapped.rewrite_host.unwrap(), "in.ns.svc.cluster.local");
    for host in ["in.ns.svc.cluster.local", "nobody.example.com"] {
        let (status, reason, body) = told(&find(host).unwrap_err());
        assert_eq!((status, reason), (404, "unknown-host"), "{host}");
        assert!(body.contains(host) && body.contains("kubectl get ksvc"), "{body}");
    }
    assert_eq!(told(&find("gone.example.com").unwrap_err()).1, "unknown-revision");
}

#[test]
fn an_authority_in_the_target_wins_over_host() {
    let parts = http::Request::get("http://a.example.com/x").header(HOST, "b").body(()).unwrap().into_parts().0;
    assert_eq!(&*host(&parts), b"a.example.com");
}
