//! Routes through resolution to Ingress and status, as whole objects.

use std::{collections::HashMap, sync::Arc};

use api::settings::Data;
use serde_json::{Value, json};

use super::{traffic::*, *};

#[derive(Default)]
struct Given {
    configurations: HashMap<String, Arc<Configuration>>,
    revisions: HashMap<String, Arc<Revision>>,
}

impl Targets for Given {
    fn configuration(&self, name: &str) -> Option<Arc<Configuration>> {
        self.configurations.get(name).cloned()
    }
    fn revision(&self, name: &str) -> Option<Arc<Revision>> {
        self.revisions.get(name).cloned()
    }
}

impl Given {
    fn configuration(mut self, name: &str, latest_ready: Option<&str>, ready: &str) -> Self {
        let value = json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Configuration", "metadata": {"name": name}, "spec": {},
            "status": {
                "latestReadyRevisionName": latest_ready, "conditions": [{"type": "Ready", "status": ready}],
            },
        });
        self.configurations.insert(name.into(), Arc::new(serde_json::from_value(value).unwrap()));
        self
    }

    fn revision(mut self, name: &str, service: &str, ready: &str) -> Self {
        let value = json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
            "metadata": {"name": name, "generation": 1, "labels": {
                "serving.knative.dev/configuration": "hello", "serving.knative.dev/service": service
            }},
            "spec": {"containers": [{"image": "x"}]},
            "status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": ready}]},
        });
        self.revisions.insert(name.into(), Arc::new(serde_json::from_value(value).unwrap()));
        self
    }
}

fn given() -> Given {
    Given::default()
        .configuration("hello", Some("hello-00002"), "True")
        .configuration("young", None, "Unknown")
        .configuration("broken", None, "False")
        .revision("hello-00001", "hello", "True")
        .revision("hello-00002", "hello", "True")
        .revision("waiting", "hello", "Unknown")
        .revision("failed", "hello", "False")
        .revision("foreign", "other", "True")
        .revision("loner", "", "True")
}

fn route(traffic: &Value) -> Route {
    serde_json::from_value(json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Route",
        "metadata": {
            "name": "hello", "namespace": "ns", "uid": "r1",
            "labels": {"serving.knative.dev/service": "hello"},
            "annotations": {"serving.knative.dev/creator": "me"},
        },
        "spec": {"traffic": traffic},
    }))
    .unwrap()
}

fn settings() -> Settings {
    let mut settings = Settings::new("cluster.local");
    settings.apply("config-domain", &Data::from([("example.com".into(), String::new())])).unwrap();
    let class = Data::from([("ingress-class".into(), networking::DORMOUSE_INGRESS_CLASS.into())]);
    settings.apply("config-network", &class).unwrap();
    settings
}

#[test]
fn targets_that_cannot_serve_are_told_and_the_worst_wins() {
    let configuration = |name: &str| json!({"configurationName": name, "percent": 100});
    let revision = |name: &str| json!({"revisionName": name, "percent": 100});
    let name = |n: &str| n.to_owned();
    let cases = [
        (json!([configuration("nope")]), BadTarget::Missing { kind: "Configuration", name: name("nope") }),
        (json!([revision("nope")]), BadTarget::Missing { kind: "Revision", name: name("nope") }),
        (json!([configuration("young")]), BadTarget::Configuration { name: name("young"), failed: false }),
        (json!([configuration("broken")]), BadTarget::Configuration { name: name("broken"), failed: true }),
        (json!([revision("waiting")]), BadTarget::Revision { name: name("waiting"), failed: false }),
        (json!([revision("failed")]), BadTarget::Revision { name: name("failed"), failed: true }),
        (
            json!([revision("foreign")]),
            BadTarget::NotOwned { name: name("foreign"), expected: name("hello"), actual: name("other") },
        ),
        (
            json!([revision("loner")]),
            BadTarget::NotOwned { name: name("loner"), expected: name("hello"), actual: String::new() },
        ),
        (
            json!([revision("waiting"), revision("failed"), configuration("young")]),
            BadTarget::Revision { name: name("failed"), failed: true },
        ),
    ];
    for (traffic, want) in cases {
        assert_eq!(resolve(&route(&traffic), &given()).traffic.unwrap_err(), want, "{traffic}");
    }
}

