//! Bytes against their stream: early answers, slow readers, half-closed connections, and one direction that never rests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use proxy::deadline::Limits;
use queue_proxy::Config;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;

/// Writes this many bytes, or until the other side has had enough; returns how many went.
async fn pour(to: &mut OwnedWriteHalf, bytes: usize) -> usize {
    let block = vec![b'x'; 64 << 10];
    let mut poured = 0;
    while poured < bytes {
        match to.write(&block[..block.len().min(bytes - poured)]).await {
            Ok(n @ 1..) => poured += n,
            _ => break,
        }
    }
    poured
}

/// Reads and forgets until the end.
async fn swallow(raw: &mut Raw) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(1..) = raw.0.read(&mut buffer).await {}
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

const EARLY: &str = "HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nearly";

#[test]
fn an_answer_before_the_body_was_read_reaches_a_client_that_is_still_sending() {
    #[derive(Clone, Copy, Debug)]
    enum Then {
        Waits,
        Closes,
    }
    on_runtime(async {
        for then in [Then::Waits, Then::Closes] {
            for (length, framing) in [(10_usize, "Content-Length: 10"), (100 << 20, "Content-Length: 104857600")] {
                let app = raw_app(move |mut raw| async move {
                    raw.until("\r\n\r\n").await;
                    raw.send(EARLY).await;
                    if matches!(then, Then::Waits) {
                        std::future::pending::<()>().await;
                    }
                })
                .await;
                let pod = Pod::before(app).await;
                let (mut read, mut write) = pod.connect().await.0.into_split();
                write.write_all(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").as_bytes()).await.unwrap();
                let mut answer = vec![0; 64];
                let answered = async {
                    let mut seen = Vec::new();
                    while !seen.ends_with(b"early") {
                        let n = read.read(&mut answer).await.unwrap();
                        assert!(n > 0, "{then:?} {length}: {}", String::from_utf8_lossy(&seen));
                        seen.extend_from_slice(&answer[..n]);
                    }
                    seen
                };
                // The rest of it is sent, or is not wanted any more.
                let (seen, _) = futures::join!(answered, pour(&mut write, length));
                assert!(seen.starts_with(b"HTTP/1.1 413 "), "{then:?} {length}");
            }
        }
    });
}

#[test]
fn an_early_answer_overtakes_an_upload_that_never_rests() {
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n").await;
            swallow(&mut raw).await;
        })
        .await;
        let pod = Pod::before(app).await;
        let (mut read, mut write) = pod.connect().await.0.into_split();
        write.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741824\r\n\r\n").await.unwrap();
        let poured = Cell::new(0);
        let sending = async {
            while poured.get() < 1 << 30 {
                poured.set(poured.get() + pour(&mut write, 1 << 20).await);
            }
        };
        let answered = async {
            let (mut seen, mut buffer) = (Vec::new(), [0; 512]);
            while !String::from_utf8_lossy(&seen).contains("early") {
                let n = read.read(&mut buffer).await.unwrap();
                seen.extend_from_slice(&buffer[..n]);
            }
        };
        tokio::select! {
            () = answered => {}
            () = sending => panic!("the answer came last"),
        }
        assert!(poured.get() < 256 << 20, "the answer waited for {} MiB", poured.get() >> 20);
    });
}

#[test]
fn one_direction_of_a_tunnel_that_never_rests_leaves_the_other_its_turn() {
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n").await;
            raw.until("x").await;
            raw.send("early").await;
            swallow(&mut raw).await;
        })
        .await;
        let limits = Limits { total: Some(Duration::from_secs(3)), ..Limits::default() };
        let pod = Pod::start(Config { limits, ..config(app) }).await;
        let mut client = pod.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n").await;
        client.until("\r\n\r\n").await;
        let (mut read, mut write) = client.0.into_split();
        let poured = Cell::new(0);
        let seen = Cell::new(None);
        let answered = async {
            let mut buffer = [0; 512];
            read.read_exact(&mut buffer[..5]).await.unwrap();
            assert_eq!(&buffer[..5], b"early");
            seen.set(Some(poured.get()));
            // Nor does it keep the clock from stopping it.
            while let Ok(1..) = read.read(&mut buffer).await {}
        };
        let sending = async {
            loop {
                match pour(&mut write, 1 << 20).await {
                    0 => std::future::pending().await,
                    n => poured.set(poured.get() + n),
                }
            }
        };
        tokio::select! {
            () = answered => {}
            () = sending => {}
        }
        assert!(seen.get().is_some_and(|poured: usize| poured < 256 << 20), "it waited for {:?} bytes", seen.get());
    });
}

