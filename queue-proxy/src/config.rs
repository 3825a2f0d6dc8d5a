//! Environment → [`Config`]. Read once; everything after works with typed values.
//!
//! Which variables exist, which must be there and what they accept is upstream's contract (its controller writes them).
//! Unknown variables are ignored. The first wrong or missing one is named in the error.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use api::ports;
use proxy::certificates;
use proxy::deadline::Limits;
pub use telemetry::Identity;
use telemetry::metrics_server::{self, OverrideError};
use telemetry::observability::Observability;
use telemetry::otlp::settings::{self, Telemetry};

use crate::observability;
use crate::readiness::{ProbeError, Readiness};
use crate::resource;

/// Everything the sidecar needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Requests in the user container at once; 0 = no limit.
    pub container_concurrency: u32,
    /// Address all ports are opened on; `None` = every address, IPv4 and IPv6.
    pub bind_address: Option<IpAddr>,
    /// Main port (8012 or 8013; both speak HTTP/1 and h2c).
    pub serving_port: u16,
    /// The TLS port beside it, as the environment has it; looked at only if certificates are mounted.
    pub serving_tls_port: String,
    /// The certificates of that port.
    pub tls: certificates::Settings,
    /// `/wait-for-drain`.
    pub admin_port: u16,
    /// The stat that the autoscaler scrapes.
    pub stats_port: u16,
    /// Where the user's app listens.
    pub user: SocketAddr,
    /// The three request timeouts.
    pub limits: Limits,
    /// When the app counts as ready.
    pub readiness: Readiness,
    /// Who this pod is.
    pub identity: Identity,
    /// Metrics and logs wanted.
    pub observability: Observability,
    /// What is sent to a collector, and how.
    pub telemetry: Telemetry,
    /// Where and how the user's metrics are served, where that differs from what `observability` says.
    pub metrics_server: metrics_server::Overrides,
    /// Where CPU profiles are to be had, if at all (`PROFILING_PORT`).
    pub profiling_port: Option<u16>,
    /// Whether the metrics page has the names of old dashboards too (`DORMOUSE_OLD_METRIC_NAMES`).
    pub old_metric_names: bool,
    /// A drain ends when this long no new request came (`DORMOUSE_DRAIN_QUIET_MS`).
    pub drain_quiet: Duration,
    /// The sidecar's own log.
    pub logging: telemetry::logging::Settings,
}

/// What is wrong with the environment.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A variable that must exist does not.
    #[error("required environment variable {0} is missing")]
    Missing(&'static str),
    /// A variable has a value that cannot be used.
    #[error("environment variable {name}={value:?}: {problem}")]
    Wrong {
        /// The variable.
        name: &'static str,
        /// What it holds (cut short).
        value: String,
        /// What it should be.
        problem: String,
    },
}

