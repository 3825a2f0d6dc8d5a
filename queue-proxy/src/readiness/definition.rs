//! `SERVING_READINESS_PROBE`: JSON of one Kubernetes Probe or of a list → what to check and how.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

/// All checks of a pod; ready = all pass. Empty = always ready.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Readiness {
    /// The checks.
    pub probes: Vec<Probe>,
}

/// One check.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// What is done.
    pub action: Action,
    /// Patience of one attempt.
    pub timeout: Duration,
    /// `None`: one attempt per question (the kubelet repeats). `Some(n)`: attempts are repeated at once until `n` in
    /// a row have passed (period 0 in the definition).
    pub aggressive: Option<u32>,
}

/// What is done to find out.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A connection can be opened.
    Tcp {
        /// Host.
        host: String,
        /// Port.
        port: u16,
    },
    /// A GET is answered with 200..399.
    Http(HttpGet),
    /// `grpc.health.v1` says SERVING.
    Grpc {
        /// Port.
        port: u16,
        /// Service name, may be empty.
        service: String,
    },
    /// Nothing that the sidecar could do (an exec, or nothing at all): never ready.
    None,
}

/// An HTTP check.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpGet {
    /// Host to connect to.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query, with its leading slash.
    pub path: String,
    /// HTTPS wanted.
    pub tls: bool,
    /// The user's headers.
    pub headers: Vec<(String, String)>,
    /// Try h2c first (`ENABLE_HTTP2_AUTO_DETECTION`).
    pub auto_detect: bool,
}

/// JSON that cannot be used.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ProbeError {
    /// Not JSON, or not of the right shape.
    #[error("{0}")]
    Json(String),
    /// A port that is none.
    #[error("probe port {0} is not a port number")]
    Port(String),
}

/// Patience of one aggressive attempt.
const AGGRESSIVE_TIMEOUT: Duration = Duration::from_millis(100);

