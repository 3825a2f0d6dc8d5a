//! A door with pods behind it: real sockets, objects fed by hand.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say where")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use activator::shared::Shared;
use activator::{Activator, Change, Config, Error, Feed};
use api::labels::networking::DORMOUSE_INGRESS_CLASS;
use api::networking::{Ingress, ingress_hash};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;

/// Nothing in these tests takes that long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until something holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "never happened: {what}");
}

/// An activator that runs.
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) inside: Option<SocketAddr>,
    pub(crate) tls: Option<SocketAddr>,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) profiles: Option<SocketAddr>,
    pub(crate) feed: Feed,
    pub(crate) shared: Arc<Shared>,
    pub(crate) stop: CancellationToken,
    pub(crate) running: JoinHandle<Result<(), Error>>,
}

impl Door {
    pub(crate) async fn open(config: Config) -> Self {
        let activator = Activator::bind(config).await.unwrap();
        let stop = CancellationToken::new();
        Self {
            address: activator.local_addr(),
            inside: activator.inside_addr(),
            tls: activator.tls_addr(),
            metrics: activator.metrics_addr(),
            profiles: activator.profiles_addr(),
            feed: activator.feed(),
            shared: activator.shared(),
            running: tokio::spawn(activator.run(stop.clone())),
            stop,
        }
    }

    pub(crate) async fn open_default() -> Self {
        Self::open(Config { threads: 2, ..Config::detached() }).await
    }

    /// Makes a revision known.
    pub(crate) async fn revision(&self, name: &str, spec: Value) {
        self.revision_with(name, json!({}), spec).await;
    }

    /// The same with annotations.
    pub(crate) async fn revision_with(&self, name: &str, annotations: Value, spec: Value) {
        let mut all = json!({ "containers": [{ "image": "i" }] });
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let object = json!({ "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
            "metadata": { "name": name, "namespace": "ns", "annotations": annotations }, "spec": all });
        self.feed.revision(Change::Applied(serde_json::from_value(object).unwrap()));
        until("revision known", || self.get(name).is_some()).await;
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<activator::revision::Revision>> {
        self.shared.revisions.get(&activator::revision::RevisionKey::new("ns", name))
    }

    /// Routes a host to revisions with their percents.
    pub(crate) async fn route(&self, host: &str, splits: &[(&str, i64)]) {
        let splits: Vec<Value> = splits
            .iter()
            .map(|(name, percent)| {
                json!({ "serviceNamespace": "ns", "serviceName": name, "servicePort": 80, "percent": percent,
                    "appendHeaders": { "Knative-Serving-Namespace": "ns", "Knative-Serving-Revision": name } })
            })
            .collect();
        let object = json!({
            "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
            "metadata": { "name": host, "namespace": "ns",
                "annotations": { "networking.knative.dev/ingress.class": DORMOUSE_INGRESS_CLASS } },
            "spec": { "rules": [{ "hosts": [host], "visibility": "ExternalIP",
                "http": { "paths": [{ "splits": splits }] } }] },
        });
        self.feed.ingress(Change::Applied(serde_json::from_value(object).unwrap()));
        until("host known", || self.shared.table.load().host(host).is_some()).await;
    }

    /// Serves an Ingress of this spec, once its hosts are known.
    pub(crate) async fn ingress(&self, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
            "metadata": { "name": name, "namespace": "ns",
                "annotations": { "networking.knative.dev/ingress.class": DORMOUSE_INGRESS_CLASS } },
            "spec": spec,
        });
        let object: Ingress = serde_json::from_value(object).unwrap();
        let hash = ingress_hash(&object);
        self.feed.ingress(Change::Applied(object));
        let served = || self.shared.table.load().entries().any(|entry| *entry.route.source.version == *hash);
        until("ingress served", served).await;
    }

    /// Sets the pods of a revision.
    pub(crate) fn pods(&self, revision: &str, ready: &[SocketAddr], not_ready: &[SocketAddr]) {
        let subset = |kind: &str, address: &SocketAddr| json!({ kind: [{ "ip": address.ip().to_string() }], "ports": [{ "name": "http", "port": address.port() }] });
        let subsets: Vec<Value> = ready
            .iter()
            .map(|pod| subset("addresses", pod))
            .chain(not_ready.iter().map(|pod| subset("notReadyAddresses", pod)))
            .collect();
        let object = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": { "name": format!("{revision}-private"), "namespace": "ns", "labels": {
                "networking.internal.knative.dev/serviceType": "Private", "serving.knative.dev/revision": revision } },
            "subsets": subsets,
        });
        self.feed.endpoints(Change::Applied(serde_json::from_value(object).unwrap()));
    }

    /// A revision `name` on the host `name.test` with a limit.
    pub(crate) async fn service(&self, name: &str, limit: u32) {
        self.revision(name, json!({ "containerConcurrency": limit })).await;
        self.route(&format!("{name}.test"), &[(name, 100)]).await;
    }

    pub(crate) async fn waiting(&self, revision: &str, n: usize) {
        let revision = self.get(revision).unwrap();
        until("requests wait", || revision.throttle.waiting() == n).await;
    }

    pub(crate) async fn usable(&self, revision: &str, n: usize) {
        let revision = self.get(revision).unwrap();
        until("pods are usable", || revision.throttle.pods() == n).await;
    }

    pub(crate) fn get_request(&self, host: &str, path: &str) -> JoinHandle<Answer> {
        let address = self.address;
        let request = Request::get(path.to_owned()).header("host", host.to_owned()).body(Full::default()).unwrap();
        tokio::spawn(async move { send(address, request).await })
    }

    /// Drains and ends.
    pub(crate) async fn close(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.running).await.expect("drains");
        ended.unwrap().unwrap();
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// One request on one connection.
pub(crate) async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let exchange = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        connection.abort();
        Answer { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() }
    };
    tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time")
}

