//! `held`: very many requests that wait for one sleeping revision: their memory, the bound of the line, those that
//! leave it, and its order once a pod comes.
//!
//! The activator is the shipped one, on a core of its own; all else is simulated on the other. HTTP/1.1 waits on a
//! connection a request, h2c on streams. HAProxy holds its own in front of a server that is busy, for comparison.

mod http1;
mod peer;
mod streams;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::{
    runtime::{Builder, LocalOptions},
    task::JoinSet,
    time::sleep,
};

use crate::{
    cluster::{self, Revision},
    cores::{self, Cores},
    load::http1::Client,
    peers::{Door, Kind, Peer, Protocol, Running, door::pod},
    pods::{self, Manner},
    report::{Report, Subject},
    system,
};

/// Longest time anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// What a process gets before its memory is read.
const SETTLE: Duration = Duration::from_millis(500);
/// One of so many clients leaves before its pod comes.
const LEAVES: usize = 10;

/// What the parts share.
struct Bench {
    program: PathBuf,
    cores: Cores,
    pods: pods::Pods,
    metrics: BTreeMap<usize, (String, f64)>,
}

/// How many requests wait.
struct Extent {
    /// Over HTTP/1.1 for pods that take one at a time: a socket here and one in the activator.
    connections: usize,
    /// The same for a pod without a limit, which needs a connection for each of them as well.
    unlimited: usize,
    /// Over h2c.
    streams: usize,
}

impl Extent {
    fn new(quick: bool, files: usize) -> Self {
        let most = |wanted: usize| if quick { wanted / 20 } else { wanted };
        Self {
            connections: most(19_000).min(files.saturating_sub(500)),
            unlimited: most(9_000).min(files.saturating_sub(1_000) / 2),
            streams: most(50_000),
        }
    }
}

pub(crate) fn run(quick: bool) -> anyhow::Result<Report> {
    let program = system::build_shipped("activator", "activator")?;
    let extent = Extent::new(quick, cores::raise_file_limit() as usize);
    let cores = Cores::take()?;
    let mut notes = vec![
        format!("HTTP/1.1: {} (limit 1), {} (no limit); h2c: {}", extent.connections, extent.unlimited, extent.streams),
        "upstream, as measured elsewhere: 37 KB a request over HTTP/1.1, 24 KB a stream".to_owned(),
    ];
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let (ours, haproxy) = runtime.block_on(async {
        let mut bench = Bench { program, cores, pods: pods::Pods::start()?, metrics: BTreeMap::new() };
        bench.connections("", 1, extent.connections).await.context("HTTP/1.1, one at a time")?;
        bench.connections("unlimited_", 0, extent.unlimited).await.context("HTTP/1.1, no limit")?;
        bench.streams("h2_", 1, extent.streams).await.context("h2c, one at a time")?;
        bench.streams("h2_unlimited_", 0, extent.streams).await.context("h2c, no limit")?;
        let haproxy = match Peer::installed(Kind::HoldingHaproxy, "haproxy") {
            Some(peer) => bench.haproxy(&peer, extent.unlimited).await.map(Some).context("haproxy")?,
            None => None,
        };
        anyhow::Ok((bench.metrics, haproxy))
    })?;
    let mut subjects = vec![Subject { name: "dormouse", metrics: ours.into_values().collect() }];
    match haproxy {
        Some(kib) => {
            subjects.push(Subject { name: "haproxy", metrics: vec![("rss_per_request_kib".to_owned(), kib)] });
            notes.push(format!("haproxy: {} requests in the queue of a server with maxconn 1", extent.unlimited));
        }
        None => notes.push("haproxy: not installed, left out".to_owned()),
    }
    Ok(Report { bench: "held", subjects, notes, plots: Vec::new(), passes: &[] })
}

/// The revision that sleeps.
const SLEEPING: usize = 1;

/// A line of requests at an activator that runs.
struct Line {
    running: Running,
    revision: Revision,
}

