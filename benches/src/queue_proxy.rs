//! `queue-proxy`: what the sidecar costs, beside other proxies that could stand in its place.
//!
//! Load and backend share the first core, the proxy under test has the second; all subjects take turns in each round,
//! so that the machine's moods hit all alike, and each figure is the median of its rounds. `direct` is no proxy at all,
//! `relay` copies bytes without reading them; between these two and the others lies what HTTP costs.

mod entry;
mod extent;
mod table;

use std::net::SocketAddr;

use anyhow::bail;
use clap::ValueEnum;
use entry::Entry;
use extent::Extent;

use tokio::{
    runtime::{Builder, LocalOptions},
    time::sleep,
};

use crate::{
    backend,
    cores::{self, Cores},
    load::{self, Request},
    peers::{Kind, Peer, Running},
    report::{Report, quantile},
    system,
};

/// Kept-alive connections of the closed loop and of the fixed rate.
const CONNECTIONS: usize = 64;
/// Connections that carry 1 MiB bodies.
const BODY_CONNECTIONS: usize = 4;
/// Requests a second at which latency is read.
const RATE: u32 = 1000;
/// Requests that the backend holds, for memory in flight.
const IN_FLIGHT: usize = 500;
/// Everything the steps share.
struct Bench {
    extent: Extent,
    backend: SocketAddr,
    cores: Cores,
}

/// What to measure; every run starts each subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// CPU, rate and latency of small requests.
    Load,
    /// 1 MiB bodies, both ways.
    Bodies,
    /// Memory of requests in flight.
    InFlight,
    /// Memory of idle connections.
    Idle,
}

/// `only` names subjects and further passes, `steps` says what to measure; empty is all.
pub(crate) fn run(quick: bool, only: &[String], steps: &[Step]) -> anyhow::Result<Report> {
    let ours = system::build_binary("queue-proxy", "queue-proxy")?;
    let mut notes = Vec::new();
    let mut entries = vec![
        Entry::new("dormouse", "", Some(Peer::ours(Kind::Sidecar, &ours))),
        Entry::new("dormouse", "full_", Some(Peer::ours(Kind::FullSidecar, &ours))),
        Entry::new("direct", "", None),
        Entry::new("relay", "", Some(Peer::relay()?)),
    ];
    for (kind, name) in [(Kind::Haproxy, "haproxy"), (Kind::Nginx, "nginx"), (Kind::Envoy, "envoy")] {
        if !(only.is_empty() || only.iter().any(|word| word == name)) {
            continue;
        }
        match Peer::installed(kind, name) {
            Some(peer) => {
                notes.push(format!("{name}: {}", peer.version().unwrap_or_else(|| "unknown version".to_owned())));
                entries.push(Entry::new(name, "", Some(peer)));
            }
            None => notes.push(format!("{name}: not installed, left out")),
        }
    }
    notes.push("pingora: left out, no binary of it is to be had without building one".to_owned());
    keep_only(&mut entries, only)?;
    notes.push("full_: ours with a concurrency limit above the load and Prometheus metrics on".to_owned());

    let extent = Extent::new(quick, cores::raise_file_limit());
    let cores = Cores::take()?;
    if !cores.apart() {
        notes.push("one core only: load and proxy share it, so latency and rate say little".to_owned());
    }
    notes.push(format!("idle connections opened: {}", extent.idle_connections));
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let bench = Bench { extent, backend: backend::start().await?, cores };
        bench.starts(&mut entries).await?;
        let wanted = |step| steps.is_empty() || steps.contains(&step);
        if wanted(Step::Load) {
            for _ in 0..bench.extent.rounds {
                bench.each(&mut entries, async |entry| bench.round(entry).await).await?;
            }
        }
        if wanted(Step::Bodies) {
            for _ in 0..bench.extent.rounds {
                bench.each(&mut entries, async |entry| bench.bodies(entry).await).await?;
            }
        }
        if wanted(Step::InFlight) {
            bench.each(&mut entries, async |entry| bench.in_flight(entry).await).await?;
        }
        if wanted(Step::Idle) {
            bench.each(&mut entries, async |entry| bench.idle_connections(entry).await).await?;
        }
        anyhow::Ok(())
    })?;
    notes.extend(entries.iter().filter_map(|e| Some(format!("{}: left out, {}", e.name, e.failed.as_ref()?))));
    entries.retain(|entry| entry.failed.is_none());
    let plots = vec![("queue-proxy.svg".to_owned(), table::plot(&entries))];
    Ok(Report { bench: "queue-proxy", subjects: table::subjects(&entries), notes, plots })
}

/// Keeps the entries that are named; a name that is nobody's is an error that says who there is.
fn keep_only(entries: &mut Vec<Entry>, only: &[String]) -> anyhow::Result<()> {
    let words: Vec<&str> = entries.iter().map(Entry::word).collect();
    if let Some(unknown) = only.iter().find(|word| !words.contains(&word.as_str())) {
        bail!("--only {unknown}: no such subject, or it is not installed; there are {}", words.join(", "));
    }
    entries.retain(|entry| only.is_empty() || only.iter().any(|word| word == entry.word()));
    Ok(())
}