/// One request over HTTP/2; the answer's trailers are among its headers.
pub(crate) async fn send_h2(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let exchange = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let executor = TokioExecutor::new();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.unwrap();
        let (mut parts, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        parts.headers.extend(body.trailers().cloned().unwrap_or_default());
        let body = body.to_bytes();
        connection.abort();
        Answer { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() }
    };
    tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time")
}

/// What `/big` is made of.
pub(crate) const BIG_PIECE: usize = 64 << 10;
/// How many of them: 64 MiB.
pub(crate) const BIG_PIECES: usize = 1024;
static PIECE: [u8; BIG_PIECE] = [b'x'; BIG_PIECE];

/// What a pod does.
#[derive(Default)]
pub(crate) struct Behaviour {
    /// Probes are answered only while set.
    pub(crate) ready: AtomicBool,
    /// Probes are answered with this status at once, unless it is 0.
    pub(crate) status: AtomicU16,
    /// Headers of the last probe.
    pub(crate) probe: Mutex<HeaderMap>,
    /// Probes hang for ever.
    pub(crate) silent: AtomicBool,
    /// `/held` waits for a permit here.
    pub(crate) gate: Option<Semaphore>,
    pub(crate) now: AtomicUsize,
    pub(crate) most: AtomicUsize,
    pub(crate) served: AtomicUsize,
    pub(crate) probes: AtomicUsize,
    pub(crate) seen: Mutex<Vec<HeaderMap>>,
    pub(crate) became_ready: Notify,
}

impl Behaviour {
    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::SeqCst);
        self.became_ready.notify_waiters();
    }

    /// Lets `n` requests to `/held` end.
    pub(crate) fn release(&self, n: usize) {
        self.gate.as_ref().unwrap().add_permits(n);
    }
}

/// A pod: answers probes as queue-proxy does, and requests with its name.
pub(crate) struct Pod {
    pub(crate) address: SocketAddr,
    pub(crate) does: Arc<Behaviour>,
    accept: JoinHandle<()>,
    connections: CancellationToken,
}

impl Pod {
    pub(crate) async fn start(name: &'static str) -> Self {
        let pod = Self::start_at(name, SocketAddr::from(([127, 0, 0, 1], 0))).await;
        pod.does.set_ready();
        pod
    }

    /// Not ready yet.
    pub(crate) async fn start_at(name: &'static str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let does = Arc::new(Behaviour { gate: Some(Semaphore::new(0)), ..Behaviour::default() });
        let connections = CancellationToken::new();
        let (behaviour, cut) = (Arc::clone(&does), connections.clone());
        let accept = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (behaviour, cut) = (Arc::clone(&behaviour), cut.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(name, Arc::clone(&behaviour), request));
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
                    tokio::select! {
                        _ = connection => {}
                        () = cut.cancelled() => {}
                    }
                });
            }
        });
        Self { address, does, accept, connections }
    }

    /// The process is gone: nobody listens, open connections break.
    pub(crate) async fn die(&self) {
        self.accept.abort();
        self.connections.cancel();
        until("port closed", || std::net::TcpStream::connect(self.address).is_err()).await;
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.accept.abort();
        self.connections.cancel();
    }
}

