//! Apps and clients that say more, less or other than they should: no byte of one answer ever becomes part of the next.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use support::*;
use tokio::io::AsyncWriteExt;

/// An app made of a function, called once per connection with its number. Also returns the count of connections.
async fn numbered_app<F, Fut>(serve: F) -> (SocketAddr, Rc<Cell<usize>>)
where
    F: Fn(usize, Raw) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let opened = Rc::new(Cell::new(0));
    let count = Rc::clone(&opened);
    let app = raw_app(move |raw| {
        let n = count.get();
        count.set(n + 1);
        serve(n, raw)
    });
    (app.await, opened)
}

const KEPT: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Answers `first` on the first connection, whatever is asked there; the others are well-behaved.
async fn app_that_first_says(first: &'static str) -> (SocketAddr, Rc<Cell<usize>>) {
    numbered_app(move |n, mut raw| async move {
        loop {
            let head = raw.until("\r\n\r\n").await;
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            if n == 0 {
                raw.send(first).await;
                raw.rest().await;
                return;
            }
            raw.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len())).await;
        }
    })
    .await
}

#[test]
fn what_follows_an_answer_never_is_the_next_one() {
    on_runtime(async {
        for (method, first) in [
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngoodjunk"),
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood\r\n"),
            (
                "GET",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n\
                 HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            ),
            // Bodies where there may be none.
            ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
            ("GET", "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
            (
                "GET",
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 42\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            ),
            // Chunked wins over a length, and the connection is not trusted again.
            (
                "GET",
                "HTTP/1.1 200 OK\r\nContent-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n\
                 HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            ),
        ] {
            let (app, opened) = app_that_first_says(first).await;
            let pod = Pod::before(app).await;
            let mut client = pod.connect().await;
            client.send(&format!("{method} /one HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            let mut seen = client.until("\r\n\r\n").await;
            client.send(&get("/two")).await;
            seen.push_str(&client.rest().await);
            assert!(seen.ends_with("/two") && !seen.contains("evil") && !seen.contains("junk"), "{first:?}: {seen}");
            assert_eq!(seen.matches("HTTP/1.1").count(), 2, "{first:?}: {seen}");
            assert_eq!(opened.get(), 2, "{first:?}");
        }
    });
}

#[test]
fn an_answer_that_nobody_asked_for_ends_its_connection() {
    on_runtime(async {
        let (said, opened) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        let (says, count) = (Rc::clone(&said), Rc::clone(&opened));
        let app = raw_app(move |mut raw| {
            let says = Rc::clone(&says);
            count.set(count.get() + 1);
            async move {
                raw.until("\r\n\r\n").await;
                raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                raw.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").await;
                says.set(true);
                raw.rest().await;
            }
        })
        .await;
        let pod = Pod::before(app).await;
        for n in 1..=3 {
            said.set(false);
            assert!(pod.get("/").await.ends_with("ok"));
            assert_eq!(opened.get(), n);
            while !said.get() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
}

#[test]
fn a_connection_is_used_again_unless_somebody_said_close() {
    on_runtime(async {
        for (answer, connections) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 1),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=60\r\n\r\nok", 1),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\nKeep-Alive: timeout=0\r\n\r\nok", 3),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", 3),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x, Close\r\n\r\nok", 3),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 3),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok", 1),
        ] {
            let (app, opened) = numbered_app(move |_, mut raw| async move {
                loop {
                    raw.until("\r\n\r\n").await;
                    raw.send(answer).await;
                }
            })
            .await;
            let pod = Pod::before(app).await;
            let mut client = pod.connect().await;
            for _ in 0..3 {
                client.send(KEPT).await;
                let seen = client.until("ok").await;
                // What the app says of its connection is not said of the client's.
                assert!(!seen.contains("lose") && !seen.contains("eep-"), "{answer:?}: {seen}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(opened.get(), connections, "{answer:?}");
        }
    });
}

#[test]
fn pipelined_requests_with_bodies_are_answered_in_their_order() {
    on_runtime(async {
        let app = app(|request: http::Request<proxy::Body>| async move {
            let path = request.uri().path().to_owned();
            let body = http_body_util::BodyExt::collect(request.into_body()).await.unwrap().to_bytes();
            http::Response::new(proxy::Body::full(format!("<{path} {}>", String::from_utf8_lossy(&body))))
        });
        let pod = Pod::before(app).await;
        let seen = pod
            .say(
                "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
                 POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\nX: y\r\n\r\n\
                 PUT /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n\
                 GET /4 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\ngh\r\n\
                 HEAD /5 HTTP/1.1\r\nHost: a\r\n\r\n\
                 GET /6 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            )
            .await;
        let bodies: Vec<_> = seen.split("HTTP/1.1 200 OK\r\n").skip(1).map(body).collect();
        assert_eq!(bodies, ["</1 abc>", "</2 def>", "</3 >", "</4 gh>", "", "</6 >"], "{seen}");
    });
}

#[test]
fn answers_that_are_none_are_502_and_answers_cut_short_are_cut() {
    on_runtime(async {
        let large: &str = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(10 << 20)).leak();
        let folded = "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n";
        for answer in [
            "",
            "HTTP/1.1 200 OK\r\nContent-",
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA b: c\r\nContent-Length: 0\r\n\r\n",
            folded,
            large,
        ] {
            let (app, _) = numbered_app(move |_, mut raw| async move {
                raw.until("\r\n\r\n").await;
                let _ = raw.0.write_all(answer.as_bytes()).await;
            })
            .await;
            let got = Pod::before(app).await.get("/").await;
            assert_eq!(status(&got), 502, "{:?}: {}", &answer[..answer.len().min(60)], &got[..got.len().min(300)]);
        }
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\npart",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n0\r\nbad trailer\r\n\r\n",
        ] {
            let (app, _) = numbered_app(move |_, mut raw| async move {
                raw.until("\r\n\r\n").await;
                raw.send(answer).await;
            })
            .await;
            let got = Pod::before(app).await.get("/").await;
            assert!(got.starts_with("HTTP/1.1 200 ") && got.contains("part"), "{answer:?}: {got}");
            assert!(!got.ends_with("0\r\n\r\n"), "{answer:?}: {got}");
        }
    });
}

#[test]
fn a_head_of_ten_mebibytes_passes_and_so_does_one_that_comes_byte_by_byte() {
    on_runtime(async {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\nX: ";
        let value = "x".repeat((10 << 20) - head.len() - 4);
        let whole: &str = format!("{head}{value}\r\n\r\nok").leak();
        let (app, _) = numbered_app(move |_, mut raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send(whole).await;
        })
        .await;
        let mut client = Pod::before(app).await.connect().await;
        client.send(&get("/")).await;
        let mut seen = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut client.0, &mut seen).await.unwrap();
        assert!(seen.len() > 10 << 20 && seen.ends_with(b"\r\n\r\nok"), "{} bytes", seen.len());

        let slow = "HTTP/1.1 203 Slow\r\nX-A: b\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n3\r\nabc\r\n0\r\nX-T: u\r\n\r\n";
        let (app, _) = numbered_app(move |_, mut raw| async move {
            raw.0.set_nodelay(true).unwrap();
            raw.until("\r\n\r\n").await;
            for byte in slow.bytes() {
                raw.0.write_all(&[byte]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            raw.rest().await;
        })
        .await;
        let got = Pod::before(app).await.get("/").await;
        assert!(got.starts_with("HTTP/1.1 203 ") && got.contains("X-A: b\r\n"), "{got}");
        assert!(got.ends_with("c\r\n0\r\nX-T: u\r\n\r\n"), "{got}");
    });
}

#[test]
fn an_answer_without_a_body_says_no_length_and_equal_lengths_are_one() {
    on_runtime(async {
        for (answer, length) in [
            ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", None),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nX-Forces-Reading: 1\r\nUpgrade: x\r\n\r\n", None),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Some("Content-Length: 5\r\n")),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", Some("Content-Length: 2\r\n")),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Some("Content-Length: 0\r\n")),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", None),
        ] {
            let (app, _) = numbered_app(move |_, mut raw| async move {
                raw.until("\r\n\r\n").await;
                raw.send(answer).await;
                raw.rest().await;
            })
            .await;
            let got = Pod::before(app).await.get("/").await;
            assert_eq!(got.matches("Content-Length").count(), usize::from(length.is_some()), "{answer:?}: {got}");
            assert!(got.contains(length.unwrap_or("\r\n")) && got.starts_with(&answer[..12]), "{answer:?}: {got}");
        }
    });
}

