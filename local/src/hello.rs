//! `dormouse hello`: the demo server, a user container as small as they come.
//!
//! `GET /` answers `Hello $TARGET!`; `POST /` echoes the body and answers `success`. `?sleep=MS` waits first,
//! `?bytes=N` answers with that many bytes. Not part of the system: it stands where a user's program stands.

use std::{convert::Infallible, env, net::SocketAddr, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{rt::TokioIo, server::conn::auto};
use tokio::{net::TcpListener, signal::unix};

/// What one request may make the server hold or send.
const MAX_BODY: usize = 1 << 20;
const MAX_BYTES: usize = 64 << 20;
const MAX_SLEEP: Duration = Duration::from_secs(600);

/// Serves on `0.0.0.0:$PORT` (8080 without it) until SIGTERM or SIGINT.
pub async fn run() -> anyhow::Result<()> {
    let port: u16 = match env::var("PORT") {
        Ok(text) => text.parse().with_context(|| format!("PORT={text:?} is not a port number"))?,
        Err(_) => 8080,
    };
    let target: &'static str = env::var("TARGET").unwrap_or_else(|_| "World".to_owned()).leak();
    let address = SocketAddr::from(([0, 0, 0, 0], port));
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: set PORT to a free port"))?;
    println!("hello: serving on {address}, TARGET={target}");
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    let mut interrupt = unix::signal(unix::SignalKind::interrupt())?;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A connection that died before it was accepted is the client's affair.
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                tokio::spawn(async move {
                    let service = service_fn(move |request| async move { Ok::<_, Infallible>(answer(request, target).await) });
                    // An error here means that the client went away in the middle; there is nobody to tell.
                    let _ = auto::Builder::new(hyper_util::rt::TokioExecutor::new())
                        .serve_connection_with_upgrades(TokioIo::new(stream), service)
                        .await;
                });
            }
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

async fn answer(request: Request<Incoming>, target: &str) -> Response<Full<Bytes>> {
    let wish = Wish::parse(request.uri().query().unwrap_or_default());
    if !wish.sleep.is_zero() {
        tokio::time::sleep(wish.sleep).await;
    }
    match *request.method() {
        Method::GET | Method::HEAD => match wish.bytes {
            Some(n) => text(StatusCode::OK, vec![b'z'; n]),
            None => text(StatusCode::OK, format!("Hello {target}!")),
        },
        Method::POST => match Limited::new(request.into_body(), MAX_BODY).collect().await {
            Ok(body) => {
                let body = body.to_bytes();
                println!("hello: got {}", String::from_utf8_lossy(&body));
                text(StatusCode::OK, [&body[..], b"\nsuccess"].concat())
            }
            Err(_) => text(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {MAX_BODY} bytes\n")),
        },
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "use GET or POST\n"),
    }
}

/// What the query asks for; anything unreadable is ignored, anything too large is cut.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wish {
    sleep: Duration,
    bytes: Option<usize>,
}

impl Wish {
    fn parse(query: &str) -> Self {
        let mut wish = Self::default();
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match (key, value.parse::<u64>()) {
                ("sleep", Ok(ms)) => wish.sleep = Duration::from_millis(ms).min(MAX_SLEEP),
                ("bytes", Ok(n)) => wish.bytes = Some(usize::try_from(n).unwrap_or(MAX_BYTES).min(MAX_BYTES)),
                _ => {}
            }
        }
        wish
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_and_bounded() {
        assert_eq!(Wish::parse("sleep=250&x=1"), Wish { sleep: Duration::from_millis(250), bytes: None });
        assert_eq!(Wish::parse("bytes=3"), Wish { sleep: Duration::ZERO, bytes: Some(3) });
        assert_eq!(Wish::parse("sleep=99999999999&bytes=99999999999").sleep, MAX_SLEEP);
        assert_eq!(Wish::parse("bytes=99999999999").bytes, Some(MAX_BYTES));
        assert_eq!(Wish::parse("sleep=-1&bytes=x&&="), Wish::default());
    }
}
