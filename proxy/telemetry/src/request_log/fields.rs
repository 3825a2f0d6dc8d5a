//! What a template of the request log may ask for: names, and values of a request and its answer.

use std::borrow::Cow;
use std::net::SocketAddr;

use http::header::{HOST, HeaderName, REFERER, TRANSFER_ENCODING, USER_AGENT};
use http::{HeaderMap, Method, StatusCode, Uri, Version};

use super::headers::Headers;
use super::number::push_int;
use super::template::{self, Data, Known};
use super::value::{Value, into_text};
use crate::Identity;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const B3_TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");

/// The fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Method,
    Uri,
    Path,
    Query,
    /// Parts of the URL that Go leaves empty at a server.
    Empty,
    Proto,
    ProtoMajor,
    ProtoMinor,
    Host,
    ContentLength,
    TransferEncoding,
    RemoteAddress,
    UserAgent,
    Referer,
    Headers,
    Header,
    TraceId,
    Code,
    Size,
    Latency,
    Revision,
    Namespace,
    Service,
    Configuration,
    Pod,
    PodIp,
}

impl template::Field for Field {
    fn at(path: &[&str]) -> Option<Self> {
        Some(match path {
            ["Request", "Method"] => Self::Method,
            ["Request", "RequestURI" | "URL"] | ["Request", "URL", "String"] => Self::Uri,
            ["Request", "URL", "Path"] => Self::Path,
            ["Request", "URL", "RawQuery"] => Self::Query,
            ["Request", "URL", "Host" | "Scheme" | "Fragment"] => Self::Empty,
            ["Request", "Proto"] => Self::Proto,
            ["Request", "ProtoMajor"] => Self::ProtoMajor,
            ["Request", "ProtoMinor"] => Self::ProtoMinor,
            ["Request", "Host"] => Self::Host,
            ["Request", "ContentLength"] => Self::ContentLength,
            ["Request", "TransferEncoding"] => Self::TransferEncoding,
            ["Request", "RemoteAddr"] => Self::RemoteAddress,
            ["Request", "UserAgent"] => Self::UserAgent,
            ["Request", "Referer"] => Self::Referer,
            ["Request", "Header"] => Self::Headers,
            ["Request", "Header", "Get"] => Self::Header,
            ["TraceID"] => Self::TraceId,
            ["Response", "Code"] => Self::Code,
            ["Response", "Size"] => Self::Size,
            ["Response", "Latency"] => Self::Latency,
            ["Revision", "Name"] => Self::Revision,
            ["Revision", "Namespace"] => Self::Namespace,
            ["Revision", "Service"] => Self::Service,
            ["Revision", "Configuration"] => Self::Configuration,
            ["Revision", "PodName"] => Self::Pod,
            ["Revision", "PodIP"] => Self::PodIp,
            _ => return None,
        })
    }

    fn known(self) -> Known {
        match self {
            Self::Code | Self::Size | Self::Latency => Known::AtTheEnd,
            Self::Empty => Known::Always,
            Self::Revision | Self::Namespace | Self::Service | Self::Configuration | Self::Pod | Self::PodIp => {
                Known::Always
            }
            _ => Known::AtArrival,
        }
    }
}

/// A request as it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) version: Version,
    pub(super) headers: &'a HeaderMap,
    /// Of its body; -1 if that is not known.
    pub(super) length: i64,
    pub(super) peer: SocketAddr,
    /// Whether the trace is told.
    pub(super) trace_id: bool,
}

/// How it ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    pub(super) status: StatusCode,
    /// Body bytes sent.
    pub(super) size: u64,
    /// Seconds from arrival to the last byte.
    pub(super) latency: f64,
}

/// What is known of a request, and whose request it is.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) identity: &'a Identity,
    pub(super) asked: Option<Asked<'a>>,
    pub(super) answered: Option<Answered>,
}

