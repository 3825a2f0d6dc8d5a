//! `OBSERVABILITY_CONFIG`: which telemetry is wanted. Keys are compared without case, unknown ones are ignored.

use serde_json::Value;

use crate::readiness::ProbeError;

/// What is switched on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observability {
    /// Prometheus text for the user: the address to bind, `None` = off.
    pub prometheus: Option<Endpoint>,
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
    let metrics = get(&root, "requestMetrics");
    let protocol = metrics.and_then(|metrics| get(metrics, "protocol")).and_then(Value::as_str).unwrap_or("none");
    let endpoint = metrics.and_then(|metrics| get(metrics, "endpoint")).and_then(Value::as_str).unwrap_or_default();
    let prometheus = match protocol {
        // The push protocols are accepted and not yet served; the metrics are not lost, they are never made.
        "" | "none" | "grpc" | "http/protobuf" => None,
        "prometheus" => Some(parse_endpoint(endpoint)?),
        other => return Err(ProbeError::Json(format!("requestMetrics.protocol: unknown protocol {other:?}"))),
    };
    Ok(Observability { prometheus })
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
        let at = |host: &str, port| Ok(Observability { prometheus: Some(Endpoint { host: host.into(), port }) });
        let off = || Ok(Observability::default());
        for (text, expected) in [
            ("", off()),
            ("{}", off()),
            (r#"{"tracing":{"protocol":"none"},"unknown":1}"#, off()),
            (r#"{"requestMetrics":{"protocol":"prometheus"}}"#, at("", 9091)),
            (r#"{"REQUESTMETRICS":{"Protocol":"prometheus","endpoint":"127.0.0.1:0"}}"#, at("127.0.0.1", 0)),
            (r#"{"requestMetrics":{"protocol":"prometheus","endpoint":":9999"}}"#, at("", 9999)),
        ] {
            assert_eq!(parse(text).map_err(|error| error.to_string()), expected, "{text}");
        }
        for bad in ["[]", "{", r#"{"requestMetrics":{"protocol":"statsd"}}"#] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
