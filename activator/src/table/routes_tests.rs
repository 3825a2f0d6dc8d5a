use std::collections::BTreeMap;

use api::labels::networking::DORMOUSE_INGRESS_CLASS as CLASS;
use api::networking::ingress_hash;
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::certificates::{Certificates, SecretName};
use crate::revision::{RevisionSlot, Revisions};
use crate::table::{Visibility, normalize};

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

/// The table of these objects, which come in this order.
fn table<'a>(objects: impl IntoIterator<Item = &'a Ingress>) -> (Table, Vec<Skipped>) {
    let (mut routes, all, table) = (Routes::new(CLASS), All::default(), ArcSwap::<Table>::default());
    let mut skipped = Vec::new();
    for object in objects {
        skipped.extend(routes.change(Change::Applied(object.clone()), all.names()));
    }
    routes.publish(&table);
    (Table::clone(&table.load()), skipped)
}

/// What routes name.
#[derive(Default)]
struct All {
    revisions: Revisions,
    certificates: Certificates,
}

impl All {
    fn names(&self) -> Names<'_> {
        Names { revisions: &self.revisions, certificates: &self.certificates }
    }
}

fn name_of(slot: &RevisionSlot) -> String {
    slot.key().name.to_string()
}

fn chosen(table: &Table, host: &str, path: &str, headers: &[(&'static str, &'static str)]) -> Option<String> {
    let headers = headers
        .iter()
        .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
        .collect::<http::HeaderMap>();
    let (_, path) = table.host(&normalize(host))?.path(path, (&headers).into())?;
    let (_, backend) = path.choose(0)?;
    Some(name_of(&backend.slot))
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
    let (table, skipped) = table(&objects);
    assert_eq!(skipped, []);
    assert_eq!(table.len(), 3);
    let of = |host: &str| chosen(&table, host, "/", &[]);
    assert_eq!(of("hello.example.com:8080"), Some("exact".into()));
    assert_eq!(of("HELLO.EXAMPLE.COM"), Some("exact".into()));
    assert_eq!(of("other.example.com"), Some("wide".into()));
    assert_eq!(of("a.b.example.com"), Some("wide".into()));
    assert_eq!(of("x.deep.example.com"), Some("deep".into()));
    assert_eq!(of("example.com"), None);
    assert_eq!(of("nobody.test"), None);
    assert_eq!(of(""), None);
    let deep = |labels: usize| format!("{}.example.com", vec!["a"; labels].join("."));
    assert_eq!(of(&deep(100)), Some("wide".into()));
    assert_eq!(of(&deep(200)), None, "longer than a name may be");
    assert_eq!(of(&".".repeat(253)), None);
}

#[test]
fn a_rule_without_hosts_is_for_what_no_other_rule_has() {
    let mut all = rule("x", &json!([{ "splits": [split("rest", 100)] }]));
    all.as_object_mut().unwrap().remove("hosts");
    let objects = [ingress("i", T1, &json!([all, rule("*.b", &json!([{ "splits": [split("wide", 100)] }]))]))];
    let (table, skipped) = table(&objects);
    assert_eq!(skipped, []);
    for (host, revision) in [("a.b", "wide"), ("b", "rest"), ("", "rest"), ("x.y.z", "rest")] {
        assert_eq!(chosen(&table, host, "/", &[]), Some(revision.into()), "{host}");
    }
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
    let (table, _) = table(&objects);
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
    let (table, _) = table(&objects);
    let path = &table.host("h").unwrap().paths[0];
    assert_eq!(path.total_weight, 100);
    let names: Vec<_> = (0..100).map(|drawn| name_of(&path.choose(drawn).unwrap().1.slot)).collect();
    assert_eq!(names.iter().filter(|name| *name == "a").count(), 10);
    assert_eq!(names.iter().filter(|name| *name == "b").count(), 90);
    // Identity goes into the key, the other headers onto the request.
    let set = &path.choose(0).unwrap().1.set_headers;
    assert_eq!(set.len(), 1);
    assert_eq!((set[0].0.as_str(), set[0].1.to_str().unwrap()), ("x-rev", "a"));
}

