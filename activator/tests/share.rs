//! Which pods are ours when other activators share a revision, as its public Endpoints say it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say where")]

mod support;

use std::net::SocketAddr;

use activator::{Change, Config};
use api::settings::MeshCompatibility;
use serde_json::json;
use support::{Door, Pod};

/// The public Endpoints of a revision.
fn public(door: &Door, ips: &[&str], port_name: &str) {
    let addresses: Vec<_> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
    let object = json!({
        "metadata": { "name": "hello", "namespace": "ns", "labels": {
            "networking.internal.knative.dev/serviceType": "Public", "serving.knative.dev/revision": "hello" } },
        "subsets": [{ "addresses": addresses, "ports": [{ "name": port_name, "port": 8012 }] }],
    });
    door.feed.endpoints(Change::Applied(serde_json::from_value(object).unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn t18_t19_two_activators_then_one_then_pods_only() {
    for (h2c, port_name) in [(false, "http"), (true, "http2")] {
        // By Kubernetes' word, so that all pods are there at once.
        let mesh = MeshCompatibility::Disabled;
        let config = Config { threads: 1, mesh, pod_ip: "130.0.0.2".to_owned(), ..Config::detached() };
        let door = Door::open(config).await;
        let ports = if h2c { json!([{ "containerPort": 80, "name": "h2c" }]) } else { json!([]) };
        door.revision("hello", json!({ "containerConcurrency": 1, "containers": [{ "image": "i", "ports": ports }] }))
            .await;
        door.route("hello.test", &[("hello", 100)]).await;
        let pods = [Pod::start("a").await, Pod::start("b").await, Pod::start("c").await];
        let subsets: Vec<_> = pods
            .iter()
            .map(|pod| {
                json!({ "addresses": [{ "ip": pod.address.ip().to_string() }],
                    "ports": [{ "name": port_name, "port": pod.address.port() }] })
            })
            .collect();
        let object = json!({
            "metadata": { "name": "hello-private", "namespace": "ns", "labels": {
                "networking.internal.knative.dev/serviceType": "Private", "serving.knative.dev/revision": "hello" } },
            "subsets": subsets,
        });
        public(&door, &["130.0.0.1", "130.0.0.2"], port_name);
        door.feed.endpoints(Change::Applied(serde_json::from_value(object).unwrap()));
        // The second of two: the second of three pods is ours, and one request has room.
        door.usable("hello", 1).await;
        let mut sorted: Vec<SocketAddr> = pods.iter().map(|pod| pod.address).collect();
        sorted.sort_by_key(ToString::to_string);
        let targets = door.get("hello").unwrap().throttle.targets();
        assert_eq!(targets[0].address, sorted[1]);
        let held = [door.get_request("hello.test", "/held"), door.get_request("hello.test", "/held")];
        door.waiting("hello", 1).await;
        // Alone now.
        public(&door, &["130.0.0.2"], port_name);
        door.usable("hello", 3).await;
        door.waiting("hello", 0).await;
        for pod in &pods {
            pod.does.release(2);
        }
        for request in held {
            assert_eq!(request.await.unwrap().status, 200);
        }
        // Pods instead of activators (the revision is served directly): the last known place stays.
        public(&door, &["130.0.0.1", "130.0.0.2"], port_name);
        door.usable("hello", 1).await;
        public(&door, &["10.0.0.1", "10.0.0.2", "10.0.0.3"], port_name);
        public(&door, &["130.0.0.2"], "other");
        door.revision("later", json!({})).await; // what was fed before has been taken
        assert_eq!(door.get("hello").unwrap().throttle.pods(), 1);
        door.close().await;
    }
}
