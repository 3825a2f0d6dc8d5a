//! What a readiness probe asks the app, and which answers count.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use proxy::tls::{Options, Tls};
use proxy::{Body, Drain, ServerConfig};
use queue_proxy::Config;
use queue_proxy::readiness::{Gate, Readiness};
use support::*;
use tokio::sync::Notify;

const PROBE: &str =
    "GET / HTTP/1.1\r\nHost: pod\r\nUser-Agent: kube-probe/1.34\r\nK-Network-Probe: queue\r\nConnection: close\r\n\r\n";

async fn asked(app: SocketAddr, definition: &str, auto_detect: bool) -> u16 {
    let readiness = Readiness::parse(&definition.replace("PORT", &app.port().to_string()), auto_detect).unwrap();
    let pod = Pod::start(Config { readiness, ..config(app) }).await;
    status(&pod.say(PROBE).await)
}

fn answer(status: u16) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// An app behind TLS with a certificate that nobody trusts.
fn secure_app(options: &Options, serve: impl Fn(&Parts) -> Response<Body> + 'static) -> SocketAddr {
    let (chain, key) = (include_bytes!("certificates/first.crt"), include_bytes!("certificates/first.key"));
    let listener = proxy::accept::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), false).unwrap();
    let address = listener.local_addr().unwrap();
    let config = ServerConfig { tls: Some(Tls::new(options, chain, key).unwrap()), ..ServerConfig::default() };
    let serve = Rc::new(serve);
    tokio::task::spawn_local(proxy::serve(listener, config, Drain::default(), move |_peer| {
        let serve = Rc::clone(&serve);
        service_fn(move |request: Request<_>| {
            let response = serve(&request.into_parts().0);
            async move { Ok::<_, Infallible>(response) }
        })
    }));
    address
}

#[test]
fn https_takes_any_certificate_and_both_versions() {
    on_runtime(async {
        for (min, max) in [("1.2", "1.2"), ("1.3", "")] {
            let seen = Rc::new(RefCell::new(Vec::new()));
            let log = Rc::clone(&seen);
            let options = Options { min_version: min.into(), max_version: max.into(), ..Options::default() };
            let app = secure_app(&options, move |request| {
                log.borrow_mut().push((request.version, request.uri.path().to_string()));
                answer(if request.uri.path() == "/ok" { 204 } else { 500 })
            });
            let definition = |path| {
                format!(
                    r#"{{"httpGet":{{"scheme":"HTTPS","port":PORT,"path":"{path}"}},"periodSeconds":1,"timeoutSeconds":10}}"#
                )
            };
            assert_eq!(asked(app, &definition("/ok"), false).await, 200, "{min}");
            assert_eq!(asked(app, &definition("/bad"), true).await, 503, "{min}");
            assert_eq!(*seen.borrow(), [(Version::HTTP_2, "/ok".to_string()), (Version::HTTP_2, "/bad".to_string())]);
        }
    });
}

#[test]
fn https_is_no_tcp_check() {
    on_runtime(async {
        // The port is open and speaks plain text only.
        let app = app(|_| async { answer(200) });
        let definition = r#"{"httpGet":{"scheme":"HTTPS","port":PORT},"periodSeconds":1,"timeoutSeconds":10}"#;
        assert_eq!(asked(app, definition, false).await, 503);
    });
}

#[test]
fn the_users_headers_are_sent_host_and_agent_among_them() {
    on_runtime(async {
        let head = Rc::new(RefCell::new(String::new()));
        let seen = Rc::clone(&head);
        let app = raw_app(move |mut raw| {
            let seen = Rc::clone(&seen);
            async move {
                *seen.borrow_mut() = raw.until("\r\n\r\n").await;
                raw.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
        })
        .await;
        let definition = r#"{"httpGet":{"port":PORT,"path":"ready?x=1","httpHeaders":[{"name":"Host","value":"app.example"},
            {"name":"user-agent","value":"mine"},{"name":"X-A","value":"1"},{"name":"X-A","value":"2"}]},"periodSeconds":1,"timeoutSeconds":10}"#;
        assert_eq!(asked(app, definition, false).await, 200);
        let seen = head.take();
        assert!(seen.starts_with("GET /ready?x=1 HTTP/1.1\r\n"), "{seen}");
        for line in
            ["Host: app.example", "User-Agent: mine", "X-A: 1", "X-A: 2", "Accept-Encoding: gzip", "Connection: close"]
        {
            assert_eq!(seen.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line} in {seen}");
        }
        assert_eq!(seen.matches("Host:").count(), 1, "{seen}");
        let definition = r#"{"httpGet":{"port":PORT},"periodSeconds":1,"timeoutSeconds":10}"#;
        assert_eq!(asked(app, definition, false).await, 200);
        let seen = head.take();
        assert!(seen.contains(&format!("Host: {app}\r\n")) && seen.contains("User-Agent: kube-probe//\r\n"), "{seen}");
    });
}

