//! The smallest cluster an activator can live in: an API server with the objects of a test, and an autoscaler that
//! listens and decides nothing.
//!
//! Not an API server for anybody else: it lists and watches three kinds, knows nothing of selectors, and everything it
//! is not told about is an empty list. What happens in the cluster is what a bench says ([`Cluster::pods`]).

mod api_server;
mod autoscaler;
mod objects;

use std::{fs, io, net::SocketAddr, path::Path};

use api_server::ApiServer;
use autoscaler::Autoscaler;
pub(crate) use objects::{Pods, Revision};

/// See the module. Within a runtime only; gone when dropped.
pub(crate) struct Cluster {
    api_server: ApiServer,
    autoscaler: Autoscaler,
}

/// What a client of an API server reads to find it.
pub(crate) fn write_kubeconfig(path: &Path, server: SocketAddr) -> io::Result<()> {
    let server = format!("http://{server}");
    let named = |key: &str, value: serde_json::Value| serde_json::json!([{ "name": "bench", key: value }]);
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": named("cluster", serde_json::json!({ "server": server })),
        "users": named("user", serde_json::json!({})),
        "contexts": named("context", serde_json::json!({ "cluster": "bench", "user": "bench" })),
    });
    fs::write(path, config.to_string())
}

impl Cluster {
    /// An empty cluster on free ports of loopback.
    pub(crate) fn start() -> io::Result<Self> {
        Ok(Self { api_server: ApiServer::start()?, autoscaler: Autoscaler::start()? })
    }

    /// Whoever starts from now on has a Prometheus page.
    pub(crate) fn want_metrics(&self) {
        self.api_server.apply(objects::CONFIG_MAPS, "config-observability", objects::observability());
    }

    /// A revision that exists from now on.
    pub(crate) fn revision(&self, revision: Revision) {
        self.api_server.apply(objects::REVISIONS, &revision.name(), objects::revision(revision));
    }

    /// The gateway leads the revision's [`host`] to it.
    pub(crate) fn route(&self, revision: Revision) {
        self.api_server.apply(objects::INGRESSES, &revision.name(), objects::ingress(revision));
    }

    /// From now on these are the revision's pods.
    pub(crate) fn pods(&self, revision: Revision, pods: Pods<'_>) {
        self.api_server.apply(objects::ENDPOINTS, &revision.name(), objects::endpoints(revision, pods));
    }

    /// An object of any kind, by the path of its list in all namespaces.
    pub(crate) fn object(&self, list: &str, name: &str, object: serde_json::Value) {
        self.api_server.apply(list, name, object);
    }

    /// Paths of what was written since they were taken last, and when.
    pub(crate) fn take_writes(&self) -> Vec<(std::time::Instant, String)> {
        self.api_server.take_writes()
    }

    /// Waits for the next write.
    pub(crate) async fn written(&self) {
        self.api_server.written().await;
    }

    /// What a client of the API server reads to find it.
    pub(crate) fn write_kubeconfig(&self, path: &Path) -> io::Result<()> {
        write_kubeconfig(path, self.api_server.address)
    }

    /// Waits until a load report has named this revision.
    pub(crate) async fn hears_of(&self, revision: Revision) {
        self.autoscaler.hears_of(&revision.name()).await;
    }

    /// Waits until load reports have named so many revisions.
    pub(crate) async fn hears_of_all(&self, revisions: usize) {
        self.autoscaler.hears_of_all(revisions).await;
    }

    /// Where the autoscaler takes load reports.
    pub(crate) fn autoscaler(&self) -> SocketAddr {
        self.autoscaler.address
    }
}