impl Config {
    /// Reads the process environment.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    /// Reads variables from anywhere.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let env = Env { lookup };
        let container_concurrency = env.required_int("CONTAINER_CONCURRENCY")?;
        let serving_port = env.required_port("QUEUE_SERVING_PORT")?;
        let serving_tls_port = env.required("QUEUE_SERVING_TLS_PORT")?;
        let text = |name| env.get(name).unwrap_or_default();
        let tls = certificates::Settings {
            chain: "/var/lib/knative/certs/tls.crt".into(),
            key: "/var/lib/knative/certs/tls.key".into(),
            reload: certificates::RELOAD,
            clients: None,
            variables: "QUEUE_PROXY_TLS_",
            options: proxy::tls::Options {
                min_version: text("QUEUE_PROXY_TLS_MIN_VERSION"),
                max_version: text("QUEUE_PROXY_TLS_MAX_VERSION"),
                cipher_suites: text("QUEUE_PROXY_TLS_CIPHER_SUITES"),
                curves: text("QUEUE_PROXY_TLS_CURVE_PREFERENCES"),
            },
        };
        let user_port = env.required_port("USER_PORT")?;
        let total = env.required_int("REVISION_TIMEOUT_SECONDS")?;
        let response_start = env.int("REVISION_RESPONSE_START_TIMEOUT_SECONDS")?.unwrap_or(0);
        let idle = env.int("REVISION_IDLE_TIMEOUT_SECONDS")?.unwrap_or(0);
        for switch in ["ENABLE_HTTP_FULL_DUPLEX", "ENABLE_MULTI_CONTAINER_PROBES"] {
            env.bool(switch)?; // We are always full duplex, and the probe list says itself how many it holds.
        }
        let auto_detect = env.bool("ENABLE_HTTP2_AUTO_DETECTION")?.unwrap_or(false);
        let identity = Identity {
            namespace: env.required("SERVING_NAMESPACE")?,
            service: env.get("SERVING_SERVICE").unwrap_or_default(),
            configuration: env.required("SERVING_CONFIGURATION")?,
            revision: env.required("SERVING_REVISION")?,
            pod: env.required("SERVING_POD")?,
            pod_ip: env.required("SERVING_POD_IP")?,
        };
        let logging = telemetry::logging::Settings::parse(
            &env.required("SERVING_LOGGING_CONFIG")?,
            &env.required("SERVING_LOGGING_LEVEL")?,
        );
        let readiness = env.parsed("SERVING_READINESS_PROBE", |text| Readiness::parse(text, auto_detect))?;
        let observability = env.parsed("OBSERVABILITY_CONFIG", observability::parse)?;
        let telemetry =
            settings::read(&observability, || resource::of(&identity, |name| env.get(name)), |name| env.get(name))
                .map_err(|error| wrong("OBSERVABILITY_CONFIG", "...", &error))?;
        let metrics_server = match observability.prometheus {
            Some(_) => metrics_server::Overrides::parse(&env.lookup)?,
            None => metrics_server::Overrides::default(),
        };
        let profiling_port = match env.get("PROFILING_PORT").filter(|port| !port.is_empty()) {
            _ if !observability.profiling => None,
            None => Some(ports::PROFILING),
            Some(text) => Some(text.parse().map_err(|_| wrong("PROFILING_PORT", &text, "not a port number"))?),
        };
        let bind_address = match env.get("DORMOUSE_BIND_ADDRESS").filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| wrong("DORMOUSE_BIND_ADDRESS", &text, "not an IP address"))?),
        };
        let quiet = env.int("DORMOUSE_DRAIN_QUIET_MS")?.unwrap_or(30_000);
        Ok(Self {
            container_concurrency: u32::try_from(container_concurrency.max(0)).unwrap_or(u32::MAX),
            bind_address,
            serving_port,
            serving_tls_port,
            tls,
            admin_port: ports::QUEUE_ADMIN,
            stats_port: ports::AUTOSCALING_METRICS,
            user: SocketAddr::from((Ipv4Addr::LOCALHOST, user_port)),
            limits: Limits {
                // Zero is not "off": upstream answers 504 at once.
                total: Some(seconds(total)),
                response_start: (response_start > 0).then(|| seconds(response_start)),
                idle: (idle > 0).then(|| seconds(idle)),
            },
            readiness,
            identity,
            observability,
            telemetry,
            metrics_server,
            profiling_port,
            old_metric_names: env.bool("DORMOUSE_OLD_METRIC_NAMES")?.unwrap_or(true),
            drain_quiet: Duration::from_millis(u64::try_from(quiet).unwrap_or(0)),
            logging,
        })
    }
}

fn seconds(n: i64) -> Duration {
    // A year bounds the arithmetic with clocks.
    Duration::from_secs(u64::try_from(n).unwrap_or(0).min(365 * 24 * 3600))
}

impl From<OverrideError> for ConfigError {
    fn from(error: OverrideError) -> Self {
        Self::Wrong { name: error.name, value: error.value, problem: error.problem }
    }
}

fn wrong(name: &'static str, value: &str, problem: &(impl ToString + ?Sized)) -> ConfigError {
    ConfigError::Wrong { name, value: value.chars().take(200).collect(), problem: problem.to_string() }
}

struct Env<F> {
    lookup: F,
}

impl<F: Fn(&str) -> Option<String>> Env<F> {
    fn get(&self, name: &str) -> Option<String> {
        (self.lookup)(name)
    }

    fn required(&self, name: &'static str) -> Result<String, ConfigError> {
        self.get(name).ok_or(ConfigError::Missing(name))
    }

    fn int(&self, name: &'static str) -> Result<Option<i64>, ConfigError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        parse_int(&text).map(Some).ok_or_else(|| wrong(name, &text, "not a whole number"))
    }

    fn required_int(&self, name: &'static str) -> Result<i64, ConfigError> {
        self.int(name)?.ok_or(ConfigError::Missing(name))
    }

    fn required_port(&self, name: &'static str) -> Result<u16, ConfigError> {
        let text = self.required(name)?;
        text.parse().map_err(|_| wrong(name, &text, "not a port number"))
    }

    fn bool(&self, name: &'static str) -> Result<Option<bool>, ConfigError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let value = api::settings::parse_bool(&text);
        value.map(Some).ok_or_else(|| wrong(name, &text, "not a boolean (true or false)"))
    }

