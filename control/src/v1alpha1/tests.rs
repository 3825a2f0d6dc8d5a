use proptest::prelude::*;
use serde_json::{Value, json};

use super::{FORM, OLD, STORED, convert, is_manual, is_manual_object};
use crate::{
    admission::{self, Operation, Request, json::same},
    settings::Settings,
};

/// Manifests as users wrote them in 2018; `local` applies the same ones to an API server.
const MANIFESTS: [&str; 6] = [
    include_str!("manifests/hello.yaml"),
    include_str!("manifests/pinned.yaml"),
    include_str!("manifests/release.yaml"),
    include_str!("manifests/manual.yaml"),
    include_str!("manifests/configuration-and-route.yaml"),
    include_str!("manifests/revision.yaml"),
];

fn manifests() -> Vec<Value> {
    MANIFESTS.iter().flat_map(|text| serde_saphyr::from_multiple::<Value>(text).unwrap()).collect()
}

fn named(name: &str) -> Value {
    manifests().into_iter().find(|object| object["metadata"]["name"] == name).unwrap()
}

fn admitted(object: Value) -> Value {
    let kind = object["kind"].as_str().unwrap().to_owned();
    let request = Request {
        group: "serving.knative.dev",
        kind: &kind,
        operation: Operation::Create,
        subresource: "",
        old: None,
        new: object,
        user: "ann",
    };
    admission::default_and_validate(request, &Settings::new("cluster.local")).unwrap()
}

/// A spec of v1alpha1, and the one of v1 that it becomes.
fn spec_of(kind: &str, spec: &Value) -> Result<Value, String> {
    let object = json!({ "apiVersion": OLD, "kind": kind, "metadata": { "name": "x" }, "spec": spec });
    convert(object, STORED).map(|object| object["spec"].clone()).map_err(|error| error.to_string())
}

#[test]
fn manifests_become_what_they_mean() {
    let upgraded = |name: &str| convert(named(name), STORED).unwrap();
    let hello = upgraded("helloworld-go");
    assert_eq!(hello["apiVersion"], STORED);
    assert_eq!(
        hello["metadata"]["annotations"],
        json!({ FORM: "runLatest,revisionTemplate,container,concurrencyModel" })
    );
    assert_eq!(hello["spec"]["traffic"], json!([{ "latestRevision": true, "percent": 100 }]));
    let template = &hello["spec"]["template"];
    assert_eq!(template["metadata"]["labels"], json!({ "knative.dev/type": "container" }));
    assert_eq!(template["spec"]["containerConcurrency"], 1);
    assert_eq!(template["spec"]["containers"][0]["env"][0]["value"], "Go Sample v1");

    let pinned = upgraded("stock-service");
    let all = json!([{ "revisionName": "stock-service-00001", "latestRevision": false, "percent": 100 }]);
    assert_eq!(pinned["spec"]["traffic"], all);

    let release = upgraded("blue-green-demo");
    assert_eq!(
        release["spec"]["traffic"],
        json!([
            { "revisionName": "blue-green-demo-00001", "latestRevision": false, "percent": 80, "tag": "current" },
            { "revisionName": "blue-green-demo-00002", "latestRevision": false, "percent": 20, "tag": "candidate" },
            { "latestRevision": true, "percent": 0, "tag": "latest" },
        ])
    );
    assert_eq!(release["spec"]["template"]["spec"]["containerConcurrency"], 10);

    let manual = upgraded("by-hand");
    for (service, want) in [(manual, true), (release, false)] {
        assert_eq!(is_manual_object(&service), want);
        assert_eq!(is_manual(&serde_json::from_value(service).unwrap()), want);
    }

    assert_eq!(upgraded("configuration-example")["spec"]["template"]["spec"]["containerConcurrency"], 0);
    let route = upgraded("route-example");
    assert_eq!(
        route["spec"]["traffic"][1],
        json!({ "configurationName": "configuration-example", "percent": 0, "tag": "v2" })
    );
    let revision = upgraded("revision-by-hand");
    assert_eq!(
        revision["spec"],
        json!({
            "containerConcurrency": 0, "serviceAccountName": "default",
            "containers": [{ "image": "dormouse.dev/hello" }],
        })
    );
}

