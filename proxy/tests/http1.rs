//! The HTTP/1 engine byte by byte: a client that says exactly what it is told, a service, and what goes back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::service::service_fn;
use proxy::{Body, BoxError, Drain, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn on_runtime<F: Future>(test: F) -> F::Output {
    proxy::runtime::block_on(async { tokio::time::timeout(Duration::from_secs(20), test).await.expect("test hung") })
        .unwrap()
}

/// A server made of a function.
fn server<F, Fut>(serve: F) -> SocketAddr
where
    F: Fn(Request<Body>) -> Fut + 'static,
    Fut: Future<Output = Result<Response<Body>, BoxError>> + 'static,
{
    server_with(ServerConfig::default(), serve)
}

fn server_with<F, Fut>(config: ServerConfig, serve: F) -> SocketAddr
where
    F: Fn(Request<Body>) -> Fut + 'static,
    Fut: Future<Output = Result<Response<Body>, BoxError>> + 'static,
{
    let listener = proxy::accept::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), false).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Rc::new(serve);
    tokio::task::spawn_local(proxy::serve(listener, config, Drain::default(), move |_peer| {
        let serve = Rc::clone(&serve);
        service_fn(move |request| serve(request))
    }));
    address
}

/// Answers with what it was asked: method, target, body.
async fn mirror(request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let said = format!("{} {} {}", parts.method, parts.uri, String::from_utf8_lossy(&body));
    Ok(Response::new(Body::full(said)))
}

fn frames(frames: Vec<Frame<Bytes>>) -> Body {
    Body::boxed(StreamBody::new(futures::stream::iter(frames.into_iter().map(Ok::<_, BoxError>))))
}

fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

/// Sends, then reads until the server closes.
async fn say(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    rest(&mut stream).await
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    stream.read_to_end(&mut seen).await.expect("a reset");
    String::from_utf8_lossy(&seen).into_owned()
}

