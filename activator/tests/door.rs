//! The activator from outside: through its sockets, with pods that behave as queue-proxy does.

mod support;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use activator::Config;
use activator::observe::{Observing, Page};
use api::timeline::{Observer, Phase};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::json;
use support::{Door, PATIENCE, Pod, send, send_h2, tally, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_held_until_a_pod_answers_its_probe() {
    let phases: Arc<Mutex<Vec<Phase>>> = Arc::default();
    let seen = Arc::clone(&phases);
    let observer = Observer::new(move |mark| seen.lock().unwrap().push(mark.phase));
    let door = Door::open(Config { observer, server_timing: true, ..Config::detached() }).await;
    door.service("hello", 0).await;
    let request = door.get_request("hello.test", "/");
    door.waiting("hello", 1).await;
    // The pod exists, nobody listens yet; then the sidecar does, and holds the probe; then the app is ready.
    let address = {
        let reserved = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        reserved.local_addr().unwrap()
    };
    door.pods("hello", &[], &[address]);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let pod = Pod::start_at("pod", address).await;
    until("probe held", || pod.does.probes.load(Ordering::SeqCst) == 1).await;
    assert!(!request.is_finished());
    pod.does.set_ready();
    let answer = request.await.unwrap();
    assert_eq!((answer.status, answer.body.trim()), (StatusCode::OK, "pod"));
    let timing = answer.header("server-timing");
    assert!(
        ["wait", "ready", "turn", "pod"].iter().all(|phase| timing.contains(&format!("dormouse-{phase};dur="))),
        "{answer:?}"
    );
    assert_eq!(pod.does.probes.load(Ordering::SeqCst), 1, "one held probe is enough");
    assert_eq!(*phases.lock().unwrap(), [Phase::Queued, Phase::Ready, Phase::FirstByte]);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_sibling_delays_nobody() {
    let door = Door::open_default().await;
    door.service("hello", 0).await;
    let silent = Pod::start("silent").await;
    silent.does.silent.store(true, Ordering::SeqCst);
    let good = Pod::start("good").await;
    let request = door.get_request("hello.test", "/");
    door.waiting("hello", 1).await;
    door.pods("hello", &[], &[silent.address, good.address]);
    assert_eq!(request.await.unwrap().body.trim(), "good");
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_say_where_a_request_came_from_and_nothing_more() {
    let door = Door::open_default().await;
    door.service("hello", 0).await;
    let pod = Pod::start("pod").await;
    door.pods("hello", &[pod.address], &[]);
    let request = Request::post("/x?y=1")
        .header("host", "HELLO.test:8080")
        .header("knative-serving-revision", "other")
        .header("knative-serving-namespace", "other")
        .header("k-original-host", "forged")
        .header("x-forwarded-for", "9.9.9.9")
        .body(Full::from("body"))
        .unwrap();
    let answer = send(door.address, request).await;
    assert_eq!(answer.body, "pod body");
    let seen = pod.does.seen.lock().unwrap()[0].clone();
    assert_eq!(seen["k-proxy-request"], "activator");
    assert_eq!(seen["k-original-host"], "HELLO.test:8080");
    assert_eq!(seen["host"], pod.address.to_string());
    assert_eq!(seen["x-forwarded-for"], "9.9.9.9, 127.0.0.1");
    assert!(!seen.contains_key("knative-serving-revision") && !seen.contains_key("knative-serving-namespace"));
    assert!(!seen.contains_key("user-agent"));
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_a_pod_is_never_exceeded() {
    for limit in [1, 4] {
        let door = Door::open_default().await;
        door.service("hello", limit).await;
        let pods = [Pod::start("a").await, Pod::start("b").await];
        let requests: Vec<_> = (0..200).map(|_| door.get_request("hello.test", "/")).collect();
        door.pods("hello", &[pods[0].address], &[pods[1].address]);
        for request in requests {
            assert_eq!(request.await.unwrap().status, StatusCode::OK);
        }
        for pod in &pods {
            let most = pod.does.most.load(Ordering::SeqCst);
            assert!(most <= limit as usize, "{most} at once with limit {limit}");
        }
        let served: usize = pods.iter().map(|pod| pod.does.served.load(Ordering::SeqCst)).sum();
        assert_eq!(served, 200);
        door.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_shares_requests_between_revisions() {
    let door = Door::open_default().await;
    for name in ["one", "two"] {
        door.revision(name, json!({})).await;
    }
    door.route("hello.test", &[("one", 50), ("two", 50)]).await;
    let (one, two) = (Pod::start("one").await, Pod::start("two").await);
    door.pods("one", &[one.address], &[]);
    door.pods("two", &[two.address], &[]);
    let mut answers = Vec::new();
    for _ in 0..200 {
        answers.push(door.get_request("hello.test", "/").await.unwrap());
    }
    let tally = tally(&answers);
    // 200 fair coins: fewer than 50 of a kind has a chance of 1e-13.
    assert!(tally["one"] >= 50 && tally["two"] >= 50, "{tally:?}");
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_host_is_told_so() {
    let door = Door::open_default().await;
    let answer = door.get_request("nobody.test", "/").await.unwrap();
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.header("dormouse-error"), "activator; reason=unknown-host");
    assert!(answer.body.contains("nobody.test") && answer.body.contains("kubectl get ksvc"), "{}", answer.body);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_are_answered_and_never_counted() {
    let door = Door::open_default().await;
    door.service("hello", 0).await;
    let probe = |headers: &[(&str, &str)]| {
        let mut request = Request::get("/healthz").header("host", "hello.test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(door.address, request.body(Full::<Bytes>::default()).unwrap())
    };
    let answer = probe(&[("k-network-probe", "activator")]).await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "activator"));
    let answer = probe(&[("k-network-probe", "probe"), ("k-network-hash", "override")]).await;
    let expected = door.shared.table.load().host("hello.test").unwrap().hash();
    assert_eq!((answer.status, answer.headers["k-network-hash"].clone()), (StatusCode::OK, expected));
    assert_eq!(probe(&[("k-network-probe", "probe")]).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(probe(&[("k-network-probe", "queue")]).await.status, StatusCode::BAD_REQUEST);
    let answer = probe(&[("user-agent", "kube-probe/1.34")]).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "no autoscaler");
    assert_eq!(answer.body, "connection has not yet been established\n");
    assert_eq!(door.get("hello").unwrap().load.in_flight(), 0);
    // A host whose revision is not known yet is not called served.
    door.route("early.test", &[("unknown", 100)]).await;
    let request = Request::get("/").header("host", "early.test");
    let request = request.header("k-network-probe", "probe").header("k-network-hash", "x");
    assert_eq!(send(door.address, request.body(Full::default()).unwrap()).await.status, StatusCode::NOT_FOUND);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_the_line() {
    let door = Door::open_default().await;
    door.service("hello", 1).await;
    let mut clients = Vec::new();
    for n in 1..=3 {
        let mut client = TcpStream::connect(door.address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: hello.test\r\n\r\n").await.unwrap();
        door.waiting("hello", n).await;
        clients.push(client);
    }
    clients.remove(1);
    door.waiting("hello", 2).await;
    assert_eq!(door.get("hello").unwrap().load.in_flight(), 2);
    let pod = Pod::start("pod").await;
    door.pods("hello", &[pod.address], &[]);
    for mut client in clients {
        let mut head = [0; 12];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
    }
    assert_eq!(pod.does.served.load(Ordering::SeqCst), 2);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_line_says_come_back_later() {
    let door = Door::open(Config { queue_limit: 2, threads: 1, ..Config::detached() }).await;
    door.service("hello", 1).await;
    let held: Vec<_> = (0..2).map(|_| door.get_request("hello.test", "/")).collect();
    door.waiting("hello", 2).await;
    let answer = door.get_request("hello.test", "/").await.unwrap();
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "pending request queue full\n")
    );
    assert_eq!(answer.header("dormouse-error"), "activator; reason=queue-full");
    assert_eq!(answer.header("retry-after"), "1");
    let pod = Pod::start("pod").await;
    door.pods("hello", &[pod.address], &[]);
    for request in held {
        assert_eq!(request.await.unwrap().status, StatusCode::OK);
    }
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_pod_is_set_aside_and_its_requests_go_elsewhere() {
    let door = Door::open_default().await;
    door.service("hello", 1).await;
    // With a limit of 1 the first address in order is tried first.
    let mut pods = [Pod::start("first").await, Pod::start("second").await];
    pods.sort_by_key(|pod| pod.address.to_string());
    let [dead, alive] = pods;
    door.pods("hello", &[dead.address, alive.address], &[]);
    let hello = door.get("hello").unwrap();
    door.usable("hello", 2).await;
    let name = door.get_request("hello.test", "/").await.unwrap().body.trim().to_owned();
    dead.die().await;
    for _ in 0..5 {
        let answer = door.get_request("hello.test", "/").await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        assert_ne!(answer.body.trim(), name);
    }
    assert_eq!((hello.throttle.in_flight(), hello.throttle.pods()), (0, 1));
    assert_eq!(alive.does.served.load(Ordering::SeqCst), 5);
    // It comes back at the same address: probed, and used again.
    let again = Pod::start_at("again", dead.address).await;
    again.does.set_ready();
    door.usable("hello", 2).await;
    door.pods("hello", &[dead.address], &[]);
    assert_eq!(door.get_request("hello.test", "/").await.unwrap().body.trim(), "again");
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_dies_with_a_request_gives_502_and_the_slot_back() {
    let door = Door::open_default().await;
    door.service("hello", 1).await;
    let pod = Pod::start("pod").await;
    door.pods("hello", &[pod.address], &[]);
    let post = Request::post("/held").header("host", "hello.test").body(Full::from("once only")).unwrap();
    let request = tokio::spawn(send(door.address, post));
    until("in the pod", || pod.does.now.load(Ordering::SeqCst) == 1).await;
    pod.die().await;
    let answer = request.await.unwrap();
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(answer.header("dormouse-error").starts_with("activator; reason="), "{answer:?}");
    until("slot back", || door.get("hello").unwrap().throttle.in_flight() == 0).await;
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_safe_request_whose_pod_dies_is_sent_once_more_to_another() {
    let door = Door::open_default().await;
    door.service("hello", 1).await;
    let first = Pod::start("first").await;
    door.pods("hello", &[first.address], &[]);
    let request = door.get_request("hello.test", "/held");
    until("in the pod", || first.does.now.load(Ordering::SeqCst) == 1).await;
    first.die().await;
    // Its pod is out, so it is the first in line again.
    door.waiting("hello", 1).await;
    let second = Pod::start("second").await;
    door.pods("hello", &[second.address], &[]);
    until("in the second pod", || second.does.now.load(Ordering::SeqCst) == 1).await;
    // It may be what the pods die of: it does not get a third one.
    second.die().await;
    assert_eq!(request.await.unwrap().status, StatusCode::BAD_GATEWAY);
    until("slot back", || door.get("hello").unwrap().throttle.in_flight() == 0).await;
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_vanish_finish_what_they_have() {
    let door = Door::open_default().await;
    door.service("hello", 1).await;
    let pod = Pod::start("old").await;
    door.pods("hello", &[pod.address], &[]);
    let running = door.get_request("hello.test", "/held");
    until("in the pod", || pod.does.now.load(Ordering::SeqCst) == 1).await;
    door.pods("hello", &[], &[]);
    let hello = door.get("hello").unwrap();
    until("asleep", || hello.throttle.is_asleep()).await;
    let next = door.get_request("hello.test", "/");
    door.waiting("hello", 1).await;
    pod.does.release(1);
    assert_eq!(running.await.unwrap().body.trim(), "old");
    assert_eq!(hello.throttle.waiting(), 1, "the freed slot is on a pod that is gone");
    let new = Pod::start("new").await;
    door.pods("hello", &[new.address], &[]);
    assert_eq!(next.await.unwrap().body.trim(), "new");
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_cover_the_wait() {
    let door = Door::open_default().await;
    door.revision("slow", json!({ "timeoutSeconds": 1 })).await;
    door.route("slow.test", &[("slow", 100)]).await;
    let answer = door.get_request("slow.test", "/").await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::GATEWAY_TIMEOUT, "activator request timeout"));
    assert_eq!(answer.header("dormouse-error"), "activator; reason=timeout");
    assert_eq!(door.get("slow").unwrap().throttle.waiting(), 0);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_goes_through_and_holds_its_slot() {
    let door = Door::open_default().await;
    door.service("hello", 1).await;
    let pod = Pod::start("pod").await;
    door.pods("hello", &[pod.address], &[]);
    let mut client = TcpStream::connect(door.address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: hello.test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    client.write_all(b"hi").await.unwrap();
    let mut echo = [0; 2];
    client.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"HI");
    let hello = door.get("hello").unwrap();
    assert_eq!((hello.throttle.in_flight(), hello.load.in_flight()), (1, 1));
    drop(client);
    until("slot back", || hello.throttle.in_flight() == 0 && hello.load.in_flight() == 0).await;
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_through_one_by_one() {
    let door = Door::open_default().await;
    door.service("hello", 0).await;
    let pod = Pod::start("pod").await;
    door.pods("hello", &[pod.address], &[]);
    let mut client = TcpStream::connect(door.address).await.unwrap();
    client.write_all(b"GET /events HTTP/1.1\r\nhost: hello.test\r\n\r\n").await.unwrap();
    let mut seen = String::new();
    for n in 1..=3 {
        pod.does.release(1);
        while seen.matches("data: x").count() < n {
            seen.push(char::from(tokio::time::timeout(PATIENCE, client.read_u8()).await.expect("an event").unwrap()));
        }
    }
    drop(client);
    let hello = door.get("hello").unwrap();
    until("slot back", || hello.throttle.in_flight() == 0).await;
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_goes_through_with_trailers() {
    let door = Door::open_default().await;
    door.service("hello", 1).await;
    let pod = Pod::start("pod").await;
    door.pods("hello", &[pod.address], &[]);
    let request = Request::post("http://hello.test/grpc").header("te", "trailers").body(Full::from("x")).unwrap();
    let answer = send_h2(door.address, request).await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "pod"));
    assert_eq!(answer.header("grpc-status"), "0");
    assert_eq!(pod.does.seen.lock().unwrap()[0]["k-original-host"], "hello.test");
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_finishes_held_and_running_requests() {
    let door = Door::open_default().await;
    door.service("hello", 1).await;
    let pod = Pod::start("pod").await;
    door.pods("hello", &[pod.address], &[]);
    let running = door.get_request("hello.test", "/held");
    until("in the pod", || pod.does.now.load(Ordering::SeqCst) == 1).await;
    let held = door.get_request("hello.test", "/held");
    door.waiting("hello", 1).await;
    door.stop.cancel();
    until("no longer listens", || std::net::TcpStream::connect(door.address).is_err()).await;
    assert!(!door.running.is_finished());
    pod.does.release(2);
    for request in [running, held] {
        assert_eq!(request.await.unwrap().status, StatusCode::OK);
    }
    let ended = tokio::time::timeout(PATIENCE, door.running).await.expect("ends");
    ended.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_served_beside() {
    let page = Some(Page { listen: SocketAddr::from(([127, 0, 0, 1], 0)), tls: None });
    let observing = Observing { page, ..Observing::default() };
    let door = Door::open(Config { observing, threads: 1, ..Config::detached() }).await;
    door.service("hello", 0).await;
    let request = door.get_request("hello.test", "/");
    door.waiting("hello", 1).await;
    let scrape = || {
        let request = Request::get("/metrics").header("host", "m").body(Full::default()).unwrap();
        send(door.metrics.unwrap(), request)
    };
    let queued = |n| format!(r#"kn_revision_request_queued{{k8s_namespace_name="ns",kn_revision_name="hello"}} {n}"#);
    let text = scrape().await.body;
    assert!(text.contains(&queued(1)), "{text}");
    let pod = Pod::start("pod").await;
    door.pods("hello", &[pod.address], &[]);
    request.await.unwrap();
    let text = scrape().await.body;
    assert!(text.contains(&queued(0)) && text.contains("dormouse_activator_wake_seconds_count"), "{text}");
    door.close().await;
}

#[tokio::test]
async fn a_port_in_use_is_an_error_with_any_number_of_threads() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    for threads in [1, 3] {
        let error = activator::Activator::bind(Config { listen, threads, ..Config::detached() }).await.err().unwrap();
        assert!(error.to_string().contains(&listen.to_string()), "{error}");
    }
    // Nor is it shared with another activator.
    let first = activator::Activator::bind(Config { threads: 2, ..Config::detached() }).await.unwrap();
    let second = Config { listen: first.local_addr(), threads: 2, ..Config::detached() };
    assert!(activator::Activator::bind(second).await.is_err());
}
