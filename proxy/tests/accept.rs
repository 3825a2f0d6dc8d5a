//! Connections that dawdle, rest, or are asked to end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::Response;
use hyper::service::service_fn;
use proxy::{Body, Drain, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

fn on_runtime<F: Future>(test: F) -> F::Output {
    proxy::runtime::block_on(async { tokio::time::timeout(Duration::from_secs(20), test).await.expect("test hung") })
        .unwrap()
}

fn server(header_read_timeout: Duration) -> (SocketAddr, Drain, JoinHandle<()>) {
    let listener = proxy::accept::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), true).unwrap();
    let address = listener.local_addr().unwrap();
    let drain = Drain::default();
    let config = ServerConfig { header_read_timeout, ..ServerConfig::default() };
    let ended = tokio::task::spawn_local(proxy::serve(listener, config, drain.clone(), |_peer| {
        service_fn(|_| async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok::<_, Infallible>(Response::new(Body::full("ok")))
        })
    }));
    (address, drain, ended)
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

async fn answer(stream: &mut TcpStream) -> String {
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    while !seen.ends_with("ok") {
        let n = stream.read(&mut buffer).await.unwrap();
        assert!(n > 0, "closed: {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    seen
}

async fn until_closed(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    let _ = stream.read_to_end(&mut seen).await;
    String::from_utf8_lossy(&seen).into_owned()
}

#[test]
fn a_slow_header_and_a_silent_connection_are_cut() {
    on_runtime(async {
        let (address, _, _) = server(Duration::from_millis(100));
        for begun in [&b""[..], b"P", b"PR", b"GET / HTTP/1.1\r\nHost:"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(begun).await.unwrap();
            assert!(!until_closed(&mut stream).await.contains("200"));
        }
    });
}

#[test]
fn a_resting_keep_alive_connection_is_not_cut_and_its_next_slow_header_is() {
    on_runtime(async {
        let (address, _, _) = server(Duration::from_millis(100));
        let mut stream = TcpStream::connect(address).await.unwrap();
        for _ in 0..2 {
            stream.write_all(GET).await.unwrap();
            answer(&mut stream).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        // In two pieces after a rest: the clock starts with the first piece.
        stream.write_all(&GET[..10]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.write_all(&GET[10..]).await.unwrap();
        answer(&mut stream).await;
        stream.write_all(&GET[..10]).await.unwrap();
        assert!(!until_closed(&mut stream).await.contains("200"));
    });
}

#[test]
fn a_method_that_begins_like_the_h2_preface_is_http_1() {
    on_runtime(async {
        let (address, _, _) = server(Duration::from_secs(5));
        for request in
            ["PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n", "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"]
        {
            let mut stream = TcpStream::connect(address).await.unwrap();
            for piece in [&request[..1], &request[1..2], &request[2..]] {
                stream.write_all(piece.as_bytes()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
        }
    });
}

#[test]
fn a_drain_ends_idle_connections_and_finishes_busy_ones() {
    on_runtime(async {
        let (address, drain, ended) = server(Duration::from_secs(5));
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(GET).await.unwrap();
        answer(&mut idle).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut busy = TcpStream::connect(address).await.unwrap();
        busy.write_all(GET).await.unwrap();
        while drain.active() < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        drain.begin();
        assert_eq!(until_closed(&mut idle).await, "");
        assert_eq!(until_closed(&mut silent).await, "");
        let last = until_closed(&mut busy).await;
        assert!(last.contains("200 OK") && last.contains("Connection: close"), "{last}");
        ended.await.unwrap();
        assert_eq!(drain.active(), 0);
    });
}

/// Longer than a connection stays unparked.
const REST: Duration = Duration::from_millis(250);

#[test]
fn a_parked_connection_serves_on() {
    on_runtime(async {
        let (address, drain, _) = server(Duration::from_secs(5));
        let mut stream = TcpStream::connect(address).await.unwrap();
        for _ in 0..3 {
            stream.write_all(GET).await.unwrap();
            assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
            tokio::time::sleep(REST).await;
        }
        drop(stream);
        drain.idle().await;
    });
}

#[test]
fn half_a_head_sent_along_survives_the_parking() {
    on_runtime(async {
        let (address, _, _) = server(Duration::from_secs(5));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&[GET, &GET[..9]].concat()).await.unwrap();
        answer(&mut stream).await;
        tokio::time::sleep(REST).await;
        stream.write_all(&GET[9..]).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn an_answer_that_nobody_reads_yet_is_not_parked_away() {
    on_runtime(async {
        const SIZE: usize = 16 << 20;
        let listener = proxy::accept::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), true).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::task::spawn_local(proxy::serve(listener, ServerConfig::default(), Drain::default(), |_peer| {
            service_fn(|_| async { Ok::<_, Infallible>(Response::new(Body::full(vec![b'x'; SIZE]))) })
        }));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        tokio::time::sleep(REST).await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let seen = until_closed(&mut stream).await;
        assert_eq!(seen.bytes().filter(|byte| *byte == b'x').count(), 2 * SIZE);
    });
}

#[test]
fn a_parked_connection_does_not_hold_up_the_end() {
    on_runtime(async {
        let (address, drain, ended) = server(Duration::from_secs(5));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(GET).await.unwrap();
        answer(&mut stream).await;
        tokio::time::sleep(REST).await;
        drain.begin();
        ended.await.unwrap();
        assert_eq!(until_closed(&mut stream).await, "");
    });
}

#[test]
fn a_client_that_ends_within_the_first_bytes_is_not_waited_for() {
    on_runtime(async {
        let (address, _, _) = server(Duration::from_secs(60));
        for begun in [&b""[..], b"P", b"PR"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(begun).await.unwrap();
            stream.shutdown().await.unwrap();
            until_closed(&mut stream).await;
        }
    });
}
