//! The ports beside the requests': Prometheus (9090) and profiles (8008). Served on the control thread, so that a scrape
//! never shows in a request's tail.

use std::convert::Infallible;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::service::service_fn;
use proxy::certificates::Certificate;
use proxy::drain::Drain;
use proxy::{Body, ServerConfig};
use telemetry::profiling;
use tokio::net::TcpListener;

use crate::shared::Shared;

/// Serves `GET /metrics`, for ever.
pub async fn metrics(listener: TcpListener, certificate: Option<Certificate>, shared: Arc<Shared>) {
    let config = ServerConfig { tls: certificate.as_ref().map(Certificate::tls), ..ServerConfig::default() };
    if let Some(certificate) = certificate {
        tokio::task::spawn_local(certificate.renew());
    }
    let make = |_peer| {
        let shared = Arc::clone(&shared);
        service_fn(move |request: Request<Body>| {
            let answer = page(&shared, &request);
            async move { Ok::<_, Infallible>(answer) }
        })
    };
    proxy::serve(listener, config, Drain::default(), make).await;
}

fn page(shared: &Shared, request: &Request<Body>) -> Response<Body> {
    if request.uri().path() != "/metrics" || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return profiling::not_found();
    }
    let mut response = match shared.metrics.text() {
        Ok(text) => Response::new(Body::full(text)),
        Err(error) => {
            tracing::warn!(%error, "metrics page");
            let mut response = Response::new(Body::full(format!("{error}\n")));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}

/// Serves profiles while they are switched on, for ever; else 404.
pub async fn profiles(listener: TcpListener, shared: Arc<Shared>) {
    let make = |_peer| {
        let shared = Arc::clone(&shared);
        service_fn(move |request: Request<Body>| {
            let on = shared.switches.profiling();
            async move {
                let answer = if on { profiling::answer(request).await } else { profiling::not_found() };
                Ok::<_, Infallible>(answer)
            }
        })
    };
    proxy::serve(listener, ServerConfig::default(), Drain::default(), make).await;
}
