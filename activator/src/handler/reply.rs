//! The answer's body, and everything that lives exactly as long as it: slot, counts, metrics.

use std::sync::Arc;
use std::time::Instant;

use http::header::{HeaderValue, LOCATION};
use http::{Response, StatusCode};
use prometheus::IntGauge;
use proxy::body::{End, Observe, Tracked};
use proxy::deadline::{Deadline, Limited};
use proxy::{Body, Fault};

use crate::report::InFlight;
use crate::revision::Revision;
use crate::shared::Shared;
use crate::throttle::Permit;

/// What the server sends.
pub type ReplyBody = Tracked<Limited<Body>, Holding>;

/// A gauge held up by one.
#[derive(Debug)]
pub struct Up(IntGauge);

impl Up {
    /// One more, until dropped.
    pub fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The account of one request: in flight until its last byte.
#[derive(Debug)]
pub struct Account {
    shared: Arc<Shared>,
    revision: Arc<Revision>,
    start: Instant,
    status: StatusCode,
    _in_flight: InFlight,
}

impl Account {
    /// A request for a revision arrives.
    pub fn open(shared: &Arc<Shared>, revision: &Arc<Revision>) -> Self {
        let start = Instant::now();
        Self {
            shared: Arc::clone(shared),
            revision: Arc::clone(revision),
            start,
            // What upstream's metrics say of clients that leave before an answer.
            status: StatusCode::INTERNAL_SERVER_ERROR,
            _in_flight: shared.reporter.arrive(revision, start),
        }
    }

    /// The answer's status.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = status;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.revision.metrics(&self.shared.metrics).ended(self.status, self.start.elapsed().as_secs_f64());
    }
}

/// What a forwarded request holds until its response, or its tunnel, is over. Fields end in this order: the slot goes
/// to the next in line first.
#[derive(Debug)]
pub struct Held {
    /// Its slot.
    pub permit: Permit,
    /// Its place among the active.
    pub active: Up,
    /// Its account.
    pub account: Account,
}

/// [`Held`], or nothing for an answer of our own.
#[derive(Debug)]
pub struct Holding(Option<Held>);

impl Observe for Holding {
    fn end(self, _end: End) {
        drop(self.0);
    }
}

/// A response from a pod, with what it holds.
pub fn forwarded(response: Response<Body>, deadline: Deadline, held: Held) -> Response<ReplyBody> {
    response.map(|body| Tracked::new(Limited::new(body, deadline), Holding(Some(held))))
}

/// An answer of our own.
pub fn own(response: Response<Body>) -> Response<ReplyBody> {
    response.map(|body| Tracked::new(Limited::new(body, Deadline::unlimited()), Holding(None)))
}

/// An error of our own, signed and counted.
pub fn fault(shared: &Shared, fault: &Fault) -> Response<ReplyBody> {
    shared.metrics.fault(fault.reason());
    own(fault.response("activator"))
}

/// A short text with a status.
pub fn text(status: StatusCode, text: impl Into<bytes::Bytes>) -> Response<ReplyBody> {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    own(response)
}

/// Go there instead; for good.
pub fn moved(location: HeaderValue) -> Response<ReplyBody> {
    let mut response = text(StatusCode::MOVED_PERMANENTLY, "");
    response.headers_mut().insert(LOCATION, location);
    response
}
