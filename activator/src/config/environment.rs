//! The environment that upstream's Deployment sets, and a few variables of ours (`DORMOUSE_*`).
//!
//! | variable | default | |
//! |---|---|---|
//! | `POD_NAME`, `POD_IP`, `SYSTEM_NAMESPACE` | required | |
//! | `MAX_IDLE_PROXY_CONNS`, `MAX_IDLE_PROXY_CONNS_PER_HOST` | 1000, 100 | idle HTTP/1 connections to pods |
//! | `PROBE_TIMEOUT`, `PROBE_FREQUENCY` | 300ms, 200ms | see [`crate::endpoints::probe`] |
//! | `CONFIG_LOGGING_NAME`, `CONFIG_OBSERVABILITY_NAME` | `config-…` | names of ConfigMaps |
//! | `CLUSTER_DOMAIN` | from resolv.conf, else `cluster.local` | |
//! | `ACTIVATOR_TLS_MIN_VERSION`, `…_MAX_VERSION`, `…_CIPHER_SUITES`, `…_CURVE_PREFERENCES` | 1.3 and newer | TLS port |
//! | `KUBE_API_QPS`, `KUBE_API_BURST` | 0 | must be numbers; without effect, as the flags |
//! | `PROFILING_PORT` | 8008 | |
//! | `DORMOUSE_QUEUE_LIMIT` | 10000 | waiters per revision |
//! | `DORMOUSE_QUEUE_LIMIT_TOTAL` | 100000 | waiters in all |
//! | `DORMOUSE_QUEUE_BYTES_TOTAL` | 268435456 | bytes that waiting requests hold in all |
//! | `METRICS_PROMETHEUS_*`, `OTEL_*`, `DORMOUSE_OLD_METRIC_NAMES` | | see [`crate::observe`] |
//! | `DORMOUSE_SERVER_TIMING` | false | `Server-Timing` on answers |
//! | `DORMOUSE_ROUTING` | identity | `gateway`: by Host, from the Ingresses of our class |
//! | `DORMOUSE_DATA_THREADS` | 0 | threads for requests; 0 = one per core |
//! | `DORMOUSE_LISTEN_IP` | `::` | where all ports are opened |
//! | `DORMOUSE_AUTOSCALER_URL` | by cluster DNS | the autoscaler's websocket |
//! | `DORMOUSE_LOCAL_PORT` | none | gateway: for cluster-local hosts too |
//! | `DORMOUSE_TLS_PORT` | none | gateway: https, with the certificates that Ingresses name |
//! | `DORMOUSE_DEFAULT_CERTIFICATE` | none | `namespace/name` of the Secret for hosts without one of their own |
//! | `DORMOUSE_HTTPS_PORT` | 443 | where clients find https, for redirects |
//!
//! `KUBERNETES_MIN_VERSION` and where the API server is belong to [`crate::standalone`]; an empty variable is one that
//! is not set.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use api::ports;

use super::{Config, QUEUE_BYTES_TOTAL, QUEUE_LIMIT, QUEUE_LIMIT_TOTAL, Routing, cluster_domain};
use crate::certificates::SecretName;
use crate::endpoints::probe::Rhythm;
use crate::live::Names;

/// What is wrong with the environment.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A variable that must exist does not.
    #[error("required environment variable {0} is missing")]
    Missing(&'static str),
    /// A variable has a value that cannot be used.
    #[error("environment variable {name}={value:?}: {problem}")]
    Wrong {
        /// The variable.
        name: &'static str,
        /// What it holds.
        value: String,
        /// What it should be.
        problem: &'static str,
    },
}

/// A source of variables.
struct Variables<F>(F);

impl<F: Fn(&str) -> Option<String>> Variables<F> {
    fn optional(&self, name: &str) -> Option<String> {
        self.0(name).filter(|value| !value.is_empty())
    }

    fn required(&self, name: &'static str) -> Result<String, ConfigError> {
        self.optional(name).ok_or(ConfigError::Missing(name))
    }

    fn parsed<T: FromStr>(&self, name: &'static str, default: T, problem: &'static str) -> Result<T, ConfigError> {
        match self.optional(name) {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| ConfigError::Wrong { name, value, problem }),
        }
    }

    fn port(&self, name: &'static str) -> Result<Option<u16>, ConfigError> {
        let port = |value: String| match value.parse() {
            Ok(0) | Err(_) => Err(ConfigError::Wrong { name, value, problem: "want a port" }),
            Ok(port) => Ok(port),
        };
        self.optional(name).map(port).transpose()
    }

    fn secret(&self, name: &'static str) -> Result<Option<SecretName>, ConfigError> {
        let secret = |value: String| match value.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(SecretName::new(namespace, name))
            }
            _ => Err(ConfigError::Wrong { name, value, problem: "want namespace/name of a Secret" }),
        };
        self.optional(name).map(secret).transpose()
    }

    fn duration(&self, name: &'static str, default: Duration) -> Result<Duration, ConfigError> {
        match self.optional(name) {
            None => Ok(default),
            Some(value) => api::duration::parse(&value).map_err(|_| ConfigError::Wrong {
                name,
                value,
                problem: "want a duration such as 300ms",
            }),
        }
    }
}

