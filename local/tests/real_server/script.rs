//! The calls, in order. One function, run against each server; what it learns on the way (versions, uids) is the server's.
use http::{Method, Request};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::StreamReader;

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) call: String,
    pub(crate) status: u16,
    /// Null if it was no JSON, or empty.
    pub(crate) body: Value,
}

/// A client that writes down what it is answered.
pub(crate) struct Caller {
    client: Client,
    record: Vec<Answer>,
}

const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";

const MAPS: &str = "/api/v1/namespaces/comparison/configmaps";
const PODS: &str = "/api/v1/namespaces/comparison/pods";
const SERVICES: &str = "/api/v1/namespaces/comparison/services";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/comparison/deployments";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/comparison/leases";
const KSVC: &str = "/apis/serving.knative.dev/v1/namespaces/comparison/services";

impl Caller {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, record: Vec::new() }
    }

    fn request(method: &Method, path: &str, headers: [(&str, &str); 2], body: &Value) -> Request<Body> {
        let bytes = match body {
            Value::Null => Vec::new(),
            Value::String(raw) => raw.clone().into_bytes(),
            body => serde_json::to_vec(body).unwrap(),
        };
        let [content, accept] = headers;
        let request =
            Request::builder().method(method).uri(path).header(content.0, content.1).header(accept.0, accept.1);
        request.body(bytes.into()).unwrap()
    }

    async fn full(&mut self, call: &str, method: Method, path: &str, headers: [&str; 2], body: Value) -> Value {
        let request = Self::request(&method, path, [("content-type", headers[0]), ("accept", headers[1])], &body);
        let response = self.client.send(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect_bytes().await.unwrap();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        self.record.push(Answer { call: call.to_owned(), status, body: body.clone() });
        body
    }

    async fn get(&mut self, call: &str, path: &str) -> Value {
        self.full(call, Method::GET, path, [JSON, JSON], Value::Null).await
    }

    async fn get_as(&mut self, call: &str, accept: &str, path: &str) -> Value {
        self.full(call, Method::GET, path, [JSON, accept], Value::Null).await
    }

    async fn post(&mut self, call: &str, path: &str, body: Value) -> Value {
        self.full(call, Method::POST, path, [JSON, JSON], body).await
    }

    async fn put(&mut self, call: &str, path: &str, body: Value) -> Value {
        self.full(call, Method::PUT, path, [JSON, JSON], body).await
    }

    async fn patch(&mut self, call: &str, path: &str, content: &str, body: Value) -> Value {
        self.full(call, Method::PATCH, path, [content, JSON], body).await
    }

    async fn delete(&mut self, call: &str, path: &str, body: Value) -> Value {
        self.full(call, Method::DELETE, path, [JSON, JSON], body).await
    }

    /// The first events of a watch.
    async fn watch(&mut self, call: &str, path: &str, events: usize) -> Value {
        let request = Self::request(&Method::GET, path, [("content-type", JSON), ("accept", JSON)], &Value::Null);
        let response = self.client.send(request).await.unwrap();
        let status = response.status().as_u16();
        let stream = http_body_util::BodyDataStream::new(response.into_body());
        let stream = futures::TryStreamExt::map_err(stream, std::io::Error::other);
        let mut reader = std::pin::pin!(StreamReader::new(stream));
        let mut text = Vec::new();
        let read = async {
            while text.split(|byte| *byte == b'\n').count() <= events {
                if reader.read_buf(&mut text).await.unwrap() == 0 {
                    break;
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), read).await.expect("events come");
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let body: Value = lines.take(events).map(|line| serde_json::from_slice::<Value>(line).unwrap()).collect();
        self.record.push(Answer { call: call.to_owned(), status, body: body.clone() });
        body
    }
}

fn map(name: &str, data: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data })
}

fn labelled(name: &str, labels: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "labels": labels } })
}

fn ksvc(name: &str) -> Value {
    json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "template": { "spec": { "containers": [{ "image": "ko.local/hello", "env": [{ "name": "A", "value": "1" }] }] } } },
    })
}

fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": {
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "a", "image": "a:1", "ports": [{ "containerPort": 80 }],
                    "readinessProbe": { "httpGet": { "port": 80 } } }] },
            },
        },
    })
}

/// All of it.
pub(crate) async fn run(mut on: Caller) -> Vec<Answer> {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "comparison" } });
    on.post("namespace: create", "/api/v1/namespaces", namespace).await;
    writes(&mut on).await;
    patches(&mut on).await;
    server_side_apply(&mut on).await;
    custom(&mut on).await;
    deletion(&mut on).await;
    lists(&mut on).await;
    tables(&mut on).await;
    watches(&mut on).await;
    built_in(&mut on).await;
    errors(&mut on).await;
    on.record
}

async fn writes(on: &mut Caller) {
    let made = on.post("create", MAPS, map("a", &json!({ "k": "1" }))).await;
    on.post("create again", MAPS, map("a", &json!({ "k": "1" }))).await;
    on.post("create, dry run", &format!("{MAPS}?dryRun=All"), map("dry", &json!({}))).await;
    on.get("get what was dry", &format!("{MAPS}/dry")).await;
    on.get("get", &format!("{MAPS}/a")).await;
    let mut next = made.clone();
    next["data"]["k"] = "2".into();
    on.put("update", &format!("{MAPS}/a"), next.clone()).await;
    on.put("update with an old version", &format!("{MAPS}/a"), next.clone()).await;
    next["metadata"]["resourceVersion"] = Value::Null;
    next["data"]["k"] = "3".into();
    let updated = on.put("update without a version", &format!("{MAPS}/a"), next.clone()).await;
    let same = on.put("update without a change", &format!("{MAPS}/a"), updated.clone()).await;
    assert_eq!(same["metadata"]["resourceVersion"], updated["metadata"]["resourceVersion"]);
    on.put("update under another name", &format!("{MAPS}/b"), next.clone()).await;
    on.put("update of what is not there", &format!("{MAPS}/none"), map("none", &json!({}))).await;
    next["metadata"]["uid"] = "11111111-1111-4111-8111-111111111111".into();
    on.put("update with another uid", &format!("{MAPS}/a"), next).await;
    let generated = on
        .post(
            "create with a generated name",
            MAPS,
            json!({ "metadata": { "generateName": "g-" }, "data": { "g": "1" } }),
        )
        .await;
    let name = generated["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("g-") && name.len() == 7);
    if let Some(last) = on.record.last_mut() {
        last.body["metadata"]["name"] = "g-<random>".into();
    }
    on.client
        .send(Caller::request(
            &Method::DELETE,
            &format!("{MAPS}/{name}"),
            [("content-type", JSON), ("accept", JSON)],
            &Value::Null,
        ))
        .await
        .unwrap();
}

async fn patches(on: &mut Caller) {
    let at = format!("{MAPS}/a");
    on.patch("patch: JSON", &at, JSON_PATCH, json!([{ "op": "add", "path": "/data/j", "value": "1" }])).await;
    on.patch(
        "patch: JSON, a test that fails",
        &at,
        JSON_PATCH,
        json!([{ "op": "test", "path": "/data/j", "value": "2" }]),
    )
    .await;
    on.patch(
        "patch: JSON, a path that is not there",
        &at,
        JSON_PATCH,
        json!([{ "op": "remove", "path": "/data/none" }]),
    )
    .await;
    on.patch("patch: JSON, no list", &at, JSON_PATCH, json!({ "op": "remove" })).await;
    on.patch(
        "patch: merge",
        &at,
        MERGE,
        json!({ "data": { "j": null, "m": "1" }, "metadata": { "labels": { "l": "1" } } }),
    )
    .await;
    on.patch("patch: merge, no object", &at, MERGE, json!([1])).await;
    on.patch(
        "patch: merge with an old version",
        &at,
        MERGE,
        json!({ "metadata": { "resourceVersion": "1" }, "data": { "m": "2" } }),
    )
    .await;
    on.patch("patch: strategic", &at, STRATEGIC, json!({ "data": { "s": "1", "m": null } })).await;
    on.patch("patch: strategic, replace", &at, STRATEGIC, json!({ "data": { "$patch": "replace", "r": "1" } })).await;
    on.patch("patch: without a change", &at, MERGE, json!({ "data": { "r": "1" } })).await;
    on.patch("patch: of what is not there", &format!("{MAPS}/none"), MERGE, json!({})).await;
    on.patch("patch: of another kind", &at, "application/x-patch", json!({})).await;
    on.patch("patch: a wrong type", &at, MERGE, json!({ "data": { "r": 1 } })).await;
    on.patch("patch: dry run", &format!("{at}?dryRun=All"), MERGE, json!({ "data": { "r": "2" } })).await;
}

async fn server_side_apply(on: &mut Caller) {
    let at = |manager: &str, more: &str| format!("{MAPS}/applied?fieldManager={manager}{more}");
    let of = |data: Value| map("applied", &data);
    on.patch("apply: creates", &at("one", ""), APPLY, of(json!({ "a": "1", "b": "1" }))).await;
    on.patch("apply: adds", &at("two", ""), APPLY, of(json!({ "c": "1" }))).await;
    on.patch("apply: shares", &at("two", ""), APPLY, of(json!({ "a": "1", "c": "1" }))).await;
    on.patch("apply: conflicts", &at("two", ""), APPLY, of(json!({ "a": "2", "b": "2" }))).await;
    on.patch("apply: forced", &at("two", "&force=true"), APPLY, of(json!({ "a": "2", "c": "1" }))).await;
    on.patch("apply: gives up", &at("one", ""), APPLY, of(json!({ "b": "1" }))).await;
    on.patch("apply: removes", &at("one", ""), APPLY, of(json!({}))).await;
    on.patch("apply: without a manager", &format!("{MAPS}/applied"), APPLY, of(json!({}))).await;
    on.patch("apply: another name", &at("one", ""), APPLY, map("other", &json!({}))).await;
    on.patch("apply: without a kind", &at("one", ""), APPLY, json!({ "data": { "x": "1" } })).await;
    on.patch("apply: managed fields", &at("one", ""), APPLY, json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "applied", "managedFields": [{ "manager": "x", "operation": "Apply" }] } })).await;
    on.put("apply: then an update", &format!("{MAPS}/applied?fieldManager=three"), of(json!({ "a": "3" }))).await;
    on.get("apply: in the end", &format!("{MAPS}/applied")).await;
    on.patch(
        "apply: YAML",
        &format!("{MAPS}/yaml?fieldManager=y"),
        APPLY,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: yaml}\ndata: {k: v}\n".into(),
    )
    .await;
}

