//! Requests whose headers stay lines: a hop sees and changes them as if they were a map, and the target cannot tell which
//! of the two they were.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, COOKIE, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Request, Response};
use hyper::service::service_fn;
use proxy::forward::{self, Options};
use proxy::headers::{self, Headers, Present};
use proxy::{Body, Drain, Extra, Fault, Pool, PoolConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const NEW: HeaderName = HeaderName::from_static("x-new");
const TAKEN: HeaderName = HeaderName::from_static("x-taken");

/// What a hop does to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hop {
    /// What every hop does.
    Plain,
    /// Sets, replaces and takes away headers.
    Edits,
    /// The same, and then wants a map.
    EditsAndMaps,
    /// Adds lines, and names another host.
    Adds,
}

async fn hop(kind: Hop, to: SocketAddr, pool: Pool, mut request: Request<Body>) -> Result<Response<Body>, Fault> {
    let request = &mut request;
    forward::check(request)?;
    let present = Headers::of(request).present();
    let peer = HeaderValue::from_static("192.0.2.1");
    let options = Options { forwarded_for: Some(&peer), remove: &[], default_host: &HeaderValue::from_static("x") };
    forward::prepare(request, present, &options)?;
    if matches!(kind, Hop::Edits | Hop::EditsAndMaps) {
        headers::insert(request, NEW, HeaderValue::from_static("1"));
        headers::insert(request, ACCEPT, HeaderValue::from_static("text/plain"));
        headers::remove(request, &TAKEN);
        let headers = Headers::of(request);
        assert_eq!((headers.get(&NEW), headers.text(&ACCEPT)), (Some(&b"1"[..]), Some("text/plain")));
        assert_eq!((headers.get(&TAKEN), headers.get(&HOST)), (None, Some(&b"app"[..])));
        assert_eq!(headers.all(&COOKIE).collect::<Vec<_>>(), [&b"a=1"[..], b"b=2"]);
    }
    if kind == Hop::EditsAndMaps {
        headers::as_map(request)?;
        assert_eq!(request.headers()[NEW], "1");
        assert_eq!(request.headers()[ACCEPT], "text/plain");
        assert_eq!(request.headers().get_all(COOKIE).iter().count(), 2);
        assert!(!request.headers().contains_key(TAKEN));
    }
    let mut added = HeaderMap::new();
    added.insert(NEW, HeaderValue::from_static("1"));
    added.insert(USER_AGENT, HeaderValue::from_static("the hop"));
    let (added, host) = (pool.added(&added).unwrap(), HeaderValue::from_static("pod:1"));
    let extra = (kind == Hop::Adds).then_some(Extra { host: &host, added: &added });
    if extra.is_some() {
        added.displace(request, present);
    }
    let answer = pool.endpoint(to).forward(request, extra).await.map_err(|error| Fault::from(&error))?;
    forward::answer(answer, None).map(|(response, _)| response)
}

/// The head that a target gets of a request, as its first line and its header lines in any order.
async fn arrived(kind: Hop, keep_lines: bool, pieces: bool, request: &[u8]) -> (String, BTreeSet<String>) {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = target.local_addr().unwrap();
    let listener = proxy::accept::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), false).unwrap();
    let address = listener.local_addr().unwrap();
    let (pool, config) = (Pool::new(PoolConfig::default()), ServerConfig { keep_lines, ..ServerConfig::default() });
    tokio::task::spawn_local(proxy::serve(listener, config, Drain::default(), move |_peer| {
        let pool = pool.clone();
        service_fn(move |request| hop(kind, to, pool.clone(), request))
    }));
    let mut client = TcpStream::connect(address).await.unwrap();
    client.set_nodelay(true).unwrap();
    let (first, rest) = request.split_at(if pieces { 20 } else { 0 });
    client.write_all(first).await.unwrap();
    if pieces {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client.write_all(rest).await.unwrap();
    let (mut target, _) = target.accept().await.unwrap();
    let mut seen = Vec::new();
    let end: &[u8] = if request.starts_with(b"GET") { b"\r\n\r\n" } else { b"\r\n\r\nbody" };
    while !seen.ends_with(end) {
        assert!(target.read_buf(&mut seen).await.unwrap() > 0, "{}", String::from_utf8_lossy(&seen));
    }
    target.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nok").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        assert!(client.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\nX-A: b\r\n"), "{}", String::from_utf8_lossy(&answer));
    let text = String::from_utf8_lossy(&seen).into_owned();
    let (first, lines) = text.split_once("\r\n").unwrap();
    (first.to_owned(), lines.split("\r\n").map(ToOwned::to_owned).collect())
}