impl Readiness {
    /// Reads the variable. Empty, `null` and `[]` ask for nothing, nor does a `null` in a list: a container without a
    /// probe. Inside a probe `null` is as good as absent.
    pub fn parse(text: &str, auto_detect: bool) -> Result<Self, ProbeError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let json = |error: serde_json::Error| ProbeError::Json(error.to_string());
        let entries: Vec<Option<RawProbe>> = match serde_json::from_str(text).map_err(json)? {
            Value::Null => Vec::new(),
            list @ Value::Array(_) => serde_json::from_value(list).map_err(json)?,
            one => vec![Some(serde_json::from_value(one).map_err(json)?)],
        };
        let probes = entries.into_iter().flatten().map(|raw| raw.into_probe(auto_detect)).collect::<Result<_, _>>()?;
        Ok(Self { probes })
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawProbe {
    http_get: Option<RawHttp>,
    tcp_socket: Option<RawTcp>,
    grpc: Option<RawGrpc>,
    period_seconds: Option<i64>,
    timeout_seconds: Option<i64>,
    success_threshold: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct RawHttp {
    host: Option<String>,
    #[serde(default)]
    port: Value,
    path: Option<String>,
    scheme: Option<String>,
    #[serde(rename = "httpHeaders")]
    headers: Option<Vec<Option<RawHeader>>>,
}

#[derive(Debug, Deserialize)]
struct RawHeader {
    name: Option<String>,
    value: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RawTcp {
    host: Option<String>,
    #[serde(default)]
    port: Value,
}

#[derive(Debug, Deserialize)]
struct RawGrpc {
    #[serde(default)]
    port: Value,
    service: Option<String>,
}

impl RawProbe {
    fn into_probe(self, auto_detect: bool) -> Result<Probe, ProbeError> {
        let host = |host: Option<String>| host.filter(|host| !host.is_empty()).unwrap_or_else(|| "127.0.0.1".into());
        let action = if let Some(http) = self.http_get {
            let path = http.path.unwrap_or_default();
            Action::Http(HttpGet {
                host: host(http.host),
                port: port(&http.port)?,
                path: if path.starts_with('/') { path } else { format!("/{path}") },
                tls: http.scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
                headers: headers(http.headers.unwrap_or_default()),
                auto_detect,
            })
        } else if let Some(tcp) = self.tcp_socket {
            Action::Tcp { host: host(tcp.host), port: port(&tcp.port)? }
        } else if let Some(grpc) = self.grpc {
            Action::Grpc { port: port(&grpc.port)?, service: grpc.service.unwrap_or_default() }
        } else {
            Action::None
        };
        let aggressive = self.period_seconds.unwrap_or(0) <= 0;
        let threshold = u32::try_from(self.success_threshold.unwrap_or(1).clamp(1, 1000)).unwrap_or(1);
        let timeout = self.timeout_seconds.unwrap_or(1).clamp(1, 3600);
        let timeout = Duration::from_secs(u64::try_from(timeout).unwrap_or(1));
        Ok(Probe {
            action,
            timeout: if aggressive { AGGRESSIVE_TIMEOUT } else { timeout },
            aggressive: aggressive.then_some(threshold),
        })
    }
}

fn headers(lines: Vec<Option<RawHeader>>) -> Vec<(String, String)> {
    lines.into_iter().flatten().filter_map(|line| Some((line.name?, line.value.unwrap_or_default()))).collect()
}

/// Ports are numbers; a numeric string is taken as well. Names were resolved by the controller. None at all is 0, to
/// which no connection can be made.
fn port(value: &Value) -> Result<u16, ProbeError> {
    let number = match value {
        Value::Null => Some(0),
        Value::Number(number) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| ProbeError::Port(value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_to_check_in_all_its_spellings() {
        for text in ["", " ", "null", "[]", "[null]", "[null,null]"] {
            assert_eq!(Readiness::parse(text, false).unwrap().probes, [], "{text}");
        }
    }

    #[test]
    fn the_default_probe_is_aggressive_tcp() {
        let text = r#"{"tcpSocket":{"port":8080,"host":"127.0.0.1"},"successThreshold":1}"#;
        let probe = &Readiness::parse(text, false).unwrap().probes[0];
        assert_eq!(probe.action, Action::Tcp { host: "127.0.0.1".into(), port: 8080 });
        assert_eq!((probe.aggressive, probe.timeout), (Some(1), Duration::from_millis(100)));
    }

    #[test]
    fn http_paths_get_their_slash_and_keep_their_query() {
        for (path, expected) in [("", "/"), ("ready?x=1", "/ready?x=1"), ("/ready", "/ready")] {
            let text =
                format!(r#"{{"httpGet":{{"path":"{path}","port":"8080"}},"periodSeconds":10,"timeoutSeconds":3}}"#);
            let probe = Readiness::parse(&text, false).unwrap().probes.remove(0);
            let Action::Http(http) = probe.action else { panic!("not http") };
            assert_eq!((http.path.as_str(), http.port), (expected, 8080));
            assert_eq!((probe.aggressive, probe.timeout), (None, Duration::from_secs(3)));
        }
    }

    #[test]
    fn several_containers_with_holes() {
        let text = r#"[{"grpc":{"port":1,"service":"s"}},null,{"tcpSocket":{"port":2}},{"exec":{}},{}]"#;
        let actions: Vec<_> = Readiness::parse(text, false).unwrap().probes.into_iter().map(|p| p.action).collect();
        let grpc = Action::Grpc { port: 1, service: "s".into() };
        assert_eq!(actions, [grpc, Action::Tcp { host: "127.0.0.1".into(), port: 2 }, Action::None, Action::None]);
    }

    #[test]
    fn nulls_are_as_good_as_absent() {
        let text = r#"{"httpGet":{"port":null,"host":null,"path":null,"scheme":null,"httpHeaders":[null,{"name":null},
            {"name":"A","value":null}]},"tcpSocket":null,"grpc":null,"exec":null,"periodSeconds":null,
            "timeoutSeconds":null,"successThreshold":null,"initialDelaySeconds":null,"failureThreshold":null}"#;
        let probe = Readiness::parse(text, false).unwrap().probes.remove(0);
        let Action::Http(http) = probe.action else { panic!("not http") };
        assert_eq!((http.host.as_str(), http.port, http.path.as_str(), http.tls), ("127.0.0.1", 0, "/", false));
        assert_eq!(http.headers, [("A".to_string(), String::new())]);
        assert_eq!((probe.aggressive, probe.timeout), (Some(1), AGGRESSIVE_TIMEOUT));
        for kind in ["tcpSocket", "grpc"] {
            let probe = Readiness::parse(&format!(r#"{{"{kind}":{{"port":null}}}}"#), false).unwrap().probes.remove(0);
            assert!(matches!(probe.action, Action::Tcp { port: 0, .. } | Action::Grpc { port: 0, .. }), "{probe:?}");
        }
    }

    #[test]
    fn junk_is_an_error() {
        for text in ["\"x\"", "1", "[1]", "{", r#"{"tcpSocket":{"port":"http"}}"#, r#"{"tcpSocket":{"port":70000}}"#] {
            assert!(Readiness::parse(text, false).is_err(), "{text}");
        }
    }
}