/// With the defaults filled in, each of them is shown as it was written, and says the same when written back.
#[test]
fn what_was_written_is_shown_and_written_again() {
    for object in manifests() {
        let name = object["metadata"]["name"].clone();
        let stored = admitted(convert(object.clone(), STORED).unwrap());
        let shown = convert(stored.clone(), OLD).unwrap();
        assert_eq!(convert(shown.clone(), STORED).unwrap(), stored, "{name}");
        assert_eq!(shown["metadata"]["annotations"].get(FORM), None);
        // All that the user wrote is there, but for what the system set in 2018.
        let mut wanted = object;
        wanted["spec"].as_object_mut().unwrap().remove("servingState");
        let mut merged = shown.clone();
        json_patch::merge(&mut merged, &wanted);
        let without_lists = |mut value: Value| {
            for path in ["/spec/release/configuration/revisionTemplate/spec/container/env", "/spec/traffic"] {
                if let Some(list) = value.pointer_mut(path) {
                    list.take();
                }
            }
            value
        };
        assert_eq!(without_lists(merged), without_lists(shown), "{name}");
    }
}

#[test]
fn what_v1_has_changed_is_shown_in_v1_s_words() {
    let mut stored = admitted(convert(named("helloworld-go"), STORED).unwrap());
    stored["spec"]["traffic"] = json!([
        { "latestRevision": true, "percent": 90 }, { "revisionName": "helloworld-go-00001", "percent": 10 },
    ]);
    let shown = convert(stored.clone(), OLD).unwrap();
    assert_eq!(shown["spec"], stored["spec"]);
    assert_eq!(shown["metadata"]["annotations"].get(FORM), None);
    // Two containers have no place in one, whatever the note says.
    let mut stored = admitted(convert(named("revision-by-hand"), STORED).unwrap());
    stored["spec"]["containers"].as_array_mut().unwrap().push(json!({ "name": "b", "image": "b" }));
    assert_eq!(convert(stored.clone(), OLD).unwrap()["spec"], stored["spec"]);
}

#[test]
fn a_status_shows_hosts() {
    let status = json!({
        "url": "http://hello.default.example.com",
        "address": { "url": "http://hello.default.svc.cluster.local" },
        "traffic": [{ "revisionName": "hello-00001", "percent": 100 }, { "revisionName": "hello-00001", "tag": "v1" }],
    });
    let stored =
        json!({ "apiVersion": STORED, "kind": "Route", "metadata": { "name": "hello" }, "spec": {}, "status": status });
    let shown = convert(stored.clone(), OLD).unwrap();
    assert_eq!(shown["status"]["domain"], "hello.default.example.com");
    assert_eq!(shown["status"]["domainInternal"], "hello.default.svc.cluster.local");
    assert_eq!(shown["status"]["address"]["hostname"], "hello.default.svc.cluster.local");
    assert_eq!(shown["status"]["traffic"][1]["name"], "v1");
    assert_eq!(convert(shown, STORED).unwrap(), stored);
}

