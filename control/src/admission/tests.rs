//! Whole objects through admission, as users send them.

use api::settings::Data;
use serde_json::{Value, json};

use super::*;

fn settings() -> Settings {
    Settings::new("cluster.local")
}

#[allow(clippy::needless_pass_by_value)] // reads best with literals
fn service(container: Value) -> Value {
    json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Service",
        "metadata": {"name": "hello", "namespace": "default"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    })
}

fn admit(kind: &str, old: Option<&Value>, new: Value, settings: &Settings) -> Result<Value, String> {
    let operation = if old.is_some() { Operation::Update } else { Operation::Create };
    let request = Request { group: "serving.knative.dev", kind, operation, subresource: "", old, new, user: "me" };
    default_and_validate(request, settings).map_err(|denied| denied.message)
}

fn denied(kind: &str, old: Option<&Value>, new: Value) -> String {
    admit(kind, old, new, &settings()).expect_err("want a refusal").replace("validation failed: ", "")
}

#[test]
fn a_service_gets_every_default() {
    let got = admit("Service", None, service(json!({"image": "hello"})), &settings()).unwrap();
    let want = json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Service",
        "metadata": {
            "name": "hello", "namespace": "default",
            "annotations": {"serving.knative.dev/creator": "me", "serving.knative.dev/lastModifier": "me"},
        },
        "spec": {
            "template": {"spec": {
                "containerConcurrency": 0,
                "timeoutSeconds": 300,
                "enableServiceLinks": false,
                "containers": [{
                    "name": "user-container", "image": "hello", "resources": {},
                    "readinessProbe": {"successThreshold": 1, "tcpSocket": {"port": 0}},
                }],
            }},
            "traffic": [{"latestRevision": true, "percent": 100}],
        },
    });
    assert_eq!(got, want);
    let again = admit("Service", Some(&got), got.clone(), &settings()).unwrap();
    assert_eq!(again, got, "defaults are stable");
}

#[test]
fn the_modifier_follows_the_spec_and_the_creator_stays() {
    let first = admit("Service", None, service(json!({"image": "hello"})), &settings()).unwrap();
    let mut second = first.clone();
    second["spec"]["template"]["spec"]["containers"][0]["image"] = json!("hello:2");
    let request = Request {
        group: "serving.knative.dev",
        kind: "Service",
        operation: Operation::Update,
        subresource: "",
        old: Some(&first),
        new: second,
        user: "you",
    };
    let got = default_and_validate(request, &settings()).unwrap();
    let notes = &got["metadata"]["annotations"];
    assert_eq!(notes["serving.knative.dev/creator"], "me");
    assert_eq!(notes["serving.knative.dev/lastModifier"], "you");
    let mut forged = first.clone();
    forged["metadata"]["annotations"]["serving.knative.dev/creator"] = json!("eve");
    assert_eq!(
        denied("Service", Some(&first), forged),
        "annotation value is immutable: metadata.annotations.serving.knative.dev/creator"
    );
}

