//! The node: a kubelet in small, which runs each container of a pod as a process.
//!
//! It watches the pods bound to it; [`pod`] runs each as a task of its own. In the order in which things happen to a pod:
//!
//! - [`addresses`]: it gets a loopback address of its own, and its user containers real ports;
//! - [`plan`]: its spec is read once, with defaults, into what the rest works on;
//! - [`write`]: its first status (with the address) goes to the API while
//! - [`images`], [`env`], [`start`]: its containers become programs with environments, and start;
//! - [`machine`] with [`health`] and [`backoff`]: decides everything from here to the end, purely; [`status`] words it;
//! - [`check`]: asks what probes and hooks ask.
//!
//! Processes belong to the [`Keeper`], so that none survives this one. Not here: making pods (`cluster`), volumes, cgroups,
//! users: a process sees this machine.

mod addresses;
mod backoff;
mod check;
mod env;
mod health;
pub mod images;
mod machine;
mod plan;
mod pod;
mod register;
mod start;
mod status;
mod write;

use std::{
    collections::{HashMap, HashSet},
    io,
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use addresses::{Addresses, Ports};
use api::timeline::Observer;
use futures::StreamExt as _;
use images::{ImageMap, Mapping};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt as _, watcher},
};
use pod::Order;
use tokio::{
    sync::mpsc,
    task::{Id, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::keeper::{Ended, Keeper};

/// Name of the one node.
pub const NAME: &str = "dormouse";
/// How much longer than its pods' grace a node waits for them.
const SLACK: Duration = Duration::from_secs(2);
const KEEPER_PATIENCE: Duration = Duration::from_secs(12);

/// What a node needs.
pub struct Config {
    /// Where the pods are.
    pub client: Client,
    /// Where logs and working directories go: `DATA_DIR/pods`.
    pub data_dir: PathBuf,
    /// `--image` mappings, in order.
    pub images: Vec<Mapping>,
    /// The `dormouse` executable: runs the keeper and the built-in images.
    pub exe: PathBuf,
    /// The image name that means our own queue-proxy.
    pub queue_image: String,
    /// Hears when pods are taken and started.
    pub observer: Observer,
    /// How long queue-proxy waits for stray requests when it drains: short, as the activator stops sending at once.
    pub drain_quiet_ms: u64,
    /// Grace for every process when the node stops.
    pub shutdown_grace: Duration,
}

impl Config {
    /// The values that `dormouse up` uses; the rest has defaults that fit it.
    pub fn new(client: Client, data_dir: PathBuf, exe: PathBuf) -> Self {
        Self {
            client,
            data_dir,
            images: Vec::new(),
            exe,
            queue_image: "dormouse.dev/queue-proxy".to_owned(),
            observer: Observer::default(),
            drain_quiet_ms: 100,
            shutdown_grace: Duration::from_secs(5),
        }
    }
}

/// Why a node cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error("data directory {path}: {source}")]
    DataDir {
        /// Which folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The keeper process does not start.
    #[error("keeper process {exe}: {source}")]
    Keeper {
        /// The executable.
        exe: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No range of loopback addresses is free.
    #[error("no loopback range 127.x.0.0/16 is free: {0}")]
    Addresses(io::Error),
    /// The keeper ended while it was needed; every container ended with it.
    #[error("the keeper process has ended; every container ended with it")]
    KeeperGone,
}

/// What every pod's task uses.
struct Shared {
    client: Client,
    keeper: Keeper,
    data_dir: PathBuf,
    images: ImageMap,
    observer: Observer,
    drain_quiet_ms: u64,
    addresses: Mutex<Addresses>,
    ports: Mutex<Ports>,
}

/// A node that is ready to run.
pub struct Node {
    shared: Shared,
    keeper_ended: Ended,
    shutdown_grace: Duration,
}

impl Node {
    /// Takes an address range, clears what an earlier run left on disk, starts the keeper.
    pub async fn bind(config: Config) -> Result<Self, Error> {
        let Config { client, data_dir, images, exe, queue_image, observer, drain_quiet_ms, shutdown_grace } = config;
        let data_dir = std::path::absolute(&data_dir).unwrap_or(data_dir);
        let pods = data_dir.join("pods");
        // Logs and folders of pods whose processes are long gone.
        match tokio::fs::remove_dir_all(&pods).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::DataDir { path: pods, source: error });
            }
            _ => {}
        }
        tokio::fs::create_dir_all(&pods).await.map_err(|source| Error::DataDir { path: pods, source })?;
        let addresses = Addresses::claim().map_err(Error::Addresses)?;
        let (keeper, keeper_ended) =
            Keeper::start(&exe).map_err(|source| Error::Keeper { exe: exe.clone(), source })?;
        let base = std::env::current_dir().unwrap_or_else(|_| data_dir.clone());
        let images = ImageMap::new(images, exe, queue_image, base);
        let (addresses, ports) = (Mutex::new(addresses), Mutex::default());
        let shared = Shared { client, keeper, data_dir, images, observer, drain_quiet_ms, addresses, ports };
        Ok(Self { shared, keeper_ended, shutdown_grace })
    }

    /// Runs pods until cancelled; then stops every process. The objects stay in the API.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self { shared, mut keeper_ended, shutdown_grace } = self;
        let client = shared.client.clone();
        let mut pods =
            Pods { shared: Arc::new(shared), orders: HashMap::new(), tasks: JoinSet::new(), uids: HashMap::new() };
        let mut heartbeat = JoinSet::new();
        heartbeat.spawn(register::heartbeat(client.clone(), NAME.to_owned()));
        let mut events = pin!(watcher(Api::<Pod>::all(client), watcher::Config::default()).default_backoff());
        let mut listed: HashSet<String> = HashSet::new();
        let result = loop {
            tokio::select! {
                () = shutdown.cancelled() => break Ok(()),
                () = keeper_ended.wait() => break Err(Error::KeeperGone),
                Some(ended) = pods.tasks.join_next_with_id() => pods.forget(ended.map_or_else(|e| e.id(), |(id, ())| id)),
                event = events.next() => match event {
                    Some(Ok(watcher::Event::Apply(pod))) => pods.seen(pod),
                    Some(Ok(watcher::Event::Delete(pod))) => pods.gone(&pod.metadata.uid.unwrap_or_default()),
                    Some(Ok(watcher::Event::Init)) => listed.clear(),
                    Some(Ok(watcher::Event::InitApply(pod))) => {
                        listed.extend(pod.metadata.uid.clone());
                        pods.seen(pod);
                    }
                    Some(Ok(watcher::Event::InitDone)) => {
                        let unlisted: Vec<String> =
                            pods.orders.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
                        for uid in unlisted {
                            pods.gone(&uid);
                        }
                        listed = HashSet::new();
                    }
                    Some(Err(error)) => tracing::warn!(%error, "watch of pods failed"),
                    None => break Ok(()),
                },
            }
        };
        heartbeat.shutdown().await;
        for order in pods.orders.values() {
            let _ = order.send(Order::Shutdown(shutdown_grace));
        }
        let all = async { while pods.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(shutdown_grace + SLACK, all).await.is_err() {
            pods.tasks.shutdown().await;
        }
        // The keeper kills what is left, and ends.
        pods.shared.keeper.close();
        if result.is_ok() && tokio::time::timeout(KEEPER_PATIENCE, keeper_ended.wait()).await.is_err() {
            tracing::error!("the keeper process does not end");
        }
        result
    }
}

