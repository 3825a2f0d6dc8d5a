//! h2c, upgrades, WebSockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use proxy::Body;
use proxy::runtime::LocalExecutor;
use support::*;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

async fn h2_client(pod: &Pod) -> http2::SendRequest<Body> {
    let stream = TcpStream::connect(pod.at.serving).await.unwrap();
    let (sender, connection) = http2::Builder::new(LocalExecutor).handshake(TokioIo::new(stream)).await.unwrap();
    tokio::task::spawn_local(connection);
    sender
}

fn h2_request(body: Body) -> Request<Body> {
    Request::post("http://asked.example/svc/Method?x=1")
        .version(Version::HTTP_2)
        .header("te", "trailers")
        .body(body)
        .unwrap()
}

#[test]
fn grpc_shaped_calls_keep_their_frames_and_trailers() {
    on_runtime(async {
        let app = app(|request: Request<Body>| async move {
            assert_eq!(request.version(), Version::HTTP_2);
            assert_eq!(request.uri(), "http://asked.example/svc/Method?x=1");
            assert_eq!(request.headers()["te"], "trailers");
            let got = request.into_body().collect().await.unwrap();
            assert_eq!(got.trailers().unwrap()["x-up"], "1");
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let frames = [Frame::data(got.to_bytes()), Frame::trailers(trailers)].map(Ok::<_, proxy::BoxError>);
            Response::new(Body::boxed(StreamBody::new(futures::stream::iter(frames))))
        });
        let pod = Pod::before(app).await;
        let mut client = h2_client(&pod).await;
        for _ in 0..3 {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-up", HeaderValue::from_static("1"));
            let frames =
                [Frame::data(Bytes::from_static(b"ping")), Frame::trailers(trailers)].map(Ok::<_, proxy::BoxError>);
            let body = Body::boxed(StreamBody::new(futures::stream::iter(frames)));
            let answer = client.send_request(h2_request(body)).await.unwrap();
            let answer = answer.into_body().collect().await.unwrap();
            assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
            assert_eq!(answer.to_bytes(), "ping");
        }
    });
}

#[test]
fn h2_is_not_converted_for_an_app_that_speaks_http_1_only() {
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        })
        .await;
        let pod = Pod::before(app).await;
        let answer = h2_client(&pod).await.send_request(h2_request(Body::empty())).await.unwrap();
        assert_eq!(answer.status(), 502);
    });
}

#[test]
fn h2_restores_the_asked_host() {
    on_runtime(async {
        let app = app(|request: Request<_>| async move { Response::new(Body::full(request.uri().to_string())) });
        let pod = Pod::before(app).await;
        let mut request = h2_request(Body::empty());
        request.headers_mut().insert("k-original-host", HeaderValue::from_static("original.example"));
        let answer = h2_client(&pod).await.send_request(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "http://original.example/svc/Method?x=1");
    });
}

#[test]
fn websockets_echo_and_close_cleanly() {
    on_runtime(async {
        let app = raw_app(|raw| async move {
            let mut socket = tokio_tungstenite::accept_async(raw.0).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                if message.is_text() {
                    socket.send(message).await.unwrap();
                }
            }
        })
        .await;
        let pod = Pod::start(queue_proxy::Config { container_concurrency: 1, ..config(app) }).await;
        for _ in 0..2 {
            let stream = TcpStream::connect(pod.at.serving).await.unwrap();
            let (mut socket, _) = tokio_tungstenite::client_async("ws://asked.example/chat", stream).await.unwrap();
            for text in ["one", "two"] {
                socket.send(Message::text(text)).await.unwrap();
                assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
            }
            socket.close(None).await.unwrap();
            assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
            // The next round needs the slot back.
        }
    });
}

#[test]
fn a_half_close_lets_the_other_direction_finish() {
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: Custom\r\n\r\n").await;
            let said = raw.rest().await; // until the client has closed its side
            raw.send(&format!("you said {said}")).await;
        })
        .await;
        let pod = Pod::before(app).await;
        let mut client = pod.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: custom\r\n\r\n").await;
        client.until("\r\n\r\n").await;
        client.send("hello").await;
        tokio::io::AsyncWriteExt::shutdown(&mut client.0).await.unwrap();
        assert_eq!(client.rest().await, "you said hello");
    });
}

#[test]
fn upgrade_tokens_must_match() {
    on_runtime(async {
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n").await;
            raw.rest().await;
        })
        .await;
        let pod = Pod::before(app).await;
        let answer =
            pod.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n").await;
        assert_eq!(status(&answer), 502);
    });
}

#[test]
fn streams_opened_only_to_be_reset_end_the_connection() {
    on_runtime(async {
        const GOAWAY: u8 = 7;
        const ENHANCE_YOUR_CALM: u8 = 11;
        let pod = Pod::before(app(|_| async { Response::new(Body::full("ok")) })).await;
        let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
            let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
            [&length[1..], &[kind, flags], &stream.to_be_bytes()[..], payload].concat()
        };
        let mut bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat();
        for stream in (1..2001).step_by(2) {
            // GET http://a/, complete; then CANCEL.
            bytes.extend(frame(1, 5, stream, &[0x82, 0x86, 0x84, 0x41, 1, b'a']));
            bytes.extend(frame(3, 0, stream, &[0, 0, 0, 8]));
        }
        let mut raw = pod.connect().await;
        let _ = tokio::io::AsyncWriteExt::write_all(&mut raw.0, &bytes).await;
        let mut seen = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut raw.0, &mut seen).await;
        let mut rest = seen.as_slice();
        let mut told = false;
        while let [a, b, c, kind, _, _, _, _, _, after @ ..] = rest {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            let payload = &after[..length.min(after.len())];
            told |= *kind == GOAWAY && payload.get(7) == Some(&ENHANCE_YOUR_CALM);
            rest = &after[payload.len()..];
        }
        assert!(told, "no GOAWAY in {} bytes", seen.len());
        assert!(pod.get("/").await.ends_with("ok"));
    });
}
