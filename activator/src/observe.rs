//! What of the telemetry is on: from the start ([`Observing`], from `config-observability` and the environment), and what
//! may change while the process runs ([`LiveSettings`] → [`Switches`]): the request log, profiles, the process's log.
//!
//! Protocols and endpoints of metrics and traces are upstream's start-time settings: a change needs a restart.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::ports;
use arc_swap::ArcSwapOption;
use proxy::certificates;
use telemetry::logging::{self, parse_level};
use telemetry::metrics_server::{MetricsServerError, OverrideError, Overrides};
use telemetry::observability::{self, Observability, ObservabilityError};
use telemetry::otlp::resource;
use telemetry::otlp::settings::{self, SettingsError, Telemetry};
use telemetry::request_log::writer::Writer;
use telemetry::request_log::{RequestLog, Settings};

use crate::live::{LiveSettings, Logging};

/// What is wanted of the telemetry from the start.
#[derive(Debug, Clone, Default)]
pub struct Observing {
    /// The Prometheus page, if it is wanted.
    pub page: Option<Page>,
    /// What is sent to a collector, and how.
    pub telemetry: Telemetry,
    /// Whether the page has the names of before July 2025 too (`DORMOUSE_OLD_METRIC_NAMES`).
    pub old_metric_names: bool,
}

/// Where the Prometheus page is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// TLS instead of plain text.
    pub tls: Option<certificates::Settings>,
}

