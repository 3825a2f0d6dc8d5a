//! The same as a user at a terminal sees it: the real `kubectl`.
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::harness::{HELLO, Running, until};

#[tokio::test]
async fn services_are_applied_changed_and_deleted() {
    let running = Running::start().await;
    let apply = ["apply", "-f", "-"];
    assert_eq!(running.kubectl(&apply, HELLO).await, "service.serving.knative.dev/hello created\n");
    let table = running.kubectl(&["get", "ksvc"], "").await;
    assert!(table.starts_with("NAME    URL   LATESTCREATED   LATESTREADY   READY   REASON\nhello"), "{table}");
    let changed = HELLO.replace("world", "dormouse");
    assert_eq!(running.kubectl(&apply, &changed).await, "service.serving.knative.dev/hello configured\n");
    let value = ["get", "ksvc", "hello", "-o", "jsonpath={.spec.template.spec.containers[0].env[0].value}"];
    assert_eq!(running.kubectl(&value, "").await, "dormouse");
    assert_eq!(running.kubectl(&["get", "ksvc", "hello", "-o", "jsonpath={.metadata.generation}"], "").await, "2");

    running
        .kubectl(&["patch", "ksvc", "hello", "--type=merge", "-p", r#"{"metadata":{"labels":{"a":"b"}}}"#], "")
        .await;
    running
        .kubectl(
            &[
                "patch",
                "ksvc",
                "hello",
                "--type=json",
                "-p",
                r#"[{"op":"add","path":"/metadata/labels/c","value":"d"}]"#,
            ],
            "",
        )
        .await;
    let labels = running.kubectl(&["get", "ksvc", "-l", "a in (b),c", "--show-labels"], "").await;
    assert!(labels.contains("a=b,c=d"), "{labels}");
    let strategic = running.kubectl_fails(&["patch", "ksvc", "hello", "-p", "{}"], "").await;
    assert!(strategic.contains("application/strategic-merge-patch+json is not supported"), "{strategic}");
    running.kubectl(&["label", "ksvc", "hello", "e=f"], "").await;
    running.kubectl(&["annotate", "ksvc", "hello", "note=x"], "").await;

    let conflict =
        running.kubectl_fails(&["apply", "--server-side", "-f", "-"], &HELLO.replace("world", "other")).await;
    assert!(conflict.contains("conflict"), "{conflict}");
    let forced = running
        .kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &HELLO.replace("world", "other"))
        .await;
    assert_eq!(forced, "service.serving.knative.dev/hello serverside-applied\n");
    assert_eq!(running.kubectl(&value, "").await, "other");

    let diff = running.kubectl(&["apply", "--dry-run=server", "-f", "-"], HELLO).await;
    assert!(diff.contains("(server dry run)"), "{diff}");
    assert_eq!(running.kubectl(&value, "").await, "other");

    assert_eq!(
        running.kubectl(&["delete", "ksvc", "hello"], "").await,
        "service.serving.knative.dev \"hello\" deleted\n"
    );
    let missing = running.kubectl_fails(&["get", "ksvc", "hello"], "").await;
    assert_eq!(missing, "Error from server (NotFound): services.serving.knative.dev \"hello\" not found\n");
    running.stop().await;
}

#[tokio::test]
async fn wrong_manifests_are_explained() {
    let running = Running::start().await;
    let unknown = running
        .kubectl_fails(&["apply", "-f", "-"], &HELLO.replace("spec:\n  template", "spec:\n  foo: 1\n  template"))
        .await;
    assert!(
        unknown.contains("Service in version \"v1\" cannot be handled as a Service: strict decoding error: unknown field \"spec.foo\""),
        "{unknown}"
    );
    let wrong = HELLO.replace("    spec:\n", "    spec:\n      containerConcurrency: many\n");
    let wrong = running.kubectl_fails(&["apply", "-f", "-"], &wrong).await;
    assert!(
        wrong.contains(
            "The Service \"hello\" is invalid: spec.template.spec.containerConcurrency: Invalid value: \"string\": \
             spec.template.spec.containerConcurrency in body must be of type integer: \"string\""
        ),
        "{wrong}"
    );
    let denied = HELLO.replace("name: hello\n", "name: hello\n  annotations: { deny: \"1\" }\n");
    let denied = running.kubectl_fails(&["apply", "-f", "-"], &denied).await;
    assert!(
        denied.contains(
            "admission webhook \"validation.webhook.serving.knative.dev\" denied the request: validation failed: must not \
             set the field(s): metadata.annotations.deny"
        ),
        "{denied}"
    );
    let pod =
        "apiVersion: v1\nkind: Pod\nmetadata: { name: p }\nspec: { containers: [{ name: a, image: b, imag: c }] }\n";
    let strict = running.kubectl_fails(&["apply", "-f", "-"], pod).await;
    assert!(strict.contains("unknown field \"spec.containers[0].imag\""), "{strict}");
    let warned = running.kubectl(&["apply", "--validate=warn", "-f", "-"], pod).await;
    assert!(warned.contains("Warning: unknown field \"spec.containers[0].imag\""), "{warned}");
    running.stop().await;
}

#[tokio::test]
async fn the_server_describes_itself() {
    let running = Running::start().await;
    let resources = running.kubectl(&["api-resources"], "").await;
    for want in ["ksvc", "deployments", "podautoscalers", "endpointslices", "customresourcedefinitions"] {
        assert!(resources.contains(want), "{want} in {resources}");
    }
    let versions = running.kubectl(&["api-versions"], "").await;
    assert!(versions.contains("serving.knative.dev/v1\n") && versions.contains("apps/v1\n"), "{versions}");
    let version = running.kubectl(&["version"], "").await;
    assert!(version.contains("Server Version: v1.34"), "{version}");
    let explain = running.kubectl(&["explain", "ksvc.spec.template.spec.containerConcurrency"], "").await;
    assert!(explain.contains("FIELD: containerConcurrency <integer>"), "{explain}");
    let explain = running.kubectl(&["explain", "pod.spec.containers.env"], "").await;
    assert!(explain.contains("FIELD: env <[]EnvVar>"), "{explain}");
    assert_eq!(running.kubectl(&["auth", "can-i", "create", "ksvc"], "").await, "yes\n");
    assert_eq!(running.kubectl(&["get", "--raw", "/readyz"], "").await, "ok");
    running.stop().await;
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec: { containers: [{ name: a, image: 'a:1' }, { name: b, image: 'b:1' }] }
";

#[tokio::test]
async fn deployments_scale_and_patch() {
    let running = Running::start().await;
    running.kubectl(&["apply", "-f", "-"], DEPLOYMENT).await;
    assert_eq!(running.kubectl(&["apply", "-f", "-"], DEPLOYMENT).await, "deployment.apps/web unchanged\n");
    assert_eq!(
        running.kubectl(&["scale", "deployment", "web", "--replicas=3"], "").await,
        "deployment.apps/web scaled\n"
    );
    let table = running.kubectl(&["get", "deploy"], "").await;
    assert!(table.contains("web    0/3     0            0           "), "{table}");
    let patch = r#"{"spec":{"template":{"spec":{"containers":[{"name":"b","image":"b:2"}]}}}}"#;
    running.kubectl(&["patch", "deploy", "web", "-p", patch], "").await;
    running.kubectl(&["set", "image", "deploy/web", "a=a:2"], "").await;
    let images = ["get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[*].image}"];
    assert_eq!(running.kubectl(&images, "").await, "a:2 b:2");
    let described = running.kubectl(&["describe", "deploy", "web"], "").await;
    assert!(described.contains("3 desired | 0 updated | 0 total"), "{described}");
    running.kubectl(&["delete", "deploy", "--all"], "").await;
    let left = running.kubectl(&["get", "all"], "").await;
    assert!(left.contains("No resources found"), "{left}");
    running.stop().await;
}

#[tokio::test]
async fn typed_creates_work() {
    let running = Running::start().await;
    running.kubectl(&["create", "namespace", "team"], "").await;
    running.kubectl(&["create", "configmap", "c", "-n", "team", "--from-literal=k=v"], "").await;
    assert_eq!(running.kubectl(&["get", "cm", "c", "-n", "team", "-o", "jsonpath={.data.k}"], "").await, "v");
    running.kubectl(&["create", "secret", "generic", "s", "--from-literal=k=v"], "").await;
    assert_eq!(running.kubectl(&["get", "secret", "s", "-o", "jsonpath={.data.k}{.type}"], "").await, "dg==Opaque");
    running.kubectl(&["create", "serviceaccount", "robot"], "").await;
    running.kubectl(&["create", "deployment", "web", "--image=a:1", "--port=80", "--replicas=2"], "").await;
    let spec = running.kubectl(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}{.spec.template.spec.containers[0].ports[0].containerPort}{.spec.selector.matchLabels.app}"], "").await;
    assert_eq!(spec, "280web");
    running.kubectl(&["create", "service", "clusterip", "web", "--tcp=80:8080"], "").await;
    let ports = running.kubectl(&["get", "svc", "web"], "").await;
    assert!(ports.contains("80/TCP"), "{ports}");
    running.kubectl(&["delete", "namespace", "team"], "").await;
    until("the namespace goes", || async { !running.kubectl(&["get", "ns"], "").await.contains("team") }).await;
    running.stop().await;
}

#[tokio::test]
async fn get_watch_prints_changes() {
    let running = Running::start().await;
    let mut watch = running.command(&["get", "ksvc", "-w"]).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = async || {
        tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await.expect("a line").unwrap().unwrap()
    };
    running.kubectl(&["apply", "-f", "-"], HELLO).await;
    assert!(next().await.starts_with("NAME"));
    assert!(next().await.starts_with("hello"));
    running.kubectl(&["delete", "ksvc", "hello"], "").await;
    assert!(next().await.starts_with("hello"), "the deletion");
    watch.kill().await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn logs_are_shown_and_followed() {
    let running = Running::start().await;
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: { name: p }\nspec: { nodeName: node, containers: [{ name: a, image: x }, { name: b, image: x }] }\n";
    running.kubectl(&["apply", "-f", "-"], pod).await;
    let uid = running.kubectl(&["get", "pod", "p", "-o", "jsonpath={.metadata.uid}"], "").await;
    let file = local::logs::file(&running.dir.path().join("data"), &uid, "a", 0);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let text = "2026-01-01T00:00:00.000000001Z stdout F one\n2026-01-01T00:00:01.000000001Z stderr F two\n";
    std::fs::write(&file, text).unwrap();
    assert_eq!(running.kubectl(&["logs", "p", "-c", "a"], "").await, "one\ntwo\n");
    assert_eq!(running.kubectl(&["logs", "p", "-c", "a", "--tail=1"], "").await, "two\n");
    let stamped = running.kubectl(&["logs", "p", "-c", "a", "--timestamps"], "").await;
    assert!(stamped.starts_with("2026-01-01T00:00:00.000000001Z one\n"), "{stamped}");
    let none = running.kubectl_fails(&["logs", "p", "-c", "zzz"], "").await;
    assert!(none.contains("container zzz is not valid for pod p"), "{none}");
    let waiting = running.kubectl_fails(&["logs", "p", "-c", "b"], "").await;
    assert!(waiting.contains("has not started"), "{waiting}");
    let table = running.kubectl(&["get", "pods"], "").await;
    assert!(table.contains("p      0/2     Pending   0          "), "{table}");
    running.stop().await;
}

const CRD: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: toys.example.com }
spec:
  group: example.com
  scope: Namespaced
  names: { plural: toys, singular: toy, kind: Toy, shortNames: [ty] }
  versions:
  - name: v1
    served: true
    storage: true
    subresources: { status: {}, scale: { specReplicasPath: .spec.count, statusReplicasPath: .status.count } }
    additionalPrinterColumns: [{ name: Colour, type: string, jsonPath: .spec.colour }, { name: Ready, type: string, jsonPath: '.status.conditions[?(@.type==\"Ready\")].status' }]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: { type: object, required: [colour], properties: { colour: { type: string, enum: [red, blue] }, count: { type: integer, minimum: 0, default: 1 } } }
          status: { type: object, x-kubernetes-preserve-unknown-fields: true }
";

#[tokio::test]
async fn a_definition_serves_its_kind_until_it_goes() {
    let running = Running::start().await;
    running.kubectl(&["apply", "-f", "-"], CRD).await;
    running.kubectl(&["wait", "--for=condition=Established", "crd/toys.example.com", "--timeout=10s"], "").await;
    let toy = "apiVersion: example.com/v1\nkind: Toy\nmetadata: { name: car }\nspec: { colour: red }\n";
    running.kubectl(&["apply", "-f", "-"], toy).await;
    let bad = running.kubectl_fails(&["apply", "-f", "-"], &toy.replace("red", "green")).await;
    assert!(bad.contains("spec.colour: Unsupported value: \"green\": supported values: \"red\", \"blue\""), "{bad}");
    running
        .kubectl(
            &[
                "patch",
                "toy",
                "car",
                "--subresource=status",
                "--type=merge",
                "-p",
                r#"{"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#,
            ],
            "",
        )
        .await;
    let table = running.kubectl(&["get", "ty"], "").await;
    assert_eq!(table, "NAME   COLOUR   READY\ncar    red      True\n");
    running.kubectl(&["scale", "toy", "car", "--replicas=4"], "").await;
    assert_eq!(running.kubectl(&["get", "toy", "car", "-o", "jsonpath={.spec.count}"], "").await, "4");
    let dir = running.stop().await;
    let running = Running::on(dir).await;
    assert_eq!(
        running.kubectl(&["get", "toy", "car", "-o", "jsonpath={.spec.count}"], "").await,
        "4",
        "after a restart"
    );
    running.kubectl(&["delete", "crd", "toys.example.com"], "").await;
    let gone = running.kubectl_fails(&["get", "toys"], "").await;
    assert!(
        gone.contains("the server doesn't have a resource type \"toys\"")
            || gone.contains("could not find the requested resource"),
        "{gone}"
    );
    running.stop().await;
}
