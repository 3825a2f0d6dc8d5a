//! The activator as upstream's drop-in: the real process, behind nothing but upstream's rights.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test cannot do without has failed it"
)]

#[path = "drop_in/harness.rs"]
mod harness;

use bytes::Bytes;
use harness::{Activator, Autoscaler, Cluster, Pod, SYSTEM, until};
use http::{Request, StatusCode, Version};
use http_body_util::Full;
use serde_json::json;

const POD: (&str, &str) =
    (include_str!("../../proxy/tests/certificates/pod.crt"), include_str!("../../proxy/tests/certificates/pod.key"));
const POD_2: (&str, &str) = (
    include_str!("../../proxy/tests/certificates/pod-2.crt"),
    include_str!("../../proxy/tests/certificates/pod-2.key"),
);
const AUTHORITY: &str = include_str!("../../proxy/tests/certificates/authority.crt");
const AUTHORITY_2: &str = include_str!("../../proxy/tests/certificates/authority-2.crt");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstreams_rights_are_enough_and_the_api_server_may_go_and_come() {
    let cluster = Cluster::start(json!({})).await;
    cluster.open().await;
    cluster.revision("hello", 0).await;
    let mut autoscaler = Autoscaler::start().await;
    let mut activator = Activator::start(&cluster, "127.77.0.1", &autoscaler.url, &[]);
    activator.healthy().await;

    // Held while it sleeps; the autoscaler is told at once; a pod that is not ready yet is asked until it is.
    let pod = Pod::start("127.77.1.1", None);
    let wake = async {
        assert_eq!(autoscaler.hears().await, ("hello".to_owned(), 1.0, 1.0));
        cluster.pods("hello", &[], &[pod.at]).await;
        until("it is asked", || async { !pod.seen.probes.lock().unwrap().is_empty() }).await;
        assert_eq!(pod.requests(), 0);
        pod.set_ready();
    };
    let (answer, ()) = tokio::join!(activator.get("hello"), wake);
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "HTTP/1.1 "), "{}", activator.log());
    let probe = pod.seen.probes.lock().unwrap()[0].clone();
    assert_eq!(
        (&probe["k-network-probe"], &probe["user-agent"]),
        (&"queue".parse().unwrap(), &"Knative-Activator-Probe".parse().unwrap())
    );
    let seen = pod.seen.requests.lock().unwrap()[0].clone();
    assert_eq!(seen["k-proxy-request"], "activator");
    assert_eq!(seen["k-original-host"], "hello.example.com");
    assert_eq!(seen["host"], "127.77.1.1:8012");
    assert!(!seen.contains_key("knative-serving-revision") && !seen.contains_key("knative-serving-namespace"));

    // By Host, and h2 on its port.
    let by_host = |version| {
        let request = Request::post("http://hello.ns.svc.cluster.local/x").version(version).body(Full::from("body"));
        let mut request: Request<Full<Bytes>> = request.unwrap();
        if version == Version::HTTP_11 {
            request.headers_mut().insert("host", "hello.ns.svc.cluster.local:80".parse().unwrap());
            *request.uri_mut() = "/x".parse().unwrap();
        }
        activator.send(request)
    };
    assert_eq!(by_host(Version::HTTP_11).await.body, "HTTP/1.1 body");
    assert_eq!(by_host(Version::HTTP_2).await.body, "HTTP/2.0 body");
    let unknown = activator.get("nobody").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let text = "Error getting active endpoint: revision.serving.knative.dev \"nobody\" not found\n";
    assert_eq!(unknown.body, text);

    // Without the API server everything goes on; when it is back, what changed meanwhile is seen.
    cluster.shut();
    for _ in 0..50 {
        assert_eq!(activator.get("hello").await.status, StatusCode::OK, "{}", activator.log());
    }
    let second = Pod::start("127.77.1.2", None);
    second.set_ready();
    cluster.pods("hello", &[second.at], &[]).await;
    cluster.open().await;
    until("the second pod serves", || async { activator.get("hello").await.status == 200 && second.requests() > 0 })
        .await;

    assert_eq!(cluster.refused(), [""; 0], "asked for more than upstream's role allows");
    let expected = [
        "/api/v1/endpoints".to_owned(),
        format!("/api/v1/namespaces/{SYSTEM}/configmaps"),
        format!("/api/v1/namespaces/{SYSTEM}/configmaps/config-logging"),
        format!("/api/v1/namespaces/{SYSTEM}/configmaps/config-network"),
        format!("/api/v1/namespaces/{SYSTEM}/configmaps/config-observability"),
        "/api/v1/services".to_owned(),
        "/apis/serving.knative.dev/v1/revisions".to_owned(),
        "/version".to_owned(),
    ];
    assert_eq!(cluster.asked(), expected);

    // Asked to end: the kubelet is told at once, requests are served; asked again, it ends at once.
    activator.terminate();
    until("it is unhealthy", || async {
        activator.health().await.is_some_and(|answer| {
            answer.status == StatusCode::INTERNAL_SERVER_ERROR && answer.body == "received SIGTERM from kubelet\n"
        })
    })
    .await;
    assert_eq!(activator.get("hello").await.status, StatusCode::OK);
    activator.terminate();
    assert_eq!(activator.ended().await.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn internal_tls_to_pods_and_authorities_that_come_later() {
    let cluster = Cluster::start(json!({ "system-internal-tls": "enabled" })).await;
    cluster.open().await;
    let base64 = |text: &str| serde_json::to_value(k8s_openapi::ByteString(text.as_bytes().to_vec())).unwrap();
    let secret = json!({
        "metadata": { "name": "routing-serving-certs", "namespace": SYSTEM },
        "data": { "tls.crt": base64(POD.0), "tls.key": base64(POD.1), "ca.crt": base64(AUTHORITY) },
    });
    cluster.put::<k8s_openapi::api::core::v1::Secret>(SYSTEM, secret).await;
    for name in ["first", "second"] {
        cluster.revision(name, 1).await;
    }
    let autoscaler = Autoscaler::start().await;
    let activator = Activator::start(&cluster, "127.77.0.2", &autoscaler.url, &[]);
    activator.healthy().await;
    let (first, second) = (Pod::start("127.77.2.1", Some(POD)), Pod::start("127.77.2.2", Some(POD_2)));
    first.set_ready();
    second.set_ready();
    cluster.pods("first", &[first.at], &[]).await;
    cluster.pods("second", &[second.at], &[]).await;
    let answer = activator.get("first").await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "HTTP/1.1 "), "{}", activator.log());
    assert_eq!(first.seen.requests.lock().unwrap()[0]["host"], "127.77.2.1:8112", "over TLS");
    assert!(!first.seen.probes.lock().unwrap().is_empty(), "asked in clear text");
    let request = Request::post("http://first.ns.svc.cluster.local/").version(Version::HTTP_2);
    assert_eq!(activator.send(request.body(Full::from("body")).unwrap()).await.body, "HTTP/2.0 body");

    // Nobody vouches for the second pod yet.
    let answer = activator.get("second").await;
    assert_eq!((answer.status, second.requests()), (StatusCode::BAD_GATEWAY, 0), "{answer:?}");
    cluster
        .config_map("more", json!({ "networking.knative.dev/trust-bundle": "true" }), json!({ "ca": AUTHORITY_2 }))
        .await;
    until("the second pod is believed", || async { activator.get("second").await.status == 200 }).await;
    // Our own TLS port listens; it is tested beside the pool.
    tokio::net::TcpStream::connect(activator.at(api::ports::HTTPS)).await.unwrap();
    assert_eq!(cluster.refused(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_is_away_at_the_start_is_waited_for() {
    let cluster = Cluster::start(json!({})).await;
    let autoscaler = Autoscaler::start().await;
    let activator = Activator::start(&cluster, "127.77.0.3", &autoscaler.url, &[]);
    until("it says so", || async { activator.log().contains("the API server is away or too old") }).await;
    assert!(activator.health().await.is_none(), "nothing listens yet");
    cluster.open().await;
    activator.healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_obeyed_ends_the_process_with_the_reason() {
    for (number, network, environment, reason) in [
        (4, json!({ "system-internal-tls": "maybe" }), vec![], "system-internal-tls"),
        (
            5,
            json!({ "system-internal-tls": "enabled" }),
            vec![],
            "Secret knative-serving/routing-serving-certs: missing",
        ),
        (6, json!({}), vec![("PROBE_TIMEOUT", "soon")], "PROBE_TIMEOUT"),
        (7, json!({}), vec![("SYSTEM_NAMESPACE", "elsewhere")], "elsewhere/config-logging cannot be read"),
        (8, json!(null), vec![], "config-network is missing"),
    ] {
        let cluster = Cluster::start(network).await;
        cluster.open().await;
        let mut activator = Activator::start(&cluster, &format!("127.77.0.{number}"), "ws://127.0.0.1:1", &environment);
        let status = activator.ended().await;
        assert_eq!(status.code(), Some(1), "{}", activator.log());
        assert!(activator.log().contains(reason), "{}", activator.log());
    }
}
