//! What an activator is told at its start.

use std::net::SocketAddr;
use std::time::Duration;

use api::labels::SYSTEM_NAMESPACE;
use api::labels::networking::DORMOUSE_INGRESS_CLASS;
use api::timeline::Observer;
use api::{ports, settings};
use kube::Client;

use crate::endpoints::probe::Rhythm;

/// Waiters per revision unless told otherwise: upstream's queue depth (which upstream cannot reach).
pub const QUEUE_LIMIT: usize = 10_000;

/// Waiters in all revisions together unless told otherwise.
pub const QUEUE_LIMIT_TOTAL: usize = 100_000;
/// Bytes that waiting requests hold, in all revisions together, unless told otherwise: less than half of the memory
/// that upstream's Deployment gives an activator (600 MiB).
pub const QUEUE_BYTES_TOTAL: usize = 256 << 20;

/// How a request says which revision it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routing {
    /// We are the gateway: by Host, from the Ingresses of this class. Identity headers of clients are ignored.
    Ingress {
        /// Value of the class annotation.
        class: String,
    },
    /// A gateway stands in front: by `Knative-Serving-*` headers, else by a Host `revision.namespace.svc.DOMAIN`.
    Identity {
        /// The cluster's domain.
        cluster_domain: String,
    },
}

/// Everything an activator needs to know.
#[derive(Clone)]
pub struct Config {
    /// Where requests come in; port 0 = any.
    pub listen: SocketAddr,
    /// Further addresses with the same service (the h2c port of a drop-in).
    pub also_listen: Vec<SocketAddr>,
    /// Where `GET /metrics` is answered, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// See [`Routing`].
    pub routing: Routing,
    /// The API server; `None` = fed by hand ([`crate::Activator::feed`]).
    pub client: Option<Client>,
    /// `ws://host:port` of the autoscaler.
    pub autoscaler_url: String,
    /// Name in load reports.
    pub pod_name: String,
    /// Own address among the activators of a revision; empty = never shares one.
    pub pod_ip: String,
    /// Data threads; 0 = one per core.
    pub threads: usize,
    /// Where marks of wake-ups go.
    pub observer: Observer,
    /// Most requests that wait for one revision; more are told 503.
    pub queue_limit: usize,
    /// Most requests that wait, for all revisions together.
    pub queue_limit_total: usize,
    /// Most bytes that requests which wait may hold, for all revisions together.
    pub queue_bytes_total: usize,
    /// Idle HTTP/1 connections kept per pod and thread.
    pub max_idle_per_target: usize,
    /// How starting pods are asked whether they can serve.
    pub rhythm: Rhythm,
    /// How revisions behind a mesh are reached (`enabled`, through the cluster IP, is not supported yet).
    pub mesh: settings::MeshCompatibility,
    /// Whether answers carry `Server-Timing`.
    pub server_timing: bool,
    /// How long to go on serving after being asked to end, so that gateways notice.
    pub linger: Duration,
    /// Longest wait for requests in flight at the end; `None` = as long as they take.
    pub drain_limit: Option<Duration>,
}

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

impl Config {
    /// As the gateway of `dormouse up`: loopback, any port, one activator.
    pub fn local(client: Client) -> Self {
        Self { client: Some(client), ..Self::detached() }
    }

