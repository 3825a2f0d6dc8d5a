//! Two activators and one real sidecar with a limit of one: whoever asks, the app never works on two requests.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say where")]

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use activator::{Activator, Change};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proxy::{Body, Drain, ServerConfig};
use queue_proxy::QueueProxy;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

const ACTIVATORS: [&str; 2] = ["127.0.0.1", "127.0.0.2"];
const EACH: usize = 50;

/// What the app has seen.
#[derive(Default)]
struct Seen {
    now: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
}

async fn work(seen: Arc<Seen>) -> Result<Response<Body>, Infallible> {
    let now = seen.now.fetch_add(1, Ordering::SeqCst) + 1;
    seen.most.fetch_max(now, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(1)).await;
    seen.now.fetch_sub(1, Ordering::SeqCst);
    seen.all.fetch_add(1, Ordering::SeqCst);
    Ok(Response::new(Body::full("done")))
}

/// The app and its sidecar, on a thread of their own; where the sidecar listens.
fn pod(seen: Arc<Seen>, stop: CancellationToken) -> SocketAddr {
    let (told, ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        proxy::runtime::block_on(async move {
            let app = proxy::accept::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), false).unwrap();
            let port = app.local_addr().unwrap().port().to_string();
            tokio::task::spawn_local(proxy::serve(app, ServerConfig::default(), Drain::default(), move |_peer| {
                let seen = Arc::clone(&seen);
                service_fn(move |_request: Request<Body>| work(Arc::clone(&seen)))
            }));
            let mut config = queue_proxy::Config::from_lookup(|name| {
                Some(match name {
                    "CONTAINER_CONCURRENCY" => "1".to_owned(),
                    "USER_PORT" => port.clone(),
                    "QUEUE_SERVING_PORT" | "QUEUE_SERVING_TLS_PORT" => "0".to_owned(),
                    "REVISION_TIMEOUT_SECONDS" => "300".to_owned(),
                    "SERVING_NAMESPACE" | "SERVING_CONFIGURATION" | "SERVING_REVISION" => "hello".to_owned(),
                    "SERVING_POD" | "SERVING_POD_IP" | "SERVING_LOGGING_CONFIG" | "SERVING_LOGGING_LEVEL" => {
                        String::new()
                    }
                    _ => return None,
                })
            })
            .unwrap();
            config.bind_address = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
            (config.admin_port, config.stats_port, config.drain_quiet) = (0, 0, Duration::ZERO);
            let sidecar = QueueProxy::bind(config).await.unwrap();
            told.send(sidecar.local_addr().serving).unwrap();
            sidecar.run(stop).await.unwrap();
        })
        .unwrap();
    });
    ready.recv().unwrap()
}

fn object<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn endpoints(kind: &str, addresses: &[IpAddr], port: u16) -> k8s_openapi::api::core::v1::Endpoints {
    let addresses: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip.to_string() })).collect();
    object(json!({
        "metadata": { "name": format!("hello-{kind}"), "namespace": "ns", "labels": {
            "networking.internal.knative.dev/serviceType": kind, "serving.knative.dev/revision": "hello" } },
        "subsets": [{ "addresses": addresses, "ports": [{ "name": "http", "port": port }] }],
    }))
}

async fn get(door: SocketAddr) -> (http::StatusCode, Bytes) {
    let stream = TcpStream::connect(door).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("/").header("host", "hello.test").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    connection.abort();
    (status, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_with_a_limit_of_one_behind_two_activators_never_sees_two_requests() {
    let (seen, stop) = (Arc::new(Seen::default()), CancellationToken::new());
    let pod = pod(Arc::clone(&seen), stop.clone());
    let (mut doors, mut running) = (Vec::new(), Vec::new());
    for ip in ACTIVATORS {
        let config = activator::Config { threads: 2, pod_ip: ip.to_owned(), ..activator::Config::detached() };
        let activator = Activator::bind(config).await.unwrap();
        let feed = activator.feed();
        feed.revision(Change::Applied(object(json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
            "metadata": { "name": "hello", "namespace": "ns" },
            "spec": { "containerConcurrency": 1, "containers": [{ "image": "i" }] },
        }))));
        feed.ingress(Change::Applied(object(json!({
            "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
            "metadata": { "name": "hello", "namespace": "ns", "annotations": {
                "networking.knative.dev/ingress.class": api::labels::networking::DORMOUSE_INGRESS_CLASS } },
            "spec": { "rules": [{ "hosts": ["hello.test"], "visibility": "ExternalIP", "http": { "paths": [{ "splits": [
                { "serviceNamespace": "ns", "serviceName": "hello", "servicePort": 80, "percent": 100 }] }] } }] },
        }))));
        let activators: Vec<IpAddr> = ACTIVATORS.iter().map(|ip| ip.parse().unwrap()).collect();
        feed.endpoints(Change::Applied(endpoints("Public", &activators, 8012)));
        feed.endpoints(Change::Applied(endpoints("Private", &[pod.ip()], pod.port())));
        let (address, shared) = (activator.local_addr(), activator.shared());
        running.push(tokio::spawn(activator.run(stop.clone())));
        let known = async {
            while shared.table.load().host("hello.test").is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), known).await.expect("the host is known");
        doors.push(address);
    }
    let requests: Vec<_> = (0..EACH).flat_map(|_| doors.iter().map(|door| tokio::spawn(get(*door)))).collect();
    for request in requests {
        let (status, body) = tokio::time::timeout(Duration::from_secs(20), request).await.expect("an answer").unwrap();
        assert_eq!((status.as_u16(), &*body), (200, b"done".as_slice()));
    }
    assert_eq!(seen.most.load(Ordering::SeqCst), 1);
    assert_eq!(seen.all.load(Ordering::SeqCst), EACH * ACTIVATORS.len());
    stop.cancel();
    for running in running {
        running.await.unwrap().unwrap();
    }
}