/// The pods of this node, each with the channel to its task.
struct Pods {
    shared: Arc<Shared>,
    orders: HashMap<String, mpsc::UnboundedSender<Order>>,
    tasks: JoinSet<()>,
    uids: HashMap<Id, String>,
}

/// What to do with a pod that this run has not started.
#[derive(Debug, PartialEq, Eq)]
enum Unknown {
    Start,
    Remove,
    Ignore,
}

/// Pods of an earlier run have lost their processes. Those that somebody makes again are removed; a bare one is
/// started again in place. Pure.
fn unknown(pod: &Pod) -> Unknown {
    let meta = &pod.metadata;
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    if meta.deletion_timestamp.is_some() {
        return Unknown::Remove;
    }
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return Unknown::Ignore;
    }
    let ran_before = status.is_some_and(|status| status.pod_ip.is_some());
    let owned = meta.owner_references.iter().flatten().any(|owner| owner.controller == Some(true));
    if ran_before && owned { Unknown::Remove } else { Unknown::Start }
}

impl Pods {
    fn seen(&mut self, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        if pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) != Some(NAME) {
            return;
        }
        if let Some(orders) = self.orders.get(&uid) {
            let _ = orders.send(Order::Update(Arc::new(pod)));
            return;
        }
        let task = match unknown(&pod) {
            Unknown::Ignore => return,
            Unknown::Start => {
                let (orders, inbox) = mpsc::unbounded_channel();
                self.orders.insert(uid.clone(), orders);
                self.tasks.spawn(pod::live(Arc::clone(&self.shared), Arc::new(pod), inbox))
            }
            Unknown::Remove => {
                let name = pod.metadata.name.unwrap_or_default();
                let namespace = pod.metadata.namespace.unwrap_or_default();
                tracing::info!(pod = name, namespace, "pod of an earlier run removed");
                let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), &namespace);
                let removed = uid.clone();
                self.tasks.spawn(async move { write::remove(&api, &name, &removed).await })
            }
        };
        self.uids.insert(task.id(), uid);
    }

    fn gone(&mut self, uid: &str) {
        if let Some(orders) = self.orders.get(uid) {
            let _ = orders.send(Order::Gone);
        }
    }

    fn forget(&mut self, task: Id) {
        if let Some(uid) = self.uids.remove(&task) {
            self.orders.remove(&uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_of_an_earlier_run() {
        let owner =
            json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "u", "controller": true}]);
        for (what, pod, wanted) in [
            ("new", json!({"metadata": {"ownerReferences": owner}}), Unknown::Start),
            (
                "stale",
                json!({"metadata": {"ownerReferences": owner}, "status": {"podIP": "127.1.0.2"}}),
                Unknown::Remove,
            ),
            ("bare", json!({"metadata": {}, "status": {"podIP": "127.1.0.2"}}), Unknown::Start),
            ("done", json!({"metadata": {}, "status": {"phase": "Succeeded"}}), Unknown::Ignore),
            ("deleted", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), Unknown::Remove),
        ] {
            assert_eq!(unknown(&serde_json::from_value(pod).unwrap()), wanted, "{what}");
        }
    }
}
