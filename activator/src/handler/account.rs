//! What one request holds from its arrival to its last byte: its place in the counts, its slot, and what is told of it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Request, StatusCode};
use proxy::body::{End, Observe};
use proxy::clock;
use proxy::{Body, Fault, Peer};
use telemetry::request_log::{Entry, RequestLog};
use telemetry::traces::Trace;

use super::Door;
use super::timing::Timing;
use crate::metrics::cells::Shard;
use crate::metrics::requests::Measure;
use crate::report::InFlight;
use crate::revision::Revision;
use crate::throttle::Permit;
use crate::throttle::target::Target;

/// The account of one request. Everything it holds is given back when it is dropped, the slot first, so that the next in
/// line does not wait for our bookkeeping.
#[derive(Debug)]
pub struct Account {
    permit: Option<Permit>,
    door: Rc<Door>,
    in_flight: InFlight,
    timing: Timing,
    measure: Measure,
    /// The cookie of a session that begins with it.
    session: Option<HeaderValue>,
    /// Its line in the log, if there is one.
    log: Option<Box<Entry>>,
    /// Its spans, if it is traced.
    trace: Option<Box<Trace>>,
}

impl Account {
    /// A request for a revision arrives; `log`: if it is on. Boxed once instead of moved with its answer from hand to hand.
    pub fn open(
        door: &Rc<Door>,
        revision: Arc<Revision>,
        request: &Request<Body>,
        peer: &Peer,
        measure: Measure,
        log: Option<Arc<RequestLog>>,
        mut trace: Option<Box<Trace>>,
    ) -> Box<Self> {
        let mut entry = None;
        if log.is_some() || trace.is_some() {
            let whose = revision.metrics(&door.shared.metrics).identity();
            entry = log.and_then(|log| log.arrive(request, peer, false, whose));
            if let Some(entry) = &mut entry {
                // What upstream's log says of clients that leave before an answer.
                entry.answers(StatusCode::INTERNAL_SERVER_ERROR);
            }
            if let Some(trace) = &mut trace {
                trace.belongs_to(whose);
            }
        }
        Box::new(Self {
            permit: None,
            in_flight: door.shared.reporter.arrive(revision, measure.start()),
            door: Rc::clone(door),
            timing: Timing::default(),
            measure,
            session: None,
            log: entry,
            trace,
        })
    }

    /// The revision that is asked.
    pub fn revision(&self) -> &Arc<Revision> {
        self.in_flight.revision()
    }

    /// A pod works on it from now on.
    pub fn admitted(&mut self, permit: Permit) -> &Permit {
        let shard = self.door.shard;
        self.revision().metrics(&self.door.shared.metrics).at(shard).active.up();
        self.permit.insert(permit)
    }

    /// A session begins with it: its answer carries this cookie.
    pub fn session_begins(&mut self, cookie: HeaderValue) {
        self.session = Some(cookie);
    }

    /// The cookie of the session that begins with it.
    pub fn take_session(&mut self) -> Option<HeaderValue> {
        self.session.take()
    }

    /// The pod that works on it.
    pub fn pod(&self) -> Option<&Target> {
        self.permit.as_ref().map(|permit| &**permit.target())
    }

    /// It joins the line.
    pub fn joins(&mut self, now: Instant) {
        if let Some(trace) = &mut self.trace {
            trace.event_at(now, "dormouse.queued", "");
        }
    }

    /// It has stood in line since a moment, and it is its turn.
    pub fn waited(&mut self, joined: Instant, now: Instant) {
        let ready = self.revision().wake.ready_since(joined);
        self.timing.waited(joined, ready, now);
        if let (Some(trace), Some(ready)) = (&mut self.trace, ready) {
            trace.event_at(ready, "dormouse.ready", "");
        }
    }

    /// The pod is asked.
    pub fn asks(&mut self, pod: SocketAddr) {
        // What comes before, unless it is a wait or another pod, takes microseconds: not worth a look at the clock.
        let at_once = !self.timing.has_waited() && !self.measure.has_asked();
        self.measure.asks(if at_once { self.measure.start() } else { clock::now().into_std() });
        if let Some(trace) = &mut self.trace {
            trace.asks(pod);
        }
    }

