//! What a reconciler gets: the world to read, the writer to change it, the settings of this moment.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use api::{
    conditions::{self, READY},
    ports,
};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointSubset, Endpoints};
use kube::{Client, core::object::HasStatus};

use crate::{
    config::{Config, Gateway},
    digest::Digests,
    engine::{
        queue::Outcome,
        status::Status,
        world::{ACTIVATOR_SERVICE, Key, Known, World},
        writer::{WriteError, Writer},
    },
    metrics::Metrics,
    settings::Settings,
};

/// How long a status that only became more detailed (Ready says the same) may wait for the next change. Most
/// objects pass through several such states within milliseconds; writing each one doubles the load on the API.
const DETAIL_DELAY: Duration = Duration::from_millis(100);

/// Why a reconcile did not get through. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A write failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Something that is not ours is in the way; the condition says what.
    #[error("{0}")]
    NotOwned(String),
    /// cert-manager's objects cannot be read or written; it may not be there.
    #[error("{verb} cert-manager's certificate {name}: {source}")]
    CertManager {
        /// What was tried.
        verb: &'static str,
        /// Name of the Certificate.
        name: String,
        /// What the API server or the connection said.
        #[source]
        source: Box<kube::Error>,
    },
}

/// See the module.
pub struct Context {
    /// Reads what is not watched.
    pub client: Client,
    /// What is known.
    pub world: Arc<World>,
    /// Writes.
    pub writer: Writer,
    /// The ConfigMaps.
    pub settings: Arc<ArcSwap<Settings>>,
    /// Handles of the metrics.
    pub metrics: Metrics,
    /// Where our own gateway answers.
    pub gateway: Gateway,
    /// Image of queue-proxy where `config-deployment` names none.
    pub queue_sidecar_image: String,
    /// Asks registries which images the tags mean; none where images are not from registries.
    pub digests: Option<Arc<Digests>>,
    /// Which Ingresses wait for the gateway.
    pub probing: crate::ingress::Probing,
    details_due: Mutex<HashMap<Key, Instant>>,
}

impl Context {
    /// Puts the parts together.
    pub fn new(config: &Config, world: Arc<World>, writer: Writer, metrics: Metrics) -> Self {
        let client = config.client.clone();
        let digests = config
            .resolve_digests
            .then(|| Arc::new(Digests::new(client.clone(), Arc::clone(&world), config.authority.clone())));
        Self {
            client,
            world,
            writer,
            settings: Arc::clone(&config.settings),
            metrics,
            gateway: config.gateway.clone(),
            queue_sidecar_image: config.queue_sidecar_image.clone(),
            digests,
            probing: crate::ingress::Probing::default(),
            details_due: Mutex::default(),
        }
    }

    /// Where our own gateway answers now; none while nobody can.
    pub fn gateways(&self) -> Option<Vec<SocketAddr>> {
        match &self.gateway {
            Gateway::At(addresses) => Some(addresses.clone()),
            Gateway::Endpoints => {
                let endpoints = self.world.endpoints.get(&self.world.system_namespace, ACTIVATOR_SERVICE)?;
                let all = addresses(&endpoints);
                (!all.is_empty()).then_some(all)
            }
        }
    }

    /// Now, as conditions carry it: whole seconds.
    pub fn now() -> Timestamp {
        let now = Timestamp::now();
        Timestamp::from_second(now.as_second()).unwrap_or(now)
    }

    /// Writes the status if it differs from what `before` has; a change in detail only may wait (see
    /// [`DETAIL_DELAY`]).
    pub async fn write_status<K>(&self, key: &Key, before: &K, status: K::Status) -> Result<Outcome, ReconcileError>
    where
        K: Known + HasStatus,
        K::Status: Status + PartialEq + Default,
    {
        let empty = K::Status::default();
        let old = before.status().unwrap_or(&empty);
        if *old == status {
            self.details_due().remove(key);
            return Ok(Outcome::Settled);
        }
        if is_detail(old, &status) {
            let now = Instant::now();
            let mut due = self.details_due();
            let due = due.entry(key.clone()).or_insert(now + DETAIL_DELAY);
            if *due > now {
                return Ok(Outcome::Again(*due - now));
            }
        }
        self.details_due().remove(key);
        self.write_status_now(before, status).await
    }