#[test]
fn trailers_pass_both_ways_announced_or_not() {
    on_runtime(async {
        for announced in ["", "Trailer: X-Sum, X-More\r\n"] {
            let (app, _) = numbered_app(move |_, mut raw| async move {
                let seen = raw.until("\r\n0\r\nX-Sum: 7\r\nX-More: \r\n\r\n").await;
                assert!(seen.contains("Transfer-Encoding: chunked\r\n") && seen.contains(announced), "{seen}");
                raw.send(&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{announced}\r\n")).await;
                raw.send("2\r\nok\r\n0\r\nx-sum: 8\r\nX-Sum: 9\r\nHost: evil\r\nContent-Length: 3\r\n\r\n").await;
                raw.rest().await;
            })
            .await;
            let pod = Pod::before(app).await;
            let got = pod
                .say(&format!(
                    "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n{announced}Transfer-Encoding: chunked\r\n\
                     Connection: close, TE\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\nX-More:\r\n\r\n"
                ))
                .await;
            assert!(got.contains(announced) && got.ends_with("ok\r\n0\r\nX-Sum: 8\r\nX-Sum: 9\r\n\r\n"), "{got}");
        }
    });
}

#[test]
fn empty_bodies_stay_as_they_were_said() {
    on_runtime(async {
        for (method, lines, sent, expected) in [
            ("GET", "", "", "\r\n\r\n"),
            ("GET", "Content-Length: 0\r\n", "", "Content-Length: 0\r\n\r\n"),
            ("DELETE", "Content-Length: 0\r\n", "", "Content-Length: 0\r\n\r\n"),
            ("POST", "Content-Length: 0\r\n", "", "Content-Length: 0\r\n\r\n"),
            ("POST", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            ("GET", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ] {
            let (app, _) = numbered_app(move |_, mut raw| async move {
                let seen = raw.until(expected).await;
                let framed = seen.matches("Content-Length").count() + seen.matches("Transfer-Encoding").count();
                assert!(seen.ends_with(expected) && framed == usize::from(!lines.is_empty()), "{seen}");
                raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                raw.rest().await;
            })
            .await;
            let pod = Pod::before(app).await;
            let got =
                pod.say(&format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n{sent}")).await;
            assert!(got.ends_with("\r\n\r\nok"), "{method} {lines:?}: {got}");
        }
    });
}
