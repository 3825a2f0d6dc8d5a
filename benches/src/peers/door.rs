//! Our activator as a gateway, with a cluster of its own that is told what a bench wants it to see.

use std::{io, net::Ipv4Addr, process::Command};

use super::Plan;
use crate::cluster::{Cluster, Pods, Revision};

/// What sets one activator apart from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Door {
    /// `containerConcurrency` of all revisions.
    pub(crate) limit: u32,
    /// Whether answers carry `Server-Timing`.
    pub(crate) server_timing: bool,
    /// Whether it has a Prometheus page.
    pub(crate) metrics: bool,
    pub(crate) threads: usize,
    /// Requests that may wait for one revision.
    pub(crate) queue_limit: usize,
    /// Revisions that there are.
    pub(crate) revisions: usize,
    /// How many of them have a host; the first has the one that all subjects are asked for.
    pub(crate) routed: usize,
    /// How many of them have a pod: the first has the app itself, each other an address of its own on the app's port.
    pub(crate) awake: usize,
}

impl Door {
    /// One thread, one revision without a limit.
    pub(crate) const PLAIN: Self = Self {
        limit: 0,
        server_timing: false,
        metrics: false,
        threads: 1,
        queue_limit: 10_000,
        revisions: 1,
        routed: 1,
        awake: 1,
    };

    /// Its cluster.
    pub(super) fn cluster(self, plan: &Plan<'_>) -> io::Result<Cluster> {
        let cluster = Cluster::start()?;
        if self.metrics {
            cluster.want_metrics();
        }
        for nth in 0..self.revisions {
            let revision = Revision { nth, limit: self.limit, protocol: plan.protocol };
            cluster.revision(revision);
            if nth < self.routed {
                cluster.route(revision);
            }
            if nth < self.awake {
                let pod = if nth == 0 { first_pod(plan) } else { pod(nth) };
                cluster.pods(revision, Pods { ready: &[pod], not_ready: &[], port: plan.backend.port() });
            }
        }
        Ok(cluster)
    }
}

fn first_pod(plan: &Plan<'_>) -> Ipv4Addr {
    match plan.backend {
        std::net::SocketAddr::V4(address) => *address.ip(),
        std::net::SocketAddr::V6(_) => Ipv4Addr::LOCALHOST,
    }
}

/// The address of the `nth` pod of a bench, away from those that programs under test get.
pub(crate) fn pod(nth: usize) -> Ipv4Addr {
    let [_, a, b, c] = (nth as u32 + 1).to_be_bytes();
    Ipv4Addr::new(127, 64 + a, b, c)
}

pub(super) fn prepare(command: &mut Command, plan: &Plan<'_>, door: Door, cluster: &Cluster) -> io::Result<()> {
    let kubeconfig = plan.folder.join("kubeconfig");
    cluster.write_kubeconfig(&kubeconfig)?;
    let ip = plan.listen.ip().to_string();
    command.env_clear();
    command.env("KUBECONFIG", kubeconfig);
    for (name, value) in [
        ("POD_NAME", "activator-bench"),
        ("POD_IP", &ip),
        ("SYSTEM_NAMESPACE", "knative-serving"),
        ("CLUSTER_DOMAIN", "cluster.local"),
        ("DORMOUSE_ROUTING", "gateway"),
        ("DORMOUSE_LISTEN_IP", &ip),
        ("DORMOUSE_DATA_THREADS", &door.threads.to_string()),
        ("DORMOUSE_QUEUE_LIMIT", &door.queue_limit.to_string()),
        ("DORMOUSE_AUTOSCALER_URL", &format!("ws://{}", cluster.autoscaler())),
        ("DORMOUSE_SERVER_TIMING", if door.server_timing { "true" } else { "false" }),
    ] {
        command.env(name, value);
    }
    Ok(())
}