#[test]
fn what_is_missing_is_waited_for() {
    let traffic = json!([{"revisionName": "nope", "percent": 50}, {"configurationName": "hello", "percent": 50}]);
    let referred = resolve(&route(&traffic), &given()).referred;
    let want = [
        (Referred::Configuration, "hello".to_owned()),
        (Referred::Revision, "hello-00002".to_owned()),
        (Referred::Revision, "nope".to_owned()),
    ];
    assert_eq!(referred.into_iter().collect::<Vec<_>>(), want);
}

use crate::engine::tracker::Referred;

/// Everything that follows from a Route's traffic.
fn planned(traffic: &Value, settings: &Settings) -> (Value, RouteStatus) {
    let route = route(traffic);
    let mut status = RouteStatus::default();
    begin(&mut status, status::CONDITIONS, None, Timestamp::UNIX_EPOCH);
    let none: [Placeholder; 0] = [];
    let local = domains::visibility(&route, &none, settings);
    let resolved = resolve(&route, &given());
    let around = Around { cluster_local: &local, settings, was: None, at: 0 };
    let plan = plan(&route, &resolved, around, &mut status, Timestamp::UNIX_EPOCH).unwrap().unwrap();
    (serde_json::to_value(plan.ingress).unwrap(), status)
}

fn split(revision: &str, percent: i64) -> Value {
    json!({
        "serviceNamespace": "ns", "serviceName": revision, "servicePort": 80, "percent": percent,
        "appendHeaders": {"Knative-Serving-Namespace": "ns", "Knative-Serving-Revision": revision},
    })
}

#[test]
fn latest_becomes_a_whole_ingress() {
    let (ingress, status) =
        planned(&json!([{"configurationName": "hello", "latestRevision": true, "percent": 100}]), &settings());
    let paths = json!({"paths": [{"splits": [split("hello-00002", 100)]}]});
    let want = json!({
        "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
        "metadata": {
            "name": "hello", "namespace": "ns",
            "labels": {
                "serving.knative.dev/service": "hello", "serving.knative.dev/route": "hello",
                "serving.knative.dev/routeNamespace": "ns",
            },
            "annotations": {
                "networking.knative.dev/ingress.class": "dormouse.ingress.networking.knative.dev",
                "networking.internal.knative.dev/rollout": "{\"configurations\":[{\"configurationName\":\"hello\",\"percent\":100,\"revisions\":[{\"revisionName\":\"hello-00002\",\"percent\":100}],\"stepParams\":{}}]}",
                "serving.knative.dev/creator": "me",
            },
            "ownerReferences": [{
                "apiVersion": "serving.knative.dev/v1", "kind": "Route", "name": "hello", "uid": "r1",
                "controller": true, "blockOwnerDeletion": true
            }],
        },
        "spec": {"httpOption": "Enabled", "rules": [
            {"hosts": ["hello.ns", "hello.ns.svc", "hello.ns.svc.cluster.local"], "visibility": "ClusterLocal", "http": paths},
            {"hosts": ["hello.ns.example.com"], "visibility": "ExternalIP", "http": paths},
        ]},
    });
    assert_eq!(ingress, want);
    assert_eq!(status.url.as_deref(), Some("http://hello.ns.example.com"));
    assert_eq!(status.address.unwrap().url.as_deref(), Some("http://hello.ns.svc.cluster.local"));
    assert_eq!(
        serde_json::to_value(&status.traffic).unwrap(),
        json!([{"revisionName": "hello-00002", "latestRevision": true, "percent": 100}])
    );
}

#[test]
fn splits_and_tags_have_hosts_of_their_own() {
    let (ingress, status) = planned(
        &json!([
            {"configurationName": "hello", "latestRevision": true, "percent": 50, "tag": "new"},
            {"revisionName": "hello-00001", "latestRevision": false, "percent": 50},
            {"revisionName": "hello-00001", "latestRevision": false, "percent": 0, "tag": "old"},
        ]),
        &settings(),
    );
    let rules = ingress["spec"]["rules"].as_array().unwrap();
    let by_host = |host: &str| {
        let rule = rules.iter().find(|r| r["hosts"].as_array().unwrap().contains(&json!(host)));
        rule.unwrap_or_else(|| panic!("{host}"))["http"]["paths"][0]["splits"].clone()
    };
    assert_eq!(rules.len(), 6);
    assert_eq!(by_host("hello.ns.example.com"), json!([split("hello-00002", 50), split("hello-00001", 50)]));
    assert_eq!(by_host("new-hello.ns.example.com"), json!([split("hello-00002", 100)]));
    assert_eq!(by_host("old-hello.ns"), json!([split("hello-00001", 100)]), "a tag serves whatever its share");
    let tag_to_host: Value = serde_json::from_str(
        ingress["metadata"]["annotations"]["networking.internal.knative.dev/tag-to-host"].as_str().unwrap(),
    )
    .unwrap();
    assert_eq!(
        tag_to_host,
        json!({
            "new": ["new-hello.ns.svc.cluster.local", "new-hello.ns.example.com"],
            "old": ["old-hello.ns.svc.cluster.local", "old-hello.ns.example.com"],
        })
    );
    assert_eq!(
        serde_json::to_value(&status.traffic).unwrap(),
        json!([
            {"tag": "new", "revisionName": "hello-00002", "latestRevision": true, "percent": 50, "url": "http://new-hello.ns.example.com"},
            {"revisionName": "hello-00001", "latestRevision": false, "percent": 50},
            {"tag": "old", "revisionName": "hello-00001", "latestRevision": false, "percent": 0, "url": "http://old-hello.ns.example.com"},
        ])
    );
}

