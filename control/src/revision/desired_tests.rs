//! Whole Deployments and PodAutoscalers of Revisions.

use api::settings::Data;
use serde_json::{Value, json};

use super::{desired::*, *};

fn revision(spec: &Value, annotations: &Value, state: &str) -> Revision {
    serde_json::from_value(json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
        "metadata": {
            "name": "hello-00001", "namespace": "ns", "uid": "u1", "generation": 1,
            "labels": {
                "serving.knative.dev/configuration": "hello", "serving.knative.dev/service": "hello",
                "serving.knative.dev/routingState": state,
            },
            "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": "serving.knative.dev/v1", "kind": "Configuration", "name": "hello", "uid": "c1",
                "controller": true
            }],
        },
        "spec": spec,
    }))
    .unwrap()
}

fn simple() -> Revision {
    revision(
        &json!({
            "containerConcurrency": 10, "timeoutSeconds": 300, "enableServiceLinks": false,
            "containers": [{
                "name": "user-container", "image": "hello", "env": [{"name": "TARGET", "value": "x"}],
                "readinessProbe": {"successThreshold": 1, "tcpSocket": {"port": 0}},
            }],
        }),
        &json!({
            "autoscaling.knative.dev/min-scale": "1", "serving.knative.dev/creator": "me",
            "serving.knative.dev/routes": "hello", "serving.knative.dev/routingStateModified": "x",
        }),
        "active",
    )
}

fn made(revision: &Revision, settings: &Settings) -> Value {
    let around = Surroundings { settings, queue_sidecar_image: "queue:1", system_namespace: "knative-serving" };
    serde_json::to_value(deployment(revision, &around)).unwrap()
}