    /// A gateway without an API server, fed by hand: for tests and simulations.
    pub fn detached() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            also_listen: Vec::new(),
            metrics_listen: None,
            routing: Routing::Ingress { class: DORMOUSE_INGRESS_CLASS.to_owned() },
            client: None,
            autoscaler_url: format!("ws://127.0.0.1:{}", ports::AUTOSCALER),
            pod_name: "activator".to_owned(),
            pod_ip: String::new(),
            threads: 0,
            observer: Observer::default(),
            queue_limit: QUEUE_LIMIT,
            queue_limit_total: QUEUE_LIMIT_TOTAL,
            queue_bytes_total: QUEUE_BYTES_TOTAL,
            max_idle_per_target: 100,
            rhythm: Rhythm::default(),
            mesh: settings::MeshCompatibility::Auto,
            server_timing: false,
            linger: Duration::ZERO,
            drain_limit: Some(Duration::from_secs(25)),
        }
    }

    /// As upstream's drop-in, from the environment that upstream's Deployment sets. The client is not made here.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// [`Config::from_env`] with any source of variables.
    pub fn from_vars(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let need = |name| get(name).ok_or(ConfigError::Missing(name));
        let number = |name, default: usize| match get(name) {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| ConfigError::Wrong { name, value, problem: "a whole number" }),
        };
        let duration = |name, default: Duration| match get(name) {
            None => Ok(default),
            Some(value) => api::duration::parse(&value).map_err(|_| ConfigError::Wrong {
                name,
                value,
                problem: "a duration such as 300ms",
            }),
        };
        let pod_name = need("POD_NAME")?;
        let pod_ip = need("POD_IP")?;
        let system_namespace = get("SYSTEM_NAMESPACE").unwrap_or_else(|| SYSTEM_NAMESPACE.to_owned());
        let cluster_domain = get("CLUSTER_DOMAIN").unwrap_or_else(cluster_domain);
        let defaults = Self::detached();
        let all = |port| SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
        Ok(Self {
            listen: all(ports::HTTP1),
            also_listen: vec![all(ports::H2C)],
            metrics_listen: Some(all(ports::AUTOSCALING_METRICS)),
            autoscaler_url: format!("ws://autoscaler.{system_namespace}.svc.{cluster_domain}:{}", ports::AUTOSCALER),
            routing: Routing::Identity { cluster_domain },
            pod_name,
            pod_ip,
            max_idle_per_target: number("MAX_IDLE_PROXY_CONNS_PER_HOST", 100)?,
            queue_limit: number("DORMOUSE_QUEUE_LIMIT", QUEUE_LIMIT)?,
            queue_limit_total: number("DORMOUSE_QUEUE_LIMIT_TOTAL", QUEUE_LIMIT_TOTAL)?,
            queue_bytes_total: number("DORMOUSE_QUEUE_BYTES_TOTAL", QUEUE_BYTES_TOTAL)?,
            rhythm: Rhythm {
                timeout: duration("PROBE_TIMEOUT", defaults.rhythm.timeout)?,
                every: duration("PROBE_FREQUENCY", defaults.rhythm.every)?,
                ..defaults.rhythm
            },
            server_timing: get("DORMOUSE_SERVER_TIMING").is_some_and(|value| value == "true"),
            linger: Duration::from_secs(45),
            drain_limit: None,
            ..defaults
        })
    }
}

/// The cluster's domain as resolv.conf has it: the first search domain that begins with `svc.`.
fn cluster_domain() -> String {
    let file = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    search_domain(&file).unwrap_or_else(|| "cluster.local".to_owned())
}

fn search_domain(resolv_conf: &str) -> Option<String> {
    resolv_conf
        .lines()
        .filter_map(|line| line.trim().strip_prefix("search"))
        .flat_map(str::split_whitespace)
        .find_map(|domain| domain.strip_prefix("svc."))
        .map(|domain| domain.trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_vars(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_environment_of_the_drop_in() {
        let config = from(&[
            ("POD_NAME", "activator-1"),
            ("POD_IP", "10.0.0.9"),
            ("SYSTEM_NAMESPACE", "knative-serving"),
            ("CLUSTER_DOMAIN", "c.l"),
            ("PROBE_FREQUENCY", "50ms"),
            ("DORMOUSE_QUEUE_BYTES_TOTAL", "1000"),
        ])
        .unwrap();
        assert_eq!(config.autoscaler_url, "ws://autoscaler.knative-serving.svc.c.l:8080");
        assert_eq!(config.routing, Routing::Identity { cluster_domain: "c.l".into() });
        assert_eq!(config.rhythm.every, Duration::from_millis(50));
        assert_eq!((config.queue_limit_total, config.queue_bytes_total), (QUEUE_LIMIT_TOTAL, 1000));
        assert_eq!((config.listen.port(), config.also_listen[0].port()), (8012, 8013));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        assert_eq!(
            from(&[("POD_IP", "1")]).err().unwrap().to_string(),
            "required environment variable POD_NAME is missing"
        );
        let error = from(&[("POD_NAME", "a"), ("POD_IP", "1"), ("PROBE_TIMEOUT", "soon")]).err().unwrap().to_string();
        assert!(error.contains("PROBE_TIMEOUT"), "{error}");
    }

    #[test]
    fn the_domain_comes_from_the_search_list() {
        let file = "nameserver 10.0.0.1\nsearch ns.svc.my.domain. svc.my.domain. my.domain.\n";
        assert_eq!(search_domain(file), Some("my.domain".into()));
        assert_eq!(search_domain("search example.com\n"), None);
    }
}