/// Why the telemetry cannot be as it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// `config-observability` contradicts itself.
    #[error("config-observability: {0}")]
    Observability(#[from] ObservabilityError),
    /// It lacks something.
    #[error("config-observability: {0}")]
    Export(#[from] SettingsError),
    /// A `METRICS_PROMETHEUS_*` variable.
    #[error(transparent)]
    Override(#[from] OverrideError),
    /// The page's host.
    #[error(transparent)]
    Host(#[from] MetricsServerError),
}

impl Observing {
    /// Joins `config-observability` with the environment (`METRICS_PROMETHEUS_*`, `OTEL_*`, `DORMOUSE_OLD_METRIC_NAMES`).
    /// `ip`: where the page is unless something says otherwise; `get` gives a variable that is set and not empty.
    pub fn read(
        settings: &api::settings::Observability,
        ip: IpAddr,
        get: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ObserveError> {
        let wanted = Observability::of_process(settings, ports::AUTOSCALING_METRICS)?;
        let page = match &wanted.prometheus {
            None => None,
            Some(endpoint) => {
                let overrides = Overrides::parse(&get)?;
                let (address, port) = overrides.address(endpoint)?;
                Some(Page { listen: SocketAddr::new(address.unwrap_or(ip), port), tls: overrides.tls })
            }
        };
        let who = || {
            let (pod, namespace) = (get("POD_NAME").unwrap_or_default(), get("SYSTEM_NAMESPACE").unwrap_or_default());
            let own = [
                ("k8s.namespace.name", namespace.as_str()),
                ("k8s.pod.name", pod.as_str()),
                ("service.instance.id", pod.as_str()),
            ];
            resource::attributes("activator", &own, &get)
        };
        let telemetry = settings::read(&wanted, who, &get)?;
        let old_metric_names = get("DORMOUSE_OLD_METRIC_NAMES").is_none_or(|word| word != "false");
        Ok(Self { page, telemetry, old_metric_names })
    }
}

/// What lines of the log look like, by `config-logging`. A level that cannot be read leaves that of the zap
/// configuration.
pub fn log_settings(logging: &Logging) -> logging::Settings {
    let Logging { zap, level } = logging;
    if parse_level(level).is_none() {
        tracing::warn!(level, "config-logging: loglevel.activator is no level: want debug, info, warn or error");
    }
    logging::Settings::parse(zap, level)
}

/// Starts the process's log, in its standard form until [`Switches`] know better.
pub fn start_log(pod: &str) -> logging::Log {
    let context = vec![("knative.dev/pod", pod.to_owned())];
    let crates = &["activator", "telemetry", "proxy", "api"];
    logging::start(&logging::Settings::default(), logging::Process { name: "activator", crates, context })
}

/// What is on now. Requests look at it without a lock.
#[derive(Debug, Default)]
pub struct Switches {
    request_log: ArcSwapOption<RequestLog>,
    /// Whether there is one. Off is the rule, and then this costs less to see than the log itself.
    logs: AtomicBool,
    /// Its thread, once there was a log; the next template writes by the same.
    writer: ArcSwapOption<Writer>,
    profiling: AtomicBool,
    log: Option<logging::Log>,
}

impl Switches {
    /// All off. `log`: the process's, if it is ours to shape.
    pub fn new(log: Option<logging::Log>) -> Self {
        Self { log, ..Self::default() }
    }

    /// The request log, if it is on.
    pub fn request_log(&self) -> Option<Arc<RequestLog>> {
        if self.logs.load(Ordering::Relaxed) { self.request_log.load_full() } else { None }
    }

    /// Whether profiles are given.
    pub fn profiling(&self) -> bool {
        self.profiling.load(Ordering::Relaxed)
    }

    /// From now on it is so. `before`: what was applied last, if anything; what did not change is left alone.
    pub fn apply(&self, now: &LiveSettings, before: Option<&LiveSettings>) {
        self.profiling.store(now.observability.runtime.profiling == "enabled", Ordering::Relaxed);
        if let Some(log) = &self.log
            && before.is_none_or(|before| before.logging != now.logging)
        {
            log.shape(log_settings(&now.logging));
        }
        let wanted = observability::request_log(&now.observability);
        if before.is_none_or(|before| observability::request_log(&before.observability) != wanted) {
            let log = self.open(wanted.as_ref());
            let logs = log.is_some();
            self.request_log.store(log);
            self.logs.store(logs, Ordering::Relaxed);
        }
    }

    fn open(&self, settings: Option<&Settings>) -> Option<Arc<RequestLog>> {
        settings.filter(|settings| !settings.template.is_empty())?;
        let writer = self.writer.load_full().or_else(|| self.start_writer())?;
        RequestLog::on(settings, false, &writer)
    }

    fn start_writer(&self) -> Option<Arc<Writer>> {
        let writer = Writer::new(std::io::stdout())
            .inspect_err(|error| tracing::error!(%error, "request log off: no thread to write it"));
        let writer = Arc::new(writer.ok()?);
        self.writer.store(Some(Arc::clone(&writer)));
        Some(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::settings::Data;
    use tracing::level_filters::LevelFilter;

    fn settings(pairs: &[(&str, &str)]) -> api::settings::Observability {
        let data: Data = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        api::settings::Observability::parse(&data).unwrap()
    }

    fn read(observability: &[(&str, &str)], env: &[(&str, &str)]) -> Result<Observing, ObserveError> {
        Observing::read(&settings(observability), [0, 0, 0, 0].into(), |name| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_is_on_unless_asked_for() {
        let observing = read(&[], &[]).unwrap();
        assert_eq!(observing.page, None);
        assert!(observing.telemetry.traces.is_none() && observing.telemetry.metrics.is_none());
    }

    #[test]
    fn the_page_is_where_configuration_and_environment_say() {
        let on = ("metrics-protocol", "prometheus");
        let listen = |env: &[(&str, &str)]| read(&[on], env).unwrap().page.unwrap().listen.to_string();
        assert_eq!(listen(&[]), "0.0.0.0:9090");
        let elsewhere = [("METRICS_PROMETHEUS_HOST", "127.0.0.1"), ("METRICS_PROMETHEUS_PORT", "9999")];
        assert_eq!(listen(&elsewhere), "127.0.0.1:9999");
        let at = [on, ("metrics-endpoint", "127.0.0.1:9191")];
        assert_eq!(read(&at, &[]).unwrap().page.unwrap().listen.to_string(), "127.0.0.1:9191");
        let error = read(&[on], &[("METRICS_PROMETHEUS_PORT", "80")]).unwrap_err().to_string();
        assert!(error.contains("METRICS_PROMETHEUS_PORT"), "{error}");
        let error = read(&[("metrics-protocol", "grpc")], &[]).unwrap_err().to_string();
        assert!(error.contains("config-observability: metrics.endpoint"), "{error}");
    }

    #[test]
    fn the_resource_is_the_activator() {
        let push = [("metrics-protocol", "grpc"), ("metrics-endpoint", "http://c:1")];
        let env = [("POD_NAME", "activator-1"), ("SYSTEM_NAMESPACE", "knative-serving")];
        let resource = read(&push, &env).unwrap().telemetry.resource;
        for (name, value) in
            [("service.name", "activator"), ("k8s.pod.name", "activator-1"), ("k8s.namespace.name", "knative-serving")]
        {
            assert_eq!(resource[name], value);
        }
        let named = read(&push, &[("OTEL_SERVICE_NAME", "door")]).unwrap().telemetry.resource;
        assert_eq!(named["service.name"], "door");
    }

    #[test]
    fn the_log_follows_config_logging() {
        for (level, zap, expected) in [
            ("", "", LevelFilter::INFO),
            ("debug", r#"{"level":"error"}"#, LevelFilter::DEBUG),
            ("loud", r#"{"level":"error"}"#, LevelFilter::ERROR),
        ] {
            let logging = Logging { level: level.to_owned(), zap: zap.to_owned() };
            assert_eq!(log_settings(&logging).level, expected, "{level} {zap}");
        }
    }

    #[test]
    fn switches_follow_what_is_live() {
        let switches = Switches::default();
        let live = |pairs: &[(&str, &str)]| LiveSettings { observability: settings(pairs), ..LiveSettings::default() };
        let template = |text| [("logging.enable-request-log", "true"), ("logging.request-log-template", text)];
        let on = live(&[&template("x")[..], &[("runtime-profiling", "enabled")]].concat());
        switches.apply(&on, None);
        let first = switches.request_log().unwrap();
        assert!(switches.profiling());
        switches.apply(&on, Some(&on));
        assert!(Arc::ptr_eq(&first, &switches.request_log().unwrap()), "no change");
        let other = live(&template("y"));
        switches.apply(&other, Some(&on));
        assert!(!Arc::ptr_eq(&first, &switches.request_log().unwrap()) && !switches.profiling());
        for off in [live(&template("{{")), live(&[])] {
            switches.apply(&off, Some(&other));
            assert!(switches.request_log().is_none(), "{off:?}");
        }
    }
}
