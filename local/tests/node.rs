//! Node and cluster controllers against the embedded API server, with real processes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test cannot do without has failed it"
)]

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use api::timeline::{Observer, Phase};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Endpoints, Node as NodeObject, Pod, Service},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use local::{
    apiserver::{self, AdmitAll, ApiServer},
    cluster, logs,
    node::{self, Node},
};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_util::sync::CancellationToken;

const EXE: &str = env!("CARGO_BIN_EXE_dormouse");
const QUEUE: &str = "dormouse.dev/queue-proxy";
/// Long enough for a loaded machine; nothing waits for it when all is well.
const PATIENCE: Duration = Duration::from_secs(40);

/// An API server, the controllers and a node.
struct System {
    client: Client,
    stop: CancellationToken,
    node_stop: CancellationToken,
    node: JoinHandle<Result<(), node::Error>>,
    marks: Arc<Mutex<Vec<Phase>>>,
}

impl System {
    async fn start(dir: &Path, images: &[&str]) -> Self {
        let config = apiserver::Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            allow_non_loopback: false,
            data_dir: dir.join("store"),
            crds: Box::new(std::iter::empty()),
            admission: Arc::new(AdmitAll),
            pod_logs: dir.to_owned(),
        };
        let server = ApiServer::bind(config).await.unwrap();
        let url = format!("http://{}", server.local_addr());
        let client = Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(server.run(stop.clone()));
        tokio::spawn(cluster::run(client.clone(), stop.clone()));
        let node_stop = CancellationToken::new();
        let marks = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&marks);
        let config = node::Config {
            images: images.iter().map(|text| text.parse().unwrap()).collect(),
            observer: Observer::new(move |mark| seen.lock().unwrap().push(mark.phase)),
            drain_quiet_ms: 0,
            ..node::Config::new(client.clone(), dir.to_owned(), EXE.into())
        };
        let node = Node::bind(config).await.unwrap();
        let node = tokio::spawn(node.run(node_stop.clone()));
        Self { client, stop, node_stop, node, marks }
    }

    async fn stop(self) {
        self.node_stop.cancel();
        tokio::time::timeout(PATIENCE, self.node).await.unwrap().unwrap().unwrap();
        self.stop.cancel();
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn create<K>(&self, object: Value)
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + serde::Serialize
            + serde::de::DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap();
    }

    async fn scale(&self, name: &str, replicas: i32) {
        let patch = json!({"spec": {"replicas": replicas}});
        let api = self.api::<Deployment>();
        api.patch_scale(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    async fn pods(&self) -> Vec<Pod> {
        self.api::<Pod>().list(&ListParams::default()).await.unwrap().items
    }

    /// Waits until the pods are as wanted.
    async fn pods_until(&self, what: &str, holds: impl Fn(&[Pod]) -> bool) -> Vec<Pod> {
        let start = Instant::now();
        loop {
            let pods = self.pods().await;
            if holds(&pods) {
                return pods;
            }
            assert!(start.elapsed() < PATIENCE, "never: {what}\n{}", serde_json::to_string_pretty(&pods).unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn endpoints_until(&self, what: &str, holds: impl Fn(&[String]) -> bool) {
        let start = Instant::now();
        loop {
            let endpoints = self.api::<Endpoints>().get_opt("r-private").await.unwrap();
            let subsets = endpoints.and_then(|endpoints| endpoints.subsets).unwrap_or_default();
            let ips: Vec<String> =
                subsets.into_iter().flat_map(|s| s.addresses.unwrap_or_default()).map(|address| address.ip).collect();
            if holds(&ips) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "never: {what}: {ips:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn container(pod: &Pod) -> Value {
    serde_json::to_value(&pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0]).unwrap()
}

/// A revision's deployment, as the controller makes it.
fn deployment(replicas: i32) -> Value {
    let env = json!([
        {"name": "CONTAINER_CONCURRENCY", "value": "0"}, {"name": "QUEUE_SERVING_PORT", "value": "8012"},
        {"name": "QUEUE_SERVING_TLS_PORT", "value": "8112"}, {"name": "USER_PORT", "value": "8080"},
        {"name": "REVISION_TIMEOUT_SECONDS", "value": "300"}, {"name": "SERVING_NAMESPACE", "value": "default"},
        {"name": "SERVING_CONFIGURATION", "value": "c"}, {"name": "SERVING_REVISION", "value": "r"},
        {"name": "SERVING_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "SERVING_POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "SERVING_LOGGING_CONFIG", "value": ""}, {"name": "SERVING_LOGGING_LEVEL", "value": ""},
        {"name": "SERVING_READINESS_PROBE", "value":
            "{\"tcpSocket\":{\"port\":8080,\"host\":\"127.0.0.1\"},\"successThreshold\":1}"},
    ]);
    json!({"metadata": {"name": "r-deployment"}, "spec": {
    "replicas": replicas,
    "selector": {"matchLabels": {"serving.knative.dev/revision": "r"}},
    "strategy": {"rollingUpdate": {"maxUnavailable": 0}},
    "template": {"metadata": {"labels": {"serving.knative.dev/revision": "r"}}, "spec": {"containers": [
        {"name": "user-container", "image": "dormouse.dev/hello", "env": [{"name": "PORT", "value": "8080"}],
         "ports": [{"name": "user-port", "containerPort": 8080}],
         "lifecycle": {"preStop": {"httpGet": {"port": 8022, "path": "/wait-for-drain"}}}},
        {"name": "queue-proxy", "image": QUEUE, "env": env,
         "ports": [{"name": "http-autometric", "containerPort": 9090}],
         "readinessProbe": {"httpGet": {"port": 8012, "httpHeaders": [{"name": "K-Network-Probe", "value": "queue"}]}}},
    ]}}}})
}

fn service() -> Value {
    json!({"metadata": {"name": "r-private", "labels": {"serviceType": "Private"}}, "spec": {
        "selector": {"serving.knative.dev/revision": "r"}, "ports": [{"name": "http", "port": 80, "targetPort": 8012}]}})
}

async fn get(address: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("/").header("host", "r.example.com").body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// The processes that were started below a data directory.
fn running_below(dir: &Path) -> usize {
    let dir = dir.canonicalize().unwrap();
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    pids.filter(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&dir))).count()
}

#[tokio::test]
async fn a_revision_scales_serves_and_sleeps() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path(), &[]).await;
    system.create::<Service>(service()).await;
    system.create::<Deployment>(deployment(0)).await;
    system.scale("r-deployment", 2).await;
    let pods = system.pods_until("two ready pods", |pods| pods.len() == 2 && pods.iter().all(ready)).await;
    let ip = |pod: &Pod| pod.status.as_ref().unwrap().pod_ip.clone().unwrap();
    assert_ne!(ip(&pods[0]), ip(&pods[1]));
    system.endpoints_until("two ready addresses", |ips| ips.len() == 2).await;
    for pod in &pods {
        assert!(pod.name_any().starts_with("r-deployment-"));
        let (status, body) = get(&format!("{}:8012", ip(pod))).await;
        assert_eq!((status, body.trim()), (200, "Hello World!"));
    }
    let marks = system.marks.lock().unwrap().clone();
    assert_eq!(marks.iter().filter(|phase| **phase == Phase::ContainersStarted).count(), 2);
    let made: Deployment = system.api().get("r-deployment").await.unwrap();
    assert_eq!(made.spec.unwrap().replicas, Some(2));

    system.scale("r-deployment", 0).await;
    system.pods_until("no pod", <[Pod]>::is_empty).await;
    system.endpoints_until("no address", <[String]>::is_empty).await;
    assert_eq!(running_below(dir.path()), 0);

    // And again: addresses and ports are free, nothing is left over.
    system.scale("r-deployment", 1).await;
    system.pods_until("a ready pod", |pods| pods.len() == 1 && pods.iter().all(ready)).await;
    system.stop().await;
    assert_eq!(running_below(dir.path()), 0);
}

#[tokio::test]
async fn a_crash_is_explained_and_logged() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path(), &[]).await;
    let script = "echo \"run $(NAME)\"; echo boom >&2; exit 3";
    let spec = json!({"containers": [{"name": "c", "image": "x", "command": ["sh", "-c", script],
        "env": [{"name": "NAME", "value": "one"}], "terminationMessagePolicy": "FallbackToLogsOnError"}]});
    system.create::<Pod>(json!({"metadata": {"name": "crash"}, "spec": spec})).await;
    let backs_off = |pods: &[Pod]| container(&pods[0])["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let status = |pod: &Pod| pod.status.as_ref().is_some_and(|status| status.container_statuses.is_some());
    let pods = system.pods_until("backs off", |pods| pods.iter().all(status) && backs_off(pods)).await;
    let container = container(&pods[0]);
    assert_eq!(container["restartCount"], 1);
    let last = &container["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&json!(3), &json!("Error")));
    assert_eq!(last["message"], "run one\nboom");
    let uid = pods[0].uid().unwrap();
    for previous in [false, true] {
        let query = logs::Query { previous, ..logs::Query::default() };
        let text: Vec<Bytes> = logs::open(dir.path(), &uid, "c", query).await.unwrap().try_collect().await.unwrap();
        assert_eq!(text.concat(), b"run one\nboom\n");
    }
    system.stop().await;
}

#[tokio::test]
async fn images_that_cannot_run_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path(), &["mapped/*=sh -c 'echo * $(WHO); sleep 1000'"]).await;
    let pod = |name: &str, image: &str| {
        let env = json!([{"name": "WHO", "value": "me"}]);
        json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": image, "env": env}]}})
    };
    system.create::<Pod>(pod("bad", "nginx:1")).await;
    system.create::<Pod>(pod("good", "mapped/app:v1")).await;
    let known = |pods: &[Pod]| {
        let reason = |pod: &Pod| pod.status.as_ref()?.container_statuses.is_some().then(|| container(pod));
        let states: Vec<Value> = pods.iter().filter_map(reason).collect();
        states.len() == 2 && states[0]["state"]["waiting"]["reason"] == "ErrImagePull" && ready(&pods[1])
    };
    let pods = system.pods_until("one fails, one runs", known).await;
    let message = container(&pods[0])["state"]["waiting"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("--image 'nginx:1=COMMAND'"), "{message}");
    let query = logs::Query { follow: true, ..logs::Query::default() };
    let mut log = Box::pin(logs::open(dir.path(), &pods[1].uid().unwrap(), "c", query).await.unwrap());
    assert_eq!(log.next().await.unwrap().unwrap(), "app me\n");
    system.stop().await;
}