    fn parsed<T>(&self, name: &'static str, parse: impl Fn(&str) -> Result<T, ProbeError>) -> Result<T, ConfigError> {
        let text = self.get(name).unwrap_or_default();
        parse(&text).map_err(|error| wrong(name, &text, &error))
    }
}

/// Whole numbers as Go's `ParseInt(s, 0, 64)` reads them: `0x`, `0o`, `0b`, a leading 0 is octal, `_` between digits.
fn parse_int(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = i64::from_str_radix(&digits.replace('_', ""), radix).ok()?;
    Some(if negative { -value } else { value })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::HashMap;

    pub(crate) fn environment() -> HashMap<&'static str, &'static str> {
        HashMap::from([
            ("CONTAINER_CONCURRENCY", "10"),
            ("QUEUE_SERVING_PORT", "8012"),
            ("QUEUE_SERVING_TLS_PORT", "8112"),
            ("USER_PORT", "8080"),
            ("REVISION_TIMEOUT_SECONDS", "300"),
            ("SERVING_NAMESPACE", "ns"),
            ("SERVING_CONFIGURATION", "conf"),
            ("SERVING_REVISION", "rev"),
            ("SERVING_POD", "pod"),
            ("SERVING_POD_IP", "10.0.0.1"),
            ("SERVING_LOGGING_CONFIG", ""),
            ("SERVING_LOGGING_LEVEL", ""),
        ])
    }

    fn parse(environment: &HashMap<&'static str, &'static str>) -> Result<Config, ConfigError> {
        Config::from_lookup(|name| environment.get(name).map(ToString::to_string))
    }

    #[test]
    fn the_least_environment_is_enough() {
        let config = parse(&environment()).unwrap();
        assert_eq!(config.container_concurrency, 10);
        assert_eq!(config.user, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(config.limits.total, Some(Duration::from_secs(300)));
        assert_eq!((config.limits.response_start, config.limits.idle), (None, None));
        assert_eq!(config.drain_quiet, Duration::from_secs(30));
        assert_eq!(config.bind_address, None);
    }

    #[test]
    fn a_missing_variable_is_named() {
        for name in environment().keys() {
            let mut environment = environment();
            environment.remove(name);
            let error = parse(&environment).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_wrong_variable_is_named() {
        for (name, value) in [
            ("CONTAINER_CONCURRENCY", ""),
            ("CONTAINER_CONCURRENCY", "many"),
            ("USER_PORT", "70000"),
            ("REVISION_IDLE_TIMEOUT_SECONDS", "1.5"),
            ("ENABLE_HTTP_FULL_DUPLEX", "yes"),
            ("SERVING_READINESS_PROBE", "\"string\""),
            ("OBSERVABILITY_CONFIG", "{"),
            ("DORMOUSE_BIND_ADDRESS", "localhost"),
        ] {
            let mut environment = environment();
            environment.insert(name, value);
            let error = parse(&environment).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn profiling_has_a_port_only_if_it_is_wanted() {
        let on = r#"{"runtime":{"profiling":"enabled"}}"#;
        for (observability, port, expected) in [
            ("", "", Ok(None)),
            ("", "junk", Ok(None)),
            (on, "", Ok(Some(8008))),
            (on, "9000", Ok(Some(9000))),
            (on, "junk", Err("PROFILING_PORT")),
        ] {
            let mut environment = environment();
            environment.insert("OBSERVABILITY_CONFIG", observability);
            environment.insert("PROFILING_PORT", port);
            match (parse(&environment), expected) {
                (Ok(config), Ok(expected)) => assert_eq!(config.profiling_port, expected),
                (Err(error), Err(name)) => assert!(error.to_string().contains(name), "{error}"),
                (parsed, _) => panic!("{observability} {port}: {:?}", parsed.map(|config| config.profiling_port)),
            }
        }
    }

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        for (text, value) in [
            ("10", Some(10)),
            ("-1", Some(-1)),
            ("+7", Some(7)),
            ("0x1F", Some(31)),
            ("017", Some(15)),
            ("0b11", Some(3)),
            ("0", Some(0)),
            ("1_000", Some(1000)),
            ("", None),
            ("--1", None),
            ("1e3", None),
        ] {
            assert_eq!(parse_int(text), value, "{text}");
        }
    }

    #[test]
    fn zero_total_is_not_off_and_negative_concurrency_is_unlimited() {
        let mut environment = environment();
        environment.insert("REVISION_TIMEOUT_SECONDS", "0");
        environment.insert("CONTAINER_CONCURRENCY", "-3");
        let config = parse(&environment).unwrap();
        assert_eq!(config.limits.total, Some(Duration::ZERO));
        assert_eq!(config.container_concurrency, 0);
    }
}
