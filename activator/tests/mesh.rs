//! Revisions behind a mesh: by cluster IP, by passthrough, and back to the pods.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say where")]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use activator::config::Routing;
use activator::endpoints::probe::Rhythm;
use activator::{Change, Config};
use api::settings::MeshCompatibility;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::json;
use support::{Answer, Door, Pod, send, until};

fn drop_in(mesh: MeshCompatibility) -> Config {
    Config {
        routing: Routing::Identity { cluster_domain: "cluster.local".into() },
        threads: 1,
        mesh,
        rhythm: Rhythm { every: Duration::from_millis(5), behind_mesh: Duration::from_millis(20), ..Rhythm::default() },
        ..Config::detached()
    }
}

async fn get(door: &Door, revision: &str) -> Answer {
    let request = Request::get("/").header("host", format!("{revision}.ns.svc.cluster.local"));
    send(door.address, request.body(Full::<Bytes>::default()).unwrap()).await
}

/// The private Service of a revision: a cluster IP with a port.
fn service(door: &Door, revision: &str, at: SocketAddr) {
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": format!("{revision}-private"), "namespace": "ns", "labels": {
            "networking.internal.knative.dev/serviceType": "Private", "serving.knative.dev/revision": revision } },
        "spec": { "clusterIP": at.ip().to_string(), "ports": [{ "name": "http", "port": at.port() }] },
    });
    door.feed.service(Change::Applied(serde_json::from_value(object).unwrap()));
}

/// A pod whose probes are all answered with this status until it is changed.
async fn meshed(status: u16) -> Pod {
    let pod = Pod::start("pod").await;
    pod.does.status.store(status, Ordering::SeqCst);
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn t40_auto_goes_by_cluster_ip_and_returns_to_the_pods() {
    let door = Door::open(drop_in(MeshCompatibility::Auto)).await;
    door.revision("hello", json!({ "containerConcurrency": 2 })).await;
    let (pod, cluster_ip) = (meshed(503).await, Pod::start("cluster").await);
    service(&door, "hello", cluster_ip.address);
    door.pods("hello", &[pod.address], &[]);
    assert_eq!(get(&door, "hello").await.body.trim(), "cluster");
    assert_eq!(pod.does.served.load(Ordering::SeqCst), 0);
    pod.does.status.store(0, Ordering::SeqCst);
    until("the pod serves", || {
        pod.does.probes.load(Ordering::SeqCst) > 0 && {
            let revision = door.get("hello").unwrap();
            revision.throttle.targets().iter().all(|target| target.address == pod.address)
        }
    })
    .await;
    assert_eq!(get(&door, "hello").await.body.trim(), "pod");
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t41_t42_an_answer_that_no_mesh_gives_keeps_us_with_the_pods() {
    let door = Door::open(drop_in(MeshCompatibility::Auto)).await;
    door.revision("hello", json!({})).await;
    let (pod, cluster_ip) = (meshed(500).await, Pod::start("cluster").await);
    service(&door, "hello", cluster_ip.address);
    door.pods("hello", &[pod.address], &[]);
    until("asked often", || pod.does.probes.load(Ordering::SeqCst) > 5).await;
    assert_eq!(cluster_ip.does.probes.load(Ordering::SeqCst), 0);
    pod.does.status.store(0, Ordering::SeqCst);
    assert_eq!(get(&door, "hello").await.body.trim(), "pod");
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_starting_pod_that_says_503_does_not_send_us_to_the_cluster_ip() {
    let door = Door::open(drop_in(MeshCompatibility::Auto)).await;
    door.revision("hello", json!({})).await;
    let (pod, cluster_ip) = (meshed(503).await, Pod::start("cluster").await);
    service(&door, "hello", cluster_ip.address);
    door.pods("hello", &[], &[pod.address]);
    until("asked often", || pod.does.probes.load(Ordering::SeqCst) > 5).await;
    assert_eq!(cluster_ip.does.probes.load(Ordering::SeqCst), 0);
    pod.does.status.store(0, Ordering::SeqCst);
    assert_eq!(get(&door, "hello").await.body.trim(), "pod");
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t44_enabled_asks_and_uses_the_cluster_ip_alone() {
    let door = Door::open(drop_in(MeshCompatibility::Enabled)).await;
    door.revision("hello", json!({ "containerConcurrency": 3 })).await;
    let (pod, cluster_ip) = (Pod::start("pod").await, Pod::start("cluster").await);
    door.pods("hello", &[pod.address], &[]);
    service(&door, "hello", cluster_ip.address);
    // T20, T24: all slots are those of the cluster IP, three per ready pod.
    let held: Vec<_> = (0..5)
        .map(|_| {
            let request = Request::get("/held").header("host", "hello.ns.svc.cluster.local");
            tokio::spawn(send(door.address, request.body(Full::<Bytes>::default()).unwrap()))
        })
        .collect();
    until("slots are full", || cluster_ip.does.now.load(Ordering::SeqCst) == 3).await;
    door.waiting("hello", 2).await;
    cluster_ip.does.release(5);
    for answer in held {
        assert_eq!(answer.await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(cluster_ip.does.most.load(Ordering::SeqCst), 3);
    assert_eq!((pod.does.probes.load(Ordering::SeqCst), pod.does.served.load(Ordering::SeqCst)), (0, 0));
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t43_t67_passthrough_names_the_private_service_and_asks_the_mesh() {
    let door = Door::open(Config { passthrough: true, ..drop_in(MeshCompatibility::Auto) }).await;
    door.revision("hello", json!({})).await;
    let (pod, cluster_ip) = (meshed(503).await, Pod::start("cluster").await);
    service(&door, "hello", cluster_ip.address);
    door.pods("hello", &[pod.address], &[]);
    until("asked often", || pod.does.probes.load(Ordering::SeqCst) > 5).await;
    assert_eq!(cluster_ip.does.probes.load(Ordering::SeqCst), 0);
    pod.does.status.store(0, Ordering::SeqCst);
    assert_eq!(get(&door, "hello").await.body.trim(), "pod");
    let probe = pod.does.probe.lock().unwrap().clone();
    let request = pod.does.seen.lock().unwrap()[0].clone();
    for headers in [&probe, &request] {
        assert_eq!(headers["host"], "hello-private.ns");
        assert_eq!(headers["k-passthrough-lb"], "true");
    }
    assert_eq!(request["k-original-host"], "hello.ns.svc.cluster.local");
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t45_disabled_never_asks_the_cluster_ip() {
    let door = Door::open(drop_in(MeshCompatibility::Disabled)).await;
    door.revision("hello", json!({})).await;
    let (starting, ready, cluster_ip) = (meshed(503).await, meshed(503).await, Pod::start("cluster").await);
    service(&door, "hello", cluster_ip.address);
    door.pods("hello", &[], &[starting.address]);
    until("asked often", || starting.does.probes.load(Ordering::SeqCst) > 5).await;
    // Kubernetes' word is enough, whatever a probe would say.
    door.pods("hello", &[ready.address], &[starting.address]);
    assert_eq!(get(&door, "hello").await.body.trim(), "pod");
    assert_eq!((ready.does.probes.load(Ordering::SeqCst), ready.does.served.load(Ordering::SeqCst)), (0, 1));
    assert_eq!(cluster_ip.does.probes.load(Ordering::SeqCst), 0);
    door.close().await;
}