async fn until(stream: &mut TcpStream, text: &str) -> String {
    let (mut seen, mut buffer) = (String::new(), [0; 1024]);
    while !seen.contains(text) {
        let n = stream.read(&mut buffer).await.unwrap();
        assert!(n > 0, "closed before {text:?}: {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    seen
}

fn bodies(answers: &str) -> Vec<&str> {
    answers.split("HTTP/1.1 ").skip(1).map(|answer| answer.split_once("\r\n\r\n").unwrap().1).collect()
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    on_runtime(async {
        let at = server(mirror);
        let answers = say(
            at,
            b"\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
              POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n\r\n\
              GET /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /5 HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .await;
        assert_eq!(bodies(&answers), ["GET /1 ", "POST /2 abc", "POST /3 de", "GET /4 "]);
    });
}

#[test]
fn it_does_not_matter_how_a_request_is_cut() {
    on_runtime(async {
        let at = server(mirror);
        let request = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
                        3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\n";
        for piece in [1, 2, 5, 64] {
            let mut stream = TcpStream::connect(at).await.unwrap();
            stream.set_nodelay(true).unwrap();
            for bytes in request.chunks(piece) {
                stream.write_all(bytes).await.unwrap();
                tokio::task::yield_now().await;
            }
            assert_eq!(bodies(&rest(&mut stream).await), ["POST /x abc0123456789"], "by {piece}");
        }
    });
}

#[test]
fn refusals_end_the_connection_and_nothing_behind_them_is_served() {
    on_runtime(async {
        let served = Rc::new(Cell::new(0));
        let count = Rc::clone(&served);
        let at = server(move |request| {
            count.set(count.get() + 1);
            mirror(request)
        });
        let (long, many) = ("x".repeat(2 << 20), "A: b\r\n".repeat(2000));
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        for (head, status) in [
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
            ("Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
            ("Content-Length: 1, 1\r\n\r\na", 400),
            ("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
            ("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
            ("Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400),
            ("X: a\rb\r\n\r\n", 400),
            (&format!("X: {long}\r\n\r\n"), 431),
            (&format!("{many}\r\n"), 431),
        ] {
            let answer = say(at, format!("POST / HTTP/1.1\r\nHost: a\r\n{head}{smuggled}").as_bytes()).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{:?}: {answer}", &head[..head.len().min(60)]);
            assert!(answer.contains("Connection: close\r\n"), "{answer}");
            assert!(answer.contains("Dormouse-Error: proxy; reason="), "{answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        }
        assert_eq!(served.get(), 0);
    });
}

#[test]
fn a_body_broken_in_its_chunks_is_broken_for_its_reader_and_ends_the_connection() {
    on_runtime(async {
        let failed = Rc::new(Cell::new(0));
        let count = Rc::clone(&failed);
        let at = server(move |request: Request<Body>| {
            let count = Rc::clone(&count);
            async move {
                let read = request.into_body().collect().await;
                count.set(count.get() + usize::from(read.is_err()));
                Ok(Response::new(Body::full(if read.is_err() { "broken" } else { "whole" })))
            }
        });
        let chunks = ["zz\r\n", "3\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "ffffffffffffffffff\r\n"];
        for chunks in chunks {
            let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            let answer = say(at, format!("{head}{chunks}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{chunks:?}: {answer}");
            assert!(answer.ends_with("broken"), "{chunks:?}: {answer}");
        }
        assert_eq!(failed.get(), chunks.len());
    });
}

#[test]
fn a_client_that_hangs_up_takes_its_request_with_it() {
    on_runtime(async {
        struct Gone(Rc<Cell<bool>>);
        impl Drop for Gone {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        for body in ["", "Content-Length: 3\r\n"] {
            let (gone, began) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
            let seen = (Rc::clone(&gone), Rc::clone(&began));
            let at = server(move |request: Request<Body>| {
                let (guard, began) = (Gone(Rc::clone(&seen.0)), Rc::clone(&seen.1));
                async move {
                    // The body is held on to and never read, as by a request that waits for a pod.
                    let _held = (guard, request);
                    began.set(true);
                    std::future::pending().await
                }
            });
            let mut stream = TcpStream::connect(at).await.unwrap();
            let sent = if body.is_empty() { "" } else { "abc" };
            stream.write_all(format!("POST / HTTP/1.1\r\nHost: a\r\n{body}\r\n{sent}").as_bytes()).await.unwrap();
            while !began.get() {
                tokio::task::yield_now().await;
            }
            assert!(!gone.get());
            drop(stream);
            while !gone.get() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
}

#[test]
fn a_client_that_sends_ahead_without_end_is_made_to_wait() {
    on_runtime(async {
        let at = server(|_| std::future::pending());
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        // Far more than sockets hold; it can be written only if somebody keeps it all.
        let flood = stream.write_all(&vec![b'x'; 64 << 20]).await_for(Duration::from_millis(500)).await;
        assert!(flood.is_none(), "64 MiB sent ahead were taken");
    });
}

trait AwaitFor: Future + Sized {
    async fn await_for(self, time: Duration) -> Option<Self::Output> {
        tokio::time::timeout(time, self).await.ok()
    }
}
impl<F: Future> AwaitFor for F {}

#[test]
fn an_unread_body_is_forgotten_if_it_is_small_and_ends_the_connection_if_not() {
    on_runtime(async {
        let at = server(|_| async { Ok(Response::new(Body::full("unread"))) });
        let small = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{}", "x".repeat(1000));
        let last = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let answers = say(at, format!("{small}{last}").as_bytes()).await;
        assert_eq!(bodies(&answers), ["unread", "unread"]);

        // The answer arrives although the client is in the middle of sending: no reset takes it away.
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n").await.unwrap();
        stream.write_all(&vec![b'x'; 100_000]).await.unwrap();
        assert!(until(&mut stream, "unread").await.starts_with("HTTP/1.1 200 OK\r\n"));
    });
}

#[test]
fn a_client_is_asked_for_its_body_only_when_somebody_reads_it() {
    on_runtime(async {
        let at = server(mirror);
        let mut stream = TcpStream::connect(at).await.unwrap();
        let head = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        assert_eq!(until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"ok").await.unwrap();
        assert!(until(&mut stream, "PUT / ok").await.starts_with("HTTP/1.1 200 OK\r\n"));

        // Nobody does: a final answer, and the end, since the client may or may not send the body.
        let at = server(|_| async { Ok(Response::builder().status(403).body(Body::empty())?) });
        let answer = say(at, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("Connection: close\r\n"), "{answer}");
    });
}

#[test]
fn answers_are_framed_for_who_asked() {
    on_runtime(async {
        let at = server(|request: Request<Body>| async move {
            let body = match request.uri().path() {
                "/stream" => frames(vec![data("ab"), data(""), data("c")]),
                "/trailers" => {
                    let trailers: HeaderMap = [("x-sum".parse().unwrap(), "7".parse().unwrap())].into_iter().collect();
                    frames(vec![data("ab"), Frame::trailers(trailers)])
                }
                "/none" => return Ok(Response::builder().status(204).body(Body::empty())?),
                _ => Body::full("known"),
            };
            Ok(Response::new(body))
        });
        for (line, head, body) in [
            ("GET / HTTP/1.1", "Content-Length: 5\r\n", "known"),
            ("HEAD / HTTP/1.1", "Content-Length: 5\r\n", ""),
            ("GET /stream HTTP/1.1", "Transfer-Encoding: chunked\r\n", "2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"),
            ("HEAD /stream HTTP/1.1", "Connection: close\r\n", ""),
            ("GET /trailers HTTP/1.1", "Transfer-Encoding: chunked\r\n", "2\r\nab\r\n0\r\nX-Sum: 7\r\n\r\n"),
            ("GET /none HTTP/1.1", "HTTP/1.1 204 No Content\r\n", ""),
            ("GET /stream HTTP/1.0", "Connection: close\r\n", "abc"),
            ("GET / HTTP/1.0", "Connection: close\r\n", "known"),
        ] {
            let connection = if line.ends_with("1.0") { "" } else { "Connection: close\r\n" };
            let answer = say(at, format!("{line}\r\nHost: a\r\n{connection}\r\n").as_bytes()).await;
            let (got_head, got_body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(format!("{got_head}\r\n").contains(head), "{line}: {answer}");
            assert!(got_head.contains("\r\nDate: "), "{line}: {answer}");
            assert_eq!(got_body, body, "{line}");
        }
        let two = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".repeat(2);
        let answers = say(at, format!("{two}GET / HTTP/1.0\r\n\r\n").as_bytes()).await;
        assert_eq!(answers.matches("Connection: keep-alive\r\n").count(), 2, "{answers}");
        assert_eq!(bodies(&answers).len(), 3, "{answers}");
    });
}

#[test]
fn a_body_that_breaks_off_or_lies_about_its_length_is_cut() {
    on_runtime(async {
        let at = server(|request: Request<Body>| async move {
            let body: Vec<Result<Frame<Bytes>, BoxError>> = match request.uri().path() {
                "/breaks" => vec![Ok(data("ab")), Err("gone".into())],
                _ => return Err("no answer at all".into()),
            };
            Ok(Response::new(Body::boxed(StreamBody::new(futures::stream::iter(body)))))
        });
        let answer = say(at, b"GET /breaks HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answer.contains("200 OK") && !answer.contains("0\r\n\r\n"), "{answer}");
        assert_eq!(say(at, b"GET /fails HTTP/1.1\r\nHost: a\r\n\r\n").await, "");
    });
}

#[test]
fn bytes_flow_both_ways_at_once() {
    on_runtime(async {
        let at = server(|request: Request<Body>| async move { Ok(Response::new(request.into_body())) });
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        for word in ["one", "two", "three"] {
            stream.write_all(format!("{:x}\r\n{word}\r\n", word.len()).as_bytes()).await.unwrap();
            until(&mut stream, word).await;
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        until(&mut stream, "0\r\n\r\n").await;
    });
}

#[test]
fn large_bodies_arrive_whole() {
    on_runtime(async {
        let at = server(|request: Request<Body>| async move { Ok(Response::new(request.into_body())) });
        let sent: Vec<u8> = (0..5_000_000_u32).map(|n| ((n * 31) >> 3) as u8).collect();
        let (mut read, mut write) = TcpStream::connect(at).await.unwrap().into_split();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", sent.len());
        let upload = async {
            write.write_all(head.as_bytes()).await.unwrap();
            write.write_all(&sent).await.unwrap();
        };
        let mut seen = Vec::new();
        let ((), read) = futures::join!(upload, read.read_to_end(&mut seen));
        read.unwrap();
        assert!(seen.ends_with(&sent), "{} bytes came back", seen.len());
    });
}

#[test]
fn a_body_kept_past_its_request_reads_nothing_of_the_next() {
    on_runtime(async {
        let kept: Rc<RefCell<Option<Body>>> = Rc::default();
        let keeper = Rc::clone(&kept);
        let at = server(move |request: Request<Body>| {
            let earlier = keeper.borrow_mut().take();
            let first = earlier.is_none();
            let body = request.into_body();
            if first {
                *keeper.borrow_mut() = Some(body);
            }
            async move {
                let stolen = match earlier {
                    Some(earlier) => earlier.collect().await.is_ok(),
                    None => false,
                };
                Ok(Response::new(Body::full(if stolen { "stolen" } else { "kept" })))
            }
        });
        let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nsecret";
        let answers =
            say(at, format!("{request}{request}GET / HTTP/1.1\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert_eq!(bodies(&answers)[..2], ["kept", "kept"]);
    });
}

#[test]
fn a_status_without_a_name_is_still_a_status() {
    on_runtime(async {
        let at = server(|_| async {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::from_u16(599)?;
            Ok(response)
        });
        let answer = say(at, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 599 Unknown\r\n"), "{answer}");
    });
}
