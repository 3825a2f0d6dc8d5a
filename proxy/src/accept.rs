//! From a bound socket to a service call: the accept loop and the life of a connection.
//!
//! Each connection is one task on the thread that accepted it. Its protocol is seen in its first bytes: `PRI` opens h2
//! (no HTTP/1 method begins so), which hyper serves; anything else is HTTP/1, which [`crate::h1`] serves. An idle HTTP/1
//! connection lives until its peer closes it; a header that has begun must be complete within a time.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{Either, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};

use crate::BoxError;
use crate::body::{AnswerBody, Body};
use crate::clock;
use crate::drain::Drain;
use crate::h1;
use crate::runtime::LocalExecutor;
use crate::stream::Stream;
use crate::tls::Tls;

/// How connections are served.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// For the first bytes of a connection, and for a header that has begun.
    pub header_read_timeout: Duration,
    /// Largest request head; above it 431.
    pub max_header_bytes: usize,
    /// Who signs the answers to what is no request (`queue-proxy`, `activator`).
    pub hop: &'static str,
    /// Header names on HTTP/1 as `X-Lower` rather than `x-lower`.
    pub title_case_headers: bool,
    /// HTTP/1 requests may keep their headers as lines, for services that look at them by [`crate::headers::request`]
    /// and forward them by a [`crate::Pool`]. Not for those that mostly want a map: it would be made in a second pass.
    pub keep_lines: bool,
    /// h2 streams at once per connection.
    pub h2_max_concurrent_streams: u32,
    /// h2 receive window of a stream, and of a connection.
    pub h2_window: u32,
    /// Largest h2 frame taken.
    pub h2_max_frame: u32,
    /// TLS instead of plain text.
    pub tls: Option<Tls>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            header_read_timeout: Duration::from_secs(60),
            max_header_bytes: (1 << 20) + 4096,
            hop: "proxy",
            title_case_headers: true,
            keep_lines: false,
            h2_max_concurrent_streams: 250,
            h2_window: 1 << 20,
            h2_max_frame: 1 << 20,
            tls: None,
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The address.
    pub address: SocketAddr,
    /// Its IP as it goes into `X-Forwarded-For`, formatted once per connection.
    pub forwarded_for: HeaderValue,
}

impl Peer {
    /// The peer at an address.
    pub fn new(address: SocketAddr) -> Self {
        let ip = address.ip().to_canonical().to_string();
        Self { address, forwarded_for: HeaderValue::try_from(ip).unwrap_or(HeaderValue::from_static("unknown")) }
    }
}

/// Opens a listening socket. With `reuse_port` several threads may each have one on the same address.
pub fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(false)?; // "all addresses" means IPv4 too
    }
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}

/// Accepts and serves until the drain begins, then until every connection has ended.
///
/// `make_service` is called once per connection. The service's errors and its bodies' errors abort the connection (or
/// the h2 stream). Connections that outlive the caller's patience are cut by dropping the runtime.
pub async fn serve<M, S, B>(listener: TcpListener, config: ServerConfig, drain: Drain, make_service: M)
where
    M: Fn(Peer) -> S,
    S: Service<Request<Body>, Response = Response<B>> + 'static,
    S::Error: Into<BoxError>,
    B: AnswerBody + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let config = Rc::new(config);
    let mut started = pin!(drain.started());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = started.as_mut() => break,
        };
        match accepted {
            Ok((stream, address)) => {
                let peer = Peer::new(address);
                let service = make_service(peer);
                tokio::task::spawn_local(connection(stream, Rc::clone(&config), drain.clone(), service));
            }
            // The client was gone before we came to it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // Mostly "too many open files": wait for some to close rather than spin.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    drop(listener);
    drain.idle().await;
}

enum Protocol {
    Http1,
    Http2,
}

/// Sees the protocol in the first bytes without taking them.
async fn detect(stream: &TcpStream) -> io::Result<Option<Protocol>> {
    let mut pause = Duration::from_millis(1);
    loop {
        let mut first = [0_u8; 3];
        let seen = stream.peek(&mut first).await?;
        match &first[..seen] {
            [] => return Ok(None),
            b"PRI" => return Ok(Some(Protocol::Http2)),
            // Three bytes almost always come together; look again later without spinning if not.
            // Nothing more will come: HTTP/1 has an answer to that, and waiting would only hold the socket.
            b"P" | b"PR" if stream.ready(Interest::READABLE).await?.is_read_closed() => {
                return Ok(Some(Protocol::Http1));
            }
            b"P" | b"PR" => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(500));
            }
            _ => return Ok(Some(Protocol::Http1)),
        }
    }
}