    /// Writes the status if it differs, at once.
    pub async fn write_status_now<K>(&self, before: &K, status: K::Status) -> Result<Outcome, ReconcileError>
    where
        K: Known + HasStatus,
        K::Status: PartialEq,
    {
        if before.status() == Some(&status) {
            return Ok(Outcome::Settled);
        }
        let mut object = before.clone();
        *object.status_mut() = Some(status);
        self.writer.replace_status(&object).await?;
        Ok(Outcome::Settled)
    }

    /// The object is gone: nothing of it is waited for.
    pub fn forget(&self, key: &Key) {
        self.details_due().remove(key);
        if let Some(digests) = &self.digests {
            digests.forget(key);
        }
    }

    fn details_due(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Instant>> {
        self.details_due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Addresses that are ready, each with the port that is named `http`.
fn addresses(endpoints: &Endpoints) -> Vec<SocketAddr> {
    let of_subset = |subset: &EndpointSubset| -> Vec<SocketAddr> {
        let port = subset.ports.iter().flatten().find(|port| port.name.as_deref() == Some(ports::NAME_HTTP1));
        let Some(port) = port.and_then(|port| u16::try_from(port.port).ok()) else { return Vec::new() };
        let ips = subset.addresses.iter().flatten().filter_map(|address| address.ip.parse::<IpAddr>().ok());
        ips.map(|ip| SocketAddr::new(ip, port)).collect()
    };
    endpoints.subsets.iter().flatten().flat_map(of_subset).collect()
}

/// Ready says the same before and after: Unknown (or nothing yet), or a settled word on the same generation.
fn is_detail<S: Status>(old: &S, new: &S) -> bool {
    let ready = |s: &S| conditions::get(s.conditions(), READY).map_or("Unknown", |c| c.status.as_str()).to_owned();
    let (before, after) = (ready(old), ready(new));
    before == after && (after == "Unknown" || old.generation() == new.generation())
}

#[cfg(test)]
mod tests {
    use api::serving::RevisionStatus;
    use serde_json::json;

    use super::*;

    #[test]
    fn gateways_are_the_ready_addresses_of_their_endpoints() {
        let endpoints: Endpoints = serde_json::from_value(json!({ "subsets": [
            { "addresses": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }], "notReadyAddresses": [{ "ip": "10.0.0.2" }],
              "ports": [{ "name": "http-metrics", "port": 9090 }, { "name": "http", "port": 8081 }] },
            { "addresses": [{ "ip": "10.0.0.3" }], "ports": [{ "name": "other", "port": 1 }] },
        ] }))
        .unwrap();
        let got: Vec<String> = addresses(&endpoints).iter().map(ToString::to_string).collect();
        assert_eq!(got, ["10.0.0.1:8081", "[fd00::1]:8081"]);
        assert!(addresses(&Endpoints::default()).is_empty());
    }

    #[test]
    fn only_what_ready_does_not_show_may_wait() {
        let status = |ready: Option<&str>, generation: i64| -> RevisionStatus {
            let conditions: Vec<_> = ready.map(|r| json!({"type": "Ready", "status": r})).into_iter().collect();
            serde_json::from_value(json!({"observedGeneration": generation, "conditions": conditions})).unwrap()
        };
        let cases = [
            (status(None, 0), status(Some("Unknown"), 1), true),
            (status(Some("Unknown"), 1), status(Some("Unknown"), 2), true),
            (status(Some("Unknown"), 1), status(Some("True"), 1), false),
            (status(Some("True"), 1), status(Some("False"), 1), false),
            (status(Some("True"), 1), status(Some("True"), 1), true),
            (status(Some("True"), 1), status(Some("True"), 2), false),
        ];
        for (old, new, want) in cases {
            assert_eq!(is_detail(&old, &new), want, "{old:?} {new:?}");
        }
    }
}
