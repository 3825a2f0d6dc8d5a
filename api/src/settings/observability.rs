//! `config-observability`: request log, metrics and traces (upstream `pkg/observability/config.go`).
//!
//! The controller hands this to queue-proxy as the JSON of `OBSERVABILITY_CONFIG`; [`Observability`] is that JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Data, InvalidSetting, Reader};

const NAME: &str = "config-observability";

/// One JSON object per request, in Go template syntax.
pub const DEFAULT_REQUEST_LOG_TEMPLATE: &str = concat!(
    r#"{"httpRequest": {"requestMethod": "{{.Request.Method}}", "requestUrl": "{{js .Request.RequestURI}}", "#,
    r#""requestSize": "{{.Request.ContentLength}}", "status": {{.Response.Code}}, "#,
    r#""responseSize": "{{.Response.Size}}", "userAgent": "{{js .Request.UserAgent}}", "#,
    r#""remoteIp": "{{js .Request.RemoteAddr}}", "serverIp": "{{.Revision.PodIP}}", "#,
    r#""referer": "{{js .Request.Referer}}", "latency": "{{.Response.Latency}}s", "#,
    r#""protocol": "{{.Request.Proto}}"}, "traceId": "{{.TraceID}}"}"#
);

/// Where metrics go. Intervals are nanoseconds on the wire; 0 = the exporter's own default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metrics {
    /// `none`, `prometheus`, `grpc` or `http/protobuf`; empty = none.
    pub protocol: String,
    /// URL to push to, or `host:port` to serve on.
    pub endpoint: String,
    /// Push period in nanoseconds.
    pub export_interval: u64,
}

/// Where traces go.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tracing {
    /// `none`, `grpc`, `http/protobuf` or `stdout`; empty = none.
    pub protocol: String,
    /// URL.
    pub endpoint: String,
    /// 0 to 1.
    pub sampling_rate: f64,
}

/// Profiling switch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Runtime {
    /// `enabled` or `disabled`; empty = disabled.
    pub profiling: String,
    /// Nanoseconds.
    pub export_interval: u64,
}

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Observability {
    /// Traces.
    pub tracing: Tracing,
    /// The processes' own metrics.
    pub metrics: Metrics,
    /// The users' request metrics, on queue-proxy.
    pub request_metrics: Metrics,
    /// Profiling.
    pub runtime: Runtime,
    /// Whether requests are logged.
    pub enable_request_log: bool,
    /// Whether probes are logged too.
    pub enable_probe_request_log: bool,
    /// Go template of a log line.
    pub request_log_template: String,
}

impl Default for Observability {
    fn default() -> Self {
        Self {
            tracing: Tracing::default(),
            metrics: Metrics::default(),
            request_metrics: Metrics::default(),
            runtime: Runtime::default(),
            enable_request_log: false,
            enable_probe_request_log: false,
            request_log_template: DEFAULT_REQUEST_LOG_TEMPLATE.to_owned(),
        }
    }
}

impl Observability {
    /// Reads the ConfigMap's data.
    pub fn parse(data: &Data) -> Result<Self, InvalidSetting> {
        let r = Reader { config_map: NAME, data };
        let d = Self::default();
        let text = |key: &str| r.text(key).unwrap_or_default().to_owned();
        let nanos = |key: &str| Ok(r.duration(key, Duration::ZERO)?.as_nanos().min(u128::from(u64::MAX)) as u64);
        let metrics = |prefix: &str| -> Result<Metrics, InvalidSetting> {
            let protocol_key = format!("{prefix}metrics-protocol");
            r.check(
                &protocol_key,
                matches!(text(&protocol_key).as_str(), "" | "none" | "prometheus" | "grpc" | "http/protobuf"),
                "want none, prometheus, grpc or http/protobuf",
            )?;
            Ok(Metrics {
                protocol: text(&protocol_key),
                endpoint: text(&format!("{prefix}metrics-endpoint")),
                export_interval: nanos(&format!("{prefix}metrics-export-interval"))?,
            })
        };
        r.check(
            "tracing-protocol",
            matches!(text("tracing-protocol").as_str(), "" | "none" | "grpc" | "http/protobuf" | "stdout"),
            "want none, grpc, http/protobuf or stdout",
        )?;
        let sampling_rate = r.float("tracing-sampling-rate", 0.0)?;
        r.check("tracing-sampling-rate", (0.0..=1.0).contains(&sampling_rate), "want 0 to 1")?;
        Ok(Self {
            tracing: Tracing { protocol: text("tracing-protocol"), endpoint: text("tracing-endpoint"), sampling_rate },
            metrics: metrics("")?,
            request_metrics: metrics("request-")?,
            runtime: Runtime { profiling: text("runtime-profiling"), export_interval: 0 },
            enable_request_log: r.boolean("logging.enable-request-log", d.enable_request_log)?,
            enable_probe_request_log: r.boolean("logging.enable-probe-request-log", d.enable_probe_request_log)?,
            request_log_template: r.text("logging.request-log-template").map_or(d.request_log_template, str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_for_queue_proxy_has_upstreams_keys() {
        let data = [("request-metrics-protocol", "prometheus"), ("logging.enable-request-log", "true")];
        let o = Observability::parse(&data.map(|(k, v)| (k.to_owned(), v.to_owned())).into()).unwrap();
        let json = serde_json::to_value(&o).unwrap();
        assert_eq!(json["requestMetrics"]["protocol"], "prometheus");
        assert_eq!(json["enableRequestLog"], true);
        assert_eq!(serde_json::from_value::<Observability>(json).unwrap(), o);
    }

    #[test]
    fn missing_keys_of_the_json_keep_their_defaults() {
        let o: Observability = serde_json::from_str(r#"{"unknown": 1}"#).unwrap();
        assert_eq!(o, Observability::default());
    }

    #[test]
    fn bad_values_name_their_key() {
        for (key, value) in [
            ("metrics-protocol", "carrier-pigeon"),
            ("tracing-protocol", "zipkin"),
            ("tracing-sampling-rate", "1.5"),
            ("request-metrics-export-interval", "soon"),
        ] {
            let data = Data::from([(key.to_owned(), value.to_owned())]);
            assert_eq!(Observability::parse(&data).unwrap_err().key, key);
        }
    }
}