#[test]
fn tags_can_be_chosen_by_header_where_switched_on() {
    let mut settings = settings();
    settings.apply("config-features", &Data::from([("tag-header-based-routing".into(), "enabled".into())])).unwrap();
    let (ingress, _) = planned(
        &json!([
            {"configurationName": "hello", "latestRevision": true, "percent": 100},
            {"revisionName": "hello-00001", "latestRevision": false, "percent": 0, "tag": "old"},
        ]),
        &settings,
    );
    let paths = &ingress["spec"]["rules"][0]["http"]["paths"];
    assert_eq!(paths[0]["headers"], json!({"Knative-Serving-Tag": {"exact": "old"}}));
    assert_eq!(paths[0]["splits"], json!([split("hello-00001", 100)]));
    assert_eq!(paths[1]["appendHeaders"], json!({"Knative-Serving-Default-Route": "true"}));
    let tagged = &ingress["spec"]["rules"][2]["http"]["paths"][0];
    assert_eq!(tagged["appendHeaders"], json!({"Knative-Serving-Tag": "old"}));
}

#[test]
fn placeholders_lead_to_where_the_ingress_is_served() {
    let settings = settings();
    let around = desired::Gateway { settings: &settings, system_namespace: "knative-serving" };
    let route = route(&json!([]));
    let ingress = |class: &str, balancer: Value| -> Ingress {
        serde_json::from_value(json!({
            "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
            "metadata": {"name": "hello", "annotations": {"networking.knative.dev/ingress.class": class}}, "spec": {},
            "status": {"publicLoadBalancer": {"ingress": [balancer]}},
        }))
        .unwrap()
    };
    let gateway = "activator-service.knative-serving.svc.cluster.local";
    let ours = networking::DORMOUSE_INGRESS_CLASS;
    let cases = [
        (ours, json!({}), json!(["ExternalName", gateway, null])),
        (ours, json!({"domainInternal": gateway}), json!(["ExternalName", gateway, null])),
        ("kourier", json!({}), json!(["ExternalName", "hello.ns.example.com", null])),
        ("kourier", json!({"domain": "lb.example.org"}), json!(["ExternalName", "lb.example.org", null])),
        ("kourier", json!({"meshOnly": true}), json!(["ClusterIP", null, null])),
        ("kourier", json!({"ip": "10.0.0.9"}), json!(["ClusterIP", null, "None"])),
    ];
    for (class, balancer, want) in cases {
        let ingress = ingress(class, balancer.clone());
        let (service, endpoints) = desired::placeholder(&route, "", Some(&ingress), false, around).unwrap();
        let spec = service.spec.unwrap();
        assert_eq!(json!([spec.type_, spec.external_name, spec.cluster_ip]), want, "{class} {balancer}");
        assert_eq!(endpoints.is_some(), balancer.get("ip").is_some());
        assert_eq!(service.metadata.name.as_deref(), Some("hello"));
    }
}