impl Config {
    /// As upstream's drop-in, from the environment of this process. The client is not made here.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    /// [`Config::from_env`] with any source of variables.
    pub fn from_vars(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let vars = Variables(get);
        let defaults = Self::detached();
        let system_namespace = vars.required("SYSTEM_NAMESPACE")?;
        let cluster_domain = vars.optional("CLUSTER_DOMAIN").unwrap_or_else(cluster_domain::find);
        let autoscaler_url = vars.optional("DORMOUSE_AUTOSCALER_URL").unwrap_or_else(|| {
            format!("ws://autoscaler.{system_namespace}.svc.{cluster_domain}:{}", ports::AUTOSCALER)
        });
        let names = Names::default();
        let ip: IpAddr = vars.parsed("DORMOUSE_LISTEN_IP", Ipv6Addr::UNSPECIFIED.into(), "want an IP address")?;
        let at = |port| SocketAddr::new(ip, port);
        let routing = match vars.optional("DORMOUSE_ROUTING").as_deref() {
            None | Some("identity") => Routing::Identity { cluster_domain },
            Some("gateway") => defaults.routing.clone(),
            Some(value) => {
                let (name, value) = ("DORMOUSE_ROUTING", value.to_owned());
                return Err(ConfigError::Wrong { name, value, problem: "want identity or gateway" });
            }
        };
        // Go's client would obey these; see `flags`.
        vars.parsed("KUBE_API_QPS", 0.0_f64, "want a number")?;
        vars.parsed("KUBE_API_BURST", 0_i64, "want a whole number")?;
        Ok(Self {
            listen: at(ports::HTTP1),
            also_listen: vec![at(ports::H2C)],
            profiling_listen: Some(at(vars.parsed("PROFILING_PORT", ports::PROFILING, "want a port")?)),
            autoscaler_url,
            routing,
            threads: vars.parsed("DORMOUSE_DATA_THREADS", 0, "want a whole number")?,
            config_maps: Names {
                logging: vars.optional("CONFIG_LOGGING_NAME").unwrap_or(names.logging),
                observability: vars.optional("CONFIG_OBSERVABILITY_NAME").unwrap_or(names.observability),
            },
            system_namespace,
            pod_name: vars.required("POD_NAME")?,
            pod_ip: vars.required("POD_IP")?,
            max_idle: idle(vars.parsed("MAX_IDLE_PROXY_CONNS", 1000, "want a whole number")?, usize::MAX),
            max_idle_per_target: idle(vars.parsed("MAX_IDLE_PROXY_CONNS_PER_HOST", 100, "want a whole number")?, 2),
            queue_limit: vars.parsed("DORMOUSE_QUEUE_LIMIT", QUEUE_LIMIT, "want a whole number")?,
            queue_limit_total: vars.parsed("DORMOUSE_QUEUE_LIMIT_TOTAL", QUEUE_LIMIT_TOTAL, "want a whole number")?,
            queue_bytes_total: vars.parsed(
                "DORMOUSE_QUEUE_BYTES_TOTAL",
                QUEUE_BYTES_TOTAL,
                "want a number of bytes",
            )?,
            rhythm: Rhythm {
                timeout: vars.duration("PROBE_TIMEOUT", defaults.rhythm.timeout)?,
                every: vars.duration("PROBE_FREQUENCY", defaults.rhythm.every)?,
                ..defaults.rhythm
            },
            internal_tls_listen: at(ports::HTTPS),
            tls_options: proxy::tls::Options {
                min_version: vars.optional("ACTIVATOR_TLS_MIN_VERSION").unwrap_or_default(),
                max_version: vars.optional("ACTIVATOR_TLS_MAX_VERSION").unwrap_or_default(),
                cipher_suites: vars.optional("ACTIVATOR_TLS_CIPHER_SUITES").unwrap_or_default(),
                curves: vars.optional("ACTIVATOR_TLS_CURVE_PREFERENCES").unwrap_or_default(),
            },
            server_timing: vars.parsed("DORMOUSE_SERVER_TIMING", false, "want true or false")?,
            local_listen: vars.port("DORMOUSE_LOCAL_PORT")?.map(at),
            tls_listen: vars.port("DORMOUSE_TLS_PORT")?.map(at),
            default_certificate: vars.secret("DORMOUSE_DEFAULT_CERTIFICATE")?,
            https_port: vars.port("DORMOUSE_HTTPS_PORT")?.unwrap_or(defaults.https_port),
            linger: Duration::from_secs(45),
            drain_limit: None,
            ..defaults
        })
    }
}