/// Upstream's cases, and slips of users.
#[test]
fn what_says_nothing_is_refused_where_it_was_written() {
    let image = json!({ "container": { "image": "x" } });
    let plain = json!({ "revisionTemplate": { "spec": image } });
    let within = |field: &str, value: Value| {
        let mut spec = image.clone();
        spec[field] = value;
        json!({ "runLatest": { "configuration": { "revisionTemplate": { "spec": spec } } } })
    };
    let release = |rest: Value| {
        let mut member = json!({ "configuration": plain });
        json_patch::merge(&mut member, &rest);
        json!({ "release": member })
    };
    let cases = [
        (
            "Service",
            json!({}),
            "expected exactly one, got neither: spec.manual, spec.pinned, spec.release, spec.runLatest, spec.template",
        ),
        (
            "Service",
            json!({ "runLatest": { "configuration": plain }, "pinned": { "configuration": plain } }),
            "expected exactly one, got both: spec.pinned, spec.runLatest",
        ),
        (
            "Service",
            json!({ "runLatest": { "configuration": plain }, "template": {}, "traffic": [] }),
            "expected exactly one, got both: spec.runLatest, spec.template, spec.traffic",
        ),
        (
            "Service",
            json!({ "runLatest": {} }),
            "expected exactly one, got neither: spec.runLatest.configuration.revisionTemplate, spec.runLatest.configuration.template",
        ),
        ("Service", json!({ "pinned": { "configuration": plain } }), "missing field(s): spec.pinned.revisionName"),
        (
            "Service",
            json!({ "runlatest": { "configuration": plain } }),
            "expected exactly one, got neither: spec.manual, spec.pinned, spec.release, spec.runLatest, spec.template",
        ),
        (
            "Service",
            json!({ "runLatest": { "configuraton": 1, "configuration": plain } }),
            "unknown field(s): spec.runLatest.configuraton",
        ),
        ("Service", json!({ "manual": { "configuration": plain } }), "unknown field(s): spec.manual.configuration"),
        ("Service", release(json!({})), "missing field(s): spec.release.revisions"),
        ("Service", release(json!({ "revisions": ["a", "b", "c"] })), "expected 1 <= 3 <= 2: spec.release.revisions"),
        (
            "Service",
            release(json!({ "revisions": ["a"], "rolloutPercent": 10 })),
            "may not set rolloutPercent for a single revision: spec.release.rolloutPercent",
        ),
        (
            "Service",
            release(json!({ "revisions": ["a", "b"], "rolloutPercent": 100 })),
            "expected 0 <= 100 <= 99: spec.release.rolloutPercent",
        ),
        (
            "Service",
            within("concurrencyModel", json!("Some")),
            "invalid value: Some: spec.runLatest.configuration.revisionTemplate.spec.concurrencyModel",
        ),
        (
            "Service",
            within("servingState", json!("Asleep")),
            "invalid value: Asleep: spec.runLatest.configuration.revisionTemplate.spec.servingState",
        ),
        (
            "Service",
            within("containers", json!([{ "image": "y" }])),
            "expected exactly one, got both: spec.runLatest.configuration.revisionTemplate.spec.container, \
             spec.runLatest.configuration.revisionTemplate.spec.containers",
        ),
        (
            "Service",
            json!({ "runLatest": { "configuration": { "build": { "steps": [] }, "revisionTemplate": { "spec": image } } } }),
            "build cannot be migrated forward: spec.runLatest.configuration.build\nbuild the image first, and name it in the container",
        ),
        ("Configuration", json!({}), "expected exactly one, got neither: spec.revisionTemplate, spec.template"),
        (
            "Configuration",
            json!({ "revisionTemplate": { "spec": image }, "template": {} }),
            "expected exactly one, got both: spec.revisionTemplate, spec.template",
        ),
        (
            "Configuration",
            json!({ "revisionTemplate": { "spec": {} } }),
            "expected exactly one, got neither: spec.revisionTemplate.spec.container, spec.revisionTemplate.spec.containers",
        ),
        (
            "Revision",
            json!({ "container": { "image": "x" }, "buildName": "b" }),
            "build cannot be migrated forward: spec.buildName",
        ),
        (
            "Revision",
            json!({ "container": { "image": "x" }, "concurrencyModel": "Single", "containerConcurrency": 5 }),
            "expected exactly one, got both: spec.concurrencyModel, spec.containerConcurrency",
        ),
        (
            "Route",
            json!({ "traffic": [{ "name": "a", "tag": "b", "percent": 100 }] }),
            "expected exactly one, got both: spec.traffic[0].name, spec.traffic[0].tag",
        ),
        (
            "Route",
            json!({ "traffic": [{ "revision": "a", "percent": 100 }] }),
            "unknown field(s): spec.traffic[0].revision",
        ),
    ];
    for (kind, spec, want) in cases {
        assert_eq!(spec_of(kind, &spec), Err(want.to_owned()), "{kind} {spec}");
    }
}

