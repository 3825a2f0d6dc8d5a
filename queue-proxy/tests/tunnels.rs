//! Upgraded connections: their limits, and their end with the pod.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use proxy::deadline::Limits;
use queue_proxy::Config;
use support::*;
use tokio::time::Instant;

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

/// Says back each line it is told; hangs up after `bye`.
async fn echo_app() -> SocketAddr {
    raw_app(|mut raw| async move {
        raw.until("\r\n\r\n").await;
        raw.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").await;
        let mut buffer = [0; 64];
        while let Ok(n @ 1..) = tokio::io::AsyncReadExt::read(&mut raw.0, &mut buffer).await {
            let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
            raw.send(&text).await;
            if text.contains("bye") {
                return;
            }
        }
    })
    .await
}

async fn tunnel(pod: &Pod) -> Raw {
    let mut client = pod.connect().await;
    client.send(UPGRADE).await;
    client.until("101 Switching Protocols").await;
    client
}

#[test]
fn an_answer_within_the_limits_comes_and_silence_beyond_ends_it() {
    on_runtime(async {
        let ms = |n: u64| (n > 0).then(|| Duration::from_millis(n));
        for (total, idle) in [(1500, 0), (0, 1500)] {
            let limits = Limits { total: ms(total), response_start: None, idle: ms(idle) };
            let pod = Pod::start(Config { limits, ..config(echo_app().await) }).await;
            let mut client = tunnel(&pod).await;
            client.send("hello\n").await;
            client.until("hello\n").await;
            assert_eq!(client.rest().await, "", "total {total}, idle {idle}");
        }
    });
}

#[test]
fn a_tunnel_whose_answer_began_is_past_the_limit_of_its_start() {
    on_runtime(async {
        let limits = Limits { total: None, response_start: Some(Duration::from_millis(1000)), idle: None };
        let pod = Pod::start(Config { limits, ..config(echo_app().await) }).await;
        let mut client = tunnel(&pod).await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        client.send("late\n").await;
        client.until("late\n").await;
    });
}

#[test]
fn a_drain_waits_for_tunnels_and_passes_their_end_on() {
    on_runtime(async {
        let pod = Pod::before(echo_app().await).await;
        let mut client = tunnel(&pod).await;
        pod.shutdown.cancel();
        while tokio::net::TcpStream::connect(pod.at.serving).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!pod.ended.is_finished(), "did not wait for the tunnel");
        // The app ends the conversation in its own way, and the client hears it.
        client.send("bye\n").await;
        assert_eq!(client.rest().await, "bye\n");
        drop(client);
        pod.ended.await.unwrap();
    });
}

#[test]
fn a_tunnel_that_never_ends_is_cut_a_minute_after_the_drain() {
    // Without the patience of the other tests: the time is virtual.
    proxy::runtime::block_on(async {
        let pod = Pod::before(echo_app().await).await;
        let client = tunnel(&pod).await;
        tokio::time::pause();
        let started = Instant::now();
        pod.shutdown.cancel();
        pod.ended.await.unwrap();
        assert_eq!(started.elapsed().as_secs(), 60);
        tokio::time::resume();
        drop(client);
    })
    .unwrap();
}

#[test]
fn the_side_ports_answer_until_the_last_request_is_done() {
    on_runtime(async {
        let app = app(|_| async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            http::Response::new(proxy::Body::full("done"))
        });
        let pod = Pod::before(app).await;
        let mut slow = pod.connect().await;
        slow.send(&get("/")).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        pod.shutdown.cancel();
        while tokio::net::TcpStream::connect(pod.at.serving).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!pod.ended.is_finished());
        assert_eq!(status(&say(pod.at.stats, &get("/metrics")).await), 200, "the main port is closed");
        let hook = "POST /wait-for-drain HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        assert_eq!(status(&say(pod.at.admin, hook).await), 200, "any method");
        assert!(slow.rest().await.ends_with("done"));
        pod.ended.await.unwrap();
    });
}