/// Go's meaning of a number of idle connections (`net/http.Transport`): 0 is a default, less is none at all.
fn idle(number: i64, default: usize) -> usize {
    if number == 0 { default } else { usize::try_from(number).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIRED: [(&str, &str); 3] =
        [("POD_NAME", "activator-1"), ("POD_IP", "10.0.0.9"), ("SYSTEM_NAMESPACE", "knative-serving")];

    fn from(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_vars(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    fn with(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        from(&[&REQUIRED[..], vars].concat())
    }

    #[test]
    fn the_environment_of_the_drop_in() {
        let config = with(&[
            ("CLUSTER_DOMAIN", "c.l"),
            ("PROBE_FREQUENCY", "50ms"),
            ("MAX_IDLE_PROXY_CONNS", "7"),
            ("CONFIG_LOGGING_NAME", "my-logging"),
            ("PROFILING_PORT", "9"),
        ])
        .unwrap();
        assert_eq!(config.autoscaler_url, "ws://autoscaler.knative-serving.svc.c.l:8080");
        assert_eq!(config.routing, Routing::Identity { cluster_domain: "c.l".into() });
        assert_eq!(config.rhythm.every, Duration::from_millis(50));
        assert_eq!(config.rhythm.timeout, Duration::from_millis(300));
        assert_eq!((config.max_idle, config.max_idle_per_target), (7, 100));
        let unusual = with(&[("MAX_IDLE_PROXY_CONNS", "0"), ("MAX_IDLE_PROXY_CONNS_PER_HOST", "-1")]).unwrap();
        assert_eq!((unusual.max_idle, unusual.max_idle_per_target), (usize::MAX, 0), "as Go reads them");
        assert_eq!((config.listen.port(), config.also_listen[0].port()), (8012, 8013));
        assert_eq!(config.profiling_listen.map(|at| at.port()), Some(9));
        assert_eq!(config.config_maps.logging, "my-logging");
        assert_eq!(config.config_maps.observability, "config-observability");
        assert_eq!((config.linger, config.drain_limit), (Duration::from_secs(45), None));
    }

    #[test]
    fn it_can_be_a_gateway_too() {
        let config = with(&[("DORMOUSE_ROUTING", "gateway"), ("DORMOUSE_DATA_THREADS", "2")]).unwrap();
        assert_eq!((config.routing, config.threads), (Config::detached().routing, 2));
    }

    #[test]
    fn the_listeners_of_a_gateway() {
        let config = with(&[
            ("DORMOUSE_LISTEN_IP", "127.0.0.9"),
            ("DORMOUSE_LOCAL_PORT", "8081"),
            ("DORMOUSE_TLS_PORT", "8443"),
            ("DORMOUSE_DEFAULT_CERTIFICATE", "system/wildcard"),
            ("DORMOUSE_HTTPS_PORT", "8444"),
        ])
        .unwrap();
        assert_eq!(config.local_listen, Some("127.0.0.9:8081".parse().unwrap()));
        assert_eq!(config.tls_listen, Some("127.0.0.9:8443".parse().unwrap()));
        assert_eq!(config.default_certificate, Some(SecretName::new("system", "wildcard")));
        assert_eq!(config.https_port, 8444);
        let config = with(&[]).unwrap();
        assert_eq!((config.local_listen, config.tls_listen, config.https_port), (None, None, 443));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (missing, _) in REQUIRED {
            let vars: Vec<_> = REQUIRED.into_iter().filter(|(name, _)| *name != missing).collect();
            let error = from(&vars).err().unwrap().to_string();
            assert_eq!(error, format!("required environment variable {missing} is missing"));
        }
        for (name, value) in [
            ("PROBE_TIMEOUT", "soon"),
            ("PROBE_FREQUENCY", "5"),
            ("MAX_IDLE_PROXY_CONNS", "1e3"),
            ("MAX_IDLE_PROXY_CONNS_PER_HOST", "many"),
            ("KUBE_API_QPS", "x"),
            ("KUBE_API_BURST", "1.5"),
            ("PROFILING_PORT", "99999"),
            ("DORMOUSE_LISTEN_IP", "here"),
            ("DORMOUSE_ROUTING", "by-host"),
            ("DORMOUSE_DATA_THREADS", "few"),
            ("DORMOUSE_TLS_PORT", "0"),
            ("DORMOUSE_DEFAULT_CERTIFICATE", "a/b/c"),
            ("DORMOUSE_DEFAULT_CERTIFICATE", "wildcard"),
        ] {
            let error = with(&[(name, value)]).err().unwrap().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
