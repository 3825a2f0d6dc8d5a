//! One traced request as plain data, and the spans it becomes: server → the hop's own stages → client. Kinds,
//! attributes and what counts as an error are upstream's; which stages there are says the [`Hop`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::hop::{Hop, Lasts, MAX_STAGES, Stage};
use super::ids::{SpanId, TraceId};
use crate::Identity;
use crate::otlp::messages::{Event, FLAG_HAS_IS_REMOTE, FLAG_IS_REMOTE, KeyValue, Kind, STATUS_ERROR, Span, Status};

/// A traced request. Times count from `started`.
#[derive(Debug, Clone)]
pub struct Record {
    /// Who traces.
    pub hop: &'static Hop,
    /// Its trace.
    pub trace: TraceId,
    /// The caller's span.
    pub caller: Option<SpanId>,
    /// `tracestate` as it came.
    pub state: String,
    /// The span of the whole request.
    pub server: SpanId,
    /// The spans of the hop's stages, in their order; those beyond are not used.
    pub stages: [SpanId; MAX_STAGES],
    /// The request to the next hop, whose own spans are its children.
    pub client: SpanId,
    /// Arrival, Unix nanoseconds.
    pub started: u64,
    /// When the next hop was asked first; `None`: never.
    pub asked: Option<Duration>,
    /// The last time it was asked, and whom: there is more than one if nothing could be sent before.
    pub sent: Option<(Duration, SocketAddr)>,
    /// When it answered, and what; a word if it gave no status. `None`: the client left first.
    pub answered: Option<(Duration, Result<StatusCode, &'static str>)>,
    /// Why the next hop was never asked, if this hop refused.
    pub refused: String,
    /// The last byte.
    pub ended: Duration,
    /// The status that went to the client, if one did.
    pub status: Option<StatusCode>,
    /// Whether the answer broke off.
    pub broken: bool,
    /// Body bytes that went to the client.
    pub bytes: u64,
    /// The request itself.
    pub request: Facts,
    /// Whose request it is, where the resource does not say it.
    pub subject: Option<Arc<Identity>>,
    /// What happened to it on the way, at most [`super::MAX_EVENTS`].
    pub events: Vec<Moment>,
}

/// Something that happened to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// When, from the arrival.
    pub at: Duration,
    /// What.
    pub name: &'static str,
    /// To what or why; may be empty.
    pub detail: String,
}

/// What is kept of a request. Text from clients is cut before it comes here.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The method if it is a known one.
    pub method: Option<&'static str>,
    /// The method as it came, if it is not.
    pub odd_method: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Host without its port.
    pub host: String,
    /// Its port, if it names one that the scheme does not imply.
    pub port: Option<u16>,
    /// Path.
    pub path: String,
    /// Path and query.
    pub target: String,
    /// `1.0`, `1.1` or `2`.
    pub version: &'static str,
    /// Who sent it: the other end of the connection.
    pub peer: Option<SocketAddr>,
    /// Who sent it first: the first name in `X-Forwarded-For`.
    pub first_peer: String,
    /// User-Agent.
    pub agent: String,
    /// The route it took, if the hop wants to know.
    pub route_tag: String,
    /// Size of its body, if it was announced.
    pub body: Option<u64>,
}

impl Record {
    /// How many spans it becomes.
    pub fn spans(&self) -> usize {
        1 + self.stages().count() + usize::from(self.sent.is_some())
    }

    /// The spans of HTTP itself: server and client.
    pub fn http_spans(&self) -> impl Iterator<Item = Span> {
        let client = self.sent.map(|(at, to)| self.client(at, to));
        std::iter::once(self.server()).chain(client)
    }

    /// The spans of the hop's own work.
    pub fn own_spans(&self) -> impl Iterator<Item = Span> {
        self.stages().map(|(stage, id)| {
            let parent = stage.within.and_then(|n| self.stages.get(n)).unwrap_or(&self.server);
            let mut span = self.span(id, Some(*parent), stage.name, Kind::Internal);
            match stage.lasts {
                Lasts::WholeRequest => {}
                Lasts::FromAsked => span.start_time_unix_nano = self.at(self.asked.unwrap_or(self.ended)),
                Lasts::UntilAsked => {
                    span.end_time_unix_nano = self.at(self.asked.unwrap_or(self.ended));
                    if self.asked.is_none() && !self.refused.is_empty() {
                        span.status = failed(&self.refused);
                    }
                }
            }
            span
        })
    }

