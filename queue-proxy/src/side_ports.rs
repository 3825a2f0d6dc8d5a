//! The small ports: drain (8022), stat for the autoscaler (9090), metrics for the user (9091).

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use proxy::Body;

use crate::sidecar::Sidecar;

/// If no SIGTERM follows a `/wait-for-drain` within this time, one container restarts and the pod stays.
const SIGNAL_EXPECTED_WITHIN: Duration = Duration::from_secs(1);

/// Whether SIGTERM has come.
pub type Terminating = Rc<Cell<bool>>;

/// `/wait-for-drain`, called by the preStop hook of the user's containers: returns when no new request has come for
/// the quiet period and those in flight have been answered, so that the app may be stopped.
pub async fn admin(
    sidecar: Rc<Sidecar>,
    terminating: Terminating,
    request: Request<Body>,
) -> Result<Response<Body>, Infallible> {
    if request.uri().path() != "/wait-for-drain" {
        return Ok(not_found());
    }
    let drained = async {
        sidecar.drainer.drain().await;
        if sidecar.drainer.draining() {
            sidecar.no_active().await;
        }
    };
    let no_signal = async {
        tokio::time::sleep(SIGNAL_EXPECTED_WITHIN).await;
        if terminating.get() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = no_signal => {
            tracing::info!("drain taken back: the pod is not terminating");
            sidecar.drainer.take_back();
        }
        () = drained => {
            if !terminating.get() {
                // Quieter than the signal is slow: the doubt is settled behind the caller's back.
                let sidecar = Rc::clone(&sidecar);
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(SIGNAL_EXPECTED_WITHIN).await;
                    if !terminating.get() {
                        sidecar.drainer.take_back();
                    }
                });
            }
        }
    }
    Ok(Response::new(Body::empty()))
}

/// The stat that the autoscaler scrapes, or stats as they come for one that listens. Always protobuf, whatever Accept
/// says; never 502 or 503, which the reader takes for a mesh.
pub fn stat(sidecar: &Sidecar, request: &Request<Body>) -> Response<Body> {
    if request.uri().path() != "/metrics" {
        return not_found();
    }
    let listens = request.method() == Method::GET && request.headers().contains_key(api::stat::STREAM);
    let (body, content_type) = match listens.then(|| sidecar.broadcast.listen()).flatten() {
        Some(stream) => (stream, api::stat::STREAM_CONTENT_TYPE),
        None => (Body::full(sidecar.stat()), api::stat::CONTENT_TYPE),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Prometheus text.
pub fn user_metrics(sidecar: &Sidecar, request: &Request<Body>) -> Response<Body> {
    let Some(metrics) = sidecar.metrics_now() else { return not_found() };
    if request.uri().path() != "/metrics" || request.method() != Method::GET {
        return not_found();
    }
    let mut response = Response::new(Body::full(metrics.text()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}

fn not_found() -> Response<Body> {
    let mut response = Response::new(Body::full("404 page not found\n"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