#[test]
fn spellings_of_one_thing() {
    let revision = |spec: Value| {
        let mut whole = json!({ "container": { "image": "x" } });
        json_patch::merge(&mut whole, &spec);
        spec_of("Revision", &whole).unwrap()["containerConcurrency"].clone()
    };
    let cases = [
        (json!({ "concurrencyModel": "Single" }), json!(1)),
        (json!({ "concurrencyModel": "Single", "containerConcurrency": 0 }), json!(1)),
        (json!({ "concurrencyModel": "Multi" }), json!(0)),
        (json!({ "concurrencyModel": "Multi", "containerConcurrency": 7 }), json!(7)),
        (json!({ "concurrencyModel": "", "containerConcurrency": 7 }), json!(7)),
        (json!({ "generation": 3, "servingState": "Reserve", "buildName": "" }), Value::Null),
    ];
    for (spec, want) in cases {
        assert_eq!(revision(spec.clone()), want, "{spec}");
    }
    let latest = spec_of(
        "Service",
        &json!({ "release": {
            "revisions": ["@latest"],
            "configuration": { "revisionTemplate": { "spec": { "container": { "image": "x" } } } },
        } }),
    );
    let want = json!([
        { "latestRevision": true, "percent": 100, "tag": "current" },
        { "latestRevision": true, "percent": 0, "tag": "latest" },
    ]);
    assert_eq!(latest.unwrap()["traffic"], want);
}

#[test]
fn other_versions_are_no_pair() {
    let object = json!({ "apiVersion": "serving.knative.dev/v2", "kind": "Service" });
    let error = convert(object.clone(), STORED).unwrap_err().to_string();
    assert!(error.contains("\"serving.knative.dev/v2\"") && error.contains(OLD), "{error}");
    assert!(convert(object, "serving.knative.dev/v2").is_ok(), "as it is");
}

prop_compose! {
    fn target()(
        name in prop::option::of("[a-b]{0,1}"), tag in prop::option::of("current|candidate|latest|t"),
        latest in prop::option::of(any::<bool>()), percent in prop::option::of(0..101_i64),
    ) -> Value {
        let mut target = json!({});
        if let Some(name) = name { target["revisionName"] = name.into(); }
        if let Some(tag) = tag { target["tag"] = tag.into(); }
        if let Some(latest) = latest { target["latestRevision"] = latest.into(); }
        if let Some(percent) = percent { target["percent"] = percent.into(); }
        target
    }
}

proptest! {
    /// Whatever v1 says and however it is noted to have been written: what v1alpha1 shows says the same.
    #[test]
    fn nothing_is_lost_on_the_way_there_and_back(
        words in prop::collection::vec("runLatest|pinned|release|manual|revisionTemplate|container|concurrencyModel|name|what", 0..5),
        kind in "Service|Configuration|Route|Revision",
        containers in 1..3_usize,
        concurrency in prop::option::of(0..3_i64),
        traffic in prop::collection::vec(target(), 0..4),
    ) {
        let mut spec = json!({ "containers": vec![json!({ "image": "x" }); containers] });
        if let Some(concurrency) = concurrency { spec["containerConcurrency"] = concurrency.into(); }
        let spec = match kind.as_str() {
            "Service" => json!({ "template": { "spec": spec }, "traffic": traffic }),
            "Configuration" => json!({ "template": { "spec": spec } }),
            "Route" => json!({ "traffic": traffic }),
            _ => spec,
        };
        let stored = json!({
            "apiVersion": STORED, "kind": kind, "spec": spec,
            "metadata": { "name": "x", "annotations": { FORM: words.join(","), "other": "1" } },
        });
        let shown = convert(stored.clone(), OLD).unwrap();
        prop_assert!(shown["metadata"]["annotations"].get(FORM).is_none());
        let mut back = convert(shown, STORED).unwrap();
        let mut stored = stored;
        for object in [&mut back, &mut stored] {
            object["metadata"]["annotations"].as_object_mut().unwrap().remove(FORM);
        }
        prop_assert!(same(&back, &stored), "{back} {stored}");
    }

    /// No input makes it panic, and what it accepts is v1.
    #[test]
    fn any_object_is_converted_or_refused(kind in "Service|Route", text in "\\PC{0,8}", number in any::<i64>()) {
        for value in [json!(text), json!(number), json!([text]), json!({ text: number }), Value::Null] {
            for field in ["runLatest", "pinned", "release", "manual", "template", "traffic", "revisionTemplate"] {
                let object = json!({ "apiVersion": OLD, "kind": kind, "metadata": {}, "spec": { field: value } });
                if let Ok(object) = convert(object, STORED) {
                    prop_assert_eq!(&object["apiVersion"], STORED);
                    let _ = convert(object, OLD).unwrap();
                }
            }
        }
    }
}