    /// The stages that this request came to.
    fn stages(&self) -> impl Iterator<Item = (&'static Stage, SpanId)> {
        let asked = self.asked.is_some();
        let stages = self.hop.stages.iter().zip(self.stages);
        stages.filter(move |(stage, _)| asked || stage.lasts != Lasts::FromAsked)
    }

    fn server(&self) -> Span {
        let facts = &self.request;
        let mut span = self.span(self.server, self.caller, facts.method.unwrap_or("HTTP"), Kind::Server);
        let mut attributes = Attributes::default();
        attributes.text("server.address", &facts.host);
        attributes.int("server.port", facts.port);
        self.method(&mut attributes);
        attributes.text("url.scheme", facts.scheme);
        attributes.text("url.path", &facts.path);
        if let Some(peer) = facts.peer {
            attributes.text("network.peer.address", &peer.ip().to_canonical().to_string());
            attributes.int("network.peer.port", Some(peer.port()));
        }
        attributes.text("user_agent.original", &facts.agent);
        attributes.text("client.address", &facts.first_peer);
        attributes.text("network.protocol.version", facts.version);
        if let Some(subject) = &self.subject {
            attributes.text("kn.service.name", &subject.service);
            attributes.text("kn.configuration.name", &subject.configuration);
            attributes.text("kn.revision.name", &subject.revision);
            attributes.text("k8s.namespace.name", &subject.namespace);
        }
        attributes.text("kn.route.tag", &facts.route_tag);
        attributes.int("http.request.body.size", facts.body);
        attributes.int("http.response.body.size", Some(self.bytes));
        attributes.int("http.response.status_code", self.status.map(|status| status.as_u16()));
        span.attributes = attributes.0;
        span.events = self.events.iter().map(|moment| self.event(moment)).collect();
        span.status = if self.broken {
            failed("the answer broke off")
        } else if self.status.is_some_and(|status| status.is_server_error()) {
            failed("")
        } else {
            None
        };
        span
    }

    fn client(&self, sent: Duration, to: SocketAddr) -> Span {
        let facts = &self.request;
        let parent = self.hop.stages.len().checked_sub(1).and_then(|last| self.stages.get(last));
        let name = (self.hop.client_name)(facts);
        let mut span = self.span(self.client, Some(*parent.unwrap_or(&self.server)), &name, Kind::Client);
        span.start_time_unix_nano = self.at(sent);
        let mut attributes = Attributes::default();
        self.method(&mut attributes);
        attributes.text("url.full", &format!("http://{to}{}", facts.target));
        attributes.text("server.address", &to.ip().to_string());
        attributes.int("server.port", Some(to.port()));
        // HTTP/1.0 goes on as 1.1.
        attributes.text("network.protocol.version", if facts.version == "2" { "2" } else { "1.1" });
        attributes.int("http.request.body.size", facts.body);
        let error = match self.answered {
            None => Some("cancelled".to_string()),
            Some((at, Err(word))) => {
                span.end_time_unix_nano = self.at(at);
                Some(word.to_string())
            }
            Some((_, Ok(status))) => {
                attributes.int("http.response.status_code", Some(status.as_u16()));
                let code = (status.as_u16() >= 400).then(|| status.as_u16().to_string());
                code.or_else(|| self.broken.then(|| "broken".to_string()))
            }
        };
        if let Some(error) = error {
            attributes.text("error.type", &error);
            span.status = failed("");
        }
        span.attributes = attributes.0;
        span
    }

    fn method(&self, attributes: &mut Attributes) {
        attributes.text("http.request.method", self.request.method.unwrap_or("_OTHER"));
        attributes.text("http.request.method_original", &self.request.odd_method);
    }

    fn event(&self, moment: &Moment) -> Event {
        let mut attributes = Attributes::default();
        attributes.text("detail", &moment.detail);
        Event { time_unix_nano: self.at(moment.at), name: moment.name.into(), attributes: attributes.0 }
    }