async fn custom(on: &mut Caller) {
    let at = format!("{KSVC}/hello");
    let made = on.post("custom: create", KSVC, ksvc("hello")).await;
    on.get("custom: get", &at).await;
    let mut changed = made.clone();
    changed["spec"]["template"]["spec"]["timeoutSeconds"] = 7.into();
    changed["status"] = json!({ "url": "http://not.by.this.way" });
    let changed = on.put("custom: update", &at, changed).await;
    assert_eq!(changed["metadata"]["generation"], 2);
    let mut status = changed.clone();
    status["status"] = json!({ "url": "http://hello.example.com", "observedGeneration": 2, "conditions": [
        { "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }] });
    status["spec"]["template"]["spec"]["timeoutSeconds"] = 8.into();
    on.put("custom: update of the status", &format!("{at}/status"), status).await;
    on.get("custom: get the status", &format!("{at}/status")).await;
    on.patch(
        "custom: patch of the status",
        &format!("{at}/status"),
        MERGE,
        json!({ "status": { "latestReadyRevisionName": "hello-00001" } }),
    )
    .await;
    on.patch("custom: strategic patch", &at, STRATEGIC, json!({})).await;
    on.patch("custom: merge patch", &at, MERGE, json!({ "metadata": { "annotations": { "a": "b" } } })).await;
    on.patch(
        "custom: a wrong type",
        &at,
        MERGE,
        json!({ "spec": { "template": { "spec": { "timeoutSeconds": "7" } } } }),
    )
    .await;
    let mut wrong = ksvc("wrong");
    wrong["spec"]["template"]["spec"]["containerConcurrency"] = "many".into();
    on.post("custom: create with a wrong type", KSVC, wrong).await;
    let mut unknown = ksvc("unknown");
    unknown["spec"]["foo"] = 1.into();
    on.post("custom: an unknown field, strictly", &format!("{KSVC}?fieldValidation=Strict"), unknown.clone()).await;
    on.post("custom: an unknown field, ignored", &format!("{KSVC}?fieldValidation=Ignore"), unknown).await;
    for (step, finalizer) in [
        ("finalizer: of a custom object, without a path", "services.serving.knative.dev"),
        ("finalizer: of a custom object, no name", "no name"),
    ] {
        let mut held = ksvc("held");
        held["metadata"]["finalizers"] = json!([finalizer]);
        on.post(step, &format!("{KSVC}?dryRun=All"), held).await;
    }
    on.patch("custom: apply", &format!("{KSVC}/applied?fieldManager=one"), APPLY, ksvc("applied")).await;
    let mut other = ksvc("applied");
    other["spec"]["template"]["spec"]["containers"][0]["image"] = "other".into();
    on.patch("custom: apply conflicts", &format!("{KSVC}/applied?fieldManager=two"), APPLY, other).await;
    on.get("custom: scale of what has none", &format!("{at}/scale")).await;
    on.get("custom: the group's version", "/apis/serving.knative.dev/v1").await;
    on.get("custom: the group", "/apis/serving.knative.dev").await;
}

async fn deletion(on: &mut Caller) {
    on.post("finalizer: create", MAPS, json!({ "metadata": { "name": "held", "finalizers": ["example.com/hold"] } }))
        .await;
    let deleted = on.delete("finalizer: delete", &format!("{MAPS}/held"), Value::Null).await;
    assert!(deleted["metadata"]["deletionTimestamp"].is_string());
    on.delete("finalizer: delete again", &format!("{MAPS}/held"), Value::Null).await;
    on.patch(
        "finalizer: another one while it goes",
        &format!("{MAPS}/held"),
        MERGE,
        json!({ "metadata": { "finalizers": ["example.com/hold", "example.com/more"] } }),
    )
    .await;
    on.patch("finalizer: a change while it goes", &format!("{MAPS}/held"), MERGE, json!({ "data": { "a": "1" } }))
        .await;
    on.patch("finalizer: taken off", &format!("{MAPS}/held"), MERGE, json!({ "metadata": { "finalizers": null } }))
        .await;
    on.get("finalizer: gone", &format!("{MAPS}/held")).await;
    on.post("finalizer: a name that is none", MAPS, json!({ "metadata": { "name": "x", "finalizers": ["hold"] } }))
        .await;

    let owner = on.post("owner: create", MAPS, map("owner", &json!({}))).await;
    let mut owned = map("owned", &json!({}));
    owned["metadata"]["ownerReferences"] = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true }]);
    on.post("owner: create what it owns", MAPS, owned).await;
    let mut twice = map("twice", &json!({}));
    let reference =
        |uid: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid, "controller": true });
    twice["metadata"]["ownerReferences"] =
        json!([reference("11111111-1111-4111-8111-111111111111"), reference("21111111-1111-4111-8111-111111111111")]);
    on.post("owner: two controllers", MAPS, twice).await;
    on.post("owner: half a reference", MAPS, json!({ "metadata": { "name": "half", "ownerReferences": [{ "apiVersion": "v1", "kind": "ConfigMap", "name": "owner" }] } })).await;

    let wrong = json!({ "kind": "DeleteOptions", "apiVersion": "v1", "preconditions": { "uid": "11111111-1111-4111-8111-111111111111" } });
    on.delete("delete: with another uid", &format!("{MAPS}/owner"), wrong).await;
    let wrong = json!({ "kind": "DeleteOptions", "apiVersion": "v1", "preconditions": { "resourceVersion": "1" } });
    on.delete("delete: with an old version", &format!("{MAPS}/owner"), wrong).await;
    let wrong = json!({ "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Sideways" });
    on.delete("delete: a policy that is none", &format!("{MAPS}/owner"), wrong).await;
    on.delete("delete: dry run", &format!("{MAPS}/owner?dryRun=All"), Value::Null).await;
    on.delete("delete", &format!("{MAPS}/owner"), json!({ "propagationPolicy": "Orphan" })).await;
    on.post("delete: create the last", MAPS, map("last", &json!({}))).await;
    on.delete("delete: the last", &format!("{MAPS}/last"), Value::Null).await;
    on.delete("delete: again", &format!("{MAPS}/last"), Value::Null).await;
    on.delete("delete: a custom object", &format!("{KSVC}/applied"), Value::Null).await;
}