#[test]
fn a_header_that_is_none_is_never_ready_and_no_panic() {
    on_runtime(async {
        let app = app(|_| async { answer(200) });
        for header in [r#"{"name":"a b","value":"x"}"#, r#"{"name":"","value":"x"}"#, r#"{"name":"A","value":"x\ny"}"#]
        {
            let definition = format!(
                r#"{{"httpGet":{{"port":PORT,"httpHeaders":[{header}]}},"periodSeconds":1,"timeoutSeconds":10}}"#
            );
            assert_eq!(asked(app, &definition, false).await, 503, "{header}");
        }
    });
}

#[test]
fn redirects_on_the_same_host_are_followed_and_the_last_status_counts() {
    on_runtime(async {
        let app = app(|request: Request<_>| async move {
            let to = |location: &str| {
                let mut response = answer(302);
                response.headers_mut().insert("location", location.parse().unwrap());
                response
            };
            match request.uri().path() {
                "/good" => to("end?ok"),
                "/bad" => to("/broken"),
                "/absolute" => to(&format!("http://{}/broken", request.headers()["host"].to_str().unwrap())),
                "/elsewhere" => to("http://other.example/broken"),
                "/loop" => to("/loop"),
                "/nowhere" => answer(302),
                "/end" => answer(200),
                _ => answer(500),
            }
        });
        for (path, expected) in
            [("good", 200), ("bad", 503), ("absolute", 503), ("elsewhere", 200), ("loop", 503), ("nowhere", 200)]
        {
            let definition =
                format!(r#"{{"httpGet":{{"port":PORT,"path":"/{path}"}},"periodSeconds":1,"timeoutSeconds":10}}"#);
            assert_eq!(asked(app, &definition, false).await, expected, "{path}");
        }
    });
}

#[test]
fn statuses_from_200_to_399_are_ready() {
    on_runtime(async {
        let code = Rc::new(Cell::new(0));
        let now = Rc::clone(&code);
        let app = app(move |_| {
            let response = answer(now.get());
            async move { response }
        });
        for (status, expected) in [(200, 200), (204, 200), (304, 200), (399, 200), (400, 503), (404, 503), (500, 503)] {
            code.set(status);
            let definition = r#"{"httpGet":{"port":PORT},"periodSeconds":1,"timeoutSeconds":10}"#;
            assert_eq!(asked(app, definition, false).await, expected, "{status}");
        }
    });
}

/// Upstream's table for `ENABLE_HTTP2_AUTO_DETECTION`: what the app says over h2c, what over HTTP/1 (`None` = it does
/// not speak it).
#[test]
fn auto_detection_takes_either_protocol() {
    on_runtime(async {
        for (h2, h1, expected) in [(200, 200, 200), (200, 500, 200), (503, 200, 200), (500, 500, 503), (503, 503, 503)]
        {
            let app = app(move |request: Request<_>| async move {
                answer(if request.version() == Version::HTTP_2 { h2 } else { h1 })
            });
            let definition = r#"{"httpGet":{"port":PORT},"periodSeconds":1,"timeoutSeconds":10}"#;
            assert_eq!(asked(app, definition, true).await, expected, "{h2} {h1}");
        }
        for (status, expected) in [("200 OK", 200), ("503 No", 503)] {
            let http1_only = raw_app(move |mut raw| async move {
                raw.until("\r\n\r\n").await;
                raw.send(&format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")).await;
            })
            .await;
            let definition = r#"{"httpGet":{"port":PORT},"periodSeconds":1,"timeoutSeconds":10}"#;
            assert_eq!(asked(http1_only, definition, true).await, expected, "{status}");
        }
    });
}

#[test]
fn what_cannot_be_checked_is_never_ready() {
    on_runtime(async {
        for definition in [
            "{}",
            r#"{"periodSeconds":1,"timeoutSeconds":10}"#,
            r#"{"exec":{"command":["true"]}}"#,
            r#"{"httpGet":{"port":0},"periodSeconds":1,"timeoutSeconds":10}"#,
            r#"{"tcpSocket":{"port":0},"periodSeconds":1,"timeoutSeconds":10}"#,
            r#"{"grpc":{"port":0},"periodSeconds":1,"timeoutSeconds":10}"#,
            r#"{"httpGet":{"port":PORT},"periodSeconds":1,"timeoutSeconds":10}"#,
            r#"{"tcpSocket":{"port":PORT},"periodSeconds":1,"timeoutSeconds":10}"#,
            r#"{"grpc":{"port":PORT},"periodSeconds":1,"timeoutSeconds":10}"#,
        ] {
            assert_eq!(asked(nobody(), definition, false).await, 503, "{definition}");
        }
    });
}

#[test]
fn a_reply_within_the_timeout_is_ready_and_silence_is_not() {
    on_runtime(async {
        let slow = app(|_| async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            answer(200)
        });
        let definition =
            |seconds| format!(r#"{{"httpGet":{{"port":PORT}},"periodSeconds":1,"timeoutSeconds":{seconds}}}"#);
        assert_eq!(asked(slow, &definition(10), false).await, 200);
        let silent = app(|_| std::future::pending());
        assert_eq!(asked(silent, &definition(1), false).await, 503);
    });
}

/// A gRPC app that says this: its trailers, and the status in its message if it sends one.
fn grpc_app(grpc_status: &'static str, serving: Option<u8>) -> SocketAddr {
    app(move |request: Request<_>| async move {
        assert_eq!(request.headers()["content-type"], "application/grpc");
        let question = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(question.as_ref(), b"\0\0\0\0\x03\x0a\x01s", "service s");
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static(grpc_status));
        let message = serving.map(|status| bytes::Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]));
        let frames = message.map(http_body::Frame::data).into_iter().chain([http_body::Frame::trailers(trailers)]);
        let frames: Vec<_> = frames.map(Ok::<_, proxy::BoxError>).collect();
        Response::new(Body::boxed(http_body_util::StreamBody::new(futures::stream::iter(frames))))
    })
}