#[test]
fn each_piece_is_echoed_before_the_next_is_sent() {
    on_runtime(async {
        let app = app(|request: http::Request<proxy::Body>| async move { http::Response::new(request.into_body()) });
        let pod = Pod::before(app).await;
        for framing in ["Content-Length: 15", "Transfer-Encoding: chunked"] {
            let mut client = pod.connect().await;
            client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")).await;
            let chunked = framing.ends_with("chunked");
            for word in ["first", "secnd", "third"] {
                client.send(&if chunked { format!("5\r\n{word}\r\n") } else { word.to_owned() }).await;
                client.until(word).await;
            }
            if chunked {
                client.send("0\r\n\r\n").await;
                client.until("0\r\n\r\n").await;
            }
        }
    });
}

/// An app that answers with 1 GiB, and how much of it was taken from it.
async fn large_app() -> (SocketAddr, Rc<Cell<usize>>) {
    let taken = Rc::new(Cell::new(0));
    let count = Rc::clone(&taken);
    let app = raw_app(move |mut raw| {
        let taken = Rc::clone(&count);
        async move {
            raw.until("\r\n\r\n").await;
            raw.send("HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n").await;
            let (_read, mut write) = raw.0.into_split();
            loop {
                match pour(&mut write, 1 << 16).await {
                    0 => break,
                    n => taken.set(taken.get() + n),
                }
            }
        }
    });
    (app.await, taken)
}

#[test]
fn what_a_slow_client_does_not_read_stays_with_the_app() {
    on_runtime(async {
        let (app, taken) = large_app().await;
        let pod = Pod::before(app).await;
        let mut client = pod.connect().await;
        client.send(&get("/")).await;
        let mut byte = [0];
        for _ in 0..20 {
            client.0.read_exact(&mut byte).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Two pairs of socket buffers, which the kernel lets grow to 6 MiB each, and the little that we hold.
        assert!(taken.get() < 40 << 20, "{} MiB were taken", taken.get() >> 20);
    });
}

#[test]
fn a_client_that_stops_reading_is_cut_at_the_limits_of_its_request() {
    on_runtime(async {
        let limit = Some(Duration::from_millis(700));
        for limits in [Limits { total: limit, ..Limits::default() }, Limits { idle: limit, ..Limits::default() }] {
            let (app, taken) = large_app().await;
            let pod = Pod::start(Config { limits, container_concurrency: 1, ..config(app) }).await;
            let mut client = pod.connect().await;
            client.send(&get("/")).await;
            until(|| taken.get() > 0).await;
            // Its slot is free again, though it still holds its connection. The next waits under limits of its own.
            loop {
                let mut next = pod.connect().await;
                next.send(&get("/")).await;
                if next.until("\r\n\r\n").await.starts_with("HTTP/1.1 200 ") {
                    break;
                }
            }
            drop(client);
        }
    });
}

#[test]
fn a_slow_client_is_not_idle() {
    on_runtime(async {
        let limits = Limits { idle: Some(Duration::from_millis(1500)), ..Limits::default() };
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send("HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n").await;
            let (_read, mut write) = raw.0.into_split();
            pour(&mut write, 64 << 20).await;
            std::future::pending::<()>().await;
        })
        .await;
        let pod = Pod::start(Config { limits, ..config(app) }).await;
        let mut client = pod.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut left =
            client.until("\r\n\r\n").await.split_once("\r\n\r\n").map_or(0, |(_, body)| (64 << 20) - body.len());
        let mut buffer = vec![0; 2 << 20];
        while left > 0 {
            // Some 30 pauses: longer in all than the limit, each of them shorter.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let some = left.min(buffer.len());
            client.0.read_exact(&mut buffer[..some]).await.unwrap();
            left -= some;
        }
    });
}