proptest::proptest! {
    #[test]
    fn shares_of_every_host_sum_to_100(
        parts in proptest::collection::vec((0_usize..2, proptest::bool::ANY, 1_u32..100), 1..6)
    ) {
        // Any parts that sum to 100, on two Revisions, with and without tags.
        let total: u32 = parts.iter().map(|(_, _, p)| p).sum();
        let mut left = 100;
        let traffic: Vec<Value> = parts.iter().enumerate().map(|(i, (revision, tagged, part))| {
            let percent = if i + 1 == parts.len() { left } else { part * 100 / total };
            left -= percent;
            let tag = tagged.then(|| format!("t{i}"));
            json!({"revisionName": format!("hello-0000{}", revision + 1), "latestRevision": false, "percent": percent, "tag": tag})
        }).collect();
        let resolved = resolve(&route(&json!(traffic)), &given()).traffic.unwrap();
        for (tag, targets) in &resolved.by_tag {
            let sum: i64 = targets.iter().map(|t| t.percent).sum();
            proptest::prop_assert_eq!(sum, 100, "tag {:?}", tag);
            let mut names: Vec<&str> = targets.iter().map(|t| t.revision.as_str()).collect();
            names.dedup();
            proptest::prop_assert_eq!(names.len(), targets.len(), "a Revision once a host");
        }
        let shown: i64 = resolved.flat.iter().map(|t| t.percent).sum();
        proptest::prop_assert_eq!(shown, 100);
    }
}

/// One Route through a rollout of two minutes: a percent at once, the rest when the Ingress has shown how long a step takes.
#[test]
fn a_new_revision_gets_its_traffic_bit_by_bit() {
    const SECOND: i64 = 1_000_000_000;
    let mut route = route(&json!([{"configurationName": "hello", "latestRevision": true, "percent": 100}]));
    route.annotations_mut().insert("serving.knative.dev/rollout-duration".to_owned(), "120s".to_owned());
    let settings = settings();
    let none: [Placeholder; 0] = [];
    let local = domains::visibility(&route, &none, &settings);
    // The revision before is the latest ready one still.
    let before = given().configuration("hello", Some("hello-00001"), "True");
    let look = |route: &Route, given: &Given, was: Option<&Ingress>, at: i64| {
        let mut status = route.status.clone().unwrap_or_default();
        begin(&mut status, status::CONDITIONS, None, Timestamp::UNIX_EPOCH);
        let around = Around { cluster_local: &local, settings: &settings, was, at };
        let plan = plan(route, &resolve(route, given), around, &mut status, Timestamp::UNIX_EPOCH).unwrap().unwrap();
        (plan, status)
    };
    let ready = |mut ingress: Ingress| {
        ingress.metadata.generation = Some(1);
        let status = json!({ "observedGeneration": 1, "conditions": [{ "type": "Ready", "status": "True" }] });
        ingress.status = serde_json::from_value(status).unwrap();
        ingress
    };
    let shown = |status: &RouteStatus| -> Vec<(String, i64)> {
        let all = status.traffic.iter();
        all.map(|t| (t.revision_name.clone().unwrap(), t.percent.unwrap())).collect()
    };
    let (first, status) = look(&route, &before, None, 0);
    assert!(!first.rolls_out && shown(&status) == [("hello-00001".to_owned(), 100)]);

    let (begun, status) = look(&route, &given(), Some(&ready(first.ingress)), 1000 * SECOND);
    let splits = serde_json::to_value(&begun.ingress.spec.rules[0].http.as_ref().unwrap().paths[0].splits).unwrap();
    assert_eq!(splits, json!([split("hello-00001", 99), split("hello-00002", 1)]));
    assert_eq!(shown(&status), [("hello-00001".to_owned(), 99), ("hello-00002".to_owned(), 1)]);
    assert_eq!((begun.rolls_out, begun.next_step), (true, None));

    // Twenty seconds until it is served: five more steps, of twenty seconds and twenty percent.
    route.status = Some(status);
    let (same, _) = look(&route, &given(), Some(&ready(begun.ingress)), 1020 * SECOND);
    assert_eq!(same.next_step, Some(Duration::from_secs(20)));
    let mut was = same.ingress;
    for (nth, percent) in [(1, 21), (2, 41), (3, 61), (4, 81), (5, 100)] {
        let (step, status) = look(&route, &given(), Some(&ready(was)), (1020 + 20 * nth) * SECOND);
        let newest = status.traffic.last().unwrap();
        assert_eq!((newest.revision_name.as_deref(), newest.percent), (Some("hello-00002"), Some(percent)));
        assert_eq!(step.rolls_out, percent < 100);
        assert_eq!(step.next_step, (percent < 100).then_some(Duration::from_secs(20)));
        was = step.ingress;
    }
    // Without a duration everything moves at once.
    route.annotations_mut().clear();
    let (whole, status) = look(&route, &before, Some(&ready(was)), 2000 * SECOND);
    assert!(!whole.rolls_out && shown(&status) == [("hello-00001".to_owned(), 100)]);
}