#[test]
fn domain_mappings_are_judged_in_upstreams_words() {
    let mapping = |name: &str, target: Value| {
        json!({ "apiVersion": "serving.knative.dev/v1beta1", "kind": "DomainMapping",
            "metadata": { "name": name, "namespace": "ns" }, "spec": { "ref": target } })
    };
    let service = || json!({ "apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "some-name" });
    let but = |field: &str, value: Value| {
        let mut target = service();
        target[field] = value;
        target
    };
    let made = admit("DomainMapping", None, mapping("valid.example.com", service()), &settings()).unwrap();
    assert_eq!(made["spec"]["ref"]["namespace"], "ns");
    assert_eq!(made["metadata"]["annotations"]["serving.knative.dev/creator"], "me");
    let mut generated = mapping("", service());
    generated["metadata"] = json!({ "generateName": "cant-use-this", "namespace": "ns" });
    let mismatched =
        "mismatched namespaces: spec.ref.namespace\nparent namespace: \"ns\" does not match ref: \"other\"";
    for (object, want) in [
        (
            mapping("invalid", service()),
            r#"invalid name "invalid": name: Invalid value: "invalid": should be a domain with at least two segments separated by dots: metadata.name"#,
        ),
        (
            generated,
            "invalid name \"\": name: Required value: metadata.name\nmust not set the field(s): metadata.generateName",
        ),
        (mapping("a.example.com", but("namespace", json!("other"))), mismatched),
        (mapping("a.example.com", but("kind", json!(""))), "missing field(s): spec.ref.kind"),
        (mapping("a.example.com", but("apiVersion", json!(""))), "missing field(s): spec.ref.apiVersion"),
        (mapping("a.example.com", but("group", json!("x"))), "must not set the field(s): spec.ref.group"),
        (
            mapping("notallowed.svc.cluster.local", service()),
            r#"invalid name "notallowed.svc.cluster.local": must not be a subdomain of cluster local domain "cluster.local": metadata.name"#,
        ),
    ] {
        assert_eq!(denied("DomainMapping", None, object), want);
    }
    let mut forged = made.clone();
    forged["metadata"]["annotations"]["serving.knative.dev/creator"] = json!("eve");
    assert_eq!(
        denied("DomainMapping", Some(&made), forged),
        "annotation value is immutable: metadata.annotations.serving.knative.dev/creator"
    );
}

#[test]
fn bad_services_are_refused_in_upstreams_words() {
    let at = "spec.template.spec";
    let with = |spec: Value| {
        let mut s = service(json!({"image": "hello"}));
        for (key, value) in spec.as_object().unwrap() {
            s["spec"]["template"]["spec"][key] = value.clone();
        }
        s
    };
    let mut no_containers = service(json!({}));
    no_containers["spec"]["template"]["spec"]["containers"] = json!([]);
    let mut bad_name = service(json!({"image": "hello"}));
    bad_name["spec"]["template"]["metadata"] = json!({"name": "other-v1"});
    let mut misplaced = service(json!({"image": "hello"}));
    misplaced["metadata"]["annotations"] = json!({"autoscaling.knative.dev/min-scale": "1"});
    let mut held = service(json!({"image": "hello"}));
    held["spec"]["template"]["metadata"] = json!({"annotations": {"activator.dormouse.dev/queue-length": "0"}});
    let mut held_misplaced = service(json!({"image": "hello"}));
    held_misplaced["metadata"]["annotations"] = json!({"activator.dormouse.dev/fair-share": "ip"});
    let mut sum = service(json!({"image": "hello"}));
    sum["spec"]["traffic"] = json!([{"latestRevision": true, "percent": 90}]);
    let mut scale = service(json!({"image": "hello"}));
    scale["spec"]["template"]["metadata"] = json!({"annotations": {"autoscaling.knative.dev/min-scale": "-1"}});
    let cases = [
        (no_containers, format!("missing field(s): {at}.containers")),
        (service(json!({"name": "x"})), format!("missing field(s): {at}.containers[0].image")),
        (with(json!({"containerConcurrency": 1001})), format!("expected 0 <= 1001 <= 1000: {at}.containerConcurrency")),
        (with(json!({"containerConcurrency": -1})), format!("expected 0 <= -1 <= 1000: {at}.containerConcurrency")),
        (with(json!({"timeoutSeconds": 601})), format!("expected 0 <= 601 <= 600: {at}.timeoutSeconds")),
        (with(json!({"hostNetwork": true})), format!("must not set the field(s): {at}.hostNetwork")),
        (with(json!({"nodeSelector": {"a": "b"}, "dnsPolicy": "None"})), format!("must not set the field(s): {at}.dnsPolicy, {at}.nodeSelector")),
        (sum, "Traffic targets sum to 90, want 100: spec.traffic".into()),
        (bad_name, "invalid value: \"other-v1\" must have prefix \"hello-\": spec.template.metadata.name".into()),
        (misplaced, "invalid key name \"autoscaling.knative.dev/min-scale\": metadata.annotations\nautoscaling annotations must be put under \"spec.template.metadata.annotations\" to work".into()),
        (scale, format!("expected 0 <= -1 <= {}: spec.template.metadata.annotations.autoscaling.knative.dev/min-scale", i32::MAX)),
        (held, "expected 1 <= 0 <= 1000000: spec.template.metadata.annotations.activator.dormouse.dev/queue-length".into()),
        (held_misplaced, "invalid key name \"activator.dormouse.dev/fair-share\": metadata.annotations\nactivator annotations must be put under \"spec.template.metadata.annotations\" to work".into()),
        (service(json!({"image": "hello", "ports": [{"containerPort": 8012}]})), format!("invalid value: 8012 is a reserved port: {at}.containers[0].ports.containerPort\n8012 is a reserved port, please use a different value")),
        (service(json!({"image": "hello", "ports": [{"containerPort": 65536}]})), format!("expected 0 <= 65536 <= 65535: {at}.containers[0].ports.containerPort")),
        (service(json!({"image": "hello", "ports": [{"containerPort": 80, "name": "grpc"}]})), format!("Port name grpc is not allowed: {at}.containers[0].ports\nName must be empty, or one of: 'h2c', 'http1'")),
        (service(json!({"image": "hello", "ports": [{"containerPort": 1}, {"containerPort": 2}]})), format!("more than one container port is set: {at}.containers[*].ports\nOnly a single port is allowed across all containers")),
        (service(json!({"image": "hello", "env": [{"name": "PORT", "value": "1"}]})), format!("\"PORT\" is a reserved environment variable: {at}.containers[0].env[0].name")),
        (service(json!({"image": "hello", "name": "queue-proxy"})), format!("\"queue-proxy\" is a reserved container name: {at}.containers[0].name")),
        (service(json!({"image": "hello", "lifecycle": {}})), format!("must not set the field(s): {at}.containers[0].lifecycle")),
        (service(json!({"image": "Hello World"})), format!("Failed to parse image reference: {at}.containers[0].image\nimage: \"Hello World\", error: could not parse reference: Hello World")),
        (service(json!({"image": "hello", "readinessProbe": {"tcpSocket": {}, "timeoutSeconds": 3}})), format!("timeoutSeconds is disallowed when periodSeconds is zero: {at}.containers[0].readinessProbe.timeoutSeconds")),
    ];
    for (object, want) in cases {
        assert_eq!(denied("Service", None, object.clone()), want, "{object}");
    }
    let mut named = service(json!({"image": "hello"}));
    named["metadata"]["name"] = json!("Hello_World");
    assert!(denied("Service", None, named).starts_with("not a DNS 1035 label: [a DNS-1035 label must consist of"));
}

#[test]
fn a_name_of_the_users_own_changes_with_the_template() {
    let mut first = service(json!({"image": "hello"}));
    first["spec"]["template"]["metadata"] = json!({"name": "hello-v1"});
    let first = admit("Service", None, first, &settings()).unwrap();
    let mut second = first.clone();
    second["spec"]["template"]["spec"]["containers"][0]["image"] = json!("hello:2");
    let message = denied("Service", Some(&first), second.clone());
    assert!(
        message
            .starts_with("Saw the following changes without a name change (-old +new): spec.template.metadata.name\n"),
        "{message}"
    );
    second["spec"]["template"]["metadata"]["name"] = json!("hello-v2");
    assert!(admit("Service", Some(&first), second, &settings()).is_ok());
    let mut generated = service(json!({"image": "hello"}));
    generated["metadata"] = json!({"generateName": "hello-", "namespace": "default"});
    generated["spec"]["template"]["metadata"] = json!({"name": "hello-v1"});
    assert_eq!(denied("Service", None, generated), "must not set the field(s): spec.template.metadata.name");
}

#[test]
fn a_revision_never_changes() {
    let revision = json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
        "metadata": {"name": "hello-00001", "namespace": "default"},
        "spec": {"containers": [{"image": "hello"}]},
    });
    let old = admit("Revision", None, revision, &settings()).unwrap();
    let mut changed = old.clone();
    changed["metadata"]["labels"] = json!({"a": "b"});
    assert!(admit("Revision", Some(&old), changed.clone(), &settings()).is_ok(), "labels may");
    changed["spec"]["containers"][0]["image"] = json!("other");
    assert_eq!(
        denied("Revision", Some(&old), changed),
        "Immutable fields changed (-old +new): spec\ncontainers[0].image: -\"hello\" +\"other\""
    );
    let mut held = old.clone();
    held["metadata"]["annotations"] = json!({"activator.dormouse.dev/session-affinity": "cookie:sid"});
    assert!(admit("Revision", Some(&old), held.clone(), &settings()).is_ok(), "annotations may");
    held["metadata"]["annotations"] = json!({"activator.dormouse.dev/session-affinity": "sid"});
    assert_eq!(
        denied("Revision", Some(&old), held),
        "invalid value: sid: metadata.annotations.activator.dormouse.dev/session-affinity\nwant header:NAME, or cookie:NAME"
    );
    let mut orphan = old.clone();
    orphan["metadata"]["labels"] = json!({"serving.knative.dev/configuration": "hello"});
    assert_eq!(denied("Revision", None, orphan), "missing field(s): metadata.labels.serving.knative.dev/configuration");
}

