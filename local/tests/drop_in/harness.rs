//! What surrounds a drop-in: an API server behind a gate that knows upstream's role, an autoscaler, pods, the process.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::stat::WireStatMessages;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::Resource;
use kube::api::{Api, ObjectMeta, PostParams};
use local::apiserver::{AdmitAll, ApiServer, Config};
use prost::Message as _;
use proxy::tls::{Options, Tls};
use proxy::{Body, Drain, ServerConfig};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Nothing here takes that long unless it hangs; the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Where ConfigMaps and Secrets live.
pub(crate) const SYSTEM: &str = "knative-serving";

/// Waits until something holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "never happened: {what}");
}

/// Upstream's role of an activator, and what everybody may read: whether it allows a request.
fn allowed(method: &Method, path: &str) -> bool {
    let system = format!("/api/v1/namespaces/{SYSTEM}/");
    let of_system = path.strip_prefix(&system).and_then(|rest| rest.split('/').next());
    method == Method::GET
        && (path == "/version"
            || matches!(of_system, Some("configmaps" | "secrets"))
            || matches!(path, "/api/v1/services" | "/api/v1/endpoints")
            || path == "/apis/serving.knative.dev/v1/revisions")
}

/// An API server, and the gate that stands before it.
pub(crate) struct Cluster {
    /// Passes the gate by, with all rights.
    pub(crate) client: kube::Client,
    folder: TempDir,
    server: SocketAddr,
    gate: SocketAddr,
    open: Mutex<Option<CancellationToken>>,
    asked: Arc<Mutex<Vec<(bool, String)>>>,
}

impl Cluster {
    /// With the namespaces of an installation and this `config-network`; the gate is shut.
    pub(crate) async fn start(network: Value) -> Self {
        let folder = TempDir::new().unwrap();
        let server = ApiServer::bind(Config::new(folder.path().join("data"), Arc::new(AdmitAll))).await.unwrap();
        let address = server.local_addr();
        tokio::spawn(server.run(CancellationToken::new()));
        let client = kube::Client::try_from(kube::Config::new(format!("http://{address}").parse().unwrap())).unwrap();
        let gate = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": format!("http://{gate}") } }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
            "users": [{ "name": "u", "user": {} }],
        });
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
        let this = Self { client, folder, server: address, gate, open: Mutex::default(), asked: Arc::default() };
        for name in [SYSTEM, "ns"] {
            let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(this.client.clone());
            let object = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
            let _ = namespaces.create(&PostParams::default(), &object).await;
        }
        if !network.is_null() {
            this.config_map("config-network", json!({}), network).await;
        }
        this
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Lets requests through, those that upstream's role allows.
    pub(crate) async fn open(&self) {
        let listener = TcpListener::bind(self.gate).await.unwrap();
        let shut = CancellationToken::new();
        *self.open.lock().unwrap() = Some(shut.clone());
        let (server, asked) = (self.server, Arc::clone(&self.asked));
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = shut.cancelled() => return,
                };
                let Ok((stream, _)) = accepted else { continue };
                let (asked, shut) = (Arc::clone(&asked), shut.clone());
                tokio::spawn(async move {
                    let pass = service_fn(move |request| pass(server, Arc::clone(&asked), request));
                    let serving =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), pass);
                    tokio::select! {
                        _ = serving => {}
                        () = shut.cancelled() => {}
                    }
                });
            }
        });
    }

    /// The API server is gone: nobody listens, open watches break.
    pub(crate) fn shut(&self) {
        if let Some(shut) = self.open.lock().unwrap().take() {
            shut.cancel();
        }
    }

    /// What was asked for and refused.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().filter(|(good, _)| !good).map(|(_, what)| what.clone()).collect()
    }

    /// What was asked for, without the query, each once.
    pub(crate) fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let paths = asked.iter().filter_map(|(_, what)| what.split(['?', ' ']).nth(1).map(str::to_owned));
        paths.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    /// Makes an object, or replaces it.
    pub(crate) async fn put<K>(&self, namespace: &str, object: Value)
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + serde::Serialize,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let mut object: K = serde_json::from_value(object).unwrap();
        let name = object.meta().name.clone().unwrap();
        match api.get_opt(&name).await.unwrap() {
            None => api.create(&PostParams::default(), &object).await.unwrap(),
            Some(old) => {
                let ObjectMeta { resource_version, uid, .. } = old.meta().clone();
                object.meta_mut().resource_version = resource_version;
                object.meta_mut().uid = uid;
                api.replace(&name, &PostParams::default(), &object).await.unwrap()
            }
        };
    }

    /// A ConfigMap of the system namespace.
    pub(crate) async fn config_map(&self, name: &str, labels: Value, data: Value) {
        let object = json!({ "metadata": { "name": name, "labels": labels }, "data": data });
        self.put::<k8s_openapi::api::core::v1::ConfigMap>(SYSTEM, object).await;
    }

    /// A revision `ns/NAME` with its public and private Endpoints and Service, asleep.
    pub(crate) async fn revision(&self, name: &str, limit: u32) {
        let object = json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Revision", "metadata": { "name": name, "namespace": "ns" },
            "spec": { "containerConcurrency": limit, "timeoutSeconds": 60, "containers": [{ "name": "c", "image": "i" }] },
        });
        self.put::<api::serving::Revision>("ns", object).await;
        self.pods(name, &[], &[]).await;
    }

    /// Its pods.
    pub(crate) async fn pods(&self, revision: &str, ready: &[SocketAddr], starting: &[SocketAddr]) {
        let subset = |kind: &str, at: &SocketAddr| json!({ kind: [{ "ip": at.ip().to_string() }], "ports": [{ "name": "http", "port": at.port() }] });
        let ready = ready.iter().map(|at| subset("addresses", at));
        let subsets: Vec<Value> = ready.chain(starting.iter().map(|at| subset("notReadyAddresses", at))).collect();
        let object = json!({
            "metadata": { "name": format!("{revision}-private"), "namespace": "ns", "labels": {
                "networking.internal.knative.dev/serviceType": "Private", "serving.knative.dev/revision": revision,
                "serving.knative.dev/revisionUID": "u" } },
            "subsets": subsets,
        });
        self.put::<k8s_openapi::api::core::v1::Endpoints>("ns", object).await;
    }
}

