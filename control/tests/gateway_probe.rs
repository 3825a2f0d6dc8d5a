//! The question "which version of this Ingress do you serve?" over real sockets.
#![allow(clippy::unwrap_used)] // a test that cannot go on should stop

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use api::networking::{Ingress, ingress_hash};
use bytes::Bytes;
use control::ingress::probe::{NotServed, ask};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

/// What the gateway answers for each host, and what it was asked.
#[derive(Default)]
struct Gateway {
    serves: Mutex<Vec<(String, String)>>,
    asked: Mutex<Vec<http::HeaderMap>>,
}

async fn start(gateway: Arc<Gateway>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    gateway.asked.lock().unwrap().push(request.headers().clone());
                    let host = request.headers()["host"].to_str().unwrap().to_owned();
                    let hash =
                        gateway.serves.lock().unwrap().iter().find(|(h, _)| *h == host).map(|(_, hash)| hash.clone());
                    let answer = Response::builder().status(if hash.is_some() { 200 } else { 404 });
                    let answer = answer.header("K-Network-Hash", hash.unwrap_or_default());
                    async move { Ok::<_, Infallible>(answer.body(Empty::<Bytes>::new()).unwrap()) }
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

fn ingress() -> Ingress {
    serde_json::from_value(json!({
        "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
        "metadata": {"name": "hello", "namespace": "default", "uid": "u"},
        "spec": {"rules": [{"hosts": ["hello.default"]}, {"hosts": ["hello.default.example.com"]}]},
    }))
    .unwrap()
}

#[tokio::test]
async fn served_means_every_rule_at_this_version() {
    let gateway = Arc::new(Gateway::default());
    let address = start(Arc::clone(&gateway)).await;
    let (ingress, hash) = (ingress(), ingress_hash(&ingress()));
    let serve = |host: &str, hash: &str| gateway.serves.lock().unwrap().insert(0, (host.to_owned(), hash.to_owned()));

    let unknown = ask(address, &ingress, &hash).await.unwrap_err();
    assert!(matches!(unknown, NotServed::Behind { status: StatusCode::NOT_FOUND, .. }), "{unknown}");
    serve("hello.default", &hash);
    assert!(ask(address, &ingress, &hash).await.unwrap_err().to_string().contains("hello.default.example.com"));
    serve("hello.default.example.com", "older");
    let old = ask(address, &ingress, &hash).await.unwrap_err();
    assert!(matches!(old, NotServed::Behind { status: StatusCode::OK, .. }), "an older version does not count");
    serve("hello.default.example.com", &hash);
    ask(address, &ingress, &hash).await.unwrap();

    let asked = gateway.asked.lock().unwrap();
    let last = asked.last().unwrap();
    assert_eq!(last["user-agent"], "Knative-Ingress-Probe");
    assert_eq!(last["k-network-probe"], "probe");
    assert_eq!(last["k-network-hash"], hash.as_str());
}

#[tokio::test]
async fn a_gateway_that_is_not_there_does_not_serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = ask(address, &ingress(), "x").await.unwrap_err();
    assert!(matches!(error, NotServed::Connect(..)), "{error}");
}