#[test]
fn the_target_cannot_tell_what_stayed_lines() {
    let run = async {
        let common =
            "Host: app\r\nx-taken: 1\r\nAccept: */*\r\nCookie: a=1\r\nuser-agent: u\r\nCookie: b=2\r\nX-Taken: 2\r\n";
        for (own, body) in [
            ("", ""),
            ("Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n", ""),
            ("X-Forwarded-For: 1.1.1.1\r\nx-forwarded-for: 2.2.2.2\r\n", ""),
            ("Content-Length: 4\r\n", "body"),
            ("Content-Length: 0\r\n", ""),
            // Declined, and read as a map in any case.
            ("TE: trailers\r\nX-Odd:  two blanks\r\n", ""),
            ("Connection: x-own\r\nX-Own: 1\r\n", ""),
        ] {
            let method = if body.is_empty() { "GET" } else { "PUT" };
            let request = format!("{method} /p?q HTTP/1.1\r\n{common}{own}\r\n{body}");
            for kind in [Hop::Plain, Hop::Edits, Hop::EditsAndMaps, Hop::Adds] {
                let map = arrived(kind, false, false, request.as_bytes()).await;
                assert_eq!(map.0, format!("{method} /p?q HTTP/1.1"));
                for pieces in [false, true] {
                    let lines = arrived(kind, true, pieces, request.as_bytes()).await;
                    assert_eq!(lines, map, "{kind:?} of {own:?}, in pieces: {pieces}");
                }
            }
        }
    };
    proxy::runtime::block_on(async { tokio::time::timeout(Duration::from_secs(60), run).await.expect("test hung") })
        .unwrap();
}

#[test]
fn what_is_said_before_the_answer_is_not_said_again() {
    let run = async {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pool = Pool::new(PoolConfig::default());
        let endpoint = pool.endpoint(target.local_addr().unwrap());
        let mut request = Request::get("/").header(HOST, "a").body(Body::empty()).unwrap();
        let answers = async {
            let (mut stream, _) = target.accept().await.unwrap();
            let early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
            stream.write_all(early).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: b\r\n\r\n").await.unwrap();
            stream
        };
        let (answer, _stream) = tokio::join!(endpoint.forward(&mut request, None), answers);
        let response = answer.unwrap().into_response();
        assert!(response.headers().is_empty(), "{:?}", response.headers());
    };
    proxy::runtime::block_on(async { tokio::time::timeout(Duration::from_secs(20), run).await.expect("test hung") })
        .unwrap();
}

#[test]
fn a_map_is_seen_the_same_way() {
    let mut request = Request::new(Body::full(Bytes::from_static(b"x")));
    request.headers_mut().insert(HOST, HeaderValue::from_static("a"));
    request.headers_mut().append(COOKIE, HeaderValue::from_static("1"));
    request.headers_mut().append(COOKIE, HeaderValue::from_static("2"));
    request.headers_mut().insert(NEW, HeaderValue::from_bytes(b"\xe9").unwrap());
    let headers = Headers::of(&request);
    assert_eq!(
        (headers.get(&HOST), headers.get(&COOKIE), headers.get(&ACCEPT)),
        (Some(&b"a"[..]), Some(&b"1"[..]), None)
    );
    assert_eq!((headers.all(&COOKIE).count(), headers.text(&NEW)), (2, None));
    assert_eq!(headers.present(), Present::HOST);
    assert_eq!(headers.bytes(), "Host: a\r\nCookie: 1\r\nCookie: 2\r\nX-New: e\r\n".len());
    headers::remove(&mut request, &COOKIE);
    headers::insert(&mut request, HOST, HeaderValue::from_static("b"));
    headers::as_map(&mut request).unwrap();
    assert_eq!((request.headers().len(), &request.headers()[HOST]), (2, &HeaderValue::from_static("b")));
}