impl Data for Facts<'_> {
    type Field = Field;

    fn value<'a>(&'a self, field: Field, arguments: &[Value<'_>]) -> Option<Value<'a>> {
        match (field, arguments) {
            (Field::Header, [Value::Text(name)]) => Some(Value::Text(Headers(self.asked?.headers).get(name))),
            (Field::Header, _) | (_, [_, ..]) => None,
            (Field::Code | Field::Size | Field::Latency, []) => self.answered.map(|answered| answered.value(field)),
            (Field::Revision, []) => Some(Value::text(&self.identity.revision)),
            (Field::Namespace, []) => Some(Value::text(&self.identity.namespace)),
            (Field::Service, []) => Some(Value::text(&self.identity.service)),
            (Field::Configuration, []) => Some(Value::text(&self.identity.configuration)),
            (Field::Pod, []) => Some(Value::text(&self.identity.pod)),
            (Field::PodIp, []) => Some(Value::text(&self.identity.pod_ip)),
            (Field::Empty, []) => Some(Value::text("")),
            (_, []) => self.asked.and_then(|asked| asked.value(field)),
        }
    }
}

impl Answered {
    fn value(self, field: Field) -> Value<'static> {
        match field {
            Field::Code => Value::Int(i64::from(self.status.as_u16())),
            Field::Size => Value::Int(i64::try_from(self.size).unwrap_or(i64::MAX)),
            _ => Value::Float(self.latency),
        }
    }
}

impl<'a> Asked<'a> {
    fn value(self, field: Field) -> Option<Value<'a>> {
        let headers = Headers(self.headers);
        Some(match field {
            Field::Method => Value::text(self.method.as_str()),
            Field::Uri => Value::Text(self.url()),
            Field::Path => Value::text(self.uri.path()),
            Field::Query => Value::text(self.uri.query().unwrap_or_default()),
            Field::Proto => Value::text(match self.version {
                Version::HTTP_2 => "HTTP/2.0",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            }),
            Field::ProtoMajor => Value::Int(if self.version == Version::HTTP_2 { 2 } else { 1 }),
            Field::ProtoMinor => Value::Int(i64::from(self.version == Version::HTTP_11)),
            Field::Host => Value::Text(match self.uri.authority() {
                Some(authority) => Cow::Borrowed(authority.as_str()),
                None => headers.text(HOST),
            }),
            Field::ContentLength => Value::Int(self.length),
            Field::TransferEncoding => Value::List(headers.lines(TRANSFER_ENCODING)),
            Field::RemoteAddress => Value::Text(address(self.peer).into()),
            Field::UserAgent => Value::Text(headers.text(USER_AGENT)),
            Field::Referer => Value::Text(headers.text(REFERER)),
            Field::Headers => Value::Headers(headers),
            Field::TraceId if self.trace_id => Value::Text(trace_id(headers)),
            Field::TraceId => Value::text(""),
            _ => return None,
        })
    }

    /// Path and query as they came.
    pub(super) fn url(self) -> Cow<'a, str> {
        match self.uri.path_and_query() {
            Some(path_and_query) => Cow::Borrowed(path_and_query.as_str()),
            None => Cow::Owned(self.uri.to_string()),
        }
    }
}

/// The trace that the request came with: W3C before B3.
fn trace_id(headers: Headers<'_>) -> Cow<'_, str> {
    match headers.text(TRACEPARENT) {
        Cow::Borrowed(text) => text.split('-').nth(1).map(Cow::Borrowed),
        Cow::Owned(text) => text.split('-').nth(1).map(|id| Cow::Owned(id.to_string())),
    }
    .unwrap_or_else(|| headers.text(B3_TRACE_ID))
}

/// `ip:port`; a v4 address that came in by a v6 socket is a v4 address.
fn address(peer: SocketAddr) -> String {
    let SocketAddr::V4(v4) = SocketAddr::new(peer.ip().to_canonical(), peer.port()) else { return peer.to_string() };
    // By hand, for the formatter takes longer than the rest of a line.
    let mut out = Vec::with_capacity("255.255.255.255:65535".len());
    for (octet, behind) in v4.ip().octets().into_iter().zip(*b"...:") {
        push_int(&mut out, i64::from(octet));
        out.push(behind);
    }
    push_int(&mut out, i64::from(v4.port()));
    into_text(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (peer, text) in [
            ("10.0.255.7:65535", "10.0.255.7:65535"),
            ("[::ffff:192.0.2.1]:99", "192.0.2.1:99"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ] {
            assert_eq!(address(peer.parse().unwrap()), text);
        }
    }
}
