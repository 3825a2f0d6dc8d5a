//! The annotations by which a revision says how its requests are held and ordered, seen from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say where")]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use support::{Answer, Door, Pod, send, until};
use tokio::task::JoinHandle;

async fn door(annotations: Value, limit: u32) -> Door {
    let door = Door::open_default().await;
    door.revision_with("hello", annotations, json!({ "containerConcurrency": limit })).await;
    door.route("hello.test", &[("hello", 100)]).await;
    door
}

fn ask(door: SocketAddr, path: &str, headers: &[(&str, &str)]) -> JoinHandle<Answer> {
    let mut request = Request::get(path).header("host", "hello.test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request: Request<Full<Bytes>> = request.body(Full::default()).unwrap();
    tokio::spawn(send(door, request))
}

/// Lets the pod finish one request after the other and tells by a header whose turn it was.
async fn turns(pod: &Pod, header: &str, n: usize) -> Vec<String> {
    for done in 0..n {
        until("one is in the pod", || pod.does.seen.lock().unwrap().len() == done + 1).await;
        pod.does.release(1);
    }
    pod.does.seen.lock().unwrap().iter().map(|seen| seen[header].to_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_its_own_length() {
    let door = door(json!({ "activator.dormouse.dev/queue-length": "2" }), 1).await;
    let held = [ask(door.address, "/1", &[]), ask(door.address, "/2", &[])];
    door.waiting("hello", 2).await;
    let answer = ask(door.address, "/3", &[]).await.unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    assert_eq!(answer.header("dormouse-error"), "activator; reason=queue-full");
    let pod = Pod::start("pod").await;
    door.pods("hello", &[pod.address], &[]);
    for request in held {
        assert_eq!(request.await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(ask(door.address, "/4", &[]).await.unwrap().status, StatusCode::OK);
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_few_bytes() {
    let door = door(json!({ "activator.dormouse.dev/queue-bytes": "1Ki" }), 1).await;
    let _held = ask(door.address, "/1", &[]);
    door.waiting("hello", 1).await;
    let answer = ask(door.address, "/2", &[("x-large", &"x".repeat(1000))]).await.unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("dormouse-error"), "activator; reason=queue-bytes");
    let _held_too = ask(door.address, "/3", &[]);
    door.waiting("hello", 2).await;
    door.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_with_an_end() {
    let door = door(json!({ "activator.dormouse.dev/queue-timeout": "50ms" }), 1).await;
    let answer = ask(door.address, "/", &[]).await.unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    assert_eq!(answer.header("dormouse-error"), "activator; reason=queue-timeout");
    assert!(answer.body.contains("activator.dormouse.dev/queue-timeout"), "{answer:?}");
    let hello = door.get("hello").unwrap();
    assert_eq!((hello.throttle.waiting(), hello.load.in_flight()), (0, 0));
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_higher_class_goes_first() {
    let door = door(json!({ "activator.dormouse.dev/priority-header": "X-Class" }), 1).await;
    let mut held = Vec::new();
    for (n, class) in ["1", "9", "5", "9", "0"].into_iter().enumerate() {
        held.push(ask(door.address, "/held", &[("x-class", class)]));
        door.waiting("hello", n + 1).await;
    }
    let pod = Pod::start("pod").await;
    door.pods("hello", &[pod.address], &[]);
    assert_eq!(turns(&pod, "x-class", 5).await, ["9", "9", "5", "1", "0"]);
    for request in held {
        assert_eq!(request.await.unwrap().status, StatusCode::OK);
    }
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_many_requests_does_not_keep_others_out() {
    let door = door(json!({ "activator.dormouse.dev/fair-share": "header:X-Tenant" }), 1).await;
    let mut held = Vec::new();
    for (n, tenant) in ["many", "many", "many", "many", "few"].into_iter().enumerate() {
        held.push(ask(door.address, "/held", &[("x-tenant", tenant)]));
        door.waiting("hello", n + 1).await;
    }
    let pod = Pod::start("pod").await;
    door.pods("hello", &[pod.address], &[]);
    assert_eq!(turns(&pod, "x-tenant", 5).await, ["many", "few", "many", "many", "many"]);
    for request in held {
        request.await.unwrap();
    }
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_stays_at_its_pod() {
    let door = door(json!({ "activator.dormouse.dev/session-affinity": "cookie:sid" }), 0).await;
    let pods = [Pod::start("a").await, Pod::start("b").await, Pod::start("c").await];
    door.pods("hello", &pods.each_ref().map(|pod| pod.address), &[]);
    door.usable("hello", 3).await;
    let mut used = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let first = ask(door.address, "/", &[]).await.unwrap();
        let cookie = first.header("set-cookie").split(';').next().unwrap().to_owned();
        assert!(cookie.starts_with("sid=") && first.header("set-cookie").contains("HttpOnly"), "{first:?}");
        for _ in 0..3 {
            let next = ask(door.address, "/", &[("cookie", &format!("theme=dark; {cookie}"))]).await.unwrap();
            assert_eq!(next.body, first.body);
            assert_eq!(next.header("set-cookie"), "", "it has one");
        }
        used.insert(first.body.clone());
    }
    assert!(used.len() > 1, "sessions are spread: {used:?}");
    // A pod that is gone gives its sessions to the others.
    let at = |answer: &Answer| answer.body.clone();
    let cookie = [("cookie", "sid=0123456789abcdef")];
    let before = at(&ask(door.address, "/", &cookie).await.unwrap());
    let left: Vec<_> = pods.iter().zip(["a", "b", "c"]).filter(|(_, name)| *name != before.trim()).collect();
    door.pods("hello", &left.iter().map(|(pod, _)| pod.address).collect::<Vec<_>>(), &[]);
    door.usable("hello", 2).await;
    let after = at(&ask(door.address, "/", &cookie).await.unwrap());
    assert_ne!(after, before);
    assert!(pods.iter().map(|pod| pod.does.served.load(Ordering::SeqCst)).sum::<usize>() == 82);
    door.close().await;
}