fn variable(container: &Value, name: &str) -> String {
    let found = container["env"].as_array().unwrap().iter().find(|e| e["name"] == name);
    found.unwrap_or_else(|| panic!("{name}"))["value"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn deployment_is_whole() {
    let mut got = made(&simple(), &Settings::new("cluster.local"));
    let labels = json!({
        "serving.knative.dev/configuration": "hello", "serving.knative.dev/service": "hello",
        "serving.knative.dev/revision": "hello-00001", "serving.knative.dev/revisionUID": "u1", "app": "hello-00001",
    });
    got["metadata"]["labels"].as_object_mut().unwrap().remove(DEPLOYMENT_HASH).expect("a hash");
    assert_eq!(got["metadata"]["name"], "hello-00001-deployment");
    assert_eq!(got["metadata"]["labels"], labels);
    assert_eq!(got["metadata"]["annotations"], json!({"serving.knative.dev/creator": "me"}));
    let spec = &got["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(spec["selector"], json!({"matchLabels": {"serving.knative.dev/revisionUID": "u1"}}));
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    assert_eq!(spec["revisionHistoryLimit"], 0);
    assert_eq!(spec["strategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}}));
    assert_eq!(
        spec["template"]["metadata"],
        json!({
            "labels": labels,
            "annotations": {"serving.knative.dev/creator": "me", "kubectl.kubernetes.io/default-container": "user-container"},
        })
    );
    let pod = &spec["template"]["spec"];
    assert_eq!((&pod["terminationGracePeriodSeconds"], &pod["enableServiceLinks"]), (&json!(300), &json!(false)));
    assert_eq!(
        pod["containers"][0],
        json!({
            "name": "user-container", "image": "hello",
            "env": [
                {"name": "TARGET", "value": "x"}, {"name": "PORT", "value": "8080"},
                {"name": "K_REVISION", "value": "hello-00001"}, {"name": "K_CONFIGURATION", "value": "hello"},
                {"name": "K_SERVICE", "value": "hello"},
            ],
            "ports": [{"name": "user-port", "containerPort": 8080}],
            "lifecycle": {"preStop": {"httpGet": {"path": "/wait-for-drain", "port": 8022}}},
            "terminationMessagePolicy": "FallbackToLogsOnError",
        })
    );
}

#[test]
fn queue_proxy_gets_every_variable_of_its_contract() {
    let got = made(&simple(), &Settings::new("cluster.local"));
    let queue = &got["spec"]["template"]["spec"]["containers"][1];
    assert_eq!((queue["name"].as_str(), queue["image"].as_str()), (Some("queue-proxy"), Some("queue:1")));
    let want = [
        ("SERVING_NAMESPACE", "ns"),
        ("SERVING_SERVICE", "hello"),
        ("SERVING_CONFIGURATION", "hello"),
        ("SERVING_REVISION", "hello-00001"),
        ("QUEUE_SERVING_PORT", "8012"),
        ("QUEUE_SERVING_TLS_PORT", "8112"),
        ("CONTAINER_CONCURRENCY", "10"),
        ("REVISION_TIMEOUT_SECONDS", "300"),
        ("REVISION_RESPONSE_START_TIMEOUT_SECONDS", "0"),
        ("REVISION_IDLE_TIMEOUT_SECONDS", "0"),
        ("SERVING_POD", ""),
        ("SERVING_POD_IP", ""),
        ("SERVING_LOGGING_CONFIG", ""),
        ("SERVING_LOGGING_LEVEL", ""),
        ("USER_PORT", "8080"),
        ("SYSTEM_NAMESPACE", "knative-serving"),
        ("SERVING_READINESS_PROBE", r#"{"successThreshold":1,"tcpSocket":{"host":"127.0.0.1","port":8080}}"#),
        ("HOST_IP", ""),
        ("ENABLE_HTTP2_AUTO_DETECTION", "false"),
        ("ENABLE_HTTP_FULL_DUPLEX", "false"),
        ("ROOT_CA", ""),
        ("QUEUE_PROXY_TLS_MIN_VERSION", ""),
        ("QUEUE_PROXY_TLS_MAX_VERSION", ""),
        ("QUEUE_PROXY_TLS_CIPHER_SUITES", ""),
        ("QUEUE_PROXY_TLS_CURVE_PREFERENCES", ""),
        ("ENABLE_MULTI_CONTAINER_PROBES", "false"),
    ];
    for (name, value) in want {
        assert_eq!(variable(queue, name), value, "{name}");
    }
    assert!(variable(queue, "OBSERVABILITY_CONFIG").starts_with('{'));
    assert_eq!(queue["env"].as_array().unwrap().len(), want.len() + 1, "and nothing else");
    assert_eq!(
        queue["readinessProbe"],
        json!({
            "successThreshold": 1,
            "httpGet": {"port": 8012, "httpHeaders": [{"name": "K-Network-Probe", "value": "queue"}]},
        })
    );
    let ports: Vec<(&str, i64)> = queue["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["name"].as_str().unwrap(), p["containerPort"].as_i64().unwrap()))
        .collect();
    assert_eq!(
        ports,
        [("http-autometric", 9090), ("http-usermetric", 9091), ("queue-port", 8012), ("https-port", 8112)]
    );
    assert_eq!(queue["resources"], json!({"requests": {"cpu": "25m"}}));
    assert_eq!(
        queue["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
        })
    );
}

#[test]
fn probes_become_what_queue_proxy_can_ask() {
    let cases = [
        (
            json!({"httpGet": {"path": "/up"}}),
            json!({"httpGet": {"host": "127.0.0.1", "path": "/up", "port": 8080, "scheme": "HTTP"}}),
        ),
        (
            json!({"httpGet": {"port": 9999, "scheme": "HTTPS"}}),
            json!({"httpGet": {"host": "127.0.0.1", "port": 9999, "scheme": "HTTPS"}}),
        ),
        (json!({"exec": {"command": ["true"]}}), json!({"tcpSocket": {"host": "127.0.0.1", "port": 8080}})),
        (json!({"grpc": {"port": 0, "service": ""}}), json!({"grpc": {"port": 8080, "service": ""}})),
        (
            json!({"tcpSocket": {"port": 0}, "periodSeconds": 5}),
            json!({"tcpSocket": {"host": "127.0.0.1", "port": 8080}, "periodSeconds": 5, "timeoutSeconds": 1}),
        ),
    ];
    for (probe, want) in cases {
        let r = revision(&json!({"containers": [{"image": "x", "readinessProbe": probe}]}), &json!({}), "active");
        let got = made(&r, &Settings::new("cluster.local"));
        let containers = &got["spec"]["template"]["spec"]["containers"];
        let sent: Value = serde_json::from_str(&variable(&containers[1], "SERVING_READINESS_PROBE")).unwrap();
        assert_eq!(sent, want, "{probe}");
        let kept = containers[0].get("readinessProbe").is_some();
        assert_eq!(kept, probe.get("exec").is_some(), "only exec is left to the kubelet");
    }
}

#[test]
fn h2c_own_ports_and_liveness_follow_the_user() {
    let r = revision(
        &json!({"containers": [{
            "name": "app", "image": "x", "ports": [{"name": "h2c", "containerPort": 7000}],
            "livenessProbe": {"httpGet": {"port": 0}},
        }, {"name": "side", "image": "y"}]}),
        &json!({"features.knative.dev/http-full-duplex": "Enabled", "serving.knative.dev/progress-deadline": "90s",
            "autoscaling.knative.dev/initial-scale": "3",
            "queue.sidecar.serving.knative.dev/memory-resource-limit": "64Mi",
            "queue.sidecar.serving.knative.dev/cpu-resource-request": "junk"}),
        "active",
    );
    let got = made(&r, &Settings::new("cluster.local"));
    assert_eq!((&got["spec"]["replicas"], &got["spec"]["progressDeadlineSeconds"]), (&json!(3), &json!(90)));
    let containers = &got["spec"]["template"]["spec"]["containers"];
    assert_eq!(variable(&containers[0], "PORT"), "7000");
    assert_eq!(containers[0]["livenessProbe"]["httpGet"]["port"], 7000);
    assert!(containers[1].get("ports").is_none() && containers[1]["env"].as_array().unwrap().len() == 3);
    let queue = &containers[2];
    assert_eq!((variable(queue, "QUEUE_SERVING_PORT"), variable(queue, "USER_PORT")), ("8013".into(), "7000".into()));
    assert_eq!(variable(queue, "ENABLE_HTTP_FULL_DUPLEX"), "true");
    assert_eq!(variable(queue, "SERVING_READINESS_PROBE"), "");
    assert_eq!(queue["resources"], json!({"requests": {"cpu": "25m"}, "limits": {"memory": "64Mi"}}));
    assert_eq!(serde_json::to_value(pod_autoscaler(&r, None)).unwrap()["spec"]["protocolType"], "h2c");
}

#[test]
fn the_hash_follows_settings_but_not_replicas() {
    let plain = Settings::new("cluster.local");
    let mut other = plain.clone();
    other.apply("config-deployment", &Data::from([("queue-sidecar-image".into(), "queue:2".into())])).unwrap();
    let mut scaled = plain.clone();
    scaled.apply("config-autoscaler", &Data::from([("initial-scale".into(), "5".into())])).unwrap();
    let hash = |settings: &Settings| made(&simple(), settings)["metadata"]["labels"][DEPLOYMENT_HASH].clone();
    assert_eq!(hash(&plain), hash(&plain));
    assert_eq!(hash(&plain), hash(&scaled));
    assert_ne!(hash(&plain), hash(&other));
}

#[test]
fn pod_autoscaler_is_whole() {
    let got = serde_json::to_value(pod_autoscaler(&simple(), None)).unwrap();
    assert_eq!(
        got["metadata"]["annotations"],
        json!({
            "autoscaling.knative.dev/min-scale": "1", "serving.knative.dev/creator": "me"
        })
    );
    assert_eq!(
        got["spec"],
        json!({
            "containerConcurrency": 10, "protocolType": "http1", "reachability": "Reachable",
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "hello-00001-deployment"},
        })
    );
}

#[test]
fn reachability_follows_routing_and_failure() {
    let deployment = |replicas: i32, ready: i32| -> Deployment {
        serde_json::from_value(json!({
            "metadata": {}, "spec": {"replicas": replicas, "selector": {}, "template": {}},
            "status": {"readyReplicas": ready},
        }))
        .unwrap()
    };
    let cases = [
        ("active", "True", 1, 0, Some("Reachable")),
        ("reserve", "True", 1, 1, Some("Unreachable")),
        ("pending", "True", 1, 1, None),
        ("active", "False", 1, 0, Some("Unreachable")),
        ("active", "False", 1, 1, Some("Reachable")),
        ("active", "False", 0, 0, Some("Reachable")),
    ];
    for (state, healthy, replicas, ready, want) in cases {
        let mut r = revision(&json!({"containers": []}), &json!({}), state);
        r.status =
            serde_json::from_value(json!({"conditions": [{"type": "ContainerHealthy", "status": healthy}]})).unwrap();
        let got = pod_autoscaler(&r, Some(&deployment(replicas, ready))).spec.reachability;
        assert_eq!(got.as_deref(), want, "{state} {healthy} {replicas}/{ready}");
    }
}