#[test]
fn a_drain_waits_for_a_slow_client() {
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send("HTTP/1.1 200 OK\r\nContent-Length: 33554432\r\n\r\n").await;
            let (_read, mut write) = raw.0.into_split();
            pour(&mut write, 32 << 20).await;
            std::future::pending::<()>().await;
        })
        .await;
        let pod = Pod::before(app).await;
        let mut client = pod.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.until("200 OK").await;
        pod.shutdown.cancel();
        let mut rest = 0;
        let mut buffer = vec![0; 1 << 20];
        while let Ok(n @ 1..) = client.0.read(&mut buffer).await {
            assert!(!pod.ended.is_finished());
            tokio::time::sleep(Duration::from_millis(5)).await;
            rest += n;
        }
        assert!(rest > (32 << 20) - 8192, "{rest} bytes");
        pod.ended.await.unwrap();
    });
}

#[test]
fn a_client_that_ends_its_side_has_left() {
    // As upstream has it: who says no more is taken for gone, and the app is told at once.
    on_runtime(async {
        for request in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nall of it",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\na part",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n9\r\na part",
        ] {
            let (asked, left) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
            let flags = (Rc::clone(&asked), Rc::clone(&left));
            let app = raw_app(move |mut raw| {
                let (asked, left) = (Rc::clone(&flags.0), Rc::clone(&flags.1));
                async move {
                    raw.until("\r\n\r\n").await;
                    asked.set(true);
                    swallow(&mut raw).await;
                    left.set(true);
                }
            })
            .await;
            let pod = Pod::start(Config { container_concurrency: 1, ..config(app) }).await;
            let mut client = pod.connect().await;
            client.send(request).await;
            until(|| asked.get()).await;
            assert!(!left.get());
            client.0.shutdown().await.unwrap();
            until(|| left.get()).await;
            let answer = client.rest().await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 502 "), "{request:?}: {answer}");
        }
    });
}

#[test]
fn who_leaves_the_line_gives_its_place_back_though_nobody_has_read_its_body() {
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\n").await;
            swallow(&mut raw).await;
        })
        .await;
        let pod = Pod::start(Config { container_concurrency: 1, ..config(app) }).await;
        let mut first = pod.connect().await;
        first.send(&get("/")).await;
        // More than ever have a place; all of them leave, their bodies sent apart from their heads.
        for _ in 0..30 {
            let mut client = pod.connect().await;
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n").await;
            tokio::time::sleep(Duration::from_millis(5)).await;
            client.send("body").await;
        }
        // So there is one for the next.
        let mut refused = true;
        while refused {
            let mut next = pod.connect().await;
            next.send(&get("/")).await;
            let answer = tokio::time::timeout(Duration::from_millis(200), next.until("\r\n\r\n")).await;
            refused = answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 503 "));
        }
    });
}

#[test]
fn an_app_that_ends_its_side_ends_what_it_was_saying() {
    on_runtime(async {
        for (said, expected, end) in [
            ("", "HTTP/1.1 502 ", ""),
            ("HTTP/1.1 200 OK\r\n", "HTTP/1.1 502 ", ""),
            ("HTTP/1.1 200 OK\r\n\r\nall of it", "HTTP/1.1 200 ", "all of it\r\n0\r\n\r\n"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nall of it", "HTTP/1.1 200 ", "all of it"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na part", "HTTP/1.1 200 ", "a part"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\na part", "HTTP/1.1 200 ", "a part\r\n"),
        ] {
            let app = raw_app(move |mut raw| async move {
                raw.until("\r\n\r\n").await;
                raw.send(said).await;
                raw.0.shutdown().await.unwrap();
                raw.rest().await;
            })
            .await;
            let answer = Pod::before(app).await.get("/").await;
            assert!(answer.starts_with(expected) && answer.ends_with(end), "{said:?}: {answer}");
        }
    });
}

#[test]
fn a_connection_that_rests_ends_when_its_client_ends_it() {
    on_runtime(async {
        let pod = Pod::before(mirror().await).await;
        for rest in [0, 150] {
            let mut client = pod.connect().await;
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            client.until("127.0.0.1\r\n\r\n").await;
            // Longer than a connection stays awake, and shorter.
            tokio::time::sleep(Duration::from_millis(rest)).await;
            client.0.shutdown().await.unwrap();
            assert_eq!(client.rest().await, "");
        }
    });
}
