//! What counts: in the autoscaler's stat, in the user's metrics, and for how long.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use api::stat::Stat;
use http::Response;
use prost::Message;
use proxy::Body;
use queue_proxy::Config;
use support::*;
use telemetry::observability::Endpoint;
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;

async fn stat(pod: &Pod, request: &str) -> (String, Stat) {
    let mut client = Raw::connect(pod.at.stats).await;
    client.send(request).await;
    let mut bytes = Vec::new();
    client.0.read_to_end(&mut bytes).await.unwrap();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    (String::from_utf8(bytes[..end].to_vec()).unwrap(), Stat::decode(&bytes[end..]).unwrap())
}

/// Requests and those of them that came through an activator, summed over the windows until two have passed.
async fn counted(pod: &Pod) -> (f64, f64) {
    let (mut all, mut proxied, mut last, mut windows) = (0.0, 0.0, 0.0, 0);
    while windows < 2 {
        let (_, stat) = stat(pod, &get("/metrics")).await;
        assert_eq!(stat.pod_name, "pod1");
        if stat.process_uptime > last {
            windows += 1;
            last = stat.process_uptime;
            all += stat.request_count;
            proxied += stat.proxied_request_count;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (all, proxied)
}

fn request(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}Connection: close\r\n\r\n")
}

#[test]
fn users_requests_count_and_probes_do_not() {
    on_runtime(async {
        let pod = Pod::before(mirror().await).await;
        for (lines, expected) in [
            ("", 200),
            ("K-Network-Probe: queue\r\n", 200),
            ("K-Network-Hash: x\r\n", 200),
            ("K-Proxy-Request: activator\r\n", 200),
            ("K-Proxy-Request: other\r\n", 200),
            ("K-Kubelet-Probe: x\r\n", 200),
            ("User-Agent: kube-probe/1\r\nK-Network-Probe: queue\r\n", 200),
            ("User-Agent: kube-probe/1\r\n", 400),
            ("K-Network-Probe: probe\r\nK-Network-Hash: x\r\n", 200),
        ] {
            assert_eq!(status(&pod.say(&request(lines)).await), expected, "{lines}");
        }
        assert_eq!(counted(&pod).await, (5.0, 1.0));
    });
}

#[test]
fn a_request_that_is_refused_counts() {
    on_runtime(async {
        let app = app(|_| std::future::pending());
        let pod = Pod::start(Config { container_concurrency: 1, ..config(app) }).await;
        let mut held = Vec::new();
        while held.len() < 40 {
            let mut client = pod.connect().await;
            client.send(&request("")).await;
            held.push(client);
        }
        // One runs, ten wait.
        for client in &mut held[11..] {
            assert_eq!(status(&client.rest().await), 503);
        }
        assert_eq!(counted(&pod).await, (40.0, 0.0));
    });
}

#[test]
fn the_stat_is_protobuf_whatever_is_asked_and_however() {
    on_runtime(async {
        let pod = Pod::before(mirror().await).await;
        for (method, accept) in [
            ("GET", ""),
            ("GET", "Accept: text/plain\r\n"),
            ("GET", "Accept: application/protobuf\r\n"),
            ("GET", "Accept: text/html, application/protobuf;q=0.1\r\n"),
            ("POST", "Content-Length: 0\r\n"),
        ] {
            let request = format!("{method} /metrics HTTP/1.1\r\nHost: a\r\n{accept}Connection: close\r\n\r\n");
            let (head, stat) = stat(&pod, &request).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            // Compared by the reader as it is, so without parameters.
            assert!(head.to_lowercase().contains("\r\ncontent-type: application/protobuf\r\n"), "{head}");
            assert_eq!(stat.pod_name, "pod1");
        }
    });
}

/// What comes up to and with `end`, and nothing beyond it.
async fn through(client: &mut Raw, end: &str) -> String {
    let mut seen = Vec::new();
    while !seen.ends_with(end.as_bytes()) {
        seen.push(client.0.read_u8().await.unwrap());
    }
    String::from_utf8(seen).unwrap()
}

/// The next report of a pod that tells by itself, from its connection: a line with the chunk's size, then the chunk.
async fn told(client: &mut Raw) -> Stat {
    let size = through(client, "\r\n").await;
    let size = usize::from_str_radix(size.trim(), 16).unwrap();
    let mut chunk = vec![0; size + 2];
    client.0.read_exact(&mut chunk).await.unwrap();
    Stat::decode_length_delimited(&chunk[..size]).unwrap()
}

#[test]
fn who_listens_is_told_what_changes_and_the_end() {
    on_runtime(async {
        let release = Rc::new(Notify::new());
        let gate = Rc::clone(&release);
        let app = app(move |_| {
            let gate = Rc::clone(&gate);
            async move {
                gate.notified().await;
                Response::new(Body::empty())
            }
        });
        let pod = Pod::before(app).await;
        let mut listener = Raw::connect(pod.at.stats).await;
        listener.send("GET /metrics HTTP/1.1\r\nHost: a\r\nDormouse-Stats: true\r\n\r\n").await;
        let head = through(&mut listener, "\r\n\r\n").await.to_lowercase();
        assert!(head.contains("\r\ncontent-type: application/vnd.dormouse.stats+protobuf\r\n"), "{head}");
        assert_eq!(told(&mut listener).await.direct(), (0.0, 0.0), "where things stand");
        let mut client = pod.connect().await;
        client.send(&request("")).await;
        // The window it came in, then a whole one.
        assert_eq!(told(&mut listener).await.direct().1, 1.0);
        let whole = told(&mut listener).await;
        assert!((whole.direct().0 - 1.0).abs() < 1e-9 && whole.direct().1 == 0.0, "{whole:?}");
        release.notify_one();
        client.rest().await;
        while told(&mut listener).await.direct() != (0.0, 0.0) {}
        // Nobody waits for a pod that goes because somebody listens.
        pod.shutdown.cancel();
        assert_eq!(listener.rest().await, "0\r\n\r\n");
        pod.ended.await.unwrap();
    });
}

async fn page(pod: &Pod) -> String {
    say(pod.at.user_metrics.unwrap(), &get("/metrics")).await
}

/// The value of the one line that begins with the name and has the labels.
fn value(page: &str, name: &str, labels: &str) -> Option<f64> {
    let mut lines = page.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(labels));
    lines.next()?.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn the_depth_shows_what_is_pending_and_falls_again() {
    on_runtime(async {
        let (inside, release) = (Rc::new(Cell::new(0)), Rc::new(Notify::new()));
        let (count, gate) = (Rc::clone(&inside), Rc::clone(&release));
        let app = app(move |_| {
            let gate = Rc::clone(&gate);
            count.set(count.get() + 1);
            async move {
                gate.notified().await;
                Response::new(Body::full("done"))
            }
        });
        let mut config = Config { container_concurrency: 5, ..config(app) };
        config.observability.prometheus = Some(Endpoint { host: "127.0.0.1".into(), port: 0 });
        let pod = Pod::start(config).await;
        let mut client = pod.connect().await;
        client.send(&request("")).await;
        while inside.get() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(value(&page(&pod).await, "kn_serving_queue_depth", ""), Some(1.0));
        release.notify_one();
        assert_eq!(status(&client.rest().await), 200);
        assert_eq!(value(&page(&pod).await, "kn_serving_queue_depth", ""), Some(0.0));
    });
}

#[test]
fn refused_requests_never_reach_the_invocation_metric_and_broken_answers_are_500() {
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            let mut head = [0; 8];
            let _ = raw.0.read(&mut head).await;
            if head.starts_with(b"GET /bro") {
                raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
            } else {
                raw.rest().await; // until it is given up
            }
        })
        .await;
        let mut config = Config { container_concurrency: 1, ..config(app) };
        config.limits.total = Some(Duration::from_millis(500));
        config.observability.prometheus = Some(Endpoint { host: "127.0.0.1".into(), port: 0 });
        let pod = Pod::start(config).await;
        pod.get("/broken").await;
        let mut held = Vec::new();
        for _ in 0..40 {
            let mut client = pod.connect().await;
            client.send(&request("")).await;
            held.push(client);
        }
        let mut statuses = Vec::new();
        for client in &mut held {
            statuses.push(status(&client.rest().await));
        }
        let page = page(&pod).await;
        let served = |code: u16, name| value(&page, name, &format!("http_response_status_code=\"{code}\""));
        let (server, invocation) =
            ("http_server_request_duration_seconds_count", "kn_serving_invocation_duration_seconds_count");
        let with = |code| Some(statuses.iter().filter(|status| **status == code).count() as f64);
        assert!(with(503) > Some(0.0) && with(504) > Some(0.0), "{statuses:?}");
        assert_eq!((served(503, server), served(504, server)), (with(503), with(504)), "{page}");
        assert_eq!(served(503, invocation).unwrap_or(0.0), 0.0, "{page}");
        assert_eq!((served(500, server), served(500, invocation)), (Some(1.0), Some(1.0)), "{page}");
    });
}
