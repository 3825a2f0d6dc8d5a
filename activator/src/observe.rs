//! What of the telemetry is on: at the start ([`Observing`], from `config-observability` and the environment), and what
//! may change while the process runs ([`Live`] → [`Switches`]): the request log, profiles, the log's level.
//!
//! Protocols and endpoints of metrics and traces are upstream's start-time settings: a change needs a restart.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::ports;
use api::settings::Data;
use arc_swap::ArcSwapOption;
use proxy::certificates;
use telemetry::logging::{self, parse_level};
use telemetry::metrics_server::{MetricsServerError, OverrideError, Overrides};
use telemetry::observability::{Observability, ObservabilityError};
use telemetry::otlp::resource;
use telemetry::otlp::settings::{self, SettingsError, Telemetry};
use telemetry::request_log::writer::Writer;
use telemetry::request_log::{self, RequestLog};
use tracing::level_filters::LevelFilter;

/// The key of `config-logging` with our level.
const LEVEL_KEY: &str = "loglevel.activator";
/// The key of `config-logging` with the zap configuration of all processes.
const ZAP_KEY: &str = "zap-logger-config";

/// What is wanted of the telemetry at the start.
#[derive(Debug, Clone, Default)]
pub struct Observing {
    /// The Prometheus page, if it is wanted.
    pub page: Option<Page>,
    /// What is sent to a collector, and how.
    pub telemetry: Telemetry,
    /// Whether the page has the names of before July 2025 too (`DORMOUSE_OLD_METRIC_NAMES`).
    pub old_metric_names: bool,
    /// Where profiles are asked for (`PROFILING_PORT`); answered only while they are switched on.
    pub profiling: Option<SocketAddr>,
    /// What may change later, as it is now.
    pub live: Live,
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
    /// The port of profiles.
    #[error("environment variable PROFILING_PORT={0:?}: not a port number")]
    ProfilingPort(String),
}

