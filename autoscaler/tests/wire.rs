//! The autoscaler from outside: a real websocket in front, a fake API server behind.

#![allow(clippy::unwrap_used, clippy::panic)] // tests may fail loudly, helpers outside #[test] too

mod fake;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use api::{
    stat::{Stat, WireStatMessage, WireStatMessages},
    timeline::{Observer, Phase},
};
use autoscaler::{Autoscaler, Config, collect::http as client};
use bytes::Bytes;
use fake::{Api, Written};
use futures::{SinkExt, StreamExt};
use http::{Method, Request, Response};
use http_body_util::Empty;
use prost::Message as _;
use serde_json::json;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest, protocol::frame::coding::CloseCode},
};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(10);

struct Running {
    address: SocketAddr,
    writes: mpsc::UnboundedReceiver<Written>,
    marks: Arc<Mutex<Vec<Phase>>>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), autoscaler::Error>>,
}

async fn start() -> Running {
    let (api, writes) = Api::new(fake::sleeping_revision());
    let marks = Arc::new(Mutex::new(Vec::new()));
    let seen = marks.clone();
    let observer = Observer::new(move |mark| seen.lock().unwrap().push(mark.phase));
    let autoscaler = Autoscaler::bind(Config { observer, ..Config::local(api.client()) }).await.unwrap();
    let address = autoscaler.local_addr();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(autoscaler.run(shutdown.clone()));
    Running { address, writes, marks, shutdown, task }
}

fn frame(revision: &str, concurrency: f64) -> Message {
    let stat = Stat { average_concurrent_requests: concurrency, request_count: 1.0, ..Stat::default() };
    let message = WireStatMessage { namespace: "ns".into(), name: revision.into(), stat: Some(stat) };
    let frame = WireStatMessages { messages: vec![message] };
    Message::Binary(frame.encode_to_vec().into())
}

async fn get(address: SocketAddr, path: &str, agent: &str) -> Response<Bytes> {
    let mut connection = client::connect(address).await.unwrap();
    let request = Request::get(path)
        .header("host", address.to_string())
        .header("user-agent", agent)
        .body(Empty::<Bytes>::new())
        .unwrap();
    client::exchange(&mut connection, request, 1 << 20, PATIENCE).await.unwrap()
}

/// Frames until the caches are filled: a report that comes before its revision is known is dropped.
async fn wait_until_known(address: SocketAddr) {
    tokio::time::timeout(PATIENCE, async {
        while get(address, "/debug/decisions/ns/rev", "test").await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_report_wakes_a_sleeping_revision_with_upstreams_patch() {
    let mut running = start().await;
    wait_until_known(running.address).await;
    let (mut socket, _) = connect_async(format!("ws://{}/", running.address)).await.unwrap();
    socket.send(Message::Text("nobody reads this".into())).await.unwrap();
    socket.send(Message::Binary(Bytes::from_static(b"\xff\xff"))).await.unwrap();
    socket.send(frame("unknown", 1.0)).await.unwrap();
    socket.send(frame("rev", 1.0)).await.unwrap();

    let write = tokio::time::timeout(PATIENCE, running.writes.recv()).await.unwrap().unwrap();
    assert_eq!(write.method, Method::PATCH, "the scale is the first thing written: {write:?}");
    assert_eq!(write.path, "/apis/apps/v1/namespaces/ns/deployments/rev-deployment/scale");
    assert_eq!(write.content_type, "application/json-patch+json");
    assert_eq!(write.body, json!([{ "op": "add", "path": "/spec/replicas", "value": 1 }]));

    let write = tokio::time::timeout(PATIENCE, running.writes.recv()).await.unwrap().unwrap();
    assert_eq!(write.path, "/apis/autoscaling.internal.knative.dev/v1alpha1/namespaces/ns/podautoscalers/rev/status");
    assert_eq!(write.content_type, "application/merge-patch+json");
    assert_eq!(write.body["status"]["desiredScale"], 1);

    let account = get(running.address, "/debug/decisions/ns/rev", "test").await;
    let account: serde_json::Value = serde_json::from_slice(account.body()).unwrap();
    assert_eq!(account["desired"], 1);
    assert_eq!(account["decisions"][0]["stable"], 1.0);
    tokio::time::timeout(PATIENCE, async {
        while *running.marks.lock().unwrap() != [Phase::Decided, Phase::ScaleWritten] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    running.shutdown.cancel();
    running.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn s68_reporters_are_sent_away_with_1012_and_dials_refused() {
    let running = start().await;
    let (mut socket, _) = connect_async(format!("ws://{}/", running.address)).await.unwrap();
    running.shutdown.cancel();
    let last = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    let Some(Ok(Message::Close(Some(close)))) = last else { panic!("{last:?}") };
    assert_eq!(close.code, CloseCode::Restart);
    drop(socket);
    running.task.await.unwrap().unwrap();
    assert!(connect_async(format!("ws://{}/", running.address)).await.is_err());
}

#[tokio::test]
async fn probes_metrics_and_strangers_are_answered() {
    let running = start().await;
    let address = running.address;
    assert_eq!(get(address, "/", "kube-probe/1.34").await.status(), 200);
    let metrics = get(address, "/metrics", "test").await;
    assert!(String::from_utf8_lossy(metrics.body()).contains("dormouse_autoscaler_revisions"));
    assert_eq!(get(address, "/debug/decisions/ns/none", "test").await.status(), 404);
    assert_eq!(get(address, "/", "curl").await.status(), 400);
    let mut foreign = format!("ws://{address}/").into_client_request().unwrap();
    foreign.headers_mut().insert("origin", "http://evil.example".parse().unwrap());
    assert!(connect_async(foreign).await.is_err(), "a page from elsewhere must not report");
    running.shutdown.cancel();
    running.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_frame_beyond_the_limit_ends_the_connection_and_not_the_server() {
    let running = start().await;
    let (mut socket, _) = connect_async(format!("ws://{}/", running.address)).await.unwrap();
    // The server may hang up before all of it is sent.
    drop(socket.send(Message::Binary(vec![0; 5 << 20].into())).await);
    let end = tokio::time::timeout(PATIENCE, async {
        loop {
            match socket.next().await {
                None | Some(Err(_) | Ok(Message::Close(_))) => break,
                Some(Ok(_)) => {}
            }
        }
    });
    end.await.unwrap();
    assert!(connect_async(format!("ws://{}/", running.address)).await.is_ok());
    running.shutdown.cancel();
    running.task.await.unwrap().unwrap();
}

#[test]
fn a_binary_without_its_environment_says_what_is_missing() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_autoscaler")).env_clear().output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("POD_NAME"), "{output:?}");
}
