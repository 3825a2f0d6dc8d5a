//! Traces: which requests are followed, what the next hop is told, what is remembered until the last byte.
//!
//! 1. [`context`] reads the caller's trace from the headers (where the [`hop`] wants it, [`b3`] if there is no W3C one).
//! 2. [`sampler`] decides. A request that is not traced gets at most one header and no more is made of it.
//! 3. [`ids`] names the spans, the next hop gets the last one's name; [`Trace`] notes times until it is dropped.
//! 4. The [`record`] goes to the [`outbox`](crate::otlp::outbox), from where [`crate::otlp`] sends it, behind the
//!    requests' back.
//!
//! With tracing off there is no [`Traces`], and headers of traces pass as they are.

pub mod b3;
pub mod context;
pub mod hop;
pub mod ids;
pub mod record;
pub mod sampler;
pub mod stdout;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, Request, StatusCode, Uri};
use proxy::Peer;

use crate::Identity;
use crate::labels::{MethodLabel, VersionLabel, route_tag};
use crate::otlp::outbox::Outbox;
use context::{Form, Incoming, Outgoing, TRACESTATE};
use hop::{Hop, MAX_STAGES};
use ids::{Ids, SpanId, TraceId};
use record::{Facts, Moment, Record};
use sampler::Sampler;

/// The most that is kept of any text a client sends.
const MAX_TEXT: usize = 2048;
/// The most `tracestate` that is kept; W3C asks for as much.
const MAX_STATE: usize = 512;
/// The most events that are kept of a request; later ones are not.
pub const MAX_EVENTS: usize = 16;

/// Tracing, switched on; one per thread that serves requests, over one [`Outbox`].
#[derive(Debug)]
pub struct Traces {
    hop: &'static Hop,
    sampler: Sampler,
    ids: RefCell<Ids>,
    outbox: Arc<Outbox>,
}

impl Traces {
    /// Tracing as a hop does it; what was traced goes to the outbox.
    pub fn new(hop: &'static Hop, sampler: Sampler, outbox: Arc<Outbox>) -> Self {
        Self { hop, sampler, ids: RefCell::default(), outbox }
    }

    /// A request arrives: decides, and tells the next hop by its headers.
    pub fn arrive<B: http_body::Body>(&self, request: &mut Request<B>, peer: &Peer) -> Option<Box<Trace>> {
        let incoming = context::read(request.headers(), self.hop.b3);
        let trace = match incoming.ids {
            Some((trace, _)) => trace,
            None => self.ids.borrow_mut().trace(),
        };
        if !self.sampler.decide(incoming.sampled, trace) {
            self.pass(request.headers_mut(), &incoming, trace);
            return None;
        }
        let mut ids = self.ids.borrow_mut();
        let (server, stages): (_, [SpanId; MAX_STAGES]) = (ids.span(), std::array::from_fn(|_| ids.span()));
        let record = Record {
            hop: self.hop,
            trace,
            caller: incoming.ids.map(|(_, span)| span),
            state: state(request.headers(), &incoming),
            server,
            stages,
            client: ids.span(),
            started: unix_nanos(SystemTime::now()),
            asked: None,
            sent: None,
            answered: None,
            refused: String::new(),
            ended: std::time::Duration::ZERO,
            status: None,
            broken: false,
            bytes: 0,
            request: facts(request, peer, self.hop.route_tag),
            subject: None,
            events: Vec::new(),
        };
        let parent = self.hop.stages.len().checked_sub(1).and_then(|last| stages.get(last)).copied();
        let parent = Some(parent.unwrap_or(server));
        let outgoing = Outgoing { trace, span: record.client, parent, sampled: true };
        context::write(request.headers_mut(), &incoming, &outgoing);
        Some(Box::new(Trace { record: Some(record), since: Instant::now(), outbox: Arc::clone(&self.outbox) }))
    }

    /// A request that is not traced. The next hop must come to the same decision, so a trace that begins here says so, and
    /// one in B3 says it in W3C too. A W3C caller's own words stand.
    fn pass(&self, headers: &mut HeaderMap, incoming: &Incoming, trace: TraceId) {
        if incoming.form == Form::W3c {
            return;
        }
        let span = match incoming.ids {
            Some((_, caller)) => caller,
            None => self.ids.borrow_mut().span(),
        };
        context::write(headers, incoming, &Outgoing { trace, span, parent: None, sampled: false });
    }
}

/// A traced request until its last byte; its record is handed in when this is dropped.
#[derive(Debug)]
pub struct Trace {
    /// Taken by the drop.
    record: Option<Record>,
    since: Instant,
    outbox: Arc<Outbox>,
}

