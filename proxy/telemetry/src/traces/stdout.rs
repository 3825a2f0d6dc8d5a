//! Spans as lines of JSON, for a look at them without a collector (`tracing.protocol: stdout`). The keys are those of
//! OpenTelemetry's stdout exporter for Go.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::ids::hex;
use crate::logging::stamp;
use crate::otlp::messages::{KeyValue, Kind, STATUS_ERROR, Span, Value};
use crate::otlp::resource::VERSION;

/// One span, one line.
pub fn line(span: &Span, scope: &str, resource: &BTreeMap<String, String>) -> String {
    let attributes = values(&span.attributes);
    let resource: Vec<Json> = resource.iter().map(|(name, value)| attribute(name, "STRING", &json!(value))).collect();
    let kind = match Kind::try_from(span.kind) {
        Ok(Kind::Server) => 2,
        Ok(Kind::Client) => 3,
        _ => 1,
    };
    let trace = hex(&span.trace_id);
    let events: Vec<Json> = span.events.iter().map(|event| json!({"Name": event.name, "Time": time(event.time_unix_nano), "Attributes": values(&event.attributes)})).collect();
    let failed = span.status.as_ref().filter(|status| status.code == STATUS_ERROR);
    let parent = if span.parent_span_id.is_empty() { "0".repeat(16) } else { hex(&span.parent_span_id) };
    let mut line = json!({
        "Name": span.name,
        "SpanContext": {"TraceID": trace, "SpanID": hex(&span.span_id), "TraceFlags": "01", "TraceState": span.trace_state, "Remote": false},
        "Parent": {"TraceID": trace, "SpanID": parent, "TraceFlags": "01", "TraceState": span.trace_state, "Remote": kind == 2},
        "SpanKind": kind,
        "StartTime": time(span.start_time_unix_nano),
        "EndTime": time(span.end_time_unix_nano),
        "Attributes": attributes,
        "Events": events,
        "Status": {"Code": if failed.is_some() { "Error" } else { "Unset" }, "Description": failed.map_or("", |status| &status.message)},
        "Resource": resource,
        "InstrumentationScope": {"Name": scope, "Version": VERSION},
    })
    .to_string();
    line.push('\n');
    line
}

fn attribute(key: &str, kind: &str, value: &Json) -> Json {
    json!({"Key": key, "Value": {"Type": kind, "Value": value}})
}

fn values(attributes: &[KeyValue]) -> Vec<Json> {
    let value = |each: &KeyValue| {
        Some(match each.value.as_ref()?.value.as_ref()? {
            Value::Text(text) => attribute(&each.key, "STRING", &json!(text)),
            Value::Int(number) => attribute(&each.key, "INT64", &json!(number)),
        })
    };
    attributes.iter().filter_map(value).collect()
}

/// RFC 3339 in UTC with nanoseconds.
fn time(unix_nanos: u64) -> String {
    let at = Duration::from_nanos(unix_nanos);
    format!("{}.{:09}Z", stamp::date_time(at), at.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::messages::Status;

    #[test]
    fn times_are_calendar_times() {
        for (unix, expected) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_709_164_799, "2024-02-28T23:59:59.000000000Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000000000Z"),
            (4_102_444_799, "2099-12-31T23:59:59.000000000Z"),
        ] {
            assert_eq!(time(unix * 1_000_000_000), expected);
        }
        assert_eq!(time(1_500_000_000), "1970-01-01T00:00:01.500000000Z");
    }

    #[test]
    fn a_span_is_one_line_of_json() {
        let span = Span {
            trace_id: vec![0xab; 16],
            span_id: vec![0xcd; 8],
            name: "GET".into(),
            kind: Kind::Server.into(),
            attributes: vec![KeyValue::text("url.path", "/\n\""), KeyValue::int("http.response.status_code", 500_u16)],
            status: Some(Status { message: "why".into(), code: STATUS_ERROR }),
            ..Span::default()
        };
        let line = line(&span, "scope", &BTreeMap::from([("service.name".into(), "s".into())]));
        assert_eq!(line.matches('\n').count(), 1);
        let json: Json = serde_json::from_str(&line).unwrap();
        assert_eq!(json["SpanContext"]["TraceID"], "ab".repeat(16));
        assert_eq!(json["Parent"]["SpanID"], "0".repeat(16));
        assert_eq!(json["Attributes"][0]["Value"]["Value"], "/\n\"");
        assert_eq!(json["Attributes"][1]["Value"], json!({"Type": "INT64", "Value": 500}));
        assert_eq!(json["Status"], json!({"Code": "Error", "Description": "why"}));
        assert_eq!(json["Resource"][0]["Key"], "service.name");
    }
}
