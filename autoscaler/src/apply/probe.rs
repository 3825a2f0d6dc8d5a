//! Is an activator in the path? Asked through the revision's public Service before its last pod goes (upstream
//! `pkg/reconciler/autoscaling/kpa/scaler.go`).

use std::{net::SocketAddr, time::Duration};

use api::{
    headers,
    names::service_host,
    ports,
    probe::{ACTIVATOR, AUTOSCALING_USER_AGENT, PATH},
};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use k8s_openapi::api::core::v1::Endpoints;
use kube::{Api, Client};

use crate::{collect::http as client, decider::ProbeTarget, key::Key};

/// How the public Service is found.
#[derive(Debug, Clone)]
pub enum Resolve {
    /// By its Endpoints object, where there is no cluster DNS.
    Endpoints,
    /// By cluster DNS under this domain.
    Dns(String),
}

/// Between two tries.
const PERIOD: Duration = Duration::from_secs(1);
/// In all.
const PATIENCE: Duration = Duration::from_secs(45);
/// One try.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Probes.
#[derive(Clone)]
pub struct Prober {
    client: Client,
    resolve: Resolve,
}

impl Prober {
    /// Probes Services found as `resolve` says.
    pub fn new(client: Client, resolve: Resolve) -> Self {
        Self { client, resolve }
    }

    /// Tries every second until an activator answers, for 45 seconds at most.
    pub async fn until_activator(&self, key: &Key, target: &ProbeTarget) -> bool {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if self.once(key, target).await {
                return true;
            }
            if tokio::time::Instant::now() + PERIOD > deadline {
                tracing::warn!(revision = %key, "no activator answers through the revision's Service");
                return false;
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    async fn once(&self, key: &Key, target: &ProbeTarget) -> bool {
        let domain = match &self.resolve {
            Resolve::Endpoints => "cluster.local",
            Resolve::Dns(domain) => domain,
        };
        let host = service_host(&target.service, key.namespace(), domain);
        for address in self.addresses(key, target, &host).await {
            match tokio::time::timeout(TIMEOUT, ask(address, &host)).await {
                Ok(Ok(true)) => return true,
                other => tracing::debug!(revision = %key, %address, ?other, "no activator in the path"),
            }
        }
        false
    }

    async fn addresses(&self, key: &Key, target: &ProbeTarget, host: &str) -> Vec<SocketAddr> {
        match &self.resolve {
            Resolve::Dns(_) => {
                // The ports of the public Service: 80 for HTTP/1, 81 for h2c.
                let port = if target.h2c { 81 } else { 80 };
                tokio::net::lookup_host((host, port)).await.map(Iterator::collect).unwrap_or_default()
            }
            Resolve::Endpoints => {
                let api: Api<Endpoints> = Api::namespaced(self.client.clone(), key.namespace());
                match api.get_opt(&target.service).await {
                    Ok(endpoints) => endpoints.map(|e| addresses(&e, target.h2c)).unwrap_or_default(),
                    Err(error) => {
                        tracing::debug!(revision = %key, %error, "cannot read endpoints");
                        Vec::new()
                    }
                }
            }
        }
    }
}

/// Ready addresses with the data port.
fn addresses(endpoints: &Endpoints, h2c: bool) -> Vec<SocketAddr> {
    let wanted = if h2c { ports::NAME_H2C } else { ports::NAME_HTTP1 };
    let mut found = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let all = subset.ports.as_deref().unwrap_or_default();
        let named = all.iter().find(|p| p.name.as_deref() == Some(wanted)).or(all.first());
        let Some(port) = named.and_then(|p| u16::try_from(p.port).ok()) else { continue };
        let ips = subset.addresses.iter().flatten().filter_map(|a| a.ip.parse().ok());
        found.extend(ips.map(|ip| SocketAddr::new(ip, port)));
    }
    found
}

/// One probe on a connection of its own: a kept one would stick to the old backend.
async fn ask(address: SocketAddr, host: &str) -> Result<bool, client::Error> {
    let mut connection = client::connect(address).await?;
    let request = Request::get(PATH)
        .header(header::HOST, host)
        .header(header::USER_AGENT, AUTOSCALING_USER_AGENT)
        .header(headers::NETWORK_PROBE, ACTIVATOR)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let Ok(request) = request else { return Ok(false) };
    let response = client::exchange(&mut connection, request, 1024, TIMEOUT).await?;
    Ok(response.status() == StatusCode::OK && response.body().as_ref() == ACTIVATOR.as_bytes())
}
