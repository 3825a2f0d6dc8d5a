//! One attempt of one probe against the app.

use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION, TE, USER_AGENT,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use prost::Message;
use proxy::Body;
use proxy::runtime::LocalExecutor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::definition::{Action, HttpGet, Probe};
use super::https;
use super::redirect::{self, Place};

/// Why the app is not ready.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// Nobody listens, or the connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// No HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// An answer, but not a good one.
    #[error("{0}")]
    Answer(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The probe says nothing that could be done from here.
    #[error("no httpGet, tcpSocket or grpc in the probe (exec is the kubelet's)")]
    NoAction,
}

impl NotReady {
    /// Whether nobody listens yet: such an attempt costs the app nothing and may be repeated soon.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// The User-Agent upstream's probes carry: its version fields are never filled.
const AGENT: &str = "kube-probe//";
/// Redirects followed.
const MAX_REDIRECTS: usize = 10;
/// The most of an answer that is read.
const MAX_ANSWER: usize = 16 * 1024;

/// Tries once.
pub async fn attempt(probe: &Probe) -> Result<(), NotReady> {
    let attempt = async {
        match &probe.action {
            Action::Tcp { host, port } => connect(host, *port).await.map(drop),
            Action::Http(get) => http(get).await,
            Action::Grpc { port, service } => grpc(*port, service).await,
            Action::None => Err(NotReady::NoAction),
        }
    };
    tokio::time::timeout(probe.timeout, attempt).await.unwrap_or(Err(NotReady::Timeout(probe.timeout)))
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, NotReady> {
    if port == 0 {
        return Err(NotReady::Answer("port 0".into()));
    }
    Ok(TcpStream::connect((host, port)).await?)
}

async fn http(get: &HttpGet) -> Result<(), NotReady> {
    let mut place = Place { tls: get.tls, host: get.host.clone(), port: get.port, path: get.path.clone() };
    // Over TLS the two sides agree on h2 themselves.
    let try_h2 = get.auto_detect && !get.tls;
    if try_h2 && matches!(send(get, &place, true).await, Ok(response) if ready(response.status())) {
        return Ok(());
    }
    for _ in 0..=MAX_REDIRECTS {
        let response = send(get, &place, false).await?;
        let status = response.status();
        if !ready(status) {
            return Err(NotReady::Answer(format!("HTTP probe did not respond Ready, got status code: {status}")));
        }
        match location(&response).and_then(|location| redirect::follow(&place, location)) {
            Some(next) => place = next,
            None => return Ok(()),
        }
    }
    Err(NotReady::Answer(format!("stopped after {MAX_REDIRECTS} redirects")))
}

fn ready(status: StatusCode) -> bool {
    (200..400).contains(&status.as_u16())
}

fn location(response: &Response<Incoming>) -> Option<&str> {
    let redirects = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    redirects.then(|| response.headers().get(LOCATION)?.to_str().ok()).flatten()
}

async fn send(get: &HttpGet, place: &Place, h2: bool) -> Result<Response<Incoming>, NotReady> {
    let stream = connect(&place.host, place.port).await?;
    if place.tls {
        let (stream, h2) = https::handshake(stream, &place.host).await?;
        return exchange(stream, request(get, place, h2)?).await;
    }
    exchange(stream, request(get, place, h2)?).await
}

/// The question, in the form of the protocol that carries it.
fn request(get: &HttpGet, place: &Place, h2: bool) -> Result<Request<Body>, NotReady> {
    let malformed = |error: &dyn std::fmt::Display| NotReady::Answer(format!("probe request: {error}"));
    let mut headers = HeaderMap::new();
    for (name, value) in &get.headers {
        let name = HeaderName::try_from(name).map_err(|error| malformed(&error))?;
        headers.append(name, HeaderValue::try_from(value).map_err(|error| malformed(&error))?);
    }
    let bracketed = if place.host.contains(':') { format!("[{}]", place.host) } else { place.host.clone() };
    let authority = format!("{bracketed}:{}", place.port);
    let asked = headers.remove(HOST).filter(|host| !host.is_empty());
    let host = asked.as_ref().and_then(|host| host.to_str().ok()).unwrap_or(&authority);
    let scheme = if place.tls { "https" } else { "http" };
    let uri = if h2 { format!("{scheme}://{host}{}", place.path) } else { place.path.clone() };
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
    headers.entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static("gzip"));
    if !h2 {
        headers.insert(HOST, HeaderValue::try_from(host).map_err(|error| malformed(&error))?);
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(uri)
        .version(if h2 { Version::HTTP_2 } else { Version::HTTP_11 })
        .body(Body::empty())
        .map_err(|error| malformed(&error))?;
    *request.headers_mut() = headers;
    Ok(request)
}

async fn exchange<S>(stream: S, request: Request<Body>) -> Result<Response<Incoming>, NotReady>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let io = TokioIo::new(stream);
    if request.version() == Version::HTTP_2 {
        let (mut sender, connection) = http2::Builder::new(LocalExecutor).handshake(io).await?;
        tokio::task::spawn_local(connection);
        return Ok(sender.send_request(request).await?);
    }
    let (mut sender, connection) = http1::Builder::new().title_case_headers(true).handshake(io).await?;
    tokio::task::spawn_local(connection);
    Ok(sender.send_request(request).await?)
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`; 1 is SERVING.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

async fn grpc(port: u16, service: &str) -> Result<(), NotReady> {
    let stream = connect("127.0.0.1", port).await?;
    let message = HealthCheckRequest { service: service.to_string() };
    let mut frame = BytesMut::with_capacity(5 + message.encoded_len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    frame.put_slice(&message.encode_to_vec());
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://127.0.0.1:{port}/grpc.health.v1.Health/Check"))
        .version(Version::HTTP_2)
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, AGENT)
        .body(Body::full(frame.freeze()))
        .map_err(|error| NotReady::Answer(error.to_string()))?;
    let (mut sender, connection) = http2::Builder::new(LocalExecutor).handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    let response = sender.send_request(request).await?;
    let head_status = grpc_status(response.headers());
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| NotReady::Answer(format!("gRPC probe: {error}")))?;
    let status = head_status.or_else(|| body.trailers().and_then(grpc_status)).unwrap_or(0);
    if status != 0 {
        return Err(NotReady::Answer(format!("gRPC probe: grpc-status {status}")));
    }
    let mut bytes: Bytes = body.to_bytes();
    let message = if bytes.len() >= 5 { bytes.split_off(5) } else { Bytes::new() };
    match HealthCheckResponse::decode(message) {
        Ok(HealthCheckResponse { status: 1 }) => Ok(()),
        Ok(HealthCheckResponse { status }) => {
            Err(NotReady::Answer(format!("gRPC probe: status {status}, not SERVING")))
        }
        Err(error) => Err(NotReady::Answer(format!("gRPC probe: {error}"))),
    }
}

fn grpc_status(headers: &http::HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
