//! What an autoscaler hears, over a real websocket, also when it was away.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say where")]

mod support;

use activator::Config;
use api::stat::WireStatMessages;
use futures::StreamExt;
use prost::Message as _;
use support::{Door, PATIENCE, until};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

async fn accept(listener: &TcpListener) -> WebSocketStream<TcpStream> {
    let (stream, _) = listener.accept().await.unwrap();
    tokio_tungstenite::accept_async(stream).await.unwrap()
}

/// The next frame: (revision, concurrency, count) of each message.
async fn heard(socket: &mut WebSocketStream<TcpStream>) -> Vec<(String, f64, f64)> {
    let next = async {
        loop {
            if let Message::Binary(frame) = socket.next().await.unwrap().unwrap() {
                let frame = WireStatMessages::decode(frame).unwrap();
                return frame
                    .messages
                    .into_iter()
                    .map(|message| {
                        let stat = message.stat.unwrap();
                        (message.name, stat.average_concurrent_requests, stat.request_count)
                    })
                    .collect();
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await.expect("a frame")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_request_is_told_at_once_and_again_after_a_restart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let door = Door::open(Config { autoscaler_url: format!("ws://{address}"), threads: 1, ..Config::detached() }).await;
    door.service("hello", 1).await;
    let mut socket = accept(&listener).await;
    until("connected", || door.shared.reporter.connected()).await;
    let first = door.get_request("hello.test", "/");
    assert_eq!(heard(&mut socket).await, [("hello".to_owned(), 1.0, 1.0)]);
    // The autoscaler goes away; a second request comes; another autoscaler starts.
    drop((socket, listener));
    until("disconnected", || !door.shared.reporter.connected()).await;
    let second = door.get_request("hello.test", "/");
    door.waiting("hello", 2).await;
    let listener = TcpListener::bind(address).await.unwrap();
    let mut socket = accept(&listener).await;
    let told = heard(&mut socket).await;
    assert_eq!((told[0].0.as_str(), told[0].1), ("hello", 2.0), "{told:?}");
    first.abort();
    second.abort();
    door.close().await;
}
