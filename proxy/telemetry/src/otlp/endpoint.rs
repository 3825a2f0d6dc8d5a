//! Where telemetry goes and in which protocol.

use std::fmt;

use http::Uri;
use http::uri::Authority;

/// How OTLP travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC over h2.
    Grpc,
    /// Protobuf in a POST over HTTP/1.1.
    Http,
}

impl Protocol {
    /// The words of both `OBSERVABILITY_CONFIG` and `OTEL_EXPORTER_OTLP_PROTOCOL`.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "grpc" => Some(Self::Grpc),
            "http/protobuf" => Some(Self::Http),
            _ => None,
        }
    }
}

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Metrics.
    Metrics,
}

impl Signal {
    /// Path over HTTP, unless the endpoint has its own.
    pub const fn http_path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
        }
    }

    /// Path over gRPC.
    pub const fn grpc_path(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
        })
    }
}

/// A collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether over TLS.
    pub tls: bool,
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query as given; `None` if there was no path.
    pub path: Option<String>,
}

impl Endpoint {
    /// Reads a URL; `https` is TLS, any other scheme plain text, as upstream. No scheme at all is TLS unless `insecure`.
    /// User and password in it are dropped: there are headers for that.
    pub fn parse(text: &str, insecure: bool) -> Option<Self> {
        let text = text.trim();
        let (tls, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme.eq_ignore_ascii_case("https"), rest),
            None => (!insecure, text),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let authority: Authority = authority.parse().ok()?;
        let host_and_port = authority.as_str().rsplit('@').next()?;
        let port = match host_and_port.strip_prefix(authority.host())?.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if tls => 443,
            None => 80,
        };
        let host = authority.host().trim_matches(['[', ']']);
        let path = match path.split('#').next().unwrap_or_default() {
            "" => None,
            path if path.starts_with('?') => Some(format!("/{path}")),
            path => Some(path.to_string()),
        };
        if let Some(path) = &path {
            path.parse::<Uri>().ok()?;
        }
        (!host.is_empty()).then(|| Self { tls, host: host.to_string(), port, path })
    }

    /// The same with a path below its own, as the variable for all signals wants it.
    #[must_use]
    pub fn below(mut self, path: &str) -> Self {
        let base = self.path.as_deref().unwrap_or_default();
        let base = base.split('?').next().unwrap_or_default().trim_end_matches('/');
        self.path = Some(format!("{base}{path}"));
        self
    }
}

/// What may be said in a log: no path, no query.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table() {
        for (text, expected) in [
            ("collector:4317", Some((true, "collector:4317", None))),
            ("10.0.0.1:4317", Some((true, "10.0.0.1:4317", None))),
            ("http://collector:4317", Some((false, "collector:4317", None))),
            ("HTTPS://collector:4317/", Some((true, "collector:4317", Some("/")))),
            ("https://collector", Some((true, "collector:443", None))),
            ("http://collector", Some((false, "collector:80", None))),
            ("grpc://collector:1", Some((false, "collector:1", None))),
            ("http://[::1]:4318/a/b?c=d#e", Some((false, "[::1]:4318", Some("/a/b?c=d")))),
            ("http://user:secret@collector:4318/v1/traces", Some((false, "collector:4318", Some("/v1/traces")))),
            ("http://collector?x=1", Some((false, "collector:80", Some("/?x=1")))),
            (" http://collector:4317 ", Some((false, "collector:4317", None))),
            ("", None),
            ("http://", None),
            ("http://collector:port", None),
            ("http://collector:99999", None),
            ("http://collector:", None),
            ("http://a b/", None),
            ("http://collector/a b", None),
        ] {
            let endpoint = Endpoint::parse(text, false);
            let got = endpoint.as_ref().map(|endpoint| (endpoint.tls, endpoint.to_string(), endpoint.path.as_deref()));
            assert_eq!(got, expected.map(|(tls, shown, path)| (tls, shown.to_string(), path)), "{text}");
        }
        assert_eq!(Endpoint::parse("collector:4317", true).map(|endpoint| endpoint.tls), Some(false));
        assert_eq!(Endpoint::parse("https://collector:4317", true).map(|endpoint| endpoint.tls), Some(true));
    }

    #[test]
    fn a_base_keeps_its_path() {
        for (base, path) in [("http://c", "/v1/traces"), ("http://c/", "/v1/traces"), ("http://c/a/?x", "/a/v1/traces")]
        {
            let endpoint = Endpoint::parse(base, false).unwrap().below("/v1/traces");
            assert_eq!(endpoint.path.as_deref(), Some(path), "{base}");
        }
    }

    proptest! {
        #[test]
        fn junk_does_not_panic(text in ".{0,40}") {
            let _ = Endpoint::parse(&text, false);
        }
    }
}
