//! WebSockets from handshake to close.

use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};

use crate::process::Process;
use crate::support::{on_runtime, raw_app};

/// An app that says messages back, until it is told how to end.
async fn echo() -> u16 {
    let app = raw_app(|raw| async move {
        let mut socket = tokio_tungstenite::accept_async(raw.0).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            match &message {
                Message::Text(text) if text.as_str() == "ping me" => {
                    socket.send(Message::Ping("anybody?".into())).await.unwrap();
                    let Some(Ok(Message::Pong(answer))) = socket.next().await else { panic!("no pong") };
                    socket.send(Message::Binary(answer)).await.unwrap();
                }
                Message::Text(text) if text.as_str() == "in pieces" => send_in_pieces(&mut socket).await,
                Message::Text(text) if text.as_str() == "close me" => {
                    let frame = CloseFrame { code: CloseCode::Restart, reason: "rollout".into() };
                    socket.close(Some(frame)).await.unwrap();
                }
                Message::Text(_) | Message::Binary(_) => socket.send(message).await.unwrap(),
                _ => {}
            }
        }
    });
    app.await.port()
}

async fn send_in_pieces(socket: &mut WebSocketStream<TcpStream>) {
    for (opcode, text, last) in
        [(Data::Text, "a ", false), (Data::Continue, "whole ", false), (Data::Continue, "one", true)]
    {
        let frame = Frame::message(text.as_bytes().to_vec(), OpCode::Data(opcode), last);
        socket.send(Message::Frame(frame)).await.unwrap();
        if !last {
            // Control frames may stand in between.
            socket.send(Message::Ping("still there?".into())).await.unwrap();
        }
    }
}

async fn connect(pod: &Process) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(pod.at).await.unwrap();
    tokio_tungstenite::client_async("ws://asked.example/chat", stream).await.unwrap().0
}

/// The next message that is not about the connection itself.
async fn next(socket: &mut WebSocketStream<TcpStream>) -> Message {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Ping(_) | Message::Pong(_) => {}
            message => return message,
        }
    }
}

#[test]
fn messages_of_all_sizes_and_in_pieces_pass_both_ways() {
    on_runtime(async {
        let pod = Process::start("127.78.1.20", echo().await, &[]);
        let mut socket = connect(&pod).await;
        for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
            let data: Vec<u8> = (0..size).map(|n| n as u8).collect();
            socket.send(Message::binary(data.clone())).await.unwrap();
            assert!(next(&mut socket).await.into_data() == data, "{size} bytes");
        }
        // Several on their way at once.
        for _ in 0..4 {
            socket.feed(Message::text("m".repeat(1 << 18))).await.unwrap();
        }
        socket.flush().await.unwrap();
        for _ in 0..4 {
            assert_eq!(next(&mut socket).await.len(), 1 << 18);
        }
        send_in_pieces(&mut socket).await;
        assert_eq!(next(&mut socket).await, Message::text("a whole one"));
        socket.send(Message::text("in pieces")).await.unwrap();
        assert_eq!(next(&mut socket).await, Message::text("a whole one"));
    });
}

#[test]
fn pings_are_answered_by_the_other_end_and_not_on_the_way() {
    on_runtime(async {
        let pod = Process::start("127.78.1.21", echo().await, &[]);
        let mut socket = connect(&pod).await;
        socket.send(Message::Ping("hello".into())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("hello".into()));
        socket.send(Message::text("ping me")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::Ping("anybody?".into()));
        assert_eq!(next(&mut socket).await, Message::Binary("anybody?".into()));
    });
}

#[test]
fn either_side_closes_and_says_why() {
    on_runtime(async {
        // With a slot for one: each socket that was closed has given it back.
        let pod = Process::start("127.78.1.22", echo().await, &[("CONTAINER_CONCURRENCY", "1")]);
        for _ in 0..3 {
            let mut socket = connect(&pod).await;
            socket.send(Message::text("close me")).await.unwrap();
            let Message::Close(Some(frame)) = next(&mut socket).await else { panic!("no close frame") };
            assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Restart, "rollout"));
            assert!(socket.next().await.is_none(), "it goes on after its end");
            drop(socket);

            let mut socket = connect(&pod).await;
            let away = CloseFrame { code: CloseCode::Away, reason: "done".into() };
            socket.close(Some(away.clone())).await.unwrap();
            assert_eq!(next(&mut socket).await, Message::Close(Some(away)));
            assert!(socket.next().await.is_none(), "it goes on after its end");
        }
    });
}