type PodBody = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

struct Counted(Arc<Behaviour>);

impl Counted {
    fn new(does: &Arc<Behaviour>) -> Self {
        let now = does.now.fetch_add(1, Ordering::SeqCst) + 1;
        does.most.fetch_max(now, Ordering::SeqCst);
        Self(Arc::clone(does))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(
    name: &'static str,
    does: Arc<Behaviour>,
    mut request: Request<Incoming>,
) -> Result<Response<PodBody>, Infallible> {
    let text = |text: &str| Response::new(PodBody::new(Full::from(text.to_owned()).map_err(|never| match never {})));
    if request.headers().get("user-agent").is_some_and(|agent| agent == "Knative-Activator-Probe") {
        does.probes.fetch_add(1, Ordering::SeqCst);
        assert_eq!(request.headers()["k-network-probe"], "queue");
        *does.probe.lock().unwrap() = request.headers().clone();
        if let Ok(status @ 200..) = StatusCode::from_u16(does.status.load(Ordering::SeqCst)).map(|s| s.as_u16()) {
            return Ok(Response::builder().status(status).body(PodBody::default()).unwrap());
        }
        if does.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        // Held, as ours does.
        loop {
            let notified = does.became_ready.notified();
            if does.ready.load(Ordering::SeqCst) {
                return Ok(text("queue"));
            }
            notified.await;
        }
    }
    let _counted = Counted::new(&does);
    does.seen.lock().unwrap().push(request.headers().clone());
    if request.headers().get("upgrade").is_some_and(|token| token == "websocket") {
        let accept = derive_accept_key(request.headers()["sec-websocket-key"].as_bytes());
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let io = TokioIo::new(upgrade.await.unwrap());
            let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
            while let Some(Ok(message)) = socket.next().await {
                if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                    break;
                }
            }
        });
        let response = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
        return Ok(response.header("sec-websocket-accept", accept).body(PodBody::default()).unwrap());
    }
    if request.headers().contains_key("upgrade") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let mut byte = [0; 1];
            while let Ok(1) = io.read(&mut byte).await {
                io.write_all(&byte.map(|b| b.to_ascii_uppercase())).await.unwrap();
            }
        });
        let response = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "echo");
        return Ok(response.body(PodBody::default()).unwrap());
    }
    if request.uri().path() == "/events" {
        // An event stream: each permit lets one event out.
        let events = futures::stream::unfold(does, |does| async move {
            does.gate.as_ref().unwrap().acquire().await.unwrap().forget();
            Some((Ok(Frame::data(Bytes::from_static(b"data: x\n\n"))), does))
        });
        let response = Response::builder().header("content-type", "text/event-stream");
        return Ok(response.body(PodBody::new(http_body_util::StreamBody::new(Box::pin(events)))).unwrap());
    }
    if request.uri().path() == "/echo" {
        // Frame by frame as they come; the end is told in a trailer.
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        let body =
            request.into_body().map_err(std::io::Error::other).with_trailers(std::future::ready(Some(Ok(trailers))));
        return Ok(Response::new(PodBody::new(body)));
    }
    if request.uri().path() == "/big" {
        // As fast as it is taken; `served` counts the pieces.
        let pieces = futures::stream::unfold((0, does), |(n, does)| async move {
            does.served.fetch_add(1, Ordering::SeqCst);
            (n < BIG_PIECES).then(|| (Ok(Frame::data(Bytes::from_static(&PIECE))), (n + 1, does)))
        });
        return Ok(Response::new(PodBody::new(http_body_util::StreamBody::new(Box::pin(pieces)))));
    }
    if request.headers().contains_key("te") {
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        let body = Full::from(name).map_err(|never| match never {});
        let body = body.with_trailers(std::future::ready(Some(Ok(trailers))));
        return Ok(Response::new(PodBody::new(body)));
    }
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if path == "/held" {
        does.gate.as_ref().unwrap().acquire().await.unwrap().forget();
    } else {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    does.served.fetch_add(1, Ordering::SeqCst);
    Ok(text(&format!("{name} {}", String::from_utf8_lossy(&body))))
}

/// How often each answer came.
pub(crate) fn tally(answers: &[Answer]) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for answer in answers {
        *tally.entry(answer.body.trim().to_owned()).or_default() += 1;
    }
    tally
}