async fn connection<S, B>(stream: TcpStream, config: Rc<ServerConfig>, drain: Drain, service: S)
where
    S: Service<Request<Body>, Response = Response<B>> + 'static,
    S::Error: Into<BoxError>,
    B: AnswerBody + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let _guard = drain.guard();
    let _ = stream.set_nodelay(true);
    let opened = tokio::select! {
        // In this order: a request that is here already is served.
        biased;
        opened = tokio::time::timeout(config.header_read_timeout, open(stream, &config)) => opened,
        // Nothing was asked yet. A client that connected just before is told by a close, before any request.
        () = drain.started() => return,
    };
    let Ok(Ok(Some((stream, protocol)))) = opened else { return };
    match protocol {
        Protocol::Http1 => clock::turns(h1::server::serve(stream, &config, &drain, &service)).await,
        Protocol::Http2 => {
            // Boxed: an HTTP/1 connection should not reserve room for this one.
            Box::pin(async {
                let connection = http2::Builder::new(LocalExecutor)
                    .timer(TokioTimer::new())
                    .max_concurrent_streams(config.h2_max_concurrent_streams)
                    .initial_stream_window_size(config.h2_window)
                    .initial_connection_window_size(config.h2_window)
                    .max_frame_size(config.h2_max_frame)
                    .max_header_list_size(u32::try_from(config.max_header_bytes).unwrap_or(u32::MAX))
                    .serve_connection(
                        TokioIo::new(stream),
                        service_fn(|request: Request<Incoming>| {
                            let head = request.method() == Method::HEAD;
                            let answer = service.call(request.map(Body::incoming));
                            async move { answer.await.map(|answer| asked_of(answer, head)) }
                        }),
                    );
                let mut connection = pin!(connection);
                let ended = tokio::select! {
                    ended = connection.as_mut() => ended,
                    // Asked to end after what is in flight.
                    () = drain.started() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                };
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
            })
            .await;
        }
    }
}

/// An answer with no more body than was asked for: to HEAD, hyper's h2 would send whatever there is, and the client would
/// take that for an error.
fn asked_of<B: AnswerBody>(mut answer: Response<B>, head: bool) -> Response<Either<B, Empty<Bytes>>> {
    if !head {
        return answer.map(Either::Left);
    }
    if let Some(length @ 1..) = answer.body().size_hint().exact() {
        answer.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
    }
    answer.map(|_| Either::Right(Empty::new()))
}

/// From a bare connection to one that is about to carry HTTP.
async fn open(stream: TcpStream, config: &ServerConfig) -> io::Result<Option<(Stream, Protocol)>> {
    match &config.tls {
        None => Ok(detect(&stream).await?.map(|protocol| (Stream::Plain(stream), protocol))),
        Some(tls) => Box::pin(handshake(stream, tls)).await,
    }
}

async fn handshake(mut stream: TcpStream, tls: &Tls) -> io::Result<Option<(Stream, Protocol)>> {
    const HANDSHAKE: u8 = 22;
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => return Ok(None),
        _ if first[0] != HANDSHAKE => {
            let mistaken = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
            stream.write_all(mistaken).await?;
            // What was sent is read, or closing would take the answer back.
            stream.shutdown().await?;
            let _ = tokio::io::copy(&mut stream.take(64 * 1024), &mut tokio::io::sink()).await;
            return Ok(None);
        }
        _ => {}
    }
    let mut stream = tls.accept(stream).await?;
    let h2 = match stream.get_ref().1.alpn_protocol() {
        Some(agreed) => agreed == b"h2",
        // Upstream's activator speaks h2 without saying so in the handshake. Its preface is one record.
        None => stream.fill_buf().await?.starts_with(b"PRI"),
    };
    let protocol = if h2 { Protocol::Http2 } else { Protocol::Http1 };
    Ok(Some((Stream::Tls(Box::new(stream.into())), protocol)))
}