async fn lists(on: &mut Caller) {
    for (name, labels) in
        [("l1", json!({ "app": "x", "tier": "1" })), ("l2", json!({ "app": "x" })), ("l3", json!({ "app": "y" }))]
    {
        on.post(&format!("list: create {name}"), MAPS, labelled(name, &labels)).await;
    }
    for selector in
        ["app%3Dx", "app%3D%3Dx,tier", "app!%3Dx", "app%20in%20(x,y),!tier", "app%20notin%20(x)", "tier%3D1,app%3Dy"]
    {
        let list = on.get(&format!("list: {selector}"), &format!("{MAPS}?labelSelector={selector}")).await;
        assert_eq!(list["kind"], "ConfigMapList");
    }
    on.get("list: a selector that is none", &format!("{MAPS}?labelSelector=a%3D%3D%3Db")).await;
    on.get("list: by name", &format!("{MAPS}?fieldSelector=metadata.name%3Dl2")).await;
    on.get("list: by a field that cannot be selected", &format!("{MAPS}?fieldSelector=data.k%3D1")).await;
    let page = on.get("list: a page", &format!("{MAPS}?labelSelector=app&limit=2")).await;
    let token = page["metadata"]["continue"].as_str().unwrap().to_owned();
    if let Some(last) = on.record.last_mut() {
        last.body["metadata"]["continue"] = "<token>".into();
    }
    on.get("list: the next page", &format!("{MAPS}?labelSelector=app&limit=2&continue={token}")).await;
    on.get("list: a page that is none", &format!("{MAPS}?limit=2&continue=nonsense")).await;
    on.get("list: nothing", &format!("{MAPS}?labelSelector=none")).await;
    on.get("list: no such namespace", "/api/v1/namespaces/nowhere/configmaps").await;
    on.get("list: all namespaces", "/api/v1/configmaps?labelSelector=app%3Dy").await;
    on.get("list: of custom objects", &format!("{KSVC}?fieldSelector=metadata.name%3Dhello")).await;
    on.delete("list: delete some", &format!("{MAPS}?labelSelector=app%3Dy"), Value::Null).await;
}

