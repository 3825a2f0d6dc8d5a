//! What is exported, where and how: the configuration first, the standard `OTEL_*` variables over it.
//!
//! A setting of the configuration that cannot be used ends the start, as with upstream. A variable that cannot be
//! read is passed over and named in one warning, as OpenTelemetry wants it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};

use super::endpoint::{Endpoint, Protocol, Signal};
use super::resource;
use crate::observability::{Export, Observability};
use crate::traces::sampler::{Sampler, Wishes};

/// Spans kept at most, whatever the variable says.
const MAX_QUEUE: usize = 65_536;

/// What is exported.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    /// Traces; `None` = off.
    pub traces: Option<Traces>,
    /// Metrics push; `None` = off.
    pub metrics: Option<Push>,
    /// Who this process is, by OpenTelemetry's names. Empty while both are off.
    pub resource: BTreeMap<String, String>,
    /// Variables that make no sense and were passed over.
    pub ignored: Vec<&'static str>,
}

/// Traces wanted.
#[derive(Debug, Clone)]
pub struct Traces {
    /// Which requests.
    pub sampler: Sampler,
    /// Where to; `None` is stdout.
    pub target: Option<Target>,
    /// How they are gathered.
    pub batch: BatchLimits,
}

/// Metrics push wanted.
#[derive(Debug, Clone)]
pub struct Push {
    /// Where to.
    pub target: Target,
    /// How often.
    pub interval: Duration,
    /// An export that is not through by then is given up.
    pub patience: Duration,
}

/// How spans are gathered (`OTEL_BSP_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Spans kept; more are lost.
    pub queue: usize,
    /// Spans sent at once.
    pub batch: usize,
    /// A span waits no longer than this for company.
    pub delay: Duration,
    /// A batch that is not through by then is given up.
    pub patience: Duration,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { queue: 2048, batch: 512, delay: Duration::from_secs(5), patience: Duration::from_secs(30) }
    }
}

/// A collector and how to talk to it.
#[derive(Debug, Clone)]
pub struct Target {
    /// What is sent there.
    pub signal: Signal,
    /// Where it is.
    pub endpoint: Endpoint,
    /// In which protocol.
    pub protocol: Protocol,
    /// Headers to add; their values are secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// For one attempt.
    pub timeout: Duration,
    /// PEM file with the roots to trust instead of the system's.
    pub roots: Option<PathBuf>,
}

