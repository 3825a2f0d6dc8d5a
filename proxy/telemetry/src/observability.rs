//! Which telemetry is wanted, as types that cannot be wrong. Where it is said differs: queue-proxy reads the JSON of
//! `OBSERVABILITY_CONFIG`, the activator the ConfigMap `config-observability` ([`Observability::of_process`]).

use std::time::Duration;

use crate::otlp::endpoint::Protocol;
use crate::request_log::Settings;

/// What is switched on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observability {
    /// A page in Prometheus text: the address to bind, `None` = off.
    pub prometheus: Option<Endpoint>,
    /// Traces, `None` = off.
    pub tracing: Option<Export>,
    /// Metrics push, `None` = off.
    pub push: Option<Export>,
    /// The request log, `None` = off.
    pub request_log: Option<Settings>,
    /// CPU profiles on request.
    pub profiling: bool,
}

/// What is sent to a collector, before the environment is asked ([`crate::otlp::settings`]).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Export {
    /// How it travels; `None` is stdout.
    pub protocol: Option<Protocol>,
    /// Where to, as it was written.
    pub endpoint: String,
    /// Share of requests that are traced.
    pub rate: f64,
    /// How often metrics are pushed.
    pub interval: Option<Duration>,
}

/// Where the metrics port is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host part; empty = as all other ports.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// What is wrong with a setting; the texts name it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObservabilityError {
    /// Not one of the words.
    #[error("{section}.protocol: unknown protocol {word:?}")]
    Protocol {
        /// `requestMetrics`, `metrics` or `tracing`.
        section: &'static str,
        /// What was said.
        word: String,
    },
    /// Not an address to listen on.
    #[error("{section}.endpoint: not host:port: {text:?}")]
    Endpoint {
        /// `requestMetrics` or `metrics`.
        section: &'static str,
        /// What was said.
        text: String,
    },
}

impl Endpoint {
    /// Reads `host:port`, host may be empty; nothing at all is every address at a default port.
    pub fn parse(section: &'static str, text: &str, default_port: u16) -> Result<Self, ObservabilityError> {
        if text.is_empty() {
            return Ok(Self { host: String::new(), port: default_port });
        }
        let problem = || ObservabilityError::Endpoint { section, text: text.to_string() };
        let (host, port) = text.rsplit_once(':').ok_or_else(problem)?;
        Ok(Self { host: host.trim_matches(['[', ']']).to_string(), port: port.parse().map_err(|_| problem())? })
    }
}

/// A page to be read, or a push, by the words of `metrics-protocol` and its like.
pub fn metrics(
    section: &'static str,
    protocol: &str,
    default_port: u16,
    export: Export,
) -> Result<(Option<Endpoint>, Option<Export>), ObservabilityError> {
    match (protocol, Protocol::parse(protocol)) {
        ("" | "none", _) => Ok((None, None)),
        ("prometheus", _) => Ok((Some(Endpoint::parse(section, &export.endpoint, default_port)?), None)),
        (_, Some(protocol)) => Ok((None, Some(Export { protocol: Some(protocol), ..export }))),
        (word, None) => Err(ObservabilityError::Protocol { section, word: word.to_string() }),
    }
}

/// Traces, by the words of `tracing-protocol`.
pub fn tracing(protocol: &str, export: Export) -> Result<Option<Export>, ObservabilityError> {
    match (protocol, Protocol::parse(protocol)) {
        ("" | "none", _) => Ok(None),
        ("stdout", _) => Ok(Some(export)),
        (_, Some(protocol)) => Ok(Some(Export { protocol: Some(protocol), ..export })),
        (word, None) => Err(ObservabilityError::Protocol { section: "tracing", word: word.to_string() }),
    }
}

/// The request log of a process of the system itself: no probes, for they never get that far.
pub fn request_log(settings: &api::settings::Observability) -> Option<Settings> {
    let template = || settings.request_log_template.clone();
    settings.enable_request_log.then(|| Settings { template: template(), probes: false })
}

impl Observability {
    /// What `config-observability` wants of a process of the system itself, whose Prometheus page is at `default_port`
    /// unless said otherwise.
    pub fn of_process(settings: &api::settings::Observability, default_port: u16) -> Result<Self, ObservabilityError> {
        let (metrics_wanted, traces) = (&settings.metrics, &settings.tracing);
        let interval =
            Some(Duration::from_nanos(metrics_wanted.export_interval)).filter(|interval| !interval.is_zero());
        let push = Export { endpoint: metrics_wanted.endpoint.clone(), interval, ..Export::default() };
        let (prometheus, push) = metrics("metrics", &metrics_wanted.protocol, default_port, push)?;
        let rate = traces.sampling_rate;
        let tracing =
            tracing(&traces.protocol, Export { endpoint: traces.endpoint.clone(), rate, ..Export::default() })?;
        let request_log = request_log(settings);
        let profiling = settings.runtime.profiling == "enabled";
        Ok(Self { prometheus, tracing, push, request_log, profiling })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(data: &[(&str, &str)]) -> Observability {
        let data = data.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect();
        Observability::of_process(&api::settings::Observability::parse(&data).unwrap(), 9090).unwrap()
    }

    #[test]
    fn a_config_map_follows_the_table() {
        let off = Observability::default();
        let at = |host: &str, port| Some(Endpoint { host: host.into(), port });
        for (data, expected) in [
            (&[][..], off.clone()),
            (&[("metrics-protocol", "none"), ("request-metrics-protocol", "prometheus")], off.clone()),
            (&[("metrics-protocol", "prometheus")], Observability { prometheus: at("", 9090), ..off.clone() }),
            (
                &[("metrics-protocol", "prometheus"), ("metrics-endpoint", "127.0.0.1:9999")],
                Observability { prometheus: at("127.0.0.1", 9999), ..off.clone() },
            ),
            (
                &[("metrics-protocol", "grpc"), ("metrics-endpoint", "http://c:1"), ("metrics-export-interval", "5s")],
                Observability {
                    push: Some(Export {
                        protocol: Some(Protocol::Grpc),
                        endpoint: "http://c:1".into(),
                        interval: Some(Duration::from_secs(5)),
                        ..Export::default()
                    }),
                    ..off.clone()
                },
            ),
            (
                &[("tracing-protocol", "stdout"), ("tracing-sampling-rate", "0.5")],
                Observability { tracing: Some(Export { rate: 0.5, ..Export::default() }), ..off.clone() },
            ),
            (
                &[
                    ("logging.enable-request-log", "true"),
                    ("logging.enable-probe-request-log", "true"),
                    ("logging.request-log-template", "x"),
                ],
                Observability { request_log: Some(Settings { template: "x".into(), probes: false }), ..off.clone() },
            ),
            (&[("runtime-profiling", "enabled")], Observability { profiling: true, ..off.clone() }),
        ] {
            assert_eq!(of(data), expected, "{data:?}");
        }
        let settings = api::settings::Observability {
            metrics: api::settings::Metrics { protocol: "prometheus".into(), endpoint: "x".into(), export_interval: 0 },
            ..Default::default()
        };
        let error = Observability::of_process(&settings, 9090).unwrap_err().to_string();
        assert_eq!(error, r#"metrics.endpoint: not host:port: "x""#);
    }
}