async fn tables(on: &mut Caller) {
    on.get_as("table: maps", TABLE, &format!("{MAPS}?labelSelector=app%3Dx")).await;
    on.get_as("table: one", TABLE, &format!("{MAPS}/l1")).await;
    on.get_as("table: no objects in it", TABLE, &format!("{MAPS}?labelSelector=app%3Dx&includeObject=None")).await;
    on.get_as("table: custom", TABLE, &format!("{KSVC}?fieldSelector=metadata.name%3Dhello")).await;
    on.get_as("table: none found", TABLE, &format!("{MAPS}/none")).await;
    on.get_as("metadata: one", METADATA, &format!("{MAPS}/l1")).await;
    on.get_as("metadata: list", METADATA_LIST, &format!("{MAPS}?labelSelector=app%3Dx")).await;
    on.get_as("a form that is none", "text/html", &format!("{MAPS}/l1")).await;
}

async fn watches(on: &mut Caller) {
    let list = on.client.clone();
    let request = Caller::request(
        &Method::GET,
        &format!("{MAPS}?labelSelector=w"),
        [("content-type", JSON), ("accept", JSON)],
        &Value::Null,
    );
    let bytes = list.send(request).await.unwrap().into_body().collect_bytes().await.unwrap();
    let start: Value = serde_json::from_slice(&bytes).unwrap();
    let from = start["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let made = on.post("watch: create", MAPS, labelled("w1", &json!({ "w": "1" }))).await;
    on.patch("watch: change", &format!("{MAPS}/w1"), MERGE, json!({ "data": { "a": "1" } })).await;
    on.patch(
        "watch: out of the selection",
        &format!("{MAPS}/w1"),
        MERGE,
        json!({ "metadata": { "labels": { "w": null } } }),
    )
    .await;
    on.patch("watch: and into it", &format!("{MAPS}/w1"), MERGE, json!({ "metadata": { "labels": { "w": "2" } } }))
        .await;
    on.delete("watch: delete", &format!("{MAPS}/w1"), Value::Null).await;
    let watch = |version: &str| format!("{MAPS}?watch=1&labelSelector=w&resourceVersion={version}&timeoutSeconds=5");
    on.watch("watch: all of it", &watch(&from), 5).await;
    let after = made["metadata"]["resourceVersion"].as_str().unwrap();
    on.watch("watch: resumed after the first", &watch(after), 4).await;
    let all = format!("{MAPS}?watch=1&resourceVersion={from}&fieldSelector=metadata.name%3Dw1&timeoutSeconds=5");
    on.watch("watch: by name", &all, 5).await;
    on.get("watch: from what is no version", &watch("nonsense")).await;
    on.post("watch: create another", MAPS, labelled("w2", &json!({ "w": "1" }))).await;
    on.watch("watch: what is there", &format!("{MAPS}?watch=1&labelSelector=w&timeoutSeconds=5"), 1).await;
}

async fn built_in(on: &mut Caller) {
    on.post("deployment: create", DEPLOYMENTS, deployment("d")).await;
    on.get("deployment: scale", &format!("{DEPLOYMENTS}/d/scale")).await;
    on.patch("deployment: scaled", &format!("{DEPLOYMENTS}/d/scale"), MERGE, json!({ "spec": { "replicas": 3 } }))
        .await;
    on.patch(
        "deployment: scaled below zero",
        &format!("{DEPLOYMENTS}/d/scale"),
        MERGE,
        json!({ "spec": { "replicas": -1 } }),
    )
    .await;
    on.patch("deployment: an environment by name", &format!("{DEPLOYMENTS}/d"), STRATEGIC, json!({ "spec": { "template": { "spec": { "containers": [{ "name": "a", "env": [{ "name": "X", "value": "1" }] }] } } } })).await;
    on.patch(
        "deployment: one more container",
        &format!("{DEPLOYMENTS}/d"),
        STRATEGIC,
        json!({ "spec": { "template": { "spec": { "containers": [{ "name": "b", "image": "b" }] } } } }),
    )
    .await;
    on.patch(
        "deployment: status",
        &format!("{DEPLOYMENTS}/d/status"),
        MERGE,
        json!({ "status": { "replicas": 3, "observedGeneration": 2 } }),
    )
    .await;
    let mut nothing = deployment("nothing");
    nothing["spec"]["selector"] = Value::Null;
    on.post("deployment: without a selector", DEPLOYMENTS, nothing).await;
    on.get_as("deployment: table", TABLE, &format!("{DEPLOYMENTS}/d")).await;

    let service = json!({ "metadata": { "name": "s" }, "spec": { "selector": { "app": "d" }, "ports": [{ "port": 80, "name": "http" }] } });
    on.post("service: create", SERVICES, service).await;
    let headless = json!({ "metadata": { "name": "h" }, "spec": { "clusterIP": "None", "ports": [{ "port": 80, "targetPort": 8012 }] } });
    on.post("service: without an address", SERVICES, headless).await;
    let external = json!({ "metadata": { "name": "e" }, "spec": { "type": "ExternalName", "externalName": "out.example.com", "sessionAffinity": "None" } });
    on.post("service: another name", SERVICES, external).await;
    let pod = json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "a", "image": "a", "resources": { "limits": { "cpu": "1" } } }] } });
    on.post("pod: create", PODS, pod).await;
    on.patch(
        "pod: status",
        &format!("{PODS}/p/status"),
        MERGE,
        json!({ "status": { "phase": "Running", "podIP": "10.1.1.1" } }),
    )
    .await;
    on.get("pod: by phase", &format!("{PODS}?fieldSelector=status.phase%3DRunning")).await;
    on.get_as("pod: table", TABLE, &format!("{PODS}/p")).await;
    on.delete("pod: delete at once", &format!("{PODS}/p?gracePeriodSeconds=0"), Value::Null).await;
    let lease = json!({ "metadata": { "name": "l" }, "spec": { "holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z" } });
    let lease = on.post("lease: create", LEASES, lease).await;
    on.put("lease: renew", &format!("{LEASES}/l"), lease).await;
    let secret = json!({ "metadata": { "name": "s" }, "stringData": { "a": "b" }, "data": { "c": "ZA==" } });
    on.post("secret: create", "/api/v1/namespaces/comparison/secrets", secret).await;
    let slice = json!({ "metadata": { "name": "s" }, "addressType": "IPv4", "endpoints": [{ "addresses": ["10.0.0.1"], "conditions": { "ready": true } }], "ports": [{ "name": "http", "port": 80 }] });
    on.post("slice: create", "/apis/discovery.k8s.io/v1/namespaces/comparison/endpointslices", slice).await;
}

