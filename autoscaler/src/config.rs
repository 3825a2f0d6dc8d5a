//! What an autoscaler is told at its start.

use std::net::{IpAddr, SocketAddr};

use api::{labels::SYSTEM_NAMESPACE, ports, timeline::Observer};
use prometheus::Registry;

use crate::election::identity::StatefulSet;

/// Why the environment is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable that must be there is not.
    #[error("environment variable {0} is missing or empty")]
    Missing(&'static str),
    /// A variable has a bad value.
    #[error("environment variable {0} = {1:?}: {2}")]
    Bad(&'static str, String, String),
    /// There is no way to the API server.
    #[error("cannot find the API server: {0}")]
    Kube(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// Settings of the process; settings of revisions come from ConfigMaps and annotations.
#[derive(Clone)]
pub struct Config {
    /// Where activators report.
    pub listen: SocketAddr,
    /// The API server.
    pub client: kube::Client,
    /// Where ConfigMaps are.
    pub system_namespace: String,
    /// Own pod's name.
    pub pod_name: String,
    /// Own pod's address.
    pub pod_ip: IpAddr,
    /// Find a revision's public Service by its Endpoints object; where there is no cluster DNS.
    pub resolve_by_endpoints: bool,
    /// Domain of cluster DNS.
    pub cluster_domain: String,
    /// Port at which queue-proxies report.
    pub scrape_port: u16,
    /// How the work is shared with other autoscalers.
    pub sharing: Sharing,
    /// The ConfigMap that says how leases are held.
    pub leader_election_config: String,
    /// Where metrics are registered.
    pub registry: Registry,
    /// Told when a sleeping revision is decided to wake, and when that is written.
    pub observer: Observer,
}

/// How the work is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sharing {
    /// There is no other.
    Alone,
    /// By leases.
    Leases,
    /// Each pod of a StatefulSet has its part.
    StatefulSet(StatefulSet),
}

impl Config {
    /// For one process on this machine: any free port on loopback, no DNS.
    pub fn local(client: kube::Client) -> Self {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        Self {
            listen: SocketAddr::new(loopback, 0),
            client,
            system_namespace: SYSTEM_NAMESPACE.to_owned(),
            pod_name: "autoscaler".to_owned(),
            pod_ip: loopback,
            resolve_by_endpoints: true,
            cluster_domain: "cluster.local".to_owned(),
            scrape_port: ports::AUTOSCALING_METRICS,
            sharing: Sharing::Alone,
            leader_election_config: "config-leader-election".to_owned(),
            registry: Registry::new(),
            observer: Observer::default(),
        }
    }

    /// For a pod of a cluster, from upstream's variables.
    pub async fn from_env() -> Result<Self, Error> {
        let optional = |name: &'static str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let required = |name| optional(name).ok_or(Error::Missing(name));
        let pod_name = required("POD_NAME")?;
        let pod_ip = required("POD_IP")?;
        let pod_ip = pod_ip
            .parse()
            .map_err(|error: std::net::AddrParseError| Error::Bad("POD_IP", pod_ip.clone(), error.to_string()))?;
        let listen = match optional("DORMOUSE_LISTEN") {
            Some(text) => text.parse().map_err(|error: std::net::AddrParseError| {
                Error::Bad("DORMOUSE_LISTEN", text.clone(), error.to_string())
            })?,
            None => SocketAddr::new(IpAddr::from([0, 0, 0, 0]), ports::AUTOSCALER),
        };
        let scrape_port = match optional("DORMOUSE_SCRAPE_PORT") {
            Some(text) => text.parse().map_err(|error: std::num::ParseIntError| {
                Error::Bad("DORMOUSE_SCRAPE_PORT", text.clone(), error.to_string())
            })?,
            None => ports::AUTOSCALING_METRICS,
        };
        let sharing = match stateful(optional("STATEFUL_CONTROLLER_ORDINAL"), optional) {
            Some(set) => Sharing::StatefulSet(set?),
            None => Sharing::Leases,
        };
        let client = kube::Client::try_default().await.map_err(|error| Error::Kube(Box::new(error)))?;
        Ok(Self {
            listen,
            system_namespace: optional("SYSTEM_NAMESPACE").unwrap_or_else(|| SYSTEM_NAMESPACE.to_owned()),
            pod_name,
            pod_ip,
            resolve_by_endpoints: false,
            scrape_port,
            sharing,
            leader_election_config: optional("CONFIG_LEADERELECTION_NAME")
                .unwrap_or_else(|| "config-leader-election".to_owned()),
            cluster_domain: optional("CLUSTER_DOMAIN").unwrap_or_else(|| "cluster.local".to_owned()),
            ..Self::local(client)
        })
    }
}

/// A StatefulSet's variables, if its ordinal is set.
fn stateful(
    ordinal: Option<String>,
    optional: impl Fn(&'static str) -> Option<String>,
) -> Option<Result<StatefulSet, Error>> {
    let ordinal = ordinal?;
    let bad = |name, text: &str, error: &dyn std::fmt::Display| Error::Bad(name, text.to_owned(), error.to_string());
    let read = || {
        let number: u8 = ordinal.parse().map_err(|error| bad("STATEFUL_CONTROLLER_ORDINAL", &ordinal, &error))?;
        let port = match optional("STATEFUL_SERVICE_PORT") {
            Some(text) => text.parse().map_err(|error| bad("STATEFUL_SERVICE_PORT", &text, &error))?,
            None => 80,
        };
        Ok(StatefulSet {
            ordinal: number,
            service: optional("STATEFUL_SERVICE_NAME").ok_or(Error::Missing("STATEFUL_SERVICE_NAME"))?,
            port,
            protocol: optional("STATEFUL_SERVICE_PROTOCOL").unwrap_or_else(|| "http".to_owned()),
        })
    };
    Some(read())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statefulset_is_known_by_its_variables() {
        let of = |ordinal: Option<&str>, service: Option<&'static str>| {
            stateful(ordinal.map(str::to_owned), move |name| {
                service.filter(|_| name == "STATEFUL_SERVICE_NAME").map(str::to_owned)
            })
        };
        assert!(of(None, Some("as")).is_none());
        let set = of(Some("2"), Some("as")).unwrap().unwrap();
        assert_eq!((set.ordinal, set.port, set.protocol.as_str()), (2, 80, "http"));
        assert!(matches!(of(Some("2"), None), Some(Err(Error::Missing("STATEFUL_SERVICE_NAME")))));
        assert!(matches!(of(Some("x"), Some("as")), Some(Err(Error::Bad("STATEFUL_CONTROLLER_ORDINAL", ..)))));
    }
}