/// What the configuration lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No endpoint.
    #[error("{0}.endpoint: a URL is needed for protocol {1}")]
    NoEndpoint(&'static str, String),
    /// Not an endpoint. What it is is not repeated: there may be a password in it.
    #[error("{0}.endpoint: not a URL")]
    Endpoint(&'static str),
}

/// Joins configuration and environment. `resource` says who this process is, and is asked only if something is
/// exported.
pub fn read(
    observability: &Observability,
    resource: impl FnOnce() -> BTreeMap<String, String>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Telemetry, SettingsError> {
    if observability.tracing.is_none() && observability.push.is_none() {
        return Ok(Telemetry::default());
    }
    let mut variables =
        Variables { env: |name: &str| env(name).filter(|value| !value.is_empty()), ignored: Vec::new() };
    let traces = observability.tracing.as_ref().map(|tracing| variables.traces(tracing)).transpose()?.flatten();
    let metrics = observability.push.as_ref().map(|push| variables.push(push)).transpose()?;
    let Variables { mut ignored, .. } = variables;
    ignored.sort_unstable();
    ignored.dedup();
    Ok(Telemetry { traces, metrics, resource: resource(), ignored })
}

/// The names of a variable for one signal and for all.
struct Names {
    section: &'static str,
    endpoint: [&'static str; 2],
    protocol: [&'static str; 2],
    headers: [&'static str; 2],
    timeout: [&'static str; 2],
    certificate: [&'static str; 2],
    insecure: [&'static str; 2],
}

const TRACES: Names = Names {
    section: "tracing",
    endpoint: ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"],
    protocol: ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"],
    headers: ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"],
    timeout: ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"],
    certificate: ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"],
    insecure: ["OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"],
};

const METRICS: Names = Names {
    section: "metrics",
    endpoint: ["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"],
    protocol: ["OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"],
    headers: ["OTEL_EXPORTER_OTLP_METRICS_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"],
    timeout: ["OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"],
    certificate: ["OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"],
    insecure: ["OTEL_EXPORTER_OTLP_METRICS_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"],
};

/// The environment, and what of it could not be used.
struct Variables<F> {
    env: F,
    ignored: Vec<&'static str>,
}

impl<F: Fn(&str) -> Option<String>> Variables<F> {
    fn traces(&mut self, tracing: &Export) -> Result<Option<Traces>, SettingsError> {
        let [sampler, argument] = ["OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"].map(|name| (self.env)(name));
        let (sampler, ignored) = Sampler::choose(&Wishes {
            stdout: tracing.protocol.is_none(),
            rate: tracing.rate,
            sampler: sampler.as_deref().unwrap_or_default(),
            argument: argument.as_deref().unwrap_or_default(),
        });
        self.ignored.extend(ignored);
        let target = self.target(tracing, Signal::Traces, &TRACES)?;
        let standard = BatchLimits::default();
        let queue = self.number("OTEL_BSP_MAX_QUEUE_SIZE").map_or(standard.queue, |n| n as usize).min(MAX_QUEUE);
        let batch = BatchLimits {
            queue,
            batch: self.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE").map_or(standard.batch, |n| n as usize).min(queue),
            delay: self.milliseconds("OTEL_BSP_SCHEDULE_DELAY").unwrap_or(standard.delay),
            patience: self.milliseconds("OTEL_BSP_EXPORT_TIMEOUT").unwrap_or(standard.patience),
        };
        // Nothing is ever sampled: that is "off", and costs as little.
        Ok((!sampler.is_off()).then_some(Traces { sampler, target, batch }))
    }

    fn push(&mut self, push: &Export) -> Result<Push, SettingsError> {
        let target = self.target(push, Signal::Metrics, &METRICS)?;
        let target = target.ok_or_else(|| SettingsError::NoEndpoint(METRICS.section, "push".into()))?;
        let configured = push.interval.filter(|interval| !interval.is_zero());
        Ok(Push {
            target,
            interval: self
                .milliseconds("OTEL_METRIC_EXPORT_INTERVAL")
                .or(configured)
                .unwrap_or(Duration::from_secs(60))
                .max(Duration::from_millis(10)),
            patience: self.milliseconds("OTEL_METRIC_EXPORT_TIMEOUT").unwrap_or(Duration::from_secs(30)),
        })
    }

    /// Where a signal goes; `None` if to no collector.
    fn target(&mut self, export: &Export, signal: Signal, names: &Names) -> Result<Option<Target>, SettingsError> {
        let Some(protocol) = export.protocol else { return Ok(None) };
        let protocol = self.first(names.protocol, |word, _| Protocol::parse(word)).unwrap_or(protocol);
        let insecure = self.first(names.insecure, |word, _| Some(word.eq_ignore_ascii_case("true"))).unwrap_or(false);
        let of_all = names.endpoint[1];
        let endpoint = self.first(names.endpoint, |url, name| {
            let endpoint = Endpoint::parse(url, insecure)?;
            // The variable for all signals is a base, that for one is used as it is.
            Some(if name == of_all {
                endpoint.below(signal.http_path())
            } else {
                Endpoint { path: endpoint.path.or_else(|| Some("/".into())), ..endpoint }
            })
        });
        let endpoint = match endpoint {
            Some(endpoint) => endpoint,
            None if export.endpoint.trim().is_empty() => {
                let word = if protocol == Protocol::Grpc { "grpc" } else { "http/protobuf" };
                return Err(SettingsError::NoEndpoint(names.section, word.into()));
            }
            None => Endpoint::parse(&export.endpoint, false).ok_or(SettingsError::Endpoint(names.section))?,
        };
        let headers = self.first(names.headers, |list, _| parse_headers(list)).unwrap_or_default();
        let timeout = self.first(names.timeout, |text, _| milliseconds(text)).unwrap_or(Duration::from_secs(10));
        let roots = self.first(names.certificate, |path, _| Some(PathBuf::from(path)));
        Ok(Some(Target { signal, endpoint, protocol, headers, timeout, roots }))
    }

    /// The first of some variables that is set and can be read.
    fn first<T>(&mut self, names: [&'static str; 2], parse: impl Fn(&str, &'static str) -> Option<T>) -> Option<T> {
        for name in names {
            let Some(text) = (self.env)(name) else { continue };
            match parse(&text, name) {
                Some(value) => return Some(value),
                None => self.ignored.push(name),
            }
        }
        None
    }

    fn number(&mut self, name: &'static str) -> Option<u64> {
        let text = (self.env)(name)?;
        let number = text.trim().parse().ok().filter(|number| *number > 0);
        if number.is_none() {
            self.ignored.push(name);
        }
        number
    }

    fn milliseconds(&mut self, name: &'static str) -> Option<Duration> {
        // A day bounds the arithmetic with clocks.
        self.number(name).map(|ms| Duration::from_millis(ms.min(24 * 3600 * 1000)))
    }
}

fn milliseconds(text: &str) -> Option<Duration> {
    let ms: u64 = text.trim().parse().ok().filter(|ms| *ms > 0)?;
    Some(Duration::from_millis(ms.min(24 * 3600 * 1000)))
}

/// `name=value,name=value`, values percent-encoded. All or nothing: half the headers would be a riddle.
fn parse_headers(list: &str) -> Option<Vec<(HeaderName, HeaderValue)>> {
    resource::pairs(list)
        .map(|pair| {
            let (name, value) = pair?;
            let mut value = HeaderValue::try_from(value).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::try_from(name).ok()?, value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(protocol: Option<Protocol>, endpoint: &str) -> Export {
        Export { protocol, endpoint: endpoint.into(), rate: 1.0, interval: Some(Duration::from_secs(7)) }
    }

    fn both(protocol: Protocol, endpoint: &str, env: &[(&str, &str)]) -> Result<Telemetry, SettingsError> {
        let export = export(Some(protocol), endpoint);
        let observability =
            Observability { tracing: Some(export.clone()), push: Some(export), ..Observability::default() };
        let env = |name: &str| env.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_string());
        read(&observability, BTreeMap::new, env)
    }

    #[test]
    fn where_each_signal_goes() {
        let all = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let one = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        let shown = |target: &Target| format!("{} {}", target.endpoint, target.endpoint.path.as_deref().unwrap_or("-"));
        for (env, traces, metrics) in [
            (&[][..], "given:1 /p", "given:1 /p"),
            (&[(all, "")], "given:1 /p", "given:1 /p"),
            (&[(all, "http://all:2")], "all:2 /v1/traces", "all:2 /v1/metrics"),
            (&[(all, "http://all:2/x/"), (one, "http://one:3")], "one:3 /", "all:2 /x/v1/metrics"),
            (&[(one, "http://one:3/y")], "one:3 /y", "given:1 /p"),
            (&[(one, "http://")], "given:1 /p", "given:1 /p"),
        ] {
            let telemetry = both(Protocol::Http, "http://given:1/p", env).unwrap();
            let traces_go = telemetry.traces.and_then(|traces| traces.target).unwrap();
            assert_eq!((shown(&traces_go), shown(&telemetry.metrics.unwrap().target)), (traces.into(), metrics.into()));
            assert_eq!(telemetry.ignored.contains(&one), env == [(one, "http://")], "{env:?}");
        }
        let refused = |endpoint| both(Protocol::Grpc, endpoint, &[]).unwrap_err().to_string();
        assert_eq!(refused(""), "tracing.endpoint: a URL is needed for protocol grpc");
        assert_eq!(refused("http://user:secret@"), "tracing.endpoint: not a URL");
        assert!(both(Protocol::Grpc, "", &[(all, "http://all:2")]).is_ok());
    }

    #[test]
    fn variables_have_the_last_word() {
        let env = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc,x-a=1"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-b=2"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1000"),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "-1"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1000"),
        ];
        let Telemetry { traces, metrics, ignored, .. } = both(Protocol::Grpc, "c:1", &env).unwrap();
        let (traces, metrics) = (traces.unwrap(), metrics.unwrap());
        let target = traces.target.unwrap();
        let seconds = Duration::from_secs;
        assert_eq!((target.protocol, metrics.target.protocol), (Protocol::Http, Protocol::Http));
        assert_eq!(target.headers[0].1, "Bearer abc");
        assert!(!format!("{:?}", target.headers).contains("abc"), "secrets are not shown");
        assert_eq!(metrics.target.headers.len(), 1);
        assert_eq!((target.timeout, target.roots), (Duration::from_millis(2500), Some("/ca.pem".into())));
        let limits = BatchLimits { queue: 100, batch: 100, delay: Duration::from_millis(20), patience: seconds(30) };
        assert_eq!(traces.batch, limits);
        assert_eq!((metrics.interval, metrics.patience), (seconds(1), seconds(30)));
        let expected =
            ["OTEL_BSP_EXPORT_TIMEOUT", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"];
        assert_eq!(ignored, expected);
    }

    #[test]
    fn what_is_off_costs_nothing() {
        let read = |observability: &Observability| {
            read(observability, || BTreeMap::from([("a".into(), "b".into())]), |_| None).unwrap()
        };
        let off = read(&Observability::default());
        assert!(off.traces.is_none() && off.metrics.is_none() && off.resource.is_empty());
        let never = Export { rate: 0.0, ..export(Some(Protocol::Grpc), "c:1") };
        let telemetry = read(&Observability { tracing: Some(never), ..Observability::default() });
        assert!(telemetry.traces.is_none(), "a rate of zero is off");
        let stdout = Export { rate: 0.0, ..export(None, "") };
        let telemetry = read(&Observability { tracing: Some(stdout), ..Observability::default() });
        assert!(telemetry.traces.is_some_and(|traces| traces.target.is_none()));
        let zero = Export { interval: Some(Duration::ZERO), ..export(Some(Protocol::Grpc), "c:1") };
        let telemetry = read(&Observability { push: Some(zero), ..Observability::default() });
        assert_eq!(telemetry.metrics.map(|push| push.interval), Some(Duration::from_secs(60)));
    }
}
