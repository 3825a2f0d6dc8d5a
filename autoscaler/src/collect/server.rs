//! The stat server: activators' websockets, kubelet probes, and the decision log (upstream
//! `pkg/autoscaler/statserver/server.go`).

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use api::{headers, probe::KUBELET_USER_AGENT, stat::WireStatMessages};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder, Registry, TextEncoder};
use prost::Message as _;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{decider::Event, key::Key, metrics::Metrics, ownership::Ownership};

/// The most bytes of one frame: reports of about ten thousand revisions.
const MAX_MESSAGE: usize = 4 << 20;
/// Time to send a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections at once.
const MAX_CONNECTIONS: usize = 4096;
/// Time to drain at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// What a connection needs.
#[derive(Clone)]
pub struct Server {
    /// Where frames and questions go.
    pub events: mpsc::Sender<Event>,
    /// Which buckets are ours.
    pub ownership: Ownership,
    /// What `/metrics` shows.
    pub registry: Registry,
    /// Counters.
    pub metrics: Metrics,
}

/// Accepts until `shutdown`, then closes every websocket with 1012 so that clients come back elsewhere at once.
pub async fn serve(server: Server, listener: TcpListener, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) if connections.len() < MAX_CONNECTIONS => {
                connections.spawn(connection(server.clone(), stream, peer, connections.clone(), shutdown.clone()));
            }
            Ok((_, peer)) => tracing::warn!(%peer, "too many connections; closed"),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                // Out of descriptors: without a pause this would spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "connections left at the end");
    }
}

async fn connection(
    server: Server,
    stream: TcpStream,
    peer: SocketAddr,
    tasks: TaskTracker,
    shutdown: CancellationToken,
) {
    // A frame that wakes a revision must not wait; where this fails it is only slower.
    drop(stream.set_nodelay(true));
    let stop = shutdown.clone();
    let service = service_fn(move |request| {
        let (server, tasks, shutdown) = (server.clone(), tasks.clone(), shutdown.clone());
        async move { Ok::<_, Infallible>(answer(&server, request, peer, &tasks, &shutdown).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

async fn answer(
    server: &Server,
    request: Request<Incoming>,
    peer: SocketAddr,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Response<Full<Bytes>> {
    let head = request.headers();
    if is_kubelet_probe(head) {
        return text(StatusCode::OK, "");
    }
    if let Some(key) = head.get(header::SEC_WEBSOCKET_KEY).filter(|_| wants_websocket(head)).cloned() {
        let host = head.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
        if !server.ownership.accepts_host(host) {
            return text(StatusCode::OK, "");
        }
        if !origin_matches(head, host) {
            return text(StatusCode::FORBIDDEN, "origin not allowed\n");
        }
        let accept = derive_accept_key(key.as_bytes());
        let (server, shutdown) = (server.clone(), shutdown.clone());
        tasks.spawn(async move {
            match hyper::upgrade::on(request).await {
                Ok(upgraded) => receive(server, upgraded, peer, shutdown).await,
                Err(error) => tracing::debug!(%peer, %error, "upgrade failed"),
            }
        });
        let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
        if let Ok(value) = accept.parse() {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, value);
        }
        return response;
    }
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "");
    }
    match request.uri().path() {
        "/metrics" => exposition(&server.registry),
        path => match path.strip_prefix("/debug/decisions/").and_then(|rest| rest.split_once('/')) {
            Some((namespace, revision)) => explain(server, Key::new(namespace, revision)).await,
            None => text(StatusCode::BAD_REQUEST, "want a websocket, or /debug/decisions/NAMESPACE/REVISION\n"),
        },
    }
}

fn is_kubelet_probe(headers: &HeaderMap) -> bool {
    headers.contains_key(headers::KUBELET_PROBE)
        || headers
            .get(header::USER_AGENT)
            .is_some_and(|agent| agent.as_bytes().starts_with(KUBELET_USER_AGENT.as_bytes()))
}

fn wants_websocket(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// A browser's page from elsewhere must not feed us; programs send no Origin.
fn origin_matches(headers: &HeaderMap, host: &str) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let authority = origin.to_str().ok().and_then(|o| o.split_once("://")).map(|(_, authority)| authority);
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

/// Hands frames to the engine, in order. A full queue makes this wait, and with it the sender: nothing is dropped.
async fn receive(server: Server, upgraded: Upgraded, peer: SocketAddr, shutdown: CancellationToken) {
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    tracing::debug!(%peer, "reporter connected");
    loop {
        let message = tokio::select! {
            () = shutdown.cancelled() => {
                let frame = CloseFrame { code: CloseCode::Restart, reason: "Restarting".into() };
                // A peer that is gone needs no farewell.
                drop(socket.send(Message::Close(Some(frame))).await);
                return;
            }
            message = socket.next() => message,
        };
        match message {
            Some(Ok(Message::Binary(bytes))) => match WireStatMessages::decode(bytes) {
                Ok(frame) => {
                    if server.events.send(Event::Frame(frame)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    server.metrics.bad_frames.inc();
                    tracing::debug!(%peer, %error, "frame refused");
                }
            },
            // Text means nothing here; pings are answered by the library.
            Some(Ok(Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Close(_))) | None => return,
            Some(Err(error)) => {
                tracing::debug!(%peer, %error, "reporter lost");
                return;
            }
        }
    }
}

async fn explain(server: &Server, key: Key) -> Response<Full<Bytes>> {
    let (reply, account) = oneshot::channel();
    if server.events.send(Event::Explain(key, reply)).await.is_err() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
    }
    match account.await {
        Ok(Some(account)) => match serde_json::to_vec_pretty(&account) {
            Ok(json) => with_type(json, "application/json"),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        },
        _ => text(StatusCode::NOT_FOUND, "no such revision here\n"),
    }
}

fn exposition(registry: &Registry) -> Response<Full<Bytes>> {
    let mut body = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut body) {
        Ok(()) => with_type(body, prometheus::TEXT_FORMAT),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn with_type(body: Vec<u8>, content_type: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_owned()));
    *response.status_mut() = status;
    response
}