#[tokio::test]
async fn a_bare_pod_is_bound_and_stops_with_grace() {
    let dir = tempfile::tempdir().unwrap();
    let system = System::start(dir.path(), &[]).await;
    let proof = dir.path().join("proof");
    let script = format!("trap 'echo bye > {}; exit 0' TERM; echo up; while :; do sleep 0.05; done", proof.display());
    let spec = json!({"containers": [{"name": "c", "image": "x", "command": ["sh", "-c", script],
        "readinessProbe": {"exec": {"command": ["sh", "-c", "exit 0"]}, "periodSeconds": 1}}]});
    system.create::<Pod>(json!({"metadata": {"name": "bare"}, "spec": spec})).await;
    let pods = system.pods_until("ready", |pods| pods.len() == 1 && ready(&pods[0])).await;
    assert_eq!(pods[0].spec.as_ref().unwrap().node_name.as_deref(), Some(node::NAME));
    let query = logs::Query { follow: true, ..logs::Query::default() };
    let mut log = Box::pin(logs::open(dir.path(), &pods[0].uid().unwrap(), "c", query).await.unwrap());
    assert_eq!(log.next().await.unwrap().unwrap(), "up\n");
    system.api::<Pod>().delete("bare", &DeleteParams::default()).await.unwrap();
    system.pods_until("gone", <[Pod]>::is_empty).await;
    assert_eq!(std::fs::read_to_string(&proof).unwrap(), "bye\n");
    assert!(Api::<NodeObject>::all(system.client.clone()).get(node::NAME).await.unwrap().status.is_some());
    system.stop().await;
}

#[tokio::test]
async fn after_a_restart_the_deployment_has_new_pods() {
    let dir = tempfile::tempdir().unwrap();
    let spec = json!({"containers": [{"name": "c", "image": "x", "command": ["sleep", "1000"]}]});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": spec});
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let all_ready = |pods: &[Pod]| pods.len() == 1 && ready(&pods[0]);
    let first = System::start(dir.path(), &[]).await;
    first.create::<Deployment>(deployment).await;
    let before = first.pods_until("ready", all_ready).await[0].name_any();
    first.stop().await;
    assert_eq!(running_below(dir.path()), 0);

    // The API server of the first run may hold its store for a moment.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = System::start(dir.path(), &[]).await;
    let after = second.pods_until("ready again", |pods| all_ready(pods) && pods[0].name_any() != before).await;
    assert_ne!(after[0].name_any(), before);
    second.stop().await;
}
