//! `OBSERVABILITY_CONFIG`: which telemetry is wanted. Keys are compared without case, unknown ones are ignored.

use std::time::Duration;

use serde_json::Value;
use telemetry::observability::{self, Export, Observability};
use telemetry::request_log::{DEFAULT_TEMPLATE, Settings};

use crate::readiness::ProbeError;

/// Reads the JSON; empty is "everything off".
pub(crate) fn parse(text: &str) -> Result<Observability, ProbeError> {
    if text.trim().is_empty() {
        return Ok(Observability::default());
    }
    let root: Value = serde_json::from_str(text).map_err(|error| ProbeError::Json(error.to_string()))?;
    if !root.is_object() {
        return Err(ProbeError::Json("not an object".into()));
    }
    let text = |section: &str, key: &str| {
        let value = get(&root, section).and_then(|section| get(section, key)).and_then(Value::as_str);
        value.unwrap_or_default().to_string()
    };
    let profiling = text("runtime", "profiling") == "enabled";
    let export = |section: &str| {
        // Upstream has spelled these two both ways.
        let number = |keys: [&str; 2]| keys.iter().find_map(|key| get(get(&root, section)?, key)?.as_f64());
        Export {
            protocol: None,
            endpoint: text(section, "endpoint"),
            rate: number(["samplingRate", "sampling_rate"]).unwrap_or(0.0),
            interval: number(["exportInterval", "export_interval"])
                .map(|nanoseconds| Duration::from_nanos(nanoseconds.max(0.0) as u64)),
        }
    };
    let wrong = |error: observability::ObservabilityError| ProbeError::Json(error.to_string());
    let section = "requestMetrics";
    let port = api::ports::USER_METRICS;
    let (prometheus, push) =
        observability::metrics(section, &text(section, "protocol"), port, export(section)).map_err(wrong)?;
    let tracing = observability::tracing(&text("tracing", "protocol"), export("tracing")).map_err(wrong)?;
    let on = |key: &str| get(&root, key).and_then(Value::as_bool).unwrap_or(false);
    let template = get(&root, "requestLogTemplate").and_then(Value::as_str).unwrap_or(DEFAULT_TEMPLATE);
    let request_log = on("enableRequestLog")
        .then(|| Settings { template: template.to_string(), probes: on("enableProbeRequestLog") });
    Ok(Observability { prometheus, tracing, push, request_log, profiling })
}

fn get<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.as_object()?.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use telemetry::observability::Endpoint;
    use telemetry::otlp::endpoint::Protocol;

    #[test]
    fn table() {
        let at = |host: &str, port| {
            Ok(Observability { prometheus: Some(Endpoint { host: host.into(), port }), ..Observability::default() })
        };
        let log = |template: &str, probes| {
            let settings = Settings { template: template.into(), probes };
            Ok(Observability { request_log: Some(settings), ..Observability::default() })
        };
        let traced = |tracing| Ok(Observability { tracing: Some(tracing), ..Observability::default() });
        let pushed = |push| Ok(Observability { push: Some(push), ..Observability::default() });
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
                r#"{"tracing":{"protocol":"grpc","endpoint":"c:1","samplingRate":0.25}}"#,
                traced(Export {
                    endpoint: "c:1".into(),
                    rate: 0.25,
                    protocol: Some(Protocol::Grpc),
                    ..Export::default()
                }),
            ),
            (
                r#"{"tracing":{"protocol":"stdout","sampling_rate":1}}"#,
                traced(Export { rate: 1.0, ..Export::default() }),
            ),
            (
                r#"{"requestMetrics":{"protocol":"http/protobuf","endpoint":"http://c","exportInterval":30000000000}}"#,
                pushed(Export {
                    protocol: Some(Protocol::Http),
                    endpoint: "http://c".into(),
                    interval: Some(Duration::from_secs(30)),
                    ..Export::default()
                }),
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
