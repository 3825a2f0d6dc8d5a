//! One connection to a collector and one export on it: gRPC over h2, or protobuf in a POST over HTTP/1.1.
//!
//! A connection is kept while it is good. One that was kept and fails is replaced at once: collectors close what rests.
//! Names are looked up on tokio's blocking thread, which is there only while somebody needs it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, TE, TRANSFER_ENCODING,
    USER_AGENT,
};
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use prost::Message;
use proxy::Body;
use proxy::runtime::LocalExecutor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::endpoint::Protocol;
use super::messages::{Exported, PartialSuccess};
use super::retry::Failure;
use super::settings::Target;
use super::trust;

/// The most of an answer that is read.
const MAX_ANSWER: usize = 64 * 1024;
/// How we are called.
const AGENT: &str = concat!("OTel-OTLP-Exporter-Dormouse/", env!("CARGO_PKG_VERSION"));

/// Headers that the protocol needs for itself; nobody may set them by a variable.
const OURS: [HeaderName; 6] = [HOST, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING, CONNECTION, TE];

/// The client of one collector.
#[derive(Debug)]
pub(super) struct Client {
    target: Target,
    tls: Option<Arc<ClientConfig>>,
    connection: Option<Connection>,
}

#[derive(Debug)]
enum Connection {
    Grpc(http2::SendRequest<Body>),
    Http(http1::SendRequest<Body>),
}

/// A socket, with or without TLS; one type, so that the HTTP engines are compiled once.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

impl Client {
    pub(super) fn new(target: Target) -> Self {
        Self { target, tls: None, connection: None }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Exports an encoded message; the number of items that the collector did not take.
    pub(super) async fn export(&mut self, message: &Bytes) -> Result<u64, Failure> {
        let timeout = self.target.timeout;
        let result = tokio::time::timeout(timeout, async {
            if let Some(mut kept) = self.connection.take()
                && kept.ready().await
                && let Ok(answer) = kept.send(self.request(message)?).await
            {
                return self.judge(kept, answer).await;
            }
            let mut fresh = self.connect().await?;
            let answer = fresh.send(self.request(message)?).await.map_err(Failure::transport)?;
            self.judge(fresh, answer).await
        });
        result.await.unwrap_or_else(|_late| Err(Failure::transport(format!("no answer within {timeout:?}"))))
    }

    fn request(&self, message: &Bytes) -> Result<Request<Body>, Failure> {
        let Target { signal, endpoint, protocol, headers, .. } = &self.target;
        let scheme = if endpoint.tls { "https" } else { "http" };
        let (version, uri, body) = match protocol {
            Protocol::Grpc => {
                let mut frame = BytesMut::with_capacity(5 + message.len());
                frame.put_u8(0);
                frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
                frame.put_slice(message);
                (Version::HTTP_2, format!("{scheme}://{endpoint}{}", signal.grpc_path()), frame.freeze())
            }
            Protocol::Http => {
                let path = endpoint.path.clone().unwrap_or_else(|| signal.http_path().to_string());
                (Version::HTTP_11, path, message.clone())
            }
        };
        let request = Request::builder().method(Method::POST).uri(uri).version(version).body(Body::full(body));
        let mut request = request.map_err(Failure::transport)?;
        let map = request.headers_mut();
        for (name, value) in headers.iter().filter(|(name, _)| !OURS.contains(name)) {
            map.append(name, value.clone());
        }
        map.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        match protocol {
            Protocol::Grpc => {
                map.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                map.insert(TE, HeaderValue::from_static("trailers"));
            }
            Protocol::Http => {
                map.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
                map.insert(HOST, HeaderValue::try_from(endpoint.to_string()).map_err(Failure::transport)?);
            }
        }
        Ok(request)
    }

    async fn connect(&mut self) -> Result<Connection, Failure> {
        let endpoint = &self.target.endpoint;
        let socket = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.map_err(Failure::transport)?;
        let stream: Box<dyn Stream> = if endpoint.tls {
            let config = match &self.tls {
                Some(config) => Arc::clone(config),
                None => Arc::clone(self.tls.insert(trust::config(&self.target).await?)),
            };
            let name = ServerName::try_from(endpoint.host.clone()).map_err(Failure::transport)?;
            Box::new(TlsConnector::from(config).connect(name, socket).await.map_err(Failure::transport)?)
        } else {
            Box::new(socket)
        };
        let io = TokioIo::new(stream);
        Ok(match self.target.protocol {
            Protocol::Grpc => {
                let handshake = http2::Builder::new(LocalExecutor).handshake(io).await;
                let (sender, connection) = handshake.map_err(Failure::transport)?;
                tokio::task::spawn_local(connection);
                Connection::Grpc(sender)
            }
            Protocol::Http => {
                let (sender, connection) = http1::handshake(io).await.map_err(Failure::transport)?;
                tokio::task::spawn_local(connection);
                Connection::Http(sender)
            }
        })
    }

    /// What an answer means; a connection that has answered in full is kept.
    async fn judge(&mut self, connection: Connection, answer: Response<Incoming>) -> Result<u64, Failure> {
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(Failure::transport)?;
        self.connection = Some(connection);
        if !head.status.is_success() {
            return Err(Failure::http(head.status, retry_after(&head.headers)));
        }
        let mut answer = match self.target.protocol {
            Protocol::Http => return Ok(rejected(body.to_bytes())),
            Protocol::Grpc => {
                // An answer without a message carries its status in the head.
                let status = grpc_status(&head.headers).or_else(|| body.trailers().and_then(grpc_status));
                match status {
                    Some(0) => body.to_bytes(),
                    Some(code) => return Err(Failure::grpc(code)),
                    None => return Err(Failure::transport("the collector does not speak gRPC: no grpc-status")),
                }
            }
        };
        Ok(if answer.len() > 5 { rejected(answer.split_off(5)) } else { 0 })
    }
}

impl Connection {
    /// Whether it is still good.
    async fn ready(&mut self) -> bool {
        match self {
            Self::Grpc(sender) => sender.ready().await.is_ok(),
            Self::Http(sender) => sender.ready().await.is_ok(),
        }
    }

    async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Grpc(sender) => sender.send_request(request).await,
            Self::Http(sender) => sender.send_request(request).await,
        }
    }
}

/// Items not taken. An answer that cannot be read is a success all the same: its status said so.
fn rejected(answer: Bytes) -> u64 {
    let exported = Exported::decode(answer).unwrap_or_default();
    let PartialSuccess { rejected, error_message } = exported.partial_success.unwrap_or_default();
    if rejected > 0 {
        tracing::debug!(rejected, why = error_message, "not all telemetry was taken");
    }
    u64::try_from(rejected).unwrap_or_default()
}

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// Seconds; a date is not worth a calendar here.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