#[test]
fn grpc_is_ready_only_when_it_says_serving() {
    on_runtime(async {
        const UNIMPLEMENTED: &str = "12";
        for (grpc_status, serving, expected) in [
            ("0", Some(1), 200),
            ("0", Some(2), 503),
            ("0", Some(0), 503),
            ("0", None, 503),
            (UNIMPLEMENTED, None, 503),
            (UNIMPLEMENTED, Some(1), 503),
        ] {
            let definition = r#"{"grpc":{"port":PORT,"service":"s"},"periodSeconds":1,"timeoutSeconds":10}"#;
            let app = grpc_app(grpc_status, serving);
            assert_eq!(asked(app, definition, false).await, expected, "{grpc_status} {serving:?}");
        }
    });
}

#[test]
fn callers_during_a_check_share_it_and_it_outlives_the_first() {
    on_runtime(async {
        let (hits, release) = (Rc::new(Cell::new(0)), Rc::new(Notify::new()));
        let (count, gate) = (Rc::clone(&hits), Rc::clone(&release));
        let app = app(move |_| {
            count.set(count.get() + 1);
            let gate = Rc::clone(&gate);
            async move {
                gate.notified().await;
                answer(200)
            }
        });
        let definition = format!(r#"{{"httpGet":{{"port":{}}},"periodSeconds":1,"timeoutSeconds":15}}"#, app.port());
        let gate = Gate::new(Readiness::parse(&definition, false).unwrap());
        let first = tokio::task::spawn_local({
            let gate = gate.clone();
            async move { gate.ready().await }
        });
        while hits.get() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        first.abort();
        let _ = first.await;
        let (second, third, ()) = futures::join!(gate.ready(), gate.ready(), async { release.notify_one() });
        assert!(second && third);
        assert_eq!(hits.get(), 1, "one check for all");
        release.notify_one();
        assert!(gate.ready().await);
        assert_eq!(hits.get(), 2, "nothing is cached");
    });
}

/// Counts the events of a closure's thread whose message begins so.
struct Said(&'static str, std::sync::atomic::AtomicUsize);

impl tracing::Subscriber for Said {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::Id {
        tracing::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::Id, _: &tracing::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut |_: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            if format!("{value:?}").starts_with(self.0) {
                self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        });
    }
    fn enter(&self, _: &tracing::Id) {}
    fn exit(&self, _: &tracing::Id) {}
}

#[test]
fn an_aggressive_check_gives_up_after_ten_seconds_and_says_so_once() {
    let said = std::sync::Arc::new(Said("aggressive probe error", std::sync::atomic::AtomicUsize::new(0)));
    let _quiet = tracing::subscriber::set_default(std::sync::Arc::clone(&said));
    proxy::runtime::block_on(async {
        // Takes connections and never answers; virtual time passes at each wait.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let definition = format!(r#"{{"httpGet":{{"port":{}}}}}"#, silent.local_addr().unwrap().port());
        let gate = Gate::new(Readiness::parse(&definition, false).unwrap());
        tokio::time::pause();
        let started = tokio::time::Instant::now();
        assert!(!gate.ready().await);
        assert_eq!(started.elapsed().as_secs(), 10);
    })
    .unwrap();
    assert_eq!(said.1.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn an_aggressive_check_that_succeeds_in_the_end_says_nothing() {
    let said = std::sync::Arc::new(Said("aggressive probe error", std::sync::atomic::AtomicUsize::new(0)));
    let _quiet = tracing::subscriber::set_default(std::sync::Arc::clone(&said));
    on_runtime(async {
        let answers = Rc::new(Cell::new(0));
        let count = Rc::clone(&answers);
        let app = app(move |_| {
            count.set(count.get() + 1);
            let response = answer(if count.get() == 1 { 400 } else { 200 });
            async move { response }
        });
        assert_eq!(asked(app, r#"{"httpGet":{"port":PORT}}"#, false).await, 200);
        assert_eq!(answers.get(), 2);
    });
    assert_eq!(said.1.load(std::sync::atomic::Ordering::Relaxed), 0);
}