#[test]
fn the_older_ingress_keeps_a_host_and_the_hash_names_it() {
    let old = ingress("z-old", T1, &json!([rule("h", &json!([{ "splits": [split("old", 100)] }]))]));
    let new = ingress("a-new", T2, &json!([rule("h", &json!([{ "splits": [split("new", 100)] }]))]));
    for objects in [[old.clone(), new.clone()], [new, old.clone()]] {
        let (table, skipped) = table(&objects);
        assert_eq!(chosen(&table, "h", "/", &[]), Some("old".into()));
        assert_eq!(skipped, [Skipped::HostTaken { ingress: "default/a-new".into(), host: "h".into() }]);
        assert_eq!(table.host("h").unwrap().hash(), ingress_hash(&old).as_str());
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
    let (table, skipped) = table(&objects);
    assert_eq!(skipped.len(), 2, "{skipped:?}");
    assert_eq!(chosen(&table, "h", "/x", &[]), Some("root".into()));
    assert_eq!(chosen(&table, "f", "/", &[]), None);
}

#[test]
fn what_a_field_means_when_it_is_absent_odd_or_said_twice() {
    let skipped_of = |spec: Value| {
        let mut object = ingress("i", T1, &json!([]));
        object.spec = serde_json::from_value(spec).unwrap();
        let (table, skipped) = table([&object]);
        (table, skipped.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let path = |split: Value| json!([{ "splits": [split] }]);
    // One split without a percent takes everything; of several it takes nothing.
    let none = json!({ "serviceName": "none", "servicePort": 80 });
    let (table, skipped) = skipped_of(json!({ "rules": [rule("h", &path(none.clone()))] }));
    assert_eq!((chosen(&table, "h", "/", &[]), skipped.len()), (Some("none".into()), 0));
    let (table, _) = skipped_of(json!({ "rules": [rule("h", &json!([{ "splits": [none, split("all", 1)] }]))] }));
    assert_eq!(table.host("h").unwrap().paths[0].splits.len(), 1);
    let (_, skipped) =
        skipped_of(json!({ "rules": [rule("h", &json!([{ "splits": [split("a", -1), split("b", 0)] }]))] }));
    assert_eq!(skipped, ["ingress default/i: path \"\" has no backend"]);
    // The first rule of a host counts.
    let (table, skipped) = skipped_of(json!({ "rules": [
        rule("h", &path(split("first", 100))), rule("H:80", &path(split("second", 100))), rule("*x", &path(split("a", 1)))] }));
    assert_eq!(chosen(&table, "h", "/", &[]), Some("first".into()));
    assert_eq!(skipped.len(), 2, "{skipped:?}");
    assert!(skipped[0].contains("host H:80 stands in an earlier rule"), "{skipped:?}");
    assert!(skipped[1].contains("\"*x\" is no host"), "{skipped:?}");
    // What is meant for fewer is not shown to all.
    let mut odd = rule("h", &path(split("a", 100)));
    odd["visibility"] = json!("Secret");
    let (table, skipped) = skipped_of(json!({ "rules": [odd], "httpOption": "Maybe" }));
    let route = table.host("h").unwrap();
    assert_eq!((route.visibility, route.to_https, skipped.len()), (Visibility::ClusterLocal, false, 2));
    // A header without a value must be there; a Host that is none cannot be written.
    let (table, skipped) = skipped_of(json!({ "rules": [rule("h", &json!([
        { "headers": { "x-any": {} }, "splits": [split("any", 100)] },
        { "path": "/x", "rewriteHost": "a\nb", "splits": [split("a", 100)] },
    ]))] }));
    assert_eq!(chosen(&table, "h", "/", &[("x-any", "1")]), Some("any".into()));
    assert_eq!((chosen(&table, "h", "/x", &[]), skipped.len()), (None, 1));
}

#[test]
fn only_external_hosts_are_redirected() {
    let mut object = ingress(
        "i",
        T1,
        &json!([rule("out", &json!([{ "splits": [split("a", 100)] }])),
        { "hosts": ["in"], "visibility": "ClusterLocal", "http": { "paths": [{ "splits": [split("a", 100)] }] } }]),
    );
    object.spec.http_option = Some("Redirected".into());
    let (table, _) = table([&object]);
    assert!(table.host("out").unwrap().to_https && !table.host("in").unwrap().to_https);
}

#[test]
fn hosts_have_the_certificates_of_their_ingress() {
    let (mut routes, all, table) = (Routes::new(CLASS), All::default(), ArcSwap::<Table>::default());
    let path = json!([{ "splits": [split("a", 100)] }]);
    let mut object = ingress(
        "i",
        T1,
        &json!([rule("a.x", &path), rule("*.x", &path), rule("b.y", &path), rule("bare", &path),
            { "hosts": ["in.y"], "visibility": "ClusterLocal", "http": { "paths": path } }]),
    );
    object.spec.tls = serde_json::from_value(json!([
        { "hosts": ["*.x"], "secretName": "wide" },
        { "hosts": ["b.y", "in.y", "nobody"], "secretName": "b", "secretNamespace": "default" },
        { "hosts": ["bare"], "secretName": "stolen", "secretNamespace": "other" },
    ]))
    .unwrap();
    let skipped = routes.change(Change::Applied(object.clone()), all.names());
    let foreign = Skipped::ForeignSecret { ingress: "default/i".into(), secret: "other/stolen".into() };
    assert_eq!(skipped, [foreign]);
    routes.publish(&table);
    let of = |host: &str| {
        let table = table.load();
        table.entry(host).unwrap().certificate.as_ref().map(|slot| slot.name().to_string())
    };
    assert_eq!((of("a.x"), of("q.x")), (Some("default/wide".into()), Some("default/wide".into())));
    assert_eq!((of("b.y"), of("in.y"), of("bare")), (Some("default/b".into()), None, None));
    let wanted = all.certificates.wanted();
    let names = |names: &[&str]| names.iter().map(|name| SecretName::new("default", name)).collect();
    assert_eq!(*wanted.borrow(), names(&["b", "wide"]));
    // A block without hosts is for all of the object's.
    object.spec.tls = serde_json::from_value(json!([{ "secretName": "all" }])).unwrap();
    routes.change(Change::Applied(object.clone()), all.names());
    routes.publish(&table);
    assert_eq!((of("a.x"), of("in.y")), (Some("default/all".into()), None));
    assert_eq!(*wanted.borrow(), names(&["all"]));
    routes.change(Change::Deleted(object), all.names());
    assert_eq!(*wanted.borrow(), names(&[]));
}

#[test]
fn a_host_passes_to_the_next_oldest_and_back() {
    let (mut routes, all, table) = (Routes::new(CLASS), All::default(), ArcSwap::<Table>::default());
    let of = |name, created| ingress(name, created, &json!([rule("h", &json!([{ "splits": [split(name, 100)] }]))]));
    let serves = |routes: &mut Routes| {
        routes.publish(&table);
        chosen(&table.load(), "h", "/", &[])
    };
    routes.change(Change::Applied(of("young", "2026-01-03T00:00:00Z")), all.names());
    routes.change(Change::Applied(of("middle", T2)), all.names());
    assert_eq!(serves(&mut routes), Some("middle".into()));
    let old = of("old", T1);
    assert_eq!(routes.change(Change::Applied(old.clone()), all.names()).len(), 1);
    assert_eq!(serves(&mut routes), Some("old".into()));
    routes.change(Change::Deleted(of("middle", T2)), all.names());
    routes.change(Change::Deleted(old), all.names());
    assert_eq!(serves(&mut routes), Some("young".into()));
    assert_eq!(all.revisions.slots(), 1);
    routes.change(Change::Listed(Vec::new()), all.names());
    assert_eq!((serves(&mut routes), routes.hosts(), all.revisions.slots()), (None, 0, 0));
    assert!(routes.known.is_empty() && routes.waiting.is_empty());
}

#[test]
fn nothing_is_done_for_an_object_seen_before() {
    let (mut routes, all, table) = (Routes::new(CLASS), All::default(), ArcSwap::<Table>::default());
    let mut object = ingress("i", T1, &json!([rule("h", &json!([{ "splits": [split("a", 100)] }]))]));
    object.metadata.resource_version = Some("7".into());
    routes.change(Change::Applied(object.clone()), all.names());
    assert!(routes.publish(&table) && !routes.publish(&table));
    routes.change(Change::Listed(vec![object.clone()]), all.names());
    assert!(!routes.publish(&table));
    object.metadata.resource_version = Some("8".into());
    routes.change(Change::Applied(object), all.names());
    assert!(routes.publish(&table));
}

#[test]
fn a_replaced_table_is_kept_while_somebody_looks_at_it() {
    let (mut routes, all, table) = (Routes::new(CLASS), All::default(), ArcSwap::<Table>::default());
    let of = |name| ingress(name, T1, &json!([rule(name, &json!([{ "splits": [split("a", 100)] }]))]));
    routes.change(Change::Applied(of("one")), all.names());
    routes.publish(&table);
    let seen = table.load_full();
    routes.change(Change::Applied(of("two")), all.names());
    routes.publish(&table);
    assert!(routes.reclaim());
    // What did not change is shared, what did is not.
    assert_eq!((seen.len(), table.load().len()), (1, 2));
    let (old, new) = (seen.host("one").unwrap(), Arc::clone(table.load().host("one").unwrap()));
    assert!(Arc::ptr_eq(old, &new) && seen.host("two").is_none());
    drop(seen);
    assert!(!routes.reclaim());
}

/// What can happen to one of a few Ingresses.
#[derive(Debug, Clone)]
enum Step {
    Apply(Ingress),
    Delete(Ingress),
    List(Vec<Ingress>),
}

fn any_ingress() -> impl Strategy<Value = Ingress> {
    let hosts = proptest::collection::vec(proptest::sample::select(vec!["a", "b", "*.b", "c.b", "*"]), 0..3);
    let rules = proptest::collection::vec(hosts, 0..3);
    (0..4_u8, 0..3_u8, rules, any::<bool>(), 0..3_u8).prop_map(|(name, day, rules, ours, revision)| {
        let paths = json!([{ "splits": [split(&format!("r{revision}"), 100)] }]);
        let rules: Vec<Value> = rules
            .iter()
            .map(|hosts| json!({ "hosts": hosts, "visibility": "ExternalIP", "http": { "paths": paths } }))
            .collect();
        let mut object = ingress(&format!("i{name}"), &format!("2026-01-0{}T00:00:00Z", day + 1), &json!(rules));
        if !ours {
            object.metadata.annotations = None;
        }
        object
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_ingress().prop_map(Step::Apply),
        2 => any_ingress().prop_map(Step::Delete),
        1 => proptest::collection::vec(any_ingress(), 0..4).prop_map(|mut all| {
            all.sort_by_key(ResourceExt::name_any);
            all.dedup_by_key(|ingress| ingress.name_any());
            Step::List(all)
        }),
    ]
}

/// Which version of which Ingress has which host.
fn outcome(table: &Table) -> BTreeMap<Pattern, (String, String)> {
    let of = |entry: &Entry| (entry.route.source.to_string(), entry.route.source.version.to_string());
    table.entries().map(|entry| (entry.pattern.clone(), of(entry))).collect()
}

proptest! {
    #[test]
    fn a_table_kept_up_to_date_is_the_table_built_anew(steps in proptest::collection::vec(any_step(), 0..24), often in 1..4_usize) {
        let (mut routes, all, table) = (Routes::new(CLASS), All::default(), ArcSwap::<Table>::default());
        let mut objects: BTreeMap<String, Ingress> = BTreeMap::new();
        for (n, step) in steps.into_iter().enumerate() {
            let change = match step {
                Step::Apply(object) => {
                    objects.insert(object.name_any(), object.clone());
                    Change::Applied(object)
                }
                Step::Delete(object) => {
                    objects.remove(&object.name_any());
                    Change::Deleted(object)
                }
                Step::List(list) => {
                    objects = list.iter().map(|object| (object.name_any(), object.clone())).collect();
                    Change::Listed(list)
                }
            };
            routes.change(change, all.names());
            if n % often == 0 {
                routes.publish(&table);
            }
        }
        routes.publish(&table);
        // The other way round, so that the order cannot matter.
        let (mut anew, others, built) = (Routes::new(CLASS), All::default(), ArcSwap::<Table>::default());
        for object in objects.values().rev() {
            anew.change(Change::Applied(object.clone()), others.names());
        }
        anew.publish(&built);
        prop_assert_eq!(outcome(&table.load()), outcome(&built.load()));
        prop_assert_eq!(table.load().len(), outcome(&built.load()).len());
        prop_assert_eq!(all.revisions.slots(), others.revisions.slots());
        // And nothing is left behind.
        routes.change(Change::Listed(Vec::new()), all.names());
        routes.publish(&table);
        prop_assert!(table.load().is_empty() && routes.known.is_empty() && routes.waiting.is_empty());
        prop_assert_eq!(all.revisions.slots(), 0);
        prop_assert!(table.load().host("x.b").is_none());
    }
}
