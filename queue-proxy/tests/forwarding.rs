//! What the user container sees of a request, and the client of its answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use proxy::Body;
use support::*;
use tokio::io::AsyncWriteExt;

#[test]
fn the_app_sees_the_contract_headers() {
    on_runtime(async {
        let pod = Pod::before(mirror().await).await;
        let answer = pod
            .say(
                "GET //x//y/%2f;a?q=%zz HTTP/1.1\r\nHost: pod\r\nK-Original-Host: asked.example\r\n\
                 Knative-Serving-Revision: rev\r\nKnative-Serving-Namespace: ns\r\nK-Proxy-Request: activator\r\n\
                 X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\nX-Forwarded-Proto: https\r\n\
                 Cookie: a=1\r\nCookie: b=2\r\nX-Named: gone\r\nTE: trailers, gzip\r\nProxy-Authorization: x\r\n\
                 x-lower: v\r\nConnection: close, X-Named\r\n\r\n",
            )
            .await;
        assert_eq!(status(&answer), 200, "{answer}");
        let seen = body(&answer);
        assert!(seen.starts_with("GET //x//y/%2f;a?q=%zz HTTP/1.1\r\n"), "{seen}");
        for present in [
            "Host: asked.example\r\n",
            "K-Proxy-Request: activator\r\n",
            "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 127.0.0.1\r\n",
            "Forwarded: for=1.1.1.1;proto=https\r\n",
            "Cookie: a=1\r\n",
            "Cookie: b=2\r\n",
            "X-Lower: v\r\n",
        ] {
            assert!(seen.contains(present), "{present} missing in {seen}");
        }
        assert!(seen.to_lowercase().contains("te: trailers\r\n"), "{seen}");
        for absent in ["k-original-host", "knative-serving", "x-named", "proxy-auth", "user-agent", "accept-encoding"] {
            assert!(!seen.to_lowercase().contains(absent), "{absent} in {seen}");
        }
    });
}

#[test]
fn http_1_0_without_host_gets_the_apps_address() {
    on_runtime(async {
        let app = mirror().await;
        let pod = Pod::before(app).await;
        let answer = pod.say("GET / HTTP/1.0\r\n\r\n").await;
        assert!(body(&answer).contains(&format!("Host: {app}\r\n")), "{answer}");
        let answer = pod.say("GET http://real.example/p HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n").await;
        assert!(body(&answer).starts_with("GET /p HTTP/1.1\r\n"), "{answer}");
        assert!(body(&answer).contains("Host: real.example\r\n"), "{answer}");
    });
}

#[test]
fn malformed_and_ambiguous_requests_are_refused() {
    on_runtime(async {
        let asked = Rc::new(Cell::new(0));
        let count = Rc::clone(&asked);
        let app = app(move |_| {
            count.set(count.get() + 1);
            async { Response::new(Body::empty()) }
        });
        let pod = Pod::before(app).await;
        for request in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX-Ctl: a\u{1}b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            "nonsense\r\n\r\n",
        ] {
            let answer = pod.say(request).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?} -> {answer:?}");
        }
        assert_eq!(asked.get(), 0, "the app was asked");
    });
}

#[test]
fn a_length_beside_chunked_is_refused_and_the_connection_closed() {
    on_runtime(async {
        let pod = Pod::before(mirror().await).await;
        // What would be a second request to a parser that believed the length is never read.
        let answer = pod
            .say(
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
                 GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
            )
            .await;
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("Connection: close\r\n"), "{answer}");
    });
}

#[test]
fn oversized_headers_get_431() {
    on_runtime(async {
        let pod = Pod::before(mirror().await).await;
        let answer = pod.say(&format!("GET / HTTP/1.1\r\nHost: a\r\nX-Big: {}\r\n\r\n", "x".repeat(2 << 20))).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    });
}

#[test]
fn nobody_at_the_app_port_is_a_signed_502_at_once() {
    on_runtime(async {
        let pod = Pod::before(nobody()).await;
        let answer = pod.get("/").await;
        assert_eq!(status(&answer), 502);
        assert!(answer.contains("Dormouse-Error: queue-proxy; reason=dial\r\n"), "{answer}");
        assert!(body(&answer).starts_with("dial tcp 127.0.0.1:"), "{answer}");
    });
}

#[test]
fn big_bodies_stream_both_ways() {
    on_runtime(async {
        let app = app(|request: Request<_>| async move { Response::new(request.into_body()) });
        let pod = Pod::before(app).await;
        let size = 8 << 20;
        let (mut read, mut write) = pod.connect().await.0.into_split();
        let upload = tokio::task::spawn_local(async move {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n");
            write.write_all(head.as_bytes()).await.unwrap();
            let block = vec![b'x'; 64 << 10];
            for _ in 0..size / block.len() {
                write.write_all(&block).await.unwrap();
            }
            write
        });
        let mut all = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut read, &mut all).await.unwrap();
        drop(upload.await.unwrap());
        assert!(all.len() > size && all.ends_with(b"xxxx"), "{}", all.len());
    });
}

