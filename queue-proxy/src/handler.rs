//! The main port: one request from arrival to answer. Read top to bottom; the order is the contract's.

use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;

use api::headers as words;
use http::header::{CONNECTION, FORWARDED, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use proxy::body::Tracked;
use proxy::deadline::{Deadline, Limit, Limited};
use proxy::forward::{self, Options};
use proxy::headers::{self, Headers, Present};
use proxy::{Body, Fault, Peer};

use crate::forwarded;
use crate::probe::{self, Kind};
use crate::sidecar::{Accounting, InFlight, Sidecar};

/// Who signs our own answers.
pub const HOP: &str = "queue-proxy";

/// The body of everything the main port answers.
pub type AnswerBody = Tracked<Limited<Body>, Accounting>;

/// Headers that end at the sidecar.
const ENDS_HERE: [(Present, HeaderName); 3] = [
    (Present::SERVING_REVISION, words::SERVING_REVISION),
    (Present::SERVING_NAMESPACE, words::SERVING_NAMESPACE),
    (Present::ORIGINAL_HOST, words::ORIGINAL_HOST),
];

/// Serves one request.
///
/// An `async` block that captures, not an `async fn`: that one would keep room for its arguments twice.
#[allow(clippy::manual_async_fn)]
pub fn handle(
    sidecar: Rc<Sidecar>,
    peer: Rc<Peer>,
    mut request: Request<Body>,
) -> impl Future<Output = Result<Response<AnswerBody>, Infallible>> {
    async move { Ok(serve(&sidecar, &peer, &mut request).await) }
}

async fn serve(sidecar: &Rc<Sidecar>, peer: &Peer, request: &mut Request<Body>) -> Response<AnswerBody> {
    if let Err(fault) = forward::check(request) {
        return uncounted(fault.response(HOP));
    }
    let present = Headers::of(request).present();
    let kind = probe::classify(Headers::of(request), present);
    if kind.answered_here() {
        let log = sidecar.log.as_ref().and_then(|log| log.arrive(request, peer, true, &sidecar.identity));
        // Boxed: probes are rare, and every connection reserves room for the larger of both ways.
        let response = Box::pin(answer_probe(sidecar, kind)).await;
        let mut accounting = Accounting { log, ..Accounting::default() };
        accounting.answers(response.status());
        return response.map(|body| Tracked::new(Limited::new(body, Deadline::unlimited()), accounting));
    }
    sidecar.drainer.request();
    let http1 = request.version() != Version::HTTP_2;
    let mut deadline = sidecar.timers.start(sidecar.limits);
    let mut accounting = Accounting {
        in_flight: (kind != Kind::Bypass).then(|| arrive(sidecar, request, present, &kind)),
        log: sidecar.log.as_ref().and_then(|log| log.arrive(request, peer, kind != Kind::Ordinary, &sidecar.identity)),
        // Last, for it tells the app by the request's headers.
        trace: match &sidecar.traces {
            Some(traces) if kind == Kind::Ordinary => traces.arrive(request, peer),
            _ => None,
        },
    };
    let mut response = match exchange(sidecar, peer, request, present, &mut accounting, &mut deadline).await {
        Ok(response) => response,
        Err(fault) => {
            tracing::debug!(%fault, "request failed");
            // Our own answer is not cut by the limit that it reports.
            deadline = Deadline::unlimited();
            fault.response(HOP)
        }
    };
    if http1 && response.status() != StatusCode::SWITCHING_PROTOCOLS && sidecar.drainer.draining() {
        // The client should come back by a new connection, which a router sends elsewhere.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    accounting.answers(response.status());
    response.map(|body| {
        let body = Limited::new(body, deadline).on_expiry(|limit| tracing::warn!(%limit, "response aborted"));
        Tracked::new(body, accounting)
    })
}

fn arrive(sidecar: &Rc<Sidecar>, request: &Request<Body>, present: Present, kind: &Kind) -> InFlight {
    let proxied = present.any(Present::PROXY_REQUEST)
        && Headers::of(request).get(&words::PROXY_REQUEST) == Some(api::probe::ACTIVATOR.as_bytes());
    let arrival = match &sidecar.metrics {
        Some(metrics) if *kind == Kind::Ordinary => {
            let body = http_body::Body::size_hint(request.body()).exact();
            Some(metrics.arrive(request.method(), request.version(), Headers::of(request), body))
        }
        _ => None,
    };
    InFlight::arrive(sidecar, proxied, arrival)
}

/// Waits for a slot, asks the app, prepares its answer.
async fn exchange(
    sidecar: &Rc<Sidecar>,
    peer: &Peer,
    request: &mut Request<Body>,
    present: Present,
    accounting: &mut Accounting,
    deadline: &mut Deadline,
) -> Result<Response<Body>, Fault> {
    address(request, present, accounting.in_flight.is_some())?;
    if let Some(in_flight) = &mut accounting.in_flight {
        let slot = match &sidecar.breaker {
            None => None,
            Some(breaker) => {
                let entry = breaker.enter().map_err(|_full| Fault::QueueFull)?;
                Some(deadline.run(entry).await.map_err(timed_out)?)
            }
        };
        in_flight.runs(slot);
    }
    let options =
        Options { forwarded_for: Some(&peer.forwarded_for), remove: &ENDS_HERE, default_host: &sidecar.app_host };
    let upgrade = forward::prepare(request, present, &options)?;
    accounting.asks(sidecar.app_address);
    let sent = deadline.run(sidecar.app.forward(request, None)).await;
    accounting.app_answers(match &sent {
        Ok(Ok(answer)) => Ok(answer.status()),
        Ok(Err(error)) if error.is_dial() => Err("connect"),
        Ok(Err(_)) => Err("broken"),
        Err(_limit) => Err("timeout"),
    });
    let (response, tunnel) = forward::answer(sent.map_err(timed_out)??, upgrade)?;
    if let Some(tunnel) = tunnel {
        let mut accounting = std::mem::take(accounting);
        accounting.answers(StatusCode::SWITCHING_PROTOCOLS);
        if let Some(in_flight) = &mut accounting.in_flight {
            in_flight.upgraded();
        }
        let guard = sidecar.drain.guard();
        let deadline = std::mem::replace(deadline, Deadline::unlimited());
        tokio::task::spawn_local(async move {
            let _held = (accounting, guard);
            if let Err(error) = tunnel.run(deadline).await {
                tracing::debug!(%error, "upgraded connection ended");
            }
        });
    }
    Ok(response)
}

/// `Forwarded`, and the host that the client asked for.
fn address(request: &mut Request<Body>, present: Present, restore_host: bool) -> Result<(), Fault> {
    if let Some(forwarded) = forwarded::of(Headers::of(request), present) {
        headers::insert(request, FORWARDED, forwarded);
    }
    if restore_host
        && present.any(Present::ORIGINAL_HOST)
        && let Some(host) = Headers::of(request).get(&words::ORIGINAL_HOST)
        && !host.is_empty()
    {
        let host = HeaderValue::from_bytes(host).map_err(|_| Fault::BadRequest("malformed host"))?;
        forward::set_host(request, host)?;
    }
    Ok(())
}

fn timed_out(limit: Limit) -> Fault {
    tracing::warn!(%limit, "request timed out");
    Fault::Timeout { limit, text: "request timeout" }
}

/// Answers what is asked of the sidecar itself.
async fn answer_probe(sidecar: &Sidecar, kind: Kind) -> Response<Body> {
    let other = |status, reason, body: String| {
        Fault::Other { status, reason, body: body.into(), retry_after: None }.response(HOP)
    };
    if sidecar.drainer.draining() {
        return other(StatusCode::SERVICE_UNAVAILABLE, "draining", "shutting down\n".into());
    }
    match kind {
        Kind::Readiness { hold } => {
            let ready = match hold {
                Some(hold) => tokio::select! {
                    ready = sidecar.gate.ready_within(hold) => ready,
                    () = sidecar.drainer.began() => {
                        return other(StatusCode::SERVICE_UNAVAILABLE, "draining", "shutting down\n".into());
                    }
                },
                None => sidecar.gate.ready().await,
            };
            if ready {
                Response::new(Body::full(api::probe::QUEUE))
            } else {
                other(StatusCode::SERVICE_UNAVAILABLE, "not-ready", String::new())
            }
        }
        Kind::Network(hash) => {
            let mut response = Response::new(Body::empty());
            response.headers_mut().insert(words::NETWORK_HASH, hash);
            response
        }
        Kind::NetworkWithoutHash => other(
            StatusCode::BAD_REQUEST,
            "probe-without-hash",
            "a probe request must contain a non-empty \"K-Network-Hash\" header\n".into(),
        ),
        Kind::Misdirected(value) => {
            other(StatusCode::BAD_REQUEST, "probe-header", format!("unexpected probe header value: {value}\n"))
        }
        // Not answered here; see `Kind::answered_here`.
        Kind::Bypass | Kind::Unmeasured | Kind::Ordinary => {
            other(StatusCode::INTERNAL_SERVER_ERROR, "no-probe", "no probe\n".into())
        }
    }
}

fn uncounted(response: Response<Body>) -> Response<AnswerBody> {
    response.map(|body| Tracked::new(Limited::new(body, Deadline::unlimited()), Accounting::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// Every connection, busy or not, reserves room for one request in progress.
    #[test]
    fn a_request_in_progress_stays_small() {
        let size = size_of_future(handle);
        assert!(size <= 2048, "{size} bytes: box what is rare");
    }
}
