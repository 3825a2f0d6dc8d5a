//! The web console: one page that shows services, their pods and the last wake-ups as they happen.
//!
//! `/` is the page, `/api/state` the board as JSON, `/api/wakes` every wake-up that is remembered, `/api/events` a
//! stream of server-sent events, one for each change. Read-only, on loopback.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use crate::board::Board;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Connections at once; a browser uses a handful.
const MAX_CONNECTIONS: usize = 64;
/// The page is not told of changes more often than this.
const QUIET: Duration = Duration::from_millis(100);

/// The console's listener.
pub struct Console {
    listener: TcpListener,
    board: Arc<Board>,
}

impl Console {
    /// Binds the listener.
    pub async fn bind(address: SocketAddr, board: Arc<Board>) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, board })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let stream = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = self.listener.accept() => if let Ok((stream, _)) = accepted {
                    stream
                } else {
                    // Out of file descriptors, most likely: others may free some.
                    tokio::time::sleep(QUIET).await;
                    continue;
                },
            };
            let (board, shutdown) = (self.board.clone(), shutdown.clone());
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let response = answer(&request, &board);
                    async { Ok::<_, Infallible>(response) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(60))
                    .serve_connection(TokioIo::new(stream), service);
                // An error means that the browser went away.
                tokio::select! {
                    _ = connection => {}
                    () = shutdown.cancelled() => {}
                }
                drop(place);
            });
        }
    }
}

fn answer(request: &Request<Incoming>, board: &Arc<Board>) -> Response<Body> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return respond(
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain",
            full("the console only shows; use kubectl to change\n"),
        );
    }
    match request.uri().path() {
        "/" => respond(StatusCode::OK, "text/html; charset=utf-8", full(include_str!("index.html"))),
        "/api/state" => json(board.to_json()),
        "/api/wakes" => json(board.wakes_json()),
        "/api/events" => respond(StatusCode::OK, "text/event-stream", events(board)),
        _ => {
            respond(StatusCode::NOT_FOUND, "text/plain", full("there are /, /api/state, /api/wakes and /api/events\n"))
        }
    }
}

/// One event with the whole board at once and after each change, at most every [`QUIET`].
fn events(board: &Arc<Board>) -> Body {
    let mut changes = board.changes();
    changes.mark_changed();
    let stream = stream::unfold((changes, board.clone()), |(mut changes, board)| async move {
        changes.changed().await.ok()?;
        let json = board.to_json().unwrap_or_default();
        let event = [b"data: ", &json[..], b"\n\n"].concat();
        tokio::time::sleep(QUIET).await;
        Some((Ok(Frame::data(Bytes::from(event))), (changes, board)))
    });
    StreamBody::new(stream.boxed()).boxed_unsync()
}

fn full(text: &'static str) -> Body {
    Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync()
}

fn json(result: serde_json::Result<Vec<u8>>) -> Response<Body> {
    match result {
        Ok(bytes) => respond(StatusCode::OK, "application/json", Full::new(bytes.into()).boxed_unsync()),
        Err(_) => respond(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", full("cannot write the board as JSON\n")),
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // The page loads nothing from elsewhere and is shown in no frame.
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
    );
    response
}
