//! Concurrency, counting, timeouts, and what a client that leaves gives back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http::Response;
use prost::Message;
use proxy::Body;
use support::*;
use tokio::sync::Notify;

/// An app that holds every request until told; counts those it has.
fn holding_app() -> (std::net::SocketAddr, Rc<Cell<usize>>, Rc<Notify>) {
    let (inside, release) = (Rc::new(Cell::new(0)), Rc::new(Notify::new()));
    let (count, gate) = (Rc::clone(&inside), Rc::clone(&release));
    let address = app(move |_| {
        let (count, gate) = (Rc::clone(&count), Rc::clone(&gate));
        count.set(count.get() + 1);
        async move {
            gate.notified().await;
            Response::new(Body::full("done"))
        }
    });
    (address, inside, release)
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn limit_one_runs_one_holds_ten_and_refuses_the_twelfth() {
    on_runtime(async {
        let (app, inside, release) = holding_app();
        let pod = Pod::start(queue_proxy::Config { container_concurrency: 1, ..config(app) }).await;
        let mut clients = Vec::new();
        for _ in 0..11 {
            let mut client = pod.connect().await;
            client.send(&get("/")).await;
            clients.push(client);
        }
        until(|| inside.get() == 1).await;
        // The others have been read before this one, connection by connection.
        let answer = loop {
            let answer = pod.get("/").await;
            if status(&answer) == 503 {
                break answer;
            }
        };
        assert_eq!(body(&answer), "pending request queue full\n");
        assert!(answer.contains("Dormouse-Error: queue-proxy; reason=queue-full\r\n"), "{answer}");
        assert_eq!(inside.get(), 1, "the limit was exceeded");
        for (n, client) in clients.iter_mut().enumerate() {
            release.notify_one();
            let answer = client.rest().await;
            assert_eq!(status(&answer), 200, "{n}: {answer}");
        }
        assert_eq!(inside.get(), 11);
    });
}

#[test]
fn a_client_that_leaves_frees_its_slot() {
    on_runtime(async {
        let (app, inside, release) = holding_app();
        let pod = Pod::start(queue_proxy::Config { container_concurrency: 1, ..config(app) }).await;
        let mut running = pod.connect().await;
        running.send(&get("/")).await;
        until(|| inside.get() == 1).await;
        let mut waiting = pod.connect().await;
        waiting.send(&get("/")).await;
        let mut last = pod.connect().await;
        last.send(&get("/")).await;
        drop(waiting);
        drop(running);
        until(|| inside.get() == 2).await;
        release.notify_waiters();
        release.notify_one();
        assert_eq!(status(&last.rest().await), 200);
    });
}

#[test]
fn kubelet_marked_requests_pass_the_limit() {
    on_runtime(async {
        let (app, inside, _release) = holding_app();
        let pod = Pod::start(queue_proxy::Config { container_concurrency: 1, ..config(app) }).await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            let mut client = pod.connect().await;
            client.send("GET / HTTP/1.1\r\nHost: a\r\nK-Kubelet-Probe: x\r\n\r\n").await;
            clients.push(client);
        }
        until(|| inside.get() == 3).await;
    });
}

#[test]
fn timeouts_before_the_answer_are_504() {
    on_runtime(async {
        let limits = |total, response_start, idle| {
            let ms = |n: u64| (n > 0).then(|| Duration::from_millis(n));
            proxy::deadline::Limits { total: ms(total), response_start: ms(response_start), idle: ms(idle) }
        };
        for (limits, reason) in [
            (limits(50, 0, 0), "timeout"),
            (limits(0, 50, 0), "response-start-timeout"),
            (limits(0, 0, 50), "idle-timeout"),
        ] {
            let (app, _, _) = holding_app();
            let pod = Pod::start(queue_proxy::Config { limits, ..config(app) }).await;
            let answer = pod.get("/").await;
            assert_eq!((status(&answer), body(&answer)), (504, "request timeout"));
            assert!(answer.contains(&format!("Dormouse-Error: queue-proxy; reason={reason}\r\n")), "{answer}");
        }
        let zero = proxy::deadline::Limits { total: Some(Duration::ZERO), ..Default::default() };
        let pod = Pod::start(queue_proxy::Config { limits: zero, ..config(mirror().await) }).await;
        assert_eq!(status(&pod.get("/").await), 504);
    });
}