type Passed = http_body_util::combinators::BoxBody<Bytes, hyper::Error>;

async fn pass(
    server: SocketAddr,
    asked: Arc<Mutex<Vec<(bool, String)>>>,
    request: Request<Incoming>,
) -> Result<Response<Passed>, hyper::Error> {
    let good = allowed(request.method(), request.uri().path());
    asked.lock().unwrap().push((good, format!("{} {}", request.method(), request.uri())));
    let own = |status: StatusCode, text: String| {
        let body = Full::from(text).map_err(|never: Infallible| match never {}).boxed();
        Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
    };
    if !good {
        let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden",
            "code": 403, "message": format!("{} is forbidden", request.uri()) });
        return Ok(own(StatusCode::FORBIDDEN, status.to_string()));
    }
    let Ok(stream) = TcpStream::connect(server).await else { return Ok(own(StatusCode::BAD_GATEWAY, String::new())) };
    let (mut sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?.map(BodyExt::boxed))
}

/// An autoscaler as far as activators know it: (revision, concurrency, count) of what it is told.
pub(crate) struct Autoscaler {
    pub(crate) url: String,
    told: mpsc::UnboundedReceiver<(String, f64, f64)>,
}

impl Autoscaler {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let (sender, told) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { continue };
                let sender = sender.clone();
                tokio::spawn(async move {
                    while let Some(Ok(message)) = socket.next().await {
                        if !message.is_binary() {
                            continue;
                        }
                        for message in WireStatMessages::decode(message.into_data()).unwrap().messages {
                            let stat = message.stat.unwrap();
                            assert_eq!((message.namespace.as_str(), stat.pod_name.as_str()), ("ns", "activator-1"));
                            let _ = sender.send((message.name, stat.average_concurrent_requests, stat.request_count));
                        }
                    }
                });
            }
        });
        Self { url, told }
    }

    /// What it is told next.
    pub(crate) async fn hears(&mut self) -> (String, f64, f64) {
        tokio::time::timeout(PATIENCE, self.told.recv()).await.expect("a report in time").unwrap()
    }
}

/// What a pod has seen, and whether it is ready.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) ready: std::sync::atomic::AtomicBool,
    pub(crate) probes: Mutex<Vec<HeaderMap>>,
    pub(crate) requests: Mutex<Vec<HeaderMap>>,
}

/// A pod whose queue-proxy answers as upstream's: 503 at once while it is not ready. Stops with the test.
pub(crate) struct Pod {
    pub(crate) at: SocketAddr,
    pub(crate) seen: Arc<Seen>,
}

async fn answer(seen: Arc<Seen>, request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let ready = seen.ready.load(std::sync::atomic::Ordering::SeqCst);
    if head.headers.get("user-agent").is_some_and(|agent| agent == "Knative-Activator-Probe") {
        seen.probes.lock().unwrap().push(head.headers);
        let mut response = Response::new(Body::full(if ready { "queue" } else { "not ready" }));
        *response.status_mut() = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        return Ok(response);
    }
    let mut headers = head.headers;
    if let Some(authority) = head.uri.authority() {
        headers.insert("host", authority.as_str().parse().unwrap());
    }
    seen.requests.lock().unwrap().push(headers);
    let body = body.collect().await.unwrap().to_bytes();
    Ok(Response::new(Body::full(format!("{:?} {}", head.version, String::from_utf8_lossy(&body)))))
}

