//! Answers that take their time: what the limits let pass and what they cut, and both directions at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use http::{Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use proxy::Body;
use proxy::deadline::Limits;
use proxy::runtime::LocalExecutor;
use queue_proxy::Config;
use support::*;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// An app that sends its head at once and then a piece every so often.
async fn dripping_app(every: Duration, pieces: usize) -> std::net::SocketAddr {
    raw_app(move |mut raw| async move {
        raw.until("\r\n\r\n").await;
        raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n").await;
        for _ in 0..pieces {
            tokio::time::sleep(every).await;
            raw.send("4\r\ndrip\r\n").await;
        }
        raw.send("0\r\n\r\n").await;
    })
    .await
}

#[test]
fn an_answer_that_has_begun_is_past_the_limit_of_its_start_and_moves_past_the_idle_one() {
    on_runtime(async {
        let ms = |n| Some(Duration::from_millis(n));
        for limits in
            [Limits { response_start: ms(1500), ..Limits::default() }, Limits { idle: ms(1500), ..Limits::default() }]
        {
            let app = dripping_app(Duration::from_millis(250), 8).await;
            let pod = Pod::start(Config { limits, ..config(app) }).await;
            let answer = pod.get("/").await;
            assert!(answer.matches("drip").count() == 8 && answer.ends_with("0\r\n\r\n"), "{limits:?} {answer}");
        }
    });
}

#[test]
fn an_answer_that_falls_silent_is_cut_and_not_ended() {
    on_runtime(async {
        let limits = Limits { idle: Some(Duration::from_millis(1000)), ..Limits::default() };
        let app = raw_app(|mut raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndrip\r\n").await;
            raw.rest().await; // until it is given up
        })
        .await;
        let pod = Pod::start(Config { limits, ..config(app) }).await;
        let answer = pod.get("/").await;
        assert!(answer.contains("drip") && !answer.contains("\r\n0\r\n") && !answer.contains("timeout"), "{answer}");
    });
}

#[test]
fn the_limits_run_while_the_client_is_still_sending() {
    on_runtime(async {
        let limits = Limits { total: Some(Duration::from_millis(300)), ..Limits::default() };
        let app = app(|request: Request<_>| async move {
            let _ = request.into_body().collect().await;
            Response::new(Body::empty())
        });
        let pod = Pod::start(Config { limits, ..config(app) }).await;
        let mut client = pod.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
        let answer = client.rest().await;
        assert_eq!((status(&answer), body(&answer)), (504, "request timeout"));
    });
}

#[test]
fn h2_is_told_the_limits_it_has_here() {
    on_runtime(async {
        let pod = Pod::before(nobody()).await;
        let mut client = pod.connect().await;
        client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0").await;
        let mut head = [0; 9];
        client.0.read_exact(&mut head).await.unwrap();
        assert_eq!(head[3], 4, "the first frame is SETTINGS");
        let mut settings = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        client.0.read_exact(&mut settings).await.unwrap();
        let value = |id: u8| {
            let mut pairs = settings.chunks_exact(6).filter(|pair| pair[..2] == [0, id]);
            pairs.next().map(|pair| u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]))
        };
        let (streams, window, frame, connect) = (value(3), value(4), value(5), value(8));
        assert_eq!((streams, window, frame), (Some(250), Some(1 << 20), Some(1 << 20)));
        assert_eq!(connect.unwrap_or(0), 0, "no extended CONNECT");
    });
}

#[test]
fn each_message_of_a_bidirectional_stream_is_answered_before_the_next() {
    on_runtime(async {
        let app = app(|request: Request<_>| async move { Response::new(request.into_body()) });
        let pod = Pod::before(app).await;
        let stream = TcpStream::connect(pod.at.serving).await.unwrap();
        let (mut sender, connection) =
            http2::Builder::new(LocalExecutor).handshake(TokioIo::new(stream)).await.unwrap();
        tokio::task::spawn_local(connection);
        let (mut say, said) = futures::channel::mpsc::channel::<Result<Frame<Bytes>, proxy::BoxError>>(0);
        let request = Request::post("http://a/svc/Chat").version(Version::HTTP_2).header("te", "trailers");
        let request = request.body(Body::boxed(StreamBody::new(said))).unwrap();
        let mut answer = sender.send_request(request).await.unwrap().into_body();
        for word in ["one", "two", "three"] {
            say.send(Ok(Frame::data(Bytes::from_static(word.as_bytes())))).await.unwrap();
            let frame = answer.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), word);
        }
        drop(say);
        assert!(answer.collect().await.unwrap().to_bytes().is_empty());
    });
}