async fn errors(on: &mut Caller) {
    on.get("error: no such path", "/nowhere").await;
    on.get("error: no such resource", "/api/v1/namespaces/comparison/nothings").await;
    on.get("error: no such group", "/apis/none.example.com/v1").await;
    on.post("error: no JSON", MAPS, "{".into()).await;
    on.post("error: another kind", MAPS, ksvc("x")).await;
    on.post("error: another namespace", MAPS, json!({ "metadata": { "name": "x", "namespace": "default" } })).await;
    on.post("error: no name", MAPS, json!({ "metadata": {} })).await;
    on.post("error: a name that is none", MAPS, json!({ "metadata": { "name": "Not_A_Name" } })).await;
    on.post("error: a label that is none", MAPS, labelled("x", &json!({ "a b": "c" }))).await;
    on.post("error: no such namespace", "/api/v1/namespaces/nowhere/configmaps", map("x", &json!({}))).await;
    on.post("error: a wrong type", MAPS, json!({ "metadata": { "name": "x" }, "data": { "k": 1 } })).await;
    on.post(
        "error: an unknown field",
        &format!("{MAPS}?fieldValidation=Strict"),
        json!({ "metadata": { "name": "x" }, "dat": {} }),
    )
    .await;
    on.post(
        "error: twice the same field",
        &format!("{MAPS}?fieldValidation=Strict"),
        r#"{"metadata":{"name":"x"},"data":{"k":"1"},"data":{"k":"2"}}"#.into(),
    )
    .await;
    on.full("error: another content", Method::POST, MAPS, ["text/plain", JSON], "x".into()).await;
    on.post("error: post to an object", &format!("{MAPS}/a"), map("a", &json!({}))).await;
    on.get("error: a sub-resource that is none", &format!("{MAPS}/a/status")).await;
}