impl Trace {
    /// Whose request it is, once that is known.
    pub fn belongs_to(&mut self, subject: &Arc<Identity>) {
        if let Some(record) = &mut self.record {
            record.subject = Some(Arc::clone(subject));
        }
    }

    /// The next hop is asked, or another one after the last could not be told anything.
    pub fn asks(&mut self, whom: SocketAddr) {
        let now = self.since.elapsed();
        if let Some(record) = &mut self.record {
            record.asked.get_or_insert(now);
            record.sent = Some((now, whom));
            record.answered = None;
        }
    }

    /// The next hop has answered, or why it has not.
    pub fn next_answers(&mut self, status: Result<StatusCode, &'static str>) {
        let now = self.since.elapsed();
        if let Some(record) = &mut self.record {
            record.answered = Some((now, status));
        }
    }

    /// This hop refuses to ask anybody, or gives up; why.
    pub fn refuses(&mut self, why: &str) {
        if let Some(record) = &mut self.record {
            record.refused = cut(why.as_bytes());
        }
    }

    /// Something happens to the request.
    pub fn event(&mut self, name: &'static str, detail: &str) {
        self.event_at(Instant::now(), name, detail);
    }

    /// Something happened to the request at a time; what was before its arrival is said to be at it.
    pub fn event_at(&mut self, at: Instant, name: &'static str, detail: &str) {
        let at = at.saturating_duration_since(self.since);
        if let Some(record) = &mut self.record
            && record.events.len() < MAX_EVENTS
        {
            record.events.push(Moment { at, name, detail: cut(detail.as_bytes()) });
        }
    }

    /// The status that goes to the client.
    pub fn answers(&mut self, status: StatusCode) {
        if let Some(record) = &mut self.record {
            record.status = Some(status);
        }
    }

    /// Body bytes went out.
    pub fn data(&mut self, bytes: usize) {
        if let Some(record) = &mut self.record {
            record.bytes += bytes as u64;
        }
    }

    /// The answer broke off.
    pub fn broken(&mut self) {
        if let Some(record) = &mut self.record {
            record.broken = true;
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if let Some(mut record) = self.record.take() {
            record.ended = self.since.elapsed();
            self.outbox.push(record);
        }
    }
}

/// Unix nanoseconds; zero for a clock before 1970.
pub(crate) fn unix_nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or_default()
}

/// `tracestate`, if it belongs to the caller's trace.
fn state(headers: &HeaderMap, incoming: &Incoming) -> String {
    if incoming.form != Form::W3c {
        return String::new();
    }
    let lines: Vec<&str> = headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok()).collect();
    let state = lines.join(",");
    // Half a list would not parse.
    if state.len() <= MAX_STATE { state } else { String::new() }
}

fn facts<B: http_body::Body>(request: &Request<B>, peer: &Peer, tag: bool) -> Facts {
    let (headers, uri) = (request.headers(), request.uri());
    let text = |name| headers.get(name).map(|value| cut(value.as_bytes())).unwrap_or_default();
    let method = MethodLabel::of(request.method()).name();
    let known = method != "_OTHER";
    let scheme = if uri.scheme_str() == Some("https") { "https" } else { "http" };
    let (host, port) = host(headers, uri, if scheme == "https" { 443 } else { 80 });
    let forwarded = text(proxy::headers::X_FORWARDED_FOR);
    Facts {
        method: known.then_some(method),
        odd_method: if known { String::new() } else { cut(request.method().as_str().as_bytes()) },
        scheme,
        host,
        port,
        path: cut(uri.path().as_bytes()),
        target: uri.path_and_query().map(|target| cut(target.as_str().as_bytes())).unwrap_or_default(),
        version: VersionLabel::of(request.version()).name(),
        peer: Some(peer.address),
        first_peer: forwarded.split(',').next().unwrap_or_default().trim().to_string(),
        agent: text(USER_AGENT),
        route_tag: if tag { cut(route_tag(headers.into()).as_bytes()) } else { String::new() },
        body: request.body().size_hint().exact(),
    }
}

/// Host and the port that the scheme does not imply.
fn host(headers: &HeaderMap, uri: &Uri, implied: u16) -> (String, Option<u16>) {
    let host = match uri.authority() {
        Some(authority) => cut(authority.as_str().as_bytes()),
        None => headers.get(HOST).map(|value| cut(value.as_bytes())).unwrap_or_default(),
    };
    match host.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse().ok()?))) {
        // An IPv6 address without brackets has colons of its own.
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
            (name.to_string(), Some(port).filter(|port| *port != implied))
        }
        _ => (host, None),
    }
}

/// Text from a client, cut where a character ends.
fn cut(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..MAX_TEXT).unwrap_or(bytes));
    let mut text = text.into_owned();
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
