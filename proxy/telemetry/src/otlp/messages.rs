//! The OTLP messages that are sent (opentelemetry-proto 1.x, packages `opentelemetry.proto.*.v1`), fields that are used
//! only. Declared here because the crate that has them all brings an SDK along; tests decode with it.

use std::borrow::Cow;

/// `ExportTraceServiceRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportTraces {
    /// One per pod.
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

/// Spans of one resource.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResourceSpans {
    /// Whose.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// The spans, by who made them.
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
}

/// Spans of one instrumentation.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ScopeSpans {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    /// The spans.
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}

/// One span.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Span {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    /// The trace's `tracestate`.
    #[prost(string, tag = "3")]
    pub trace_state: String,
    /// 8 bytes, empty for the first span of a trace.
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    /// What it is called.
    #[prost(string, tag = "5")]
    pub name: String,
    /// Its [`Kind`].
    #[prost(enumeration = "Kind", tag = "6")]
    pub kind: i32,
    /// Unix nanoseconds.
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    /// Unix nanoseconds.
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    /// What is known about it.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    /// What happened meanwhile.
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
    /// How it went.
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
    /// The W3C flags, and whether the parent is in another process.
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

/// [`Span::flags`]: the next bit is known.
pub const FLAG_HAS_IS_REMOTE: u32 = 0x100;
/// [`Span::flags`]: the parent is in another process.
pub const FLAG_IS_REMOTE: u32 = 0x200;

/// What a span is in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Kind {
    /// Not said.
    Unspecified = 0,
    /// Inside the process.
    Internal = 1,
    /// Answers a request.
    Server = 2,
    /// Makes one.
    Client = 3,
}

/// Something that happened during a span.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Event {
    /// Unix nanoseconds.
    #[prost(fixed64, tag = "1")]
    pub time_unix_nano: u64,
    /// What.
    #[prost(string, tag = "2")]
    pub name: String,
    /// What is known about it.
    #[prost(message, repeated, tag = "3")]
    pub attributes: Vec<KeyValue>,
}

/// How a span went.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    /// Why it failed.
    #[prost(string, tag = "2")]
    pub message: String,
    /// 0 unset, 2 error.
    #[prost(int32, tag = "3")]
    pub code: i32,
}

/// [`Status::code`] of a failure.
pub const STATUS_ERROR: i32 = 2;

/// Who sends.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resource {
    /// What is known about it.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

/// Who measured.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Scope {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// One attribute.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    /// Its name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Its value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// A value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AnyValue {
    /// Of one of the kinds that are used.
    #[prost(oneof = "Value", tags = "1, 3")]
    pub value: Option<Value>,
}

/// The kinds of values that are used.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Value {
    /// Text.
    #[prost(string, tag = "1")]
    Text(String),
    /// A whole number.
    #[prost(int64, tag = "3")]
    Int(i64),
}

impl KeyValue {
    /// A text attribute.
    pub fn text<'a>(key: &str, value: impl Into<Cow<'a, str>>) -> Self {
        Self::new(key, Value::Text(value.into().into_owned()))
    }

    /// A number attribute.
    pub fn int(key: &str, value: impl TryInto<i64>) -> Self {
        Self::new(key, Value::Int(value.try_into().unwrap_or(i64::MAX)))
    }

    fn new(key: &str, value: Value) -> Self {
        Self { key: key.to_string(), value: Some(AnyValue { value: Some(value) }) }
    }
}

/// `ExportMetricsServiceRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportMetrics {
    /// One per pod.
    #[prost(message, repeated, tag = "1")]
    pub resource_metrics: Vec<ResourceMetrics>,
}

/// Metrics of one resource.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResourceMetrics {
    /// Whose.
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    /// The metrics, by who made them.
    #[prost(message, repeated, tag = "2")]
    pub scope_metrics: Vec<ScopeMetrics>,
}

/// Metrics of one instrumentation.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ScopeMetrics {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    /// The metrics.
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<Metric>,
}

/// One metric with all its series.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Metric {
    /// Name, with dots.
    #[prost(string, tag = "1")]
    pub name: String,
    /// One sentence.
    #[prost(string, tag = "2")]
    pub description: String,
    /// UCUM.
    #[prost(string, tag = "3")]
    pub unit: String,
    /// The series.
    #[prost(oneof = "Data", tags = "5, 7, 9")]
    pub data: Option<Data>,
}

/// The kinds of metrics that are used.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Data {
    /// A value that goes up and down.
    #[prost(message, tag = "5")]
    Gauge(Gauge),
    /// A count of what has happened, or of what there is.
    #[prost(message, tag = "7")]
    Sum(Sum),
    /// How values are spread.
    #[prost(message, tag = "9")]
    Histogram(Histogram),
}

/// A value that goes up and down.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Gauge {
    /// One per set of attributes.
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<Number>,
}

/// A count.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Sum {
    /// One per set of attributes.
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<Number>,
    /// [`CUMULATIVE`].
    #[prost(int32, tag = "2")]
    pub aggregation_temporality: i32,
    /// Whether it only grows.
    #[prost(bool, tag = "3")]
    pub is_monotonic: bool,
}

/// A value at a time.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Number {
    /// Unix nanoseconds; 0 for a value that has no beginning.
    #[prost(fixed64, tag = "2")]
    pub start_time_unix_nano: u64,
    /// Unix nanoseconds.
    #[prost(fixed64, tag = "3")]
    pub time_unix_nano: u64,
    /// The value.
    #[prost(double, optional, tag = "4")]
    pub as_double: Option<f64>,
    /// Of what.
    #[prost(message, repeated, tag = "7")]
    pub attributes: Vec<KeyValue>,
}

/// How values are spread.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Histogram {
    /// One per set of attributes.
    #[prost(message, repeated, tag = "1")]
    pub data_points: Vec<Distribution>,
    /// [`CUMULATIVE`].
    #[prost(int32, tag = "2")]
    pub aggregation_temporality: i32,
}

/// [`Histogram::aggregation_temporality`] and [`Sum::aggregation_temporality`]: counted from the start, not from the last report.
pub const CUMULATIVE: i32 = 2;

/// The values so far.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Distribution {
    /// Unix nanoseconds.
    #[prost(fixed64, tag = "2")]
    pub start_time_unix_nano: u64,
    /// Unix nanoseconds.
    #[prost(fixed64, tag = "3")]
    pub time_unix_nano: u64,
    /// How many.
    #[prost(fixed64, tag = "4")]
    pub count: u64,
    /// Their sum.
    #[prost(double, optional, tag = "5")]
    pub sum: Option<f64>,
    /// How many up to each bound and above the one before; one more than bounds.
    #[prost(fixed64, repeated, tag = "6")]
    pub bucket_counts: Vec<u64>,
    /// The bounds.
    #[prost(double, repeated, tag = "7")]
    pub explicit_bounds: Vec<f64>,
    /// Of what.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
}

/// The answer to both exports; empty when everything was taken.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Exported {
    /// What was not taken.
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<PartialSuccess>,
}

/// What the collector did not take.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PartialSuccess {
    /// Spans or data points.
    #[prost(int64, tag = "1")]
    pub rejected: i64,
    /// Why.
    #[prost(string, tag = "2")]
    pub error_message: String,
}