#[test]
fn a_timeout_in_the_line_gives_the_place_back() {
    on_runtime(async {
        let (app, inside, release) = holding_app();
        let limits = proxy::deadline::Limits { total: Some(Duration::from_millis(80)), ..Default::default() };
        let pod = Pod::start(queue_proxy::Config { limits, container_concurrency: 1, ..config(app) }).await;
        for _ in 0..3 {
            let mut clients = Vec::new();
            for _ in 0..5 {
                let mut client = pod.connect().await;
                client.send(&get("/")).await;
                clients.push(client);
            }
            for client in &mut clients {
                assert_eq!(status(&client.rest().await), 504);
            }
        }
        let seen = inside.get();
        let mut client = pod.connect().await;
        client.send(&get("/")).await;
        until(|| inside.get() == seen + 1).await;
        // Permits left by requests that were cut may be first; the app's answer comes in any case.
        release.notify_waiters();
        release.notify_one();
        assert_eq!(status(&client.rest().await), 200);
    });
}

#[test]
fn a_timeout_after_the_start_aborts_instead_of_appending() {
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n").await;
            std::future::pending::<()>().await;
        })
        .await;
        let limits = proxy::deadline::Limits { total: Some(Duration::from_millis(100)), ..Default::default() };
        let pod = Pod::start(queue_proxy::Config { limits, ..config(app) }).await;
        let answer = pod.get("/").await;
        assert!(answer.contains("part") && !answer.contains("timeout") && !answer.contains("\r\n0\r\n"), "{answer:?}");
    });
}

#[test]
fn the_stat_counts_what_runs_and_what_came_through_the_activator() {
    on_runtime(async {
        let (app, inside, release) = holding_app();
        let pod = Pod::before(app).await;
        let stat = |answer: String| {
            assert!(answer.to_lowercase().contains("content-type: application/protobuf\r\n"), "{answer:?}");
            answer
        };
        let first = stat(say(pod.at.stats, &get("/metrics")).await);
        assert!(first.ends_with("\r\n\r\n\n\u{4}pod1"), "{first:?}");
        let mut plain = pod.connect().await;
        plain.send(&get("/")).await;
        let mut proxied = pod.connect().await;
        proxied.send("GET / HTTP/1.1\r\nHost: a\r\nK-Proxy-Request: activator\r\nConnection: close\r\n\r\n").await;
        until(|| inside.get() == 2).await;
        // After two ticks a whole window with two requests running has passed.
        let mut stats = Vec::new();
        while stats.len() < 3 {
            let mut client = Raw::connect(pod.at.stats).await;
            client.send(&get("/metrics")).await;
            let mut bytes = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut client.0, &mut bytes).await.unwrap();
            let at = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
            let stat = api::stat::Stat::decode(&bytes[at..]).unwrap();
            if stats.last() != Some(&stat) {
                stats.push(stat);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!((stats[1].request_count, stats[1].proxied_request_count), (2.0, 1.0));
        assert!((stats[2].average_concurrent_requests - 2.0).abs() < 1e-9, "{stats:?}");
        assert!((stats[2].average_proxied_concurrent_requests - 1.0).abs() < 1e-9, "{stats:?}");
        assert!((stats[2].request_count).abs() < 1e-9, "{stats:?}");
        release.notify_waiters();
        plain.rest().await;
        proxied.rest().await;
        assert_eq!(status(&say(pod.at.stats, &get("/other")).await), 404);
    });
}

#[test]
fn the_users_metrics_show_requests_and_no_probes() {
    on_runtime(async {
        let mut config = queue_proxy::Config { container_concurrency: 5, ..config(mirror().await) };
        let endpoint = telemetry::observability::Endpoint { host: "127.0.0.1".into(), port: 0 };
        config.observability.prometheus = Some(endpoint);
        let pod = Pod::start(config).await;
        pod.get("/").await;
        pod.say("GET / HTTP/1.1\r\nHost: a\r\nK-Network-Probe: other\r\nConnection: close\r\n\r\n").await;
        pod.say("GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1\r\nK-Network-Probe: queue\r\nConnection: close\r\n\r\n")
            .await;
        let page = say(pod.at.user_metrics.unwrap(), &get("/metrics")).await;
        let counts: Vec<_> =
            page.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count")).collect();
        assert_eq!(counts.len(), 1, "{page}");
        assert!(counts[0].contains("http_response_status_code=\"200\"") && counts[0].ends_with(" 1"), "{page}");
        assert!(page.lines().any(|line| line.starts_with("kn_serving_queue_depth{") && line.ends_with(" 0")), "{page}");
    });
}
