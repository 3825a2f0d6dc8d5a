//! `OBSERVABILITY_CONFIG`: which telemetry is wanted. Keys are compared without case, unknown ones are ignored.

use serde_json::Value;

use crate::readiness::ProbeError;
use crate::request_log::{DEFAULT_TEMPLATE, Settings};

/// What is switched on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observability {
    /// Prometheus text for the user: the address to bind, `None` = off.
    pub prometheus: Option<Endpoint>,
    /// The request log, `None` = off.
    pub request_log: Option<Settings>,
    /// CPU profiles on request.
    pub profiling: bool,
    /// Switched on by the configuration and not served by this sidecar, as `setting=value`.
    pub unsupported: Vec<String>,
}

/// Where the metrics port is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host part; empty = as all other ports.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Reads the JSON; empty is "everything off".
pub(crate) fn parse(text: &str) -> Result<Observability, ProbeError> {
    if text.trim().is_empty() {
        return Ok(Observability::default());
    }
    let root: Value = serde_json::from_str(text).map_err(|error| ProbeError::Json(error.to_string()))?;
    if !root.is_object() {
        return Err(ProbeError::Json("not an object".into()));
    }
    let mut unsupported = Vec::new();
    let mut word = |section: &str, key: &str| {
        let word = get(&root, section).and_then(|section| get(section, key)).and_then(Value::as_str);
        let word = word.unwrap_or_default().to_string();
        // The push protocols are accepted and not served: nothing is collected for them.
        if matches!(word.as_str(), "grpc" | "http/protobuf" | "stdout") {
            unsupported.push(format!("{section}.{key}={word}"));
        }
        word
    };
    let (metrics, tracing) = (word("requestMetrics", "protocol"), word("tracing", "protocol"));
    let profiling = word("runtime", "profiling") == "enabled";
    let endpoint = get(&root, "requestMetrics").and_then(|metrics| get(metrics, "endpoint")).and_then(Value::as_str);
    let prometheus = match metrics.as_str() {
        "" | "none" | "grpc" | "http/protobuf" => None,
        "prometheus" => Some(parse_endpoint(endpoint.unwrap_or_default())?),
        other => return Err(ProbeError::Json(format!("requestMetrics.protocol: unknown protocol {other:?}"))),
    };
    if !matches!(tracing.as_str(), "" | "none" | "grpc" | "http/protobuf" | "stdout") {
        return Err(ProbeError::Json(format!("tracing.protocol: unknown protocol {tracing:?}")));
    }
    let on = |key: &str| get(&root, key).and_then(Value::as_bool).unwrap_or(false);
    let template = get(&root, "requestLogTemplate").and_then(Value::as_str).unwrap_or(DEFAULT_TEMPLATE);
    let request_log = on("enableRequestLog")
        .then(|| Settings { template: template.to_string(), probes: on("enableProbeRequestLog") });
    Ok(Observability { prometheus, request_log, profiling, unsupported })
}

fn parse_endpoint(endpoint: &str) -> Result<Endpoint, ProbeError> {
    if endpoint.is_empty() {
        return Ok(Endpoint { host: String::new(), port: api::ports::USER_METRICS });
    }
    let problem = || ProbeError::Json(format!("requestMetrics.endpoint: not host:port: {endpoint:?}"));
    let (host, port) = endpoint.rsplit_once(':').ok_or_else(problem)?;
    Ok(Endpoint { host: host.trim_matches(['[', ']']).to_string(), port: port.parse().map_err(|_| problem())? })
}

fn get<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.as_object()?.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let at = |host: &str, port| {
            Ok(Observability { prometheus: Some(Endpoint { host: host.into(), port }), ..Observability::default() })
        };
        let log = |template: &str, probes| {
            let settings = Settings { template: template.into(), probes };
            Ok(Observability { request_log: Some(settings), ..Observability::default() })
        };
        let unsupported = |settings: &[&str]| {
            let unsupported = settings.iter().map(ToString::to_string).collect();
            Ok(Observability { unsupported, ..Observability::default() })
        };
        let off = || Ok(Observability::default());
        for (text, expected) in [
            ("", off()),
            ("{}", off()),
            (r#"{"tracing":{"protocol":"none"},"unknown":1}"#, off()),
            (r#"{"requestMetrics":{"protocol":"prometheus"}}"#, at("", 9091)),
            (r#"{"REQUESTMETRICS":{"Protocol":"prometheus","endpoint":"127.0.0.1:0"}}"#, at("127.0.0.1", 0)),
            (r#"{"requestMetrics":{"protocol":"prometheus","endpoint":":9999"}}"#, at("", 9999)),
            (r#"{"enableRequestLog":true}"#, log(DEFAULT_TEMPLATE, false)),
            (r#"{"enableRequestLog":true,"requestLogTemplate":"","enableProbeRequestLog":true}"#, log("", true)),
            (r#"{"requestLogTemplate":"x","enableProbeRequestLog":true}"#, off()),
            (
                r#"{"tracing":{"protocol":"grpc"},"requestMetrics":{"protocol":"http/protobuf"}}"#,
                unsupported(&["requestMetrics.protocol=http/protobuf", "tracing.protocol=grpc"]),
            ),
            (
                r#"{"runtime":{"profiling":"enabled"}}"#,
                Ok(Observability { profiling: true, ..Observability::default() }),
            ),
            (r#"{"runtime":{"profiling":"disabled"}}"#, off()),
        ] {
            assert_eq!(parse(text).map_err(|error| error.to_string()), expected, "{text}");
        }
        for bad in ["[]", "{", r#"{"requestMetrics":{"protocol":"statsd"}}"#, r#"{"tracing":{"protocol":"zipkin"}}"#] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
