//! `queue-proxy`: what the sidecar costs, beside other proxies that could stand in its place.
//!
//! Load and backend share the first core, the proxy under test has the second; all subjects take turns in each round,
//! so that the machine's moods hit all alike, and each figure is the median of its rounds. `direct` is no proxy at all,
//! `relay` copies bytes without reading them; between these two and the others lies what HTTP costs.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use tokio::{
    runtime::{Builder, LocalOptions},
    time::sleep,
};

use crate::{
    backend,
    cores::{self, Cores},
    load::{self, Request},
    peers::{Kind, Peer, Running},
    plot,
    report::{Report, Subject, quantile},
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
/// How much of everything.
struct Extent {
    starts: usize,
    /// What a new process gets before its memory counts as idle.
    settle: Duration,
    rounds: usize,
    closed: Duration,
    fixed: Duration,
    single: Duration,
    /// Of each direction; zero leaves bodies and memory in flight out.
    bodies: Duration,
    idle_connections: usize,
}

impl Extent {
    fn new(quick: bool, file_limit: u64) -> Self {
        let ms = Duration::from_millis;
        // This process holds both ends of what goes through the relay.
        let most = (file_limit / 4 / 1000 * 1000).max(200) as usize;
        if quick {
            Self {
                starts: 3,
                settle: ms(150),
                rounds: 3,
                closed: ms(400),
                fixed: ms(400),
                single: ms(100),
                bodies: ms(0),
                idle_connections: most.min(2_000),
            }
        } else {
            Self {
                starts: 15,
                settle: ms(300),
                rounds: 7,
                closed: ms(1_500),
                fixed: ms(2_500),
                single: ms(500),
                bodies: ms(500),
                idle_connections: most.min(10_000),
            }
        }
    }
}

/// One column of the table while it fills.
struct Entry {
    name: &'static str,
    /// What stands before its metrics, for a second pass of the same subject.
    prefix: &'static str,
    /// `None` is `direct`.
    peer: Option<Peer>,
    running: Option<Running>,
    samples: BTreeMap<&'static str, Vec<f64>>,
    failed: Option<String>,
}

impl Entry {
    fn new(name: &'static str, prefix: &'static str, peer: Option<Peer>) -> Self {
        Self { name, prefix, peer, running: None, samples: BTreeMap::new(), failed: None }
    }

    fn add(&mut self, metric: &'static str, value: f64) {
        self.samples.entry(metric).or_default().push(value);
    }

    fn cpu_us(&self) -> Option<f64> {
        self.running.as_ref().map(Running::cpu_us)
    }

    fn median(&self, metric: &str) -> Option<f64> {
        self.samples.get(metric).map(|samples| quantile(samples, 0.5))
    }
}

/// Everything the steps share.
struct Bench {
    extent: Extent,
    backend: SocketAddr,
    cores: Cores,
}

pub(crate) fn run(quick: bool) -> anyhow::Result<Report> {
    let ours = system::build_binary("queue-proxy", "queue-proxy")?;
    let mut notes = Vec::new();
    let mut entries = vec![
        Entry::new("dormouse", "", Some(Peer::ours(Kind::Sidecar, &ours))),
        Entry::new("dormouse", "full_", Some(Peer::ours(Kind::FullSidecar, &ours))),
        Entry::new("direct", "", None),
        Entry::new("relay", "", Some(Peer::relay()?)),
    ];
    for (kind, name) in [(Kind::Haproxy, "haproxy"), (Kind::Nginx, "nginx"), (Kind::Envoy, "envoy")] {
        match Peer::installed(kind, name) {
            Some(peer) => {
                notes.push(format!("{name}: {}", peer.version().unwrap_or_else(|| "unknown version".to_owned())));
                entries.push(Entry::new(name, "", Some(peer)));
            }
            None => notes.push(format!("{name}: not installed, left out")),
        }
    }
    notes.push("pingora: left out, no binary of it is to be had without building one".to_owned());
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
        for _ in 0..bench.extent.rounds {
            bench.each(&mut entries, async |entry| bench.round(entry).await).await?;
        }
        if !bench.extent.bodies.is_zero() {
            for _ in 0..bench.extent.rounds {
                bench.each(&mut entries, async |entry| bench.bodies(entry).await).await?;
            }
            bench.each(&mut entries, async |entry| bench.in_flight(entry).await).await?;
        }
        bench.each(&mut entries, async |entry| bench.idle_connections(entry).await).await
    })?;
    notes.extend(entries.iter().filter_map(|e| Some(format!("{}: left out, {}", e.name, e.failed.as_ref()?))));
    entries.retain(|entry| entry.failed.is_none());
    let plots = vec![("queue-proxy.svg".to_owned(), plot(&entries))];
    Ok(Report { bench: "queue-proxy", subjects: subjects(&entries), notes, plots })
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
        let before = entry.cpu_us();
        let (done, clients) = load::closed_loop(clients, Request::Tiny, self.extent.closed).await?;
        if let (Some(before), Some(after)) = (before, entry.cpu_us()) {
            entry.add("cpu_us_per_request", (after - before) / done.requests as f64);
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
            let before = entry.cpu_us();
            let (done, _clients) = load::closed_loop(clients, request, self.extent.bodies).await?;
            if let (Some(before), Some(after)) = (before, entry.cpu_us()) {
                entry.add(cost, (after - before) / done.requests as f64);
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

/// Metrics in the order of the table.
const METRICS: [&str; 15] = [
    "cpu_us_per_request",
    "requests_per_second",
    "p50_us",
    "p99_us",
    "p50_1conn_us",
    "rss_idle_kib",
    "rss_load_kib",
    "start_to_first_answer_us",
    "kib_per_idle_connection",
    "kib_per_request_in_flight",
    "binary_kib",
    "mib_per_second_down",
    "mib_per_second_up",
    "cpu_us_per_mib_down",
    "cpu_us_per_mib_up",
];

/// Medians, the second pass of a subject in the same row as its first.
fn subjects(entries: &[Entry]) -> Vec<Subject> {
    let direct = entries.iter().find(|entry| entry.peer.is_none()).and_then(|entry| entry.median("p50_1conn_us"));
    let mut subjects: Vec<Subject> = Vec::new();
    for entry in entries {
        let mut metrics = Vec::new();
        for name in METRICS {
            let Some(value) = entry.median(name) else { continue };
            // Small ones keep a decimal.
            metrics.push((format!("{}{name}", entry.prefix), if value >= 100.0 { value.round() } else { value }));
            if let (Some(direct), "p50_1conn_us", true) = (direct, name, entry.peer.is_some()) {
                metrics.push((format!("{}added_p50_1conn_us", entry.prefix), value - direct));
            }
        }
        if entry.prefix == "full_" {
            metrics.retain(|(name, _)| name != "full_binary_kib");
        }
        match subjects.iter_mut().find(|subject| subject.name == entry.name) {
            Some(subject) => subject.metrics.extend(metrics),
            None => subjects.push(Subject { name: entry.name, metrics }),
        }
    }
    subjects
}

fn plot(entries: &[Entry]) -> String {
    let panel = |title: &'static str, metric: &str, scale: f64| {
        let bar = |entry: &Entry| Some((entry.name, entry.median(metric)? / scale));
        let bars = entries.iter().filter(|entry| entry.prefix.is_empty()).filter_map(bar).collect();
        plot::Panel { title, bars }
    };
    plot::panels(
        "queue-proxy and its peers: one core each, 64 connections, 12-byte answers (shorter is better)",
        &[
            panel("CPU per request, µs", "cpu_us_per_request", 1.0),
            panel("p99 at 1,000 requests/s, µs", "p99_us", 1.0),
            panel("memory under load, MiB", "rss_load_kib", 1024.0),
            panel("memory per idle connection, KiB", "kib_per_idle_connection", 1.0),
            panel("start to first answer, ms", "start_to_first_answer_us", 1000.0),
            panel("p50 with one connection, µs", "p50_1conn_us", 1.0),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_pass_stands_in_the_row_of_the_first() {
        let mut entries = vec![
            Entry::new("dormouse", "", Some(Peer::ours(Kind::Sidecar, "/x".as_ref()))),
            Entry::new("dormouse", "full_", Some(Peer::ours(Kind::FullSidecar, "/x".as_ref()))),
            Entry::new("direct", "", None),
        ];
        for (entry, values) in entries.iter_mut().zip([[30.0, 50.0, 40.0], [60.0, 60.0, 61.0], [10.0, 12.0, 11.0]]) {
            for value in values {
                entry.add("p50_1conn_us", value);
            }
        }
        let subjects = subjects(&entries);
        let row = |i: usize| subjects[i].metrics.iter().map(|(n, v)| (n.as_str(), *v)).collect::<Vec<_>>();
        assert_eq!(subjects.len(), 2);
        assert_eq!(
            row(0),
            [
                ("p50_1conn_us", 40.0),
                ("added_p50_1conn_us", 29.0),
                ("full_p50_1conn_us", 60.0),
                ("full_added_p50_1conn_us", 49.0)
            ]
        );
        assert_eq!(row(1), [("p50_1conn_us", 11.0)]);
    }

    #[test]
    fn connections_stay_within_the_limit_of_files() {
        assert_eq!(Extent::new(true, 20_000).idle_connections, 2_000);
        assert_eq!(Extent::new(false, 20_000).idle_connections, 5_000);
        assert_eq!(Extent::new(false, 1 << 20).idle_connections, 10_000);
        assert_eq!(Extent::new(false, 1024).idle_connections, 200);
    }
}
