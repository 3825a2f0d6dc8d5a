//! What lasts: streams in both directions, sockets that switch protocols, readers and pods that stop in the middle.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use activator::{Change, Config};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use support::{BIG_PIECE, BIG_PIECES, Door, PATIENCE, Pod, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

type Frames = mpsc::UnboundedSender<Result<Frame<Bytes>, std::convert::Infallible>>;

/// A body that is written while it is sent.
fn open_body() -> (Frames, StreamBody<impl futures::Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>>>) {
    let (frames, mut taken) = mpsc::unbounded_channel();
    (frames, StreamBody::new(futures::stream::poll_fn(move |cx| taken.poll_recv(cx))))
}

async fn door_with(limit: u32) -> (Door, Pod) {
    let door = Door::open_default().await;
    door.service("hello", limit).await;
    let pod = Pod::start("pod").await;
    door.pods("hello", &[pod.address], &[]);
    door.usable("hello", 1).await;
    (door, pod)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_stream_goes_both_ways_message_by_message() {
    let (door, _pod) = door_with(1).await;
    let stream = TcpStream::connect(door.address).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let (frames, body) = open_body();
    let request = Request::post("http://hello.test/echo").header("te", "trailers").body(body).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut answer = response.into_body();
    for n in 0..100_u8 {
        frames.send(Ok(Frame::data(Bytes::from(vec![n; 1000])))).unwrap();
        let mut echoed = Vec::new();
        while echoed.len() < 1000 {
            let frame = tokio::time::timeout(PATIENCE, answer.frame()).await.expect("an echo").unwrap().unwrap();
            echoed.extend_from_slice(frame.data_ref().unwrap());
        }
        assert_eq!(echoed, vec![n; 1000]);
    }
    drop(frames);
    let rest = answer.collect().await.unwrap();
    assert_eq!(rest.trailers().unwrap()["grpc-status"], "0");
    let hello = door.get("hello").unwrap();
    until("slot back", || hello.throttle.in_flight() == 0).await;
    connection.abort();
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_streams_both_ways_at_once_too() {
    let (door, _pod) = door_with(1).await;
    let mut client = TcpStream::connect(door.address).await.unwrap();
    client.write_all(b"POST /echo HTTP/1.1\r\nhost: hello.test\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let mut seen = String::new();
    for n in 0..20 {
        client.write_all(format!("9\r\nmessage{n:02}\r\n").as_bytes()).await.unwrap();
        while !seen.contains(&format!("message{n:02}")) {
            seen.push(char::from(tokio::time::timeout(PATIENCE, client.read_u8()).await.expect("an echo").unwrap()));
        }
    }
    client.write_all(b"0\r\n\r\n").await.unwrap();
    while !seen.ends_with("0\r\n\r\n") && !seen.ends_with("grpc-status: 0\r\n\r\n") {
        seen.push(char::from(tokio::time::timeout(PATIENCE, client.read_u8()).await.expect("the end").unwrap()));
    }
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_carries_messages_and_counts_as_one_request() {
    let (door, _pod) = door_with(1).await;
    let stream = TcpStream::connect(door.address).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://hello.test/chat", stream).await.unwrap();
    for text in ["one", "two", "three"] {
        socket.send(Message::text(text)).await.unwrap();
        let echo = tokio::time::timeout(PATIENCE, socket.next()).await.expect("an echo").unwrap().unwrap();
        assert_eq!(echo, Message::text(text));
    }
    let big = Message::binary(vec![7; 1 << 20]);
    socket.send(big.clone()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), big);
    let hello = door.get("hello").unwrap();
    assert_eq!((hello.throttle.in_flight(), hello.load.in_flight()), (1, 1));
    socket.close(None).await.unwrap();
    drop(socket);
    until("slot back", || hello.throttle.in_flight() == 0 && hello.load.in_flight() == 0).await;
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_slows_its_pod_down_and_loses_nothing() {
    let (door, pod) = door_with(1).await;
    let mut client = TcpStream::connect(door.address).await.unwrap();
    client.write_all(b"GET /big HTTP/1.1\r\nhost: hello.test\r\nconnection: close\r\n\r\n").await.unwrap();
    client.read_exact(&mut [0; 1024]).await.unwrap();
    // The pod goes on until every buffer between is full, and no further.
    let mut taken = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = pod.does.served.load(Ordering::SeqCst);
        if now == taken {
            break;
        }
        taken = now;
    }
    assert!(taken < BIG_PIECES / 2, "{taken} pieces were taken that nobody read");
    let mut rest = 0;
    let mut buffer = vec![0; 1 << 20];
    while let Ok(read @ 1..) = client.read(&mut buffer).await {
        rest += read;
    }
    assert!(rest + 1024 >= BIG_PIECE * BIG_PIECES, "{rest} bytes came");
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_h2_client_that_resets_its_stream_leaves_the_line() {
    let door = Door::open_default().await;
    door.service("hello", 1).await;
    let stream = TcpStream::connect(door.address).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let ask = |n: usize| {
        let mut sender = sender.clone();
        let request =
            Request::get(format!("http://hello.test/{n}")).body(http_body_util::Empty::<Bytes>::new()).unwrap();
        tokio::spawn(async move { sender.send_request(request).await })
    };
    let requests: Vec<_> = (0..10).map(ask).collect();
    door.waiting("hello", 10).await;
    for request in requests.iter().take(7) {
        request.abort();
    }
    door.waiting("hello", 3).await;
    // The others on the same connection are served.
    let pod = Pod::start("pod").await;
    door.pods("hello", &[pod.address], &[]);
    for request in requests.into_iter().skip(7) {
        assert_eq!(request.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    connection.abort();
    door.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_not_passed_on_as_whole() {
    let (door, pod) = door_with(1).await;
    let mut client = TcpStream::connect(door.address).await.unwrap();
    client.write_all(b"GET /events HTTP/1.1\r\nhost: hello.test\r\n\r\n").await.unwrap();
    pod.does.release(1);
    let mut seen = String::new();
    while !seen.contains("data: x") {
        seen.push(char::from(client.read_u8().await.unwrap()));
    }
    pod.die().await;
    let mut rest = Vec::new();
    // A reset or an early end, but never the last chunk.
    let _ = tokio::time::timeout(PATIENCE, client.read_to_end(&mut rest)).await.expect("cut off");
    seen.push_str(&String::from_utf8_lossy(&rest));
    assert!(!seen.contains("\r\n0\r\n"), "{seen:?}");
    let hello = door.get("hello").unwrap();
    until("slot back", || hello.throttle.in_flight() == 0).await;
    door.close().await;
}

/// Two activators, each told that it is one of two: pods are shared out, and a limit of one holds in all.
#[tokio::test(flavor = "multi_thread")]
async fn two_activators_share_pods_and_never_exceed_a_limit_of_one() {
    let ips = ["127.0.0.1", "127.0.0.2"];
    let mut doors = Vec::new();
    for ip in ips {
        let door = Door::open(Config { threads: 2, pod_ip: ip.to_owned(), ..Config::detached() }).await;
        door.service("hello", 1).await;
        doors.push(door);
    }
    let pods = [Pod::start("a").await, Pod::start("b").await, Pod::start("c").await];
    let addresses: Vec<_> = pods.iter().map(|pod| pod.address).collect();
    let public = || {
        let addresses: Vec<_> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": { "name": "hello", "namespace": "ns", "labels": {
                "networking.internal.knative.dev/serviceType": "Public", "serving.knative.dev/revision": "hello" } },
            "subsets": [{ "addresses": addresses, "ports": [{ "name": "http", "port": 8012 }] }],
        }))
        .unwrap()
    };
    for door in &doors {
        door.feed.endpoints(Change::Applied(public()));
        door.pods("hello", &addresses, &[]);
    }
    // Three pods: two for the first of them, one for the second.
    doors[0].usable("hello", 2).await;
    doors[1].usable("hello", 1).await;
    // One of two is one as well: the second may not have heard of its own pod yet, and hold one of the first's.
    until("each pod is one door's", || {
        let targets = doors.iter().flat_map(|door| door.get("hello").unwrap().throttle.targets());
        targets.map(|target| target.address).collect::<BTreeSet<_>>().len() == pods.len()
    })
    .await;
    let requests: Vec<_> =
        (0..60).flat_map(|n| doors.iter().map(move |door| door.get_request("hello.test", &format!("/{n}")))).collect();
    for request in requests {
        assert_eq!(request.await.unwrap().status, StatusCode::OK);
    }
    for pod in &pods {
        assert_eq!(pod.does.most.load(Ordering::SeqCst), 1);
        assert!(pod.does.served.load(Ordering::SeqCst) > 0, "every pod is somebody's");
    }
    // One pod for both: each may use it, and its queue-proxy is the last word.
    for door in &doors {
        door.pods("hello", &addresses[..1], &[]);
    }
    for door in doors {
        door.usable("hello", 1).await;
        assert_eq!(door.get_request("hello.test", "/").await.unwrap().status, StatusCode::OK);
        door.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_upload_stays_in_the_clients_socket() {
    let door = Door::open_default().await;
    door.service("hello", 1).await;
    let mut client = TcpStream::connect(door.address).await.unwrap();
    let length = 64 << 20;
    let head = format!("POST / HTTP/1.1\r\nhost: hello.test\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    door.waiting("hello", 1).await;
    // Writes until nobody takes any more.
    let piece = vec![b'y'; 256 << 10];
    let mut written = 0;
    while written < length {
        match tokio::time::timeout(Duration::from_millis(500), client.write(&piece)).await {
            Ok(wrote) => written += wrote.unwrap(),
            Err(_) => break,
        }
    }
    assert!(written < length / 2, "{written} bytes were taken in for a request that waits");
    let pod = Pod::start("pod").await;
    door.pods("hello", &[pod.address], &[]);
    let (mut reading, mut writing) = client.into_split();
    let rest = tokio::spawn(async move {
        while written < length {
            let piece = &piece[..piece.len().min(length - written)];
            written += writing.write(piece).await.unwrap();
        }
        writing
    });
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, reading.read_to_end(&mut answer)).await.expect("an answer").unwrap();
    rest.await.unwrap();
    let answer = Arc::<[u8]>::from(answer);
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..answer.len().min(200)]));
    assert!(answer.len() > length);
    door.close().await;
}
