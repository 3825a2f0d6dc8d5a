//! What the controller is told at start.

use std::{net::SocketAddr, sync::Arc};

use api::{labels::SYSTEM_NAMESPACE, timeline::Observer};
use arc_swap::ArcSwap;
use kube::Client;

use crate::settings::Settings;

/// Why the controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No way to an API server.
    #[error("no Kubernetes API server: {0}")]
    Client(#[from] kube::Error),
    /// No kubeconfig and not in a cluster.
    #[error("no Kubernetes API server: {0}")]
    Infer(#[from] kube::config::InferConfigError),
    /// An environment variable cannot be read.
    #[error("{name} = {value:?}: {problem}")]
    Variable {
        /// Which.
        name: &'static str,
        /// What it says.
        value: String,
        /// What would be right.
        problem: String,
    },
}

/// Where our own gateway answers: an Ingress of our class is ready when all of these serve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gateway {
    /// Here. None: nobody is asked and an Ingress is ready at once (the gateway is not ours to reach).
    At(Vec<SocketAddr>),
    /// Where the Endpoints of the activators say, at their port `http`. None there: nothing is served yet.
    Endpoints,
}

/// Where a pod finds the CA of its cluster.
const AUTHORITY: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// See the module.
#[derive(Clone)]
pub struct Config {
    /// The API server.
    pub client: Client,
    /// Where the ConfigMaps and the activator's Endpoints live.
    pub system_namespace: String,
    /// Where our own gateway answers.
    pub gateway: Gateway,
    /// Image of queue-proxy where `config-deployment` names none.
    pub queue_sidecar_image: String,
    /// Domain of the cluster's DNS.
    pub cluster_domain: String,
    /// Whether registries are asked which images the tags mean.
    pub resolve_digests: bool,
    /// PEM of the cluster's CA, which registries inside it may have a certificate of.
    pub authority: Option<Vec<u8>>,
    /// As whom we stand for the lease by which one of several controllers does the work; none where there is only one.
    pub candidate: Option<String>,
    /// Reconciles at the same time.
    pub workers: usize,
    /// The ConfigMaps as the controller knows them, kept up to date by it: shared with admission in the same process.
    pub settings: Arc<ArcSwap<Settings>>,
    /// Told of wake-up phases; the controller has none of its own.
    pub observer: Observer,
    /// Where the metrics are declared.
    pub registry: prometheus::Registry,
}

impl Config {
    /// The usual settings with this client.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            system_namespace: SYSTEM_NAMESPACE.to_owned(),
            gateway: Gateway::At(Vec::new()),
            queue_sidecar_image: "dormouse/queue-proxy".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            resolve_digests: true,
            authority: None,
            candidate: None,
            workers: 32,
            settings: Arc::new(ArcSwap::from_pointee(Settings::new("cluster.local"))),
            observer: Observer::default(),
            registry: prometheus::Registry::new(),
        }
    }

    /// For the stand-alone binary: kubeconfig or service account; `SYSTEM_NAMESPACE`, `CLUSTER_DOMAIN`,
    /// `POD_NAME` (then it stands for the lease), `QUEUE_SIDECAR_IMAGE`, `DORMOUSE_GATEWAY` (`endpoints`, or comma
    /// separated addresses), `DORMOUSE_WORKERS`.
    pub async fn from_env() -> Result<Self, ConfigError> {
        let client = Client::try_from(kube::Config::infer().await?)?;
        let mut config = Self::new(client);
        // Absent outside a cluster.
        config.authority = std::fs::read(AUTHORITY).ok();
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        config.candidate = var("POD_NAME").map(|pod| format!("{pod}_{}", fastrand::u64(..)));
        if let Some(value) = var("SYSTEM_NAMESPACE") {
            config.system_namespace = value;
        }
        if let Some(value) = var("CLUSTER_DOMAIN") {
            config.cluster_domain = value;
        }
        if let Some(value) = var("QUEUE_SIDECAR_IMAGE") {
            config.queue_sidecar_image = value;
        }
        if let Some(value) = var("DORMOUSE_GATEWAY") {
            config.gateway = parse_gateway(&value)?;
        }
        if let Some(value) = var("DORMOUSE_WORKERS") {
            config.workers = value.parse().map_err(|e: std::num::ParseIntError| ConfigError::Variable {
                name: "DORMOUSE_WORKERS",
                value,
                problem: e.to_string(),
            })?;
        }
        Ok(config)
    }
}

fn parse_gateway(value: &str) -> Result<Gateway, ConfigError> {
    if value == "endpoints" {
        return Ok(Gateway::Endpoints);
    }
    let addresses: Result<_, _> = value
        .split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .map(|s| {
            s.parse().map_err(|_| ConfigError::Variable {
                name: "DORMOUSE_GATEWAY",
                value: s.to_owned(),
                problem: "want addresses such as 10.0.0.7:8080, comma separated, or \"endpoints\"".to_owned(),
            })
        })
        .collect();
    addresses.map(Gateway::At)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_are_addresses() {
        assert!(matches!(parse_gateway("127.0.0.1:8080, [::1]:80").unwrap(), Gateway::At(two) if two.len() == 2));
        assert_eq!(parse_gateway("endpoints").unwrap(), Gateway::Endpoints);
        assert!(parse_gateway("localhost:8080").unwrap_err().to_string().contains("DORMOUSE_GATEWAY"));
    }
}