#[test]
fn several_containers_get_names_and_one_port() {
    let mut two = service(json!({"image": "a", "ports": [{"containerPort": 80}]}));
    two["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap().push(json!({"image": "b"}));
    let got = admit("Service", None, two.clone(), &settings()).unwrap();
    let containers = &got["spec"]["template"]["spec"]["containers"];
    assert_eq!(
        (&containers[0]["name"], &containers[1]["name"]),
        (&json!("user-container-0"), &json!("user-container-1"))
    );
    assert_eq!(containers[1].get("readinessProbe"), None, "only the one that serves is probed");
    two["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([]);
    assert_eq!(denied("Service", None, two), "missing field(s): spec.template.spec.containers[*].ports");
}

#[test]
fn the_clusters_defaults_are_filled_in() {
    let mut settings = settings();
    let data = |pairs: &[(&str, &str)]| -> Data { pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect() };
    settings
        .apply(
            "config-defaults",
            &data(&[
                ("revision-cpu-request", "400m"),
                ("revision-memory-limit", "200M"),
                ("container-concurrency", "7"),
                ("container-name-template", "{{.Name}}-app"),
                ("revision-idle-timeout-seconds", "30"),
            ]),
        )
        .unwrap();
    let got =
        admit("Service", None, service(json!({"image": "x", "resources": {"requests": {"cpu": "1"}}})), &settings)
            .unwrap();
    let spec = &got["spec"]["template"]["spec"];
    assert_eq!(spec["containers"][0]["resources"], json!({"requests": {"cpu": "1"}, "limits": {"memory": "200M"}}));
    assert_eq!((&spec["containerConcurrency"], &spec["idleTimeoutSeconds"]), (&json!(7), &json!(30)));
    assert_eq!(spec["containers"][0]["name"], "hello-app");
}

#[test]
fn routes_and_configurations_stand_alone_too() {
    let route = json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Route", "metadata": {"name": "r", "namespace": "default"},
        "spec": {"traffic": [{"configurationName": "c", "percent": 100}]},
    });
    let got = admit("Route", None, route, &settings()).unwrap();
    assert_eq!(got["spec"]["traffic"][0]["latestRevision"], true);
    assert_eq!(got["metadata"]["annotations"]["serving.knative.dev/creator"], "me");
    let mut configuration = service(json!({"image": "hello"}));
    configuration["kind"] = json!("Configuration");
    let got = admit("Configuration", None, configuration.clone(), &settings()).unwrap();
    assert_eq!(got["spec"].get("traffic"), None);
    configuration["metadata"]["labels"] = json!({"serving.knative.dev/service": "hello"});
    assert_eq!(
        denied("Configuration", None, configuration),
        "missing field(s): metadata.labels.serving.knative.dev/service"
    );
}

#[test]
fn status_updates_and_deletions_pass_whatever_the_settings() {
    let bad = service(json!({}));
    for (operation, subresource) in [(Operation::Update, "status"), (Operation::Delete, "")] {
        let request = Request {
            group: "serving.knative.dev",
            kind: "Service",
            operation,
            subresource,
            old: Some(&bad),
            new: bad.clone(),
            user: "me",
        };
        assert_eq!(default_and_validate(request, &settings()).unwrap(), bad);
    }
}

#[test]
fn a_config_map_must_parse() {
    let map = |value: &str| {
        json!({
            "metadata": {"name": "config-autoscaler", "namespace": "knative-serving"}, "data": {"stable-window": value}
        })
    };
    let request = |new: Value| Request {
        group: "",
        kind: "ConfigMap",
        operation: Operation::Update,
        subresource: "",
        old: None,
        new,
        user: "me",
    };
    assert!(default_and_validate(request(map("6s")), &settings()).is_ok());
    let denied = default_and_validate(request(map("1s")), &settings()).unwrap_err();
    assert_eq!(denied.webhook, "config.webhook.serving.knative.dev");
    assert!(denied.message.contains("stable-window"), "{}", denied.message);
}