impl Pod {
    /// On the data port of an address of its own; with a certificate also on the TLS port.
    pub(crate) fn start(ip: &str, certificate: Option<(&'static str, &'static str)>) -> Self {
        let ip: IpAddr = ip.parse().unwrap();
        let at = SocketAddr::new(ip, api::ports::HTTP1);
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let (told, open) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            proxy::runtime::block_on(async move {
                let tls = certificate
                    .map(|(chain, key)| Tls::new(&Options::default(), chain.as_bytes(), key.as_bytes()).unwrap());
                let mut ports = vec![(api::ports::HTTP1, None)];
                ports.extend(tls.map(|tls| (api::ports::HTTPS, Some(tls))));
                for (port, tls) in ports {
                    let listener = proxy::accept::bind(SocketAddr::new(ip, port), false).unwrap();
                    let config = ServerConfig { tls, ..ServerConfig::default() };
                    let seen = Arc::clone(&shared);
                    tokio::task::spawn_local(proxy::serve(listener, config, Drain::default(), move |_| {
                        let seen = Arc::clone(&seen);
                        service_fn(move |request| answer(Arc::clone(&seen), request))
                    }));
                }
                told.send(()).unwrap();
                std::future::pending::<()>().await;
            })
            .unwrap();
        });
        open.recv().unwrap();
        Self { at, seen }
    }

    pub(crate) fn set_ready(&self) {
        self.seen.ready.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.requests.lock().unwrap().len()
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
}

/// The process, on an address of its own.
pub(crate) struct Activator {
    child: Child,
    ip: IpAddr,
    log: PathBuf,
}

impl Activator {
    /// As upstream's Deployment starts it, but for where it listens and how it finds the autoscaler.
    pub(crate) fn start(cluster: &Cluster, ip: &str, autoscaler: &str, more: &[(&str, &str)]) -> Self {
        Self::start_with(&cluster.kubeconfig(), ip, autoscaler, more)
    }

    fn start_with(kubeconfig: &Path, ip: &str, autoscaler: &str, more: &[(&str, &str)]) -> Self {
        let log = kubeconfig.with_extension("log");
        let file = std::fs::File::create(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_dormouse"))
            .args(["activator", "-v=2", "--kubeconfig"])
            .arg(kubeconfig)
            .env_clear()
            .envs([("POD_NAME", "activator-1"), ("POD_IP", ip), ("SYSTEM_NAMESPACE", SYSTEM)])
            .envs([
                ("CLUSTER_DOMAIN", "cluster.local"),
                ("DORMOUSE_LISTEN_IP", ip),
                ("DORMOUSE_AUTOSCALER_URL", autoscaler),
            ])
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child, ip: ip.parse().unwrap(), log }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, port)
    }

    /// A request, if anybody answers it.
    pub(crate) async fn try_send(&self, request: Request<Full<Bytes>>) -> Option<Answer> {
        let at = self.at(if request.version() == http::Version::HTTP_2 { api::ports::H2C } else { api::ports::HTTP1 });
        let exchange = async {
            let stream = TokioIo::new(TcpStream::connect(at).await.ok()?);
            let response = if request.version() == http::Version::HTTP_2 {
                let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), stream).await.ok()?;
                tokio::spawn(connection);
                sender.send_request(request).await.ok()?
            } else {
                let (mut sender, connection) = conn::http1::handshake(stream).await.ok()?;
                tokio::spawn(connection);
                sender.send_request(request).await.ok()?
            };
            let (head, body) = response.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            Some(Answer { status: head.status, body: String::from_utf8_lossy(&body).into_owned() })
        };
        tokio::time::timeout(PATIENCE, exchange).await.ok().flatten()
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        self.try_send(request).await.unwrap_or_else(|| panic!("no answer\n{}", self.log()))
    }

    /// As the gateway of an upstream installation asks for a revision.
    pub(crate) async fn get(&self, revision: &str) -> Answer {
        let request = Request::get("/").header("host", "hello.example.com");
        let request = request.header("knative-serving-namespace", "ns").header("knative-serving-revision", revision);
        self.send(request.body(Full::default()).unwrap()).await
    }

    /// What the kubelet is told.
    pub(crate) async fn health(&self) -> Option<Answer> {
        let request = Request::get("/").header("host", "x").header("user-agent", "kube-probe/1.34");
        self.try_send(request.body(Full::default()).unwrap()).await
    }

    pub(crate) async fn healthy(&self) {
        until("it is healthy", || async { self.health().await.is_some_and(|answer| answer.status == StatusCode::OK) })
            .await;
    }

    pub(crate) fn terminate(&self) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap()
    }
}