    /// A span over the whole request.
    fn span(&self, id: SpanId, parent: Option<SpanId>, name: &str, kind: Kind) -> Span {
        let remote = if kind == Kind::Server && parent.is_some() { FLAG_IS_REMOTE } else { 0 };
        Span {
            trace_id: self.trace.0.to_vec(),
            span_id: id.0.to_vec(),
            trace_state: self.state.clone(),
            parent_span_id: parent.map(|parent| parent.0.to_vec()).unwrap_or_default(),
            name: name.to_string(),
            kind: kind.into(),
            start_time_unix_nano: self.started,
            end_time_unix_nano: self.at(self.ended),
            attributes: Vec::new(),
            events: Vec::new(),
            status: None,
            flags: 1 | FLAG_HAS_IS_REMOTE | remote,
        }
    }

    fn at(&self, after: Duration) -> u64 {
        self.started.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX))
    }
}

#[allow(clippy::unnecessary_wraps)] // an unset status is `None`
fn failed(why: &str) -> Option<Status> {
    Some(Status { message: why.into(), code: STATUS_ERROR })
}

/// Attributes; what is not known is left out.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.0.push(KeyValue::text(name, value));
        }
    }

    fn int(&mut self, name: &str, value: Option<impl TryInto<i64>>) {
        self.0.extend(value.map(|value| KeyValue::int(name, value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::messages::Value;

    const FREE: Hop = Hop {
        http_scope: "http",
        own_scope: "own",
        b3: true,
        route_tag: true,
        stages: &[Stage { name: "proxy", within: None, lasts: Lasts::WholeRequest }],
        client_name: |facts| format!("HTTP {}", facts.method.unwrap_or("_OTHER")),
    };
    /// One that waits inside the first stage, as queue-proxy.
    const LIMITED: Hop = Hop {
        stages: &[
            Stage { name: "proxy", within: None, lasts: Lasts::WholeRequest },
            Stage { name: "wait", within: Some(0), lasts: Lasts::UntilAsked },
        ],
        ..FREE
    };
    /// One that waits before the last stage, as the activator.
    const DOOR: Hop = Hop {
        stages: &[
            Stage { name: "try", within: None, lasts: Lasts::UntilAsked },
            Stage { name: "proxy", within: None, lasts: Lasts::FromAsked },
        ],
        ..FREE
    };

    fn record() -> Record {
        let asked = Duration::from_nanos(10);
        Record {
            hop: &LIMITED,
            trace: TraceId([1; 16]),
            caller: Some(SpanId([2; 8])),
            state: "a=1".into(),
            server: SpanId([3; 8]),
            stages: [SpanId([4; 8]), SpanId([5; 8])],
            client: SpanId([6; 8]),
            started: 1_000,
            asked: Some(asked),
            sent: Some((asked, ([127, 0, 0, 1], 8080).into())),
            answered: Some((Duration::from_nanos(20), Ok(StatusCode::OK))),
            refused: String::new(),
            ended: Duration::from_nanos(30),
            status: Some(StatusCode::OK),
            broken: false,
            bytes: 5,
            request: Facts { method: Some("GET"), target: "/a?b".into(), version: "1.1", ..Facts::default() },
            subject: None,
            events: Vec::new(),
        }
    }

    fn spans(record: &Record) -> Vec<Span> {
        let spans: Vec<_> = record.http_spans().chain(record.own_spans()).collect();
        assert_eq!(spans.len(), record.spans());
        spans
    }

    fn attribute(span: &Span, name: &str) -> Option<Value> {
        span.attributes.iter().find(|attribute| attribute.key == name)?.value.clone()?.value
    }

    #[test]
    fn each_span_hangs_below_the_one_before() {
        let shape = |record: &Record| {
            let mut spans = spans(record);
            spans.sort_by_key(|span| span.span_id.clone());
            spans
                .iter()
                .map(|span| {
                    let times = (span.start_time_unix_nano - 1_000, span.end_time_unix_nano - 1_000);
                    (span.name.clone(), span.span_id[0], span.parent_span_id.first().copied(), times)
                })
                .collect::<Vec<_>>()
        };
        let span = |name: &str, id, parent, times| (name.to_string(), id, parent, times);
        let limited = record();
        let (server, proxy) = (span("GET", 3, Some(2), (0, 30)), span("proxy", 4, Some(3), (0, 30)));
        let wait = span("wait", 5, Some(4), (0, 10));
        let client = span("HTTP GET", 6, Some(5), (10, 30));
        assert_eq!(shape(&limited), [server.clone(), proxy.clone(), wait, client]);
        let free = Record { hop: &FREE, ..limited.clone() };
        assert_eq!(shape(&free), [server.clone(), proxy.clone(), span("HTTP GET", 6, Some(4), (10, 30))]);
        let refused = Record { asked: None, sent: None, answered: None, ..limited.clone() };
        assert_eq!(shape(&refused), [server.clone(), proxy, span("wait", 5, Some(4), (0, 30))]);
        let odd = Record { caller: None, request: Facts::default(), ..limited.clone() };
        assert_eq!(shape(&odd)[0], span("HTTP", 3, None, (0, 30)));
        assert_eq!(shape(&odd)[3].0, "HTTP _OTHER");
        let second = Some((Duration::from_nanos(15), ([127, 0, 0, 1], 8080).into()));
        let again = Record { hop: &DOOR, sent: second, ..limited.clone() };
        let (tried, proxy) = (span("try", 4, Some(3), (0, 10)), span("proxy", 5, Some(3), (10, 30)));
        assert_eq!(shape(&again), [server.clone(), tried, proxy, span("HTTP GET", 6, Some(5), (15, 30))]);
        let refused = Record { asked: None, sent: None, answered: None, ..again };
        assert_eq!(shape(&refused), [server, span("try", 4, Some(3), (0, 30))]);
    }

    #[test]
    fn a_refusal_is_told_by_the_stage_that_waited() {
        let refused = Record { hop: &DOOR, asked: None, sent: None, refused: "full".into(), ..record() };
        let status = spans(&refused)[1].status.clone().unwrap();
        assert_eq!((status.message.as_str(), status.code), ("full", STATUS_ERROR));
        assert_eq!(spans(&Record { hop: &DOOR, refused: "no".into(), ..record() })[2].status, None, "it was asked");
    }

    #[test]
    fn the_server_span_says_whose_request_it_is_and_what_happened_to_it() {
        let identity = Identity { namespace: "ns".into(), revision: "rev".into(), ..Identity::default() };
        let moment = Moment { at: Duration::from_nanos(7), name: "ready", detail: "pod".into() };
        let server = &spans(&Record { subject: Some(identity.into()), events: vec![moment], ..record() })[0];
        assert_eq!(attribute(server, "kn.revision.name"), Some(Value::Text("rev".into())));
        assert_eq!(attribute(server, "k8s.namespace.name"), Some(Value::Text("ns".into())));
        assert_eq!(attribute(server, "kn.service.name"), None);
        assert_eq!((server.events[0].time_unix_nano, server.events[0].name.as_str()), (1_007, "ready"));
        assert_eq!(server.events[0].attributes, [KeyValue::text("detail", "pod")]);
    }

    #[test]
    fn errors_follow_the_table() {
        let status = |code| StatusCode::from_u16(code).ok();
        let answer = |code| status(code).map(|status| (Duration::from_nanos(20), Ok(status)));
        let none = |word| Some((Duration::from_nanos(20), Err(word)));
        for (answered, sent, broken, server_failed, error_type) in [
            (answer(200), status(200), false, false, ""),
            (answer(404), status(404), false, false, "404"),
            (answer(500), status(500), false, true, "500"),
            (answer(200), status(200), true, true, "broken"),
            (none("connect"), status(502), false, true, "connect"),
            (none("timeout"), status(504), false, true, "timeout"),
            (None, None, false, false, "cancelled"),
        ] {
            let record = Record { answered, status: sent, broken, ..record() };
            let spans = spans(&record);
            let failed = |span: &Span| span.status.as_ref().is_some_and(|status| status.code == STATUS_ERROR);
            assert_eq!(failed(&spans[0]), server_failed, "{record:?}");
            assert_eq!(failed(&spans[1]), !error_type.is_empty(), "{record:?}");
            let expected = (!error_type.is_empty()).then(|| Value::Text(error_type.into()));
            assert_eq!(attribute(&spans[1], "error.type"), expected, "{record:?}");
            let code = sent.map(|status| Value::Int(i64::from(status.as_u16())));
            assert_eq!(attribute(&spans[0], "http.response.status_code"), code);
        }
    }

    #[test]
    fn the_client_span_names_the_app() {
        let spans = spans(&record());
        assert_eq!(attribute(&spans[1], "url.full"), Some(Value::Text("http://127.0.0.1:8080/a?b".into())));
        assert_eq!(attribute(&spans[1], "server.port"), Some(Value::Int(8080)));
        assert_eq!((spans[0].flags, spans[1].flags), (0x301, 0x101));
    }
}