    /// The head of the pod's answer is there, or why there is none.
    pub fn pod_answers(&mut self, answer: Result<StatusCode, &'static str>) {
        let now = clock::now().into_std();
        self.measure.pod_answers(answer, now);
        if let Some(trace) = &mut self.trace {
            trace.next_answers(answer);
        }
        let (revision, shared) = (self.in_flight.revision(), &self.door.shared);
        if answer.is_ok() && self.timing.has_waited() {
            if let Some(phases) = revision.wake.first_byte(&revision.key, &shared.observer, now) {
                shared.metrics.woken(phases);
            }
            if let Some(trace) = &mut self.trace {
                trace.event_at(now, "dormouse.first_byte", "");
            }
        }
    }

    /// Where the time went until now, as a `Server-Timing` header.
    pub fn timing(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.timing.header(clock::now().into_std() - self.measure.start())).ok()
    }

    /// The pod was not there, and another one is tried; a word for why. Its slot is free again.
    pub fn turned_away(&mut self, why: &'static str) {
        self.door.shared.metrics.retry(self.door.shard, why);
        if let (Some(trace), Some(permit)) = (&mut self.trace, &self.permit) {
            trace.event("dormouse.retry", &permit.target().address.to_string());
        }
        self.leave_pod();
    }

    fn leave_pod(&mut self) {
        let shard = self.door.shard;
        if self.permit.take().is_some()
            && let Some(metrics) = self.revision().metrics_if_any()
        {
            metrics.at(shard).active.down();
        }
    }

    /// It gets an answer of our own.
    pub fn refused(&mut self, fault: &Fault) {
        if self.measure.unanswered() {
            let why = if matches!(fault, Fault::Timeout { .. }) { "timeout" } else { "broken" };
            self.pod_answers(Err(why));
        }
        if let Some(trace) = &mut self.trace {
            trace.refuses(&fault.to_string());
        }
        // The words for bounds of the line begin so.
        if fault.reason().starts_with("queue-") {
            self.revision().metrics(&self.door.shared.metrics).at(self.door.shard).queue_full.add(1);
        }
    }

    /// The status that goes to the client.
    pub fn answers(&mut self, status: StatusCode) {
        self.measure.answers(status);
        if let Some(entry) = &mut self.log {
            entry.answers(status);
        }
        if let Some(trace) = &mut self.trace {
            trace.answers(status);
        }
    }

    fn data(&mut self, bytes: usize) {
        self.measure.data(bytes);
        if let Some(entry) = &mut self.log {
            entry.data(bytes);
        }
        if let Some(trace) = &mut self.trace {
            trace.data(bytes);
        }
    }

    fn broken(&mut self) {
        // A trace tells what was sent and that it broke off.
        if let Some(mut trace) = self.trace.take() {
            trace.broken();
        }
        self.answers(StatusCode::INTERNAL_SERVER_ERROR);
        if let Some(entry) = &mut self.log {
            entry.broken();
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.leave_pod();
        let (shared, shard) = (&self.door.shared, self.door.shard);
        let revision = self.revision().metrics(&shared.metrics);
        let now = clock::now().into_std();
        shared.metrics.record(shard, Some(revision), &self.measure, now);
        self.in_flight.ends(now);
    }
}

/// What is told of a request that no revision is charged with.
pub fn told(door: &Door, mut measure: Measure, trace: Option<Box<Trace>>, status: StatusCode, bytes: usize) {
    measure.answers(status);
    measure.data(bytes);
    door.shared.metrics.record(door.shard, None, &measure, clock::now().into_std());
    if let Some(mut trace) = trace {
        trace.answers(status);
        trace.data(bytes);
    }
}

/// The account of an answer, if it has one: answers of our own to what is no request for a revision have none.
#[derive(Debug, Default)]
pub struct Accounting(Option<Box<Account>>);

impl From<Box<Account>> for Accounting {
    fn from(account: Box<Account>) -> Self {
        Self(Some(account))
    }
}

impl Observe for Accounting {
    fn data(&mut self, bytes: usize) {
        if let Some(account) = &mut self.0 {
            account.data(bytes);
        }
    }

    fn end(mut self, end: End) {
        if let (Some(account), End::Broken) = (&mut self.0, end) {
            account.broken();
        }
    }
}

/// A request in line, for the gauge.
#[derive(Debug)]
pub struct Queued<'a> {
    revision: &'a Revision,
    shard: Shard,
}

impl<'a> Queued<'a> {
    /// One more, until this is dropped.
    pub fn new(door: &Door, revision: &'a Revision) -> Self {
        revision.metrics(&door.shared.metrics).at(door.shard).queued.up();
        Self { revision, shard: door.shard }
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        if let Some(metrics) = self.revision.metrics_if_any() {
            metrics.at(self.shard).queued.down();
        }
    }
}