impl Bench {
    /// An activator with a revision that sleeps and takes `limit` requests a pod, and whose line holds so many.
    async fn start(&self, limit: u32, most: usize) -> anyhow::Result<Line> {
        let (revisions, routed) = (SLEEPING + 1, SLEEPING + 1);
        let door = Door { limit, metrics: true, queue_limit: most, revisions, routed, ..Door::PLAIN };
        let app = self.pods.target();
        let peer = Peer::built(Kind::Door(door), &self.program);
        let running = peer.start(app, Protocol::Http1, 0, self.cores).await?;
        self.pods.take_arrivals();
        let revision = Revision { nth: SLEEPING, limit, protocol: Protocol::Http1 };
        sleep(SETTLE).await;
        Ok(Line { running, revision })
    }

    /// A pod comes.
    fn wake(&self, line: &Line) -> anyhow::Result<()> {
        let ip = pod(SLEEPING);
        self.pods.place(ip, Manner::Ready);
        let cluster = line.running.cluster.as_ref().context("no cluster")?;
        cluster.pods(line.revision, cluster::Pods { ready: &[], not_ready: &[ip], port: self.pods.port });
        Ok(())
    }

    /// Every id that should have come to the pod has, once; says how many came after one that was sent later.
    fn out_of_order(&self, stayed: impl Fn(u32) -> bool, sent: u32) -> anyhow::Result<usize> {
        let arrivals = self.pods.take_arrivals();
        let mut sorted = arrivals.clone();
        sorted.sort_unstable();
        if sorted != (0..sent).filter(|id| stayed(*id)).collect::<Vec<_>>() {
            bail!("{} requests came to the pod, and not each of those that waited once", arrivals.len());
        }
        let mut latest = 0;
        let mut late = 0;
        for id in arrivals {
            late += usize::from(id < latest);
            latest = latest.max(id);
        }
        Ok(late)
    }

    /// Brings a pod, sees that each request that stayed is answered, and notes how long all of them took and their order.
    /// `stayed` says of which of the `sent` that is wanted.
    async fn answer_all(
        &mut self,
        prefix: &str,
        line: &Line,
        mut waiting: JoinSet<anyhow::Result<()>>,
        stayed: impl Fn(u32) -> bool,
        sent: u32,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        self.wake(line)?;
        let all = async {
            while let Some(answered) = waiting.join_next().await {
                answered??;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, all).await??;
        let seconds = begun.elapsed().as_secs_f64();
        let out_of_order = self.out_of_order(stayed, sent)?;
        self.add(format!("{prefix}answer_all_seconds"), seconds);
        self.add(format!("{prefix}out_of_order"), out_of_order as f64);
        Ok(())
    }

    fn add(&mut self, name: String, value: f64) {
        self.metrics.insert(self.metrics.len(), (name, value));
    }
}

impl Line {
    /// Waits until this many wait, by the activator's own metrics, and says how long that took.
    async fn until_waiting(&self, n: usize) -> anyhow::Result<Duration> {
        let begun = tokio::time::Instant::now();
        let name = self.revision.name();
        loop {
            let waiting = self.waiting(&name).await?;
            if waiting == n {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > PATIENCE {
                bail!("{waiting} wait and not {n}");
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    async fn waiting(&self, revision: &str) -> anyhow::Result<usize> {
        let page = crate::load::Target {
            address: SocketAddr::new(self.running.target.address.ip(), 9090),
            namespace: self.running.target.namespace.clone(),
        };
        let (_, page) = Client::open(&page).await?.page("/metrics", "metrics").await?;
        let line = page
            .lines()
            .find(|line| line.starts_with("kn_revision_request_queued{") && line.contains(revision))
            .and_then(|line| line.rsplit_once(' '));
        Ok(line.and_then(|(_, value)| value.parse().ok()).unwrap_or(0))
    }
}

/// What one more than the line holds must be told: `503`, and when to come again.
fn is_refused(status: u16, retry_after: bool) -> anyhow::Result<()> {
    if status != 503 || !retry_after {
        bail!("one more than the line holds was answered {status}, Retry-After: {retry_after}");
    }
    Ok(())
}