impl Bench {
    /// One step for each subject in turn. A peer that fails is out, with the reason; ours must not fail.
    async fn each(
        &self,
        entries: &mut [Entry],
        mut step: impl AsyncFnMut(&mut Entry) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for entry in entries.iter_mut().filter(|entry| entry.failed.is_none()) {
            match step(entry).await {
                Err(error) if entry.name == "dormouse" => return Err(error.context("dormouse")),
                Err(error) => {
                    entry.running = None;
                    entry.failed = Some(format!("{error:#}"));
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Starts each program several times; the last one of each stays.
    async fn starts(&self, entries: &mut [Entry]) -> anyhow::Result<()> {
        self.each(entries, async |entry| {
            // Once to bring its file into memory.
            let Some(peer) = &mut entry.peer else { return Ok(()) };
            let first = peer.start(self.backend, self.room(), self.cores).await?;
            peer.skip_launcher(&first);
            if let Some(kib) = peer.binary_kib() {
                entry.add("binary_kib", kib);
            }
            Ok(())
        })
        .await?;
        for _ in 0..self.extent.starts {
            self.each(entries, async |entry| {
                entry.running = None;
                let Some(running) = self.start(entry).await? else { return Ok(()) };
                entry.add("start_to_first_answer_us", running.first_answer.as_secs_f64() * 1e6);
                sleep(self.extent.settle).await;
                entry.add("rss_idle_kib", running.rss_kib());
                entry.running = Some(running);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Load, latency at a fixed rate, latency of one connection.
    async fn round(&self, entry: &mut Entry) -> anyhow::Result<()> {
        let address = self.address(entry);
        let clients = load::connections(address, CONNECTIONS).await?;
        let before = entry.cpu();
        let (done, clients) = load::closed_loop(clients, Request::Tiny, self.extent.closed).await?;
        if let (Some(before), Some(after)) = (before, entry.cpu()) {
            let spent = after.since(before);
            let each = |us: f64| us / done.requests as f64;
            entry.add("cpu_us_per_request", each(spent.us()));
            entry.add("cpu_user_us_per_request", each(spent.user_us()));
            entry.add("cpu_system_us_per_request", each(spent.us() - spent.user_us()));
        }
        entry.add("requests_per_second", done.requests as f64 / done.seconds);
        if let Some(rss) = entry.running.as_ref().map(Running::rss_kib) {
            entry.add("rss_load_kib", rss);
        }
        let mut took = load::fixed_rate(clients, RATE, self.extent.fixed).await?;
        entry.add("p50_us", quantile(&took, 0.5));
        entry.add("p99_us", quantile(&took, 0.99));
        let mut clients = load::connections(address, 1).await?;
        took = load::one_by_one(&mut clients[0], self.extent.single).await?;
        entry.add("p50_1conn_us", quantile(&took, 0.5));
        Ok(())
    }

    /// Bodies of 1 MiB, down and up.
    async fn bodies(&self, entry: &mut Entry) -> anyhow::Result<()> {
        for (request, speed, cost) in [
            (Request::Download, "mib_per_second_down", "cpu_us_per_mib_down"),
            (Request::Upload, "mib_per_second_up", "cpu_us_per_mib_up"),
        ] {
            let clients = load::connections(self.address(entry), BODY_CONNECTIONS).await?;
            let before = entry.cpu();
            let (done, _clients) = load::closed_loop(clients, request, self.extent.bodies).await?;
            if let (Some(before), Some(after)) = (before, entry.cpu()) {
                entry.add(cost, after.since(before).us() / done.requests as f64);
            }
            entry.add(speed, done.requests as f64 / done.seconds);
        }
        Ok(())
    }

    /// Memory of a request in flight, its connections with it, in a process of its own.
    async fn in_flight(&self, entry: &mut Entry) -> anyhow::Result<()> {
        let Some(running) = self.start(entry).await? else { return Ok(()) };
        sleep(self.extent.settle).await;
        let before = running.rss_kib();
        let _clients = load::in_flight(running.address, IN_FLIGHT).await?;
        sleep(backend::WAIT / 2).await;
        entry.add("kib_per_request_in_flight", (running.rss_kib() - before) / IN_FLIGHT as f64);
        Ok(())
    }

    /// Memory of a connection that has served a request and waits for the next, in a process of its own.
    async fn idle_connections(&self, entry: &mut Entry) -> anyhow::Result<()> {
        entry.running = None;
        let Some(running) = self.start(entry).await? else { return Ok(()) };
        sleep(self.extent.settle).await;
        let before = running.rss_kib();
        let clients = load::connections(running.address, self.extent.idle_connections).await?;
        sleep(self.extent.settle).await;
        entry.add("kib_per_idle_connection", (running.rss_kib() - before) / clients.len() as f64);
        Ok(())
    }

    async fn start(&self, entry: &Entry) -> anyhow::Result<Option<Running>> {
        let Some(peer) = &entry.peer else { return Ok(None) };
        peer.start(self.backend, self.room(), self.cores).await.map(Some)
    }

    fn address(&self, entry: &Entry) -> SocketAddr {
        entry.running.as_ref().map_or(self.backend, |running| running.address)
    }

    /// Connections that every program is told to have room for.
    fn room(&self) -> usize {
        self.extent.idle_connections + 500
    }
}
