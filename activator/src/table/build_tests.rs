use serde_json::{Value, json};

use super::*;
use api::labels::networking::DORMOUSE_INGRESS_CLASS as CLASS;

fn ingress(name: &str, created: &str, rules: &Value) -> Ingress {
    serde_json::from_value(json!({
        "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
        "metadata": { "name": name, "namespace": "default", "creationTimestamp": created,
            "annotations": { "networking.knative.dev/ingress.class": CLASS } },
        "spec": { "rules": rules },
    }))
    .unwrap()
}

fn split(revision: &str, percent: i64) -> Value {
    json!({ "serviceNamespace": "default", "serviceName": revision, "servicePort": 80, "percent": percent,
        "appendHeaders": { "Knative-Serving-Namespace": "default", "Knative-Serving-Revision": revision, "X-Rev": revision } })
}

fn rule(host: &str, paths: &Value) -> Value {
    json!({ "hosts": [host], "visibility": "ExternalIP", "http": { "paths": paths } })
}

const T1: &str = "2026-01-01T00:00:00Z";
const T2: &str = "2026-01-02T00:00:00Z";

fn chosen(table: &Table, host: &str, path: &str, headers: &[(&'static str, &'static str)]) -> Option<String> {
    let headers = headers
        .iter()
        .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
        .collect::<http::HeaderMap>();
    let backend = table.host(&normalize(host))?.path(path, &headers)?.choose(0)?;
    Some(backend.revision.name.to_string())
}

#[test]
fn hosts_exact_before_wildcard_and_longest_wildcard_first() {
    let objects = [ingress(
        "i",
        T1,
        &json!([
            rule("Hello.Example.com", &json!([{ "splits": [split("exact", 100)] }])),
            rule("*.example.com", &json!([{ "splits": [split("wide", 100)] }])),
            rule("*.deep.example.com", &json!([{ "splits": [split("deep", 100)] }])),
        ]),
    )];
    let (table, skipped) = table(&objects, CLASS);
    assert_eq!(skipped, []);
    assert_eq!(table.len(), 3);
    let of = |host| chosen(&table, host, "/", &[]);
    assert_eq!(of("hello.example.com:8080"), Some("exact".into()));
    assert_eq!(of("HELLO.EXAMPLE.COM"), Some("exact".into()));
    assert_eq!(of("other.example.com"), Some("wide".into()));
    assert_eq!(of("a.b.example.com"), Some("wide".into()));
    assert_eq!(of("x.deep.example.com"), Some("deep".into()));
    assert_eq!(of("example.com"), None);
    assert_eq!(of("nobody.test"), None);
    assert_eq!(of(""), None);
}

#[test]
fn paths_longest_first_and_headers_must_match() {
    let tag = json!({ "knative-serving-tag": { "exact": "blue" } });
    let objects = [ingress(
        "i",
        T1,
        &json!([rule(
            "h",
            &json!([
                { "splits": [split("root", 100)] },
                { "headers": tag, "splits": [split("tagged", 100)] },
                { "path": "/api", "splits": [split("api", 100)] },
                { "path": "/api/v2", "splits": [split("v2", 100)] },
            ])
        )]),
    )];
    let (table, _) = table(&objects, CLASS);
    assert_eq!(chosen(&table, "h", "/", &[]), Some("root".into()));
    assert_eq!(chosen(&table, "h", "/", &[("knative-serving-tag", "blue")]), Some("tagged".into()));
    assert_eq!(chosen(&table, "h", "/", &[("knative-serving-tag", "green")]), Some("root".into()));
    assert_eq!(chosen(&table, "h", "/api/v1", &[]), Some("api".into()));
    assert_eq!(chosen(&table, "h", "/api/v2/x", &[("knative-serving-tag", "blue")]), Some("v2".into()));
}

#[test]
fn a_split_is_exact_over_its_whole_range() {
    let objects = [ingress(
        "i",
        T1,
        &json!([rule("h", &json!([{ "splits": [split("a", 10), split("none", 0), split("b", 90)] }]))]),
    )];
    let (table, _) = table(&objects, CLASS);
    let path = &table.host("h").unwrap().paths[0];
    assert_eq!(path.total_weight, 100);
    let names: Vec<_> = (0..100).map(|drawn| path.choose(drawn).unwrap().revision.name.to_string()).collect();
    assert_eq!(names.iter().filter(|name| *name == "a").count(), 10);
    assert_eq!(names.iter().filter(|name| *name == "b").count(), 90);
    // Identity goes into the key, the other headers onto the request.
    let set = &path.choose(0).unwrap().set_headers;
    assert_eq!(set.len(), 1);
    assert_eq!((set[0].0.as_str(), set[0].1.to_str().unwrap()), ("x-rev", "a"));
}

#[test]
fn the_older_ingress_keeps_a_host_and_the_hash_names_it() {
    let old = ingress("z-old", T1, &json!([rule("h", &json!([{ "splits": [split("old", 100)] }]))]));
    let new = ingress("a-new", T2, &json!([rule("h", &json!([{ "splits": [split("new", 100)] }]))]));
    for objects in [[old.clone(), new.clone()], [new, old.clone()]] {
        let (table, skipped) = table(&objects, CLASS);
        assert_eq!(chosen(&table, "h", "/", &[]), Some("old".into()));
        assert_eq!(skipped, [Skipped::HostTaken { ingress: "default/a-new".into(), host: "h".into() }]);
        assert_eq!(table.host("h").unwrap().hash, ingress_hash(&old).as_str());
    }
}

#[test]
fn what_cannot_be_served_is_named_and_the_rest_is_served() {
    let bad = json!({ "bad name": { "exact": "x" } });
    let mut foreign = ingress("foreign", T1, &json!([rule("f", &json!([{ "splits": [split("a", 100)] }]))]));
    foreign.metadata.annotations = None;
    let objects = [
        ingress(
            "i",
            T1,
            &json!([rule(
                "h",
                &json!([
                    { "path": "/x", "headers": bad, "splits": [split("never", 100)] },
                    { "path": "/y", "splits": [] },
                    { "splits": [split("root", 100)] },
                ])
            )]),
        ),
        foreign,
    ];
    let (table, skipped) = table(&objects, CLASS);
    assert_eq!(skipped.len(), 2, "{skipped:?}");
    assert_eq!(chosen(&table, "h", "/x", &[]), Some("root".into()));
    assert_eq!(chosen(&table, "f", "/", &[]), None);
}
