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
fn each_message_of_a_bidirectional_stream_is_answered_before_the_next() {
    on_runtime(async {
        let app = app(|request: Request<_>| async move { Response::new(Body::incoming(request.into_body())) });
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