impl Observing {
    /// Joins `config-observability` with the environment (`METRICS_PROMETHEUS_*`, `OTEL_*`, `PROFILING_PORT`,
    /// `DORMOUSE_OLD_METRIC_NAMES`). `get` gives a variable that is set and not empty.
    pub fn read(
        settings: &api::settings::Observability,
        logging: &Data,
        get: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ObserveError> {
        let wanted = Observability::of_process(settings, ports::AUTOSCALING_METRICS)?;
        let page = match &wanted.prometheus {
            None => None,
            Some(endpoint) => {
                let overrides = Overrides::parse(&get)?;
                let (ip, port) = overrides.address(endpoint)?;
                let ip = ip.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
                Some(Page { listen: SocketAddr::new(ip, port), tls: overrides.tls })
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
        let port = match get("PROFILING_PORT") {
            None => ports::PROFILING,
            Some(text) => text.parse().map_err(|_| ObserveError::ProfilingPort(text))?,
        };
        Ok(Self {
            page,
            telemetry,
            old_metric_names: get("DORMOUSE_OLD_METRIC_NAMES").is_none_or(|word| word != "false"),
            profiling: Some(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
            live: Live::read(&wanted, logging),
        })
    }
}

/// What may change while the process runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Live {
    /// The request log, `None` = off.
    pub request_log: Option<request_log::Settings>,
    /// Whether profiles are given.
    pub profiling: bool,
    /// The finest level of the log; `None` leaves it as it is.
    pub level: Option<LevelFilter>,
}

impl Live {
    /// From `config-observability` and the data of `config-logging`.
    pub fn of(settings: &api::settings::Observability, logging: &Data) -> Result<Self, ObserveError> {
        Ok(Self::read(&Observability::of_process(settings, ports::AUTOSCALING_METRICS)?, logging))
    }

    fn read(wanted: &Observability, logging: &Data) -> Self {
        Self {
            request_log: wanted.request_log.clone(),
            profiling: wanted.profiling,
            level: Some(log_settings(logging).level),
        }
    }
}

/// What lines of the log look like, by the data of `config-logging`. A level that cannot be read leaves that of the zap
/// configuration.
pub fn log_settings(logging: &Data) -> logging::Settings {
    let text = |key: &str| logging.get(key).map(|text| text.trim()).unwrap_or_default();
    let level = text(LEVEL_KEY);
    if parse_level(level).is_none() {
        tracing::warn!(level, "config-logging: {LEVEL_KEY} is no level: want debug, info, warn or error");
    }
    logging::Settings::parse(text(ZAP_KEY), level)
}

/// Starts the process's log. The level follows [`Switches::apply`] if it is given to them.
pub fn start_log(logging: &Data, pod: &str) -> logging::Level {
    logging::start(
        &log_settings(logging),
        &logging::Process {
            name: "activator",
            crates: &["activator", "telemetry", "proxy", "api"],
            context: vec![("knative.dev/pod", pod.to_owned())],
        },
    )
}

/// What is on now. Requests look at it without a lock.
#[derive(Debug, Default)]
pub struct Switches {
    request_log: ArcSwapOption<RequestLog>,
    /// Its thread, once there was a log; the next template writes by the same.
    writer: ArcSwapOption<Writer>,
    profiling: AtomicBool,
    level: Option<logging::Level>,
}

impl Switches {
    /// All off. `level`: that of the process's log, if it is ours to change.
    pub fn new(level: Option<logging::Level>) -> Self {
        Self { level, ..Self::default() }
    }

    /// The request log, if it is on.
    pub fn request_log(&self) -> Option<Arc<RequestLog>> {
        // Off is the rule: then this is one load, and no count is touched.
        self.request_log.load().as_ref().map(Arc::clone)
    }

    /// Whether profiles are given.
    pub fn profiling(&self) -> bool {
        self.profiling.load(Ordering::Relaxed)
    }

    /// From now on it is so. `before`: what was applied last, if anything; what did not change is left alone.
    pub fn apply(&self, live: &Live, before: Option<&Live>) {
        self.profiling.store(live.profiling, Ordering::Relaxed);
        if let (Some(ours), Some(level)) = (&self.level, live.level)
            && ours.set(level)
        {
            tracing::info!(%level, "log level changed");
        }
        if before.is_none_or(|before| before.request_log != live.request_log) {
            self.request_log.store(self.log(live.request_log.as_ref()));
        }
    }

    fn log(&self, settings: Option<&request_log::Settings>) -> Option<Arc<RequestLog>> {
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

    fn data(pairs: &[(&str, &str)]) -> Data {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn read(observability: &[(&str, &str)], env: &[(&str, &str)]) -> Result<Observing, ObserveError> {
        let settings = api::settings::Observability::parse(&data(observability)).unwrap();
        Observing::read(&settings, &Data::new(), |name| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_is_on_unless_asked_for() {
        let observing = read(&[], &[]).unwrap();
        assert_eq!(observing.page, None);
        assert!(observing.telemetry.traces.is_none() && observing.telemetry.metrics.is_none());
        assert_eq!(observing.live, Live { level: Some(LevelFilter::INFO), ..Live::default() });
        assert_eq!(observing.profiling.map(|address| address.port()), Some(8008));
    }

    #[test]
    fn the_page_is_where_configuration_and_environment_say() {
        let on = ("metrics-protocol", "prometheus");
        let listen = |env: &[(&str, &str)]| read(&[on], env).unwrap().page.unwrap().listen.to_string();
        assert_eq!(listen(&[]), "[::]:9090");
        assert_eq!(
            listen(&[("METRICS_PROMETHEUS_HOST", "127.0.0.1"), ("METRICS_PROMETHEUS_PORT", "9999")]),
            "127.0.0.1:9999"
        );
        let at = [on, ("metrics-endpoint", "127.0.0.1:9191")];
        assert_eq!(read(&at, &[]).unwrap().page.unwrap().listen.to_string(), "127.0.0.1:9191");
        let error = read(&[on], &[("METRICS_PROMETHEUS_PORT", "80")]).unwrap_err().to_string();
        assert!(error.contains("METRICS_PROMETHEUS_PORT"), "{error}");
        let error = read(&[], &[("PROFILING_PORT", "x")]).unwrap_err().to_string();
        assert!(error.contains("PROFILING_PORT"), "{error}");
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
            let data =
                data(&[("loglevel.activator", level), ("zap-logger-config", zap), ("loglevel.controller", "error")]);
            assert_eq!(log_settings(&data).level, expected, "{level} {zap}");
        }
    }

    #[test]
    fn switches_follow_what_is_live() {
        let switches = Switches::default();
        let log = |template: &str| Some(request_log::Settings { template: template.into(), probes: false });
        let on = Live { request_log: log("x"), profiling: true, level: None };
        switches.apply(&on, None);
        let first = switches.request_log().unwrap();
        assert!(switches.profiling());
        switches.apply(&on, Some(&on));
        assert!(Arc::ptr_eq(&first, &switches.request_log().unwrap()), "no change");
        let other = Live { request_log: log("y"), ..Live::default() };
        switches.apply(&other, Some(&on));
        assert!(!Arc::ptr_eq(&first, &switches.request_log().unwrap()) && !switches.profiling());
        for off in ["", "{{"] {
            switches.apply(&Live { request_log: log(off), ..Live::default() }, Some(&other));
            assert!(switches.request_log().is_none(), "{off:?}");
        }
    }
}