#[test]
fn events_reach_the_client_as_they_happen() {
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\n").await;
            // Nothing more until the client has seen the first.
            let mut byte = [0];
            let _ = tokio::io::AsyncReadExt::read(&mut raw.0, &mut byte).await;
        })
        .await;
        let pod = Pod::before(app).await;
        let mut client = pod.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(client.until("data: one").await.contains("text/event-stream"));
    });
}

#[test]
fn a_known_length_body_is_not_held_back() {
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nfirst").await;
            std::future::pending::<()>().await;
        })
        .await;
        let pod = Pod::before(app).await;
        let mut client = pod.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.until("first").await;
    });
}

#[test]
fn the_final_status_survives_informational_answers() {
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n").await;
            raw.send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        })
        .await;
        let pod = Pod::before(app).await;
        assert!(pod.get("/").await.contains("HTTP/1.1 404 Not Found\r\n"));
    });
}

#[test]
fn expect_continue_ends_with_the_apps_status() {
    on_runtime(async {
        let app = app(|request: Request<Body>| async move {
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            let mut response = Response::new(Body::full(bytes));
            *response.status_mut() = StatusCode::CREATED;
            response
        });
        let pod = Pod::before(app).await;
        let mut client = pod.connect().await;
        client
            .send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\n")
            .await;
        client.until("HTTP/1.1 100 Continue\r\n\r\n").await;
        client.send("body").await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 201 ") && answer.ends_with("body"), "{answer}");
    });
}

#[test]
fn a_target_that_refuses_without_reading_spares_the_client_its_body() {
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            let head = raw.until("\r\n\r\n").await;
            assert!(head.contains("Expect: 100-continue\r\n") && head.ends_with("\r\n\r\n"), "{head}");
            raw.send("HTTP/1.1 413 Payload Too Large\r\nContent-Length: 2\r\n\r\nno").await;
            assert_eq!(raw.rest().await, "", "the body came all the same");
        })
        .await;
        let pod = Pod::before(app).await;
        let answer = pod.say("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("no"), "{answer}");
    });
}

#[test]
fn head_has_a_length_and_no_body() {
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send("HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n").await;
        })
        .await;
        let pod = Pod::before(app).await;
        let answer = pod.say("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(answer.contains("Content-Length: 42\r\n") && body(&answer).is_empty(), "{answer}");
    });
}

#[test]
fn announced_trailers_pass_on_http_1() {
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            let head = raw.until("0\r\nX-Up: 1\r\n\r\n").await;
            assert!(head.contains("Trailer: X-Up"), "{head}");
            raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n").await;
            raw.send("2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n").await;
        })
        .await;
        let pod = Pod::before(app).await;
        let answer = pod
            .say(
                "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close\r\nTrailer: X-Up\r\n\
                 Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Up: 1\r\n\r\n",
            )
            .await;
        assert!(answer.contains("0\r\nX-Sum: 7\r\n\r\n") || answer.contains("0\r\nx-sum: 7\r\n\r\n"), "{answer}");
    });
}

#[test]
fn a_broken_answer_is_broken_for_the_client_too() {
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
        })
        .await;
        let pod = Pod::before(app).await;
        let answer = pod.get("/").await;
        assert!(!answer.contains("\r\n0\r\n\r\n"), "{answer}");
    });
}

#[test]
fn a_target_that_closes_its_keep_alive_side_costs_no_request() {
    on_runtime(async {
        // Promises keep-alive, closes after each answer.
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        })
        .await;
        let pod = Pod::before(app).await;
        let mut client = pod.connect().await;
        for n in 0..200 {
            let request = if n % 2 == 0 {
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
            } else {
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
            };
            client.send(request).await;
            let answer = client.until("ok").await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{n}: {answer}");
            if n % 10 == 1 {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
    });
}

#[test]
fn connections_to_the_app_are_reused() {
    on_runtime(async {
        let opened = Rc::new(Cell::new(0));
        let count = Rc::clone(&opened);
        let app = raw_app(move |mut raw| {
            count.set(count.get() + 1);
            async move {
                loop {
                    raw.until("\r\n\r\n").await;
                    raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            }
        })
        .await;
        let pod = Pod::before(app).await;
        let mut client = pod.connect().await;
        for _ in 0..20 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            client.until("ok").await;
        }
        assert_eq!(opened.get(), 1);
    });
}
