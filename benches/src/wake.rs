//! `wake`: from "the pod can serve" to the request's first byte at the pod; 10,000 revisions at once; memory of those
//! that sleep.
//!
//! The activator is the shipped one, on a core of its own; API server, autoscaler, pods and clients are simulated on
//! the other ([`crate::cluster`], [`crate::pods`]). Nothing in the time that is measured waits for them but one turn of
//! their event loop.

mod idle;
mod one;
mod storm;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::Context;
use tokio::runtime::{Builder, LocalOptions};

use crate::{
    cluster::Cluster,
    cores::{self, Cores},
    peers::{Door, Kind, Peer, Protocol, Running},
    pods::Pods,
    report::{Report, Subject},
    system,
};

/// Longest time anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the parts share.
struct Bench {
    program: PathBuf,
    cores: Cores,
    pods: Pods,
    metrics: BTreeMap<usize, (String, f64)>,
}

/// How much of it.
struct Extent {
    wakes: usize,
    storm: usize,
    idle: usize,
}

pub(crate) fn run(quick: bool) -> anyhow::Result<Report> {
    let program = system::build_shipped("activator", "activator")?;
    let files = cores::raise_file_limit() as usize;
    let cores = Cores::take()?;
    let mut extent = if quick {
        Extent { wakes: 40, storm: 1_000, idle: 10_000 }
    } else {
        Extent { wakes: 300, storm: 10_000, idle: 100_000 }
    };
    // Each waiting request is a socket here and one in the activator; pods and probes need theirs beside them.
    extent.storm = extent.storm.min(files / 2);
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let metrics = runtime.block_on(async {
        let mut bench = Bench { program, cores, pods: Pods::start()?, metrics: BTreeMap::new() };
        bench.one_by_one(extent.wakes).await.context("one by one")?;
        bench.storm(extent.storm).await.context("storm")?;
        bench.idle(extent.idle).await.context("idle revisions")?;
        anyhow::Ok(bench.metrics)
    })?;
    let subject = Subject { name: "dormouse", metrics: metrics.into_values().collect() };
    let notes = vec![format!("{} wake-ups of each kind, {} at once, {} idle", extent.wakes, extent.storm, extent.idle)];
    Ok(Report { bench: "wake", subjects: vec![subject], notes, plots: Vec::new(), passes: &[] })
}

impl Bench {
    /// An activator that knows so many revisions; the first has a pod, which has answered.
    async fn start(&self, door: Door) -> anyhow::Result<Running> {
        let app = self.pods.target();
        Peer::built(Kind::Door(door), &self.program).start(app, Protocol::Http1, 0, self.cores).await
    }

    fn add(&mut self, name: impl Into<String>, value: f64) {
        self.metrics.insert(self.metrics.len(), (name.into(), value));
    }
}

/// The cluster of an activator.
fn cluster(running: &Running) -> anyhow::Result<&Cluster> {
    running.cluster.as_ref().context("no cluster")
}

async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, future).await.with_context(|| format!("never happened: {what}"))
}
