//! `queue-proxy`: what the sidecar costs, beside other proxies that could stand in its place.
//!
//! Load and backend share the first core, the proxy under test has the second; all subjects take turns in each round,
//! so that the machine's moods hit all alike, and each figure is the median of its rounds. `direct` is no proxy at all,
//! `relay` copies bytes without reading them; between these two and the others lies what HTTP costs.

mod calls;
mod entry;
mod extent;
mod limited;
mod memory;
mod requests;
mod subjects;
mod table;

use clap::ValueEnum;
use entry::Entry;
use extent::Extent;
use tokio::{
    runtime::{Builder, LocalOptions},
    time::sleep,
};

use crate::{
    backend::Backend,
    cores::{self, Cores},
    load::Target,
    namespace::Namespace,
    peers::{Kind, Protocol, Running},
    quota::Quota,
    report::Report,
};

/// Connections that every program is told to have room for, beside those of a step that opens many. Far more than the
/// load has: HAProxy closes idle connections to the app as soon as a quarter of its sockets is in use.
const ROOM: usize = 1_000;

/// What to measure; every run starts each subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Step {
    /// CPU, rate and latency of small requests.
    Load,
    /// 1 MiB bodies, both ways.
    Bodies,
    /// gRPC-shaped calls, h2c on both sides.
    H2,
    /// A hard CPU quota.
    Quota,
    /// Memory of requests in flight.
    InFlight,
    /// Memory of idle connections.
    Idle,
    /// Memory of WebSockets.
    WebSocket,
}

/// Everything the steps share.
struct Bench {
    extent: Extent,
    backend: Backend,
    /// For the subject that needs a network of its own.
    apart: Option<Backend>,
    cores: Cores,
}

/// `only` names subjects and further passes, `steps` says what to measure; empty is all.
pub(crate) fn run(quick: bool, only: &[String], steps: &[Step]) -> anyhow::Result<Report> {
    let (mut entries, mut notes) = subjects::find(only)?;
    let extent = Extent::new(quick, cores::raise_file_limit());
    let cores = Cores::take()?;
    if !cores.apart() {
        notes.push("one core only: load and proxy share it, so latency and rate say little".to_owned());
    }
    notes.push(format!("idle connections: {}, WebSockets: {}", extent.idle_connections, extent.websockets));
    let quota = Quota::new(limited::MILLICORES).map(drop);
    if let Err(error) = &quota {
        notes.push(format!("quota25m: left out, {error:#}"));
    }
    let wanted = |step| (steps.is_empty() || steps.contains(&step)) && (step != Step::Quota || quota.is_ok());
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let backend = Backend::start(Namespace::default())?;
        let mut bench = Bench { extent, backend, apart: None, cores };
        if let Some(upstream) = entries.iter_mut().find(|entry| entry.is(Kind::Upstream)) {
            match Namespace::new() {
                Ok(namespace) => bench.apart = Some(Backend::start(namespace)?),
                Err(error) => upstream.gone = Some(format!("{error:#}")),
            }
        }
        bench.run(&mut entries, wanted).await
    })?;
    notes.extend(entries.iter().filter_map(|e| Some(format!("{}: left out, {}", e.name, e.gone.as_ref()?))));
    notes.extend(entries.iter().flat_map(|e| {
        e.failed.iter().map(|(step, why)| format!("{}: {step:?} left out, {}", e.name, why.replace('\n', "; ")))
    }));
    entries.retain(|entry| entry.gone.is_none());
    let plots = vec![("queue-proxy.svg".to_owned(), table::plot(&entries))];
    Ok(Report { bench: "queue-proxy", subjects: table::subjects(&entries), notes, plots, passes: table::PASSES })
}

impl Bench {
    async fn run(&self, entries: &mut [Entry], wanted: impl Fn(Step) -> bool) -> anyhow::Result<()> {
        self.starts(entries).await?;
        if wanted(Step::Load) {
            for _ in 0..self.extent.rounds {
                self.each(entries, Step::Load, async |entry| self.round(entry).await).await?;
            }
        }
        if wanted(Step::Bodies) {
            for _ in 0..self.extent.rounds {
                self.each(entries, Step::Bodies, async |entry| self.bodies(entry).await).await?;
            }
        }
        if wanted(Step::H2) {
            self.each(entries, Step::H2, async |entry| self.again(entry, Protocol::H2c, 0).await).await?;
            for _ in 0..self.extent.h2_rounds {
                self.each(entries, Step::H2, async |entry| self.calls(entry).await).await?;
            }
        }
        if wanted(Step::Quota) {
            for _ in 0..self.extent.quota_rounds {
                self.each(entries, Step::Quota, async |entry| self.limited(entry).await).await?;
            }
        }
        if wanted(Step::InFlight) {
            self.each(entries, Step::InFlight, async |entry| self.in_flight(entry).await).await?;
        }
        if wanted(Step::Idle) {
            self.each(entries, Step::Idle, async |entry| self.idle_connections(entry).await).await?;
        }
        if wanted(Step::WebSocket) {
            self.each(entries, Step::WebSocket, async |entry| self.websockets(entry).await).await?;
        }
        Ok(())
    }

    /// Starts each program several times; the last one of each stays.
    async fn starts(&self, entries: &mut [Entry]) -> anyhow::Result<()> {
        for nth in 0..=self.extent.starts {
            for entry in entries.iter_mut().filter(|entry| entry.gone.is_none()) {
                match self.start(entry, nth == 0).await {
                    Err(error) if entry.name == "dormouse" => return Err(error.context("dormouse")),
                    Err(error) => entry.gone = Some(format!("{error:#}")),
                    Ok(()) => {}
                }
            }
        }
        Ok(())
    }

    /// The first start brings the program's file into memory and is not timed.
    async fn start(&self, entry: &mut Entry, first: bool) -> anyhow::Result<()> {
        self.again(entry, Protocol::Http1, 0).await?;
        let (Some(running), Some(peer)) = (&entry.running, &mut entry.peer) else { return Ok(()) };
        if first {
            peer.skip_launcher(running);
            if let Some(kib) = peer.binary_kib() {
                entry.add("binary_kib", kib);
            }
            return Ok(());
        }
        let took = running.first_answer;
        let rss = self.settled(running).await;
        entry.add("start_to_first_answer_us", took.as_secs_f64() * 1e6);
        entry.add("rss_idle_kib", rss);
        Ok(())
    }

    /// One step for each subject in turn. A peer that fails at a step has no part in the rest of it; ours must not fail.
    async fn each(
        &self,
        entries: &mut [Entry],
        step: Step,
        mut act: impl AsyncFnMut(&mut Entry) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let takes_part = |entry: &Entry| {
            let too_much = step >= Step::InFlight && self.extent.first_pass_only && !entry.prefix.is_empty();
            entry.gone.is_none() && !entry.failed.contains_key(&step) && !too_much
        };
        for entry in entries.iter_mut().filter(|entry| takes_part(entry)) {
            match act(entry).await {
                Err(error) if entry.name == "dormouse" => return Err(error.context("dormouse")),
                Err(error) => drop(entry.failed.insert(step, format!("{error:#}"))),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// A new process in place of the one that runs, with room for so many connections beside the usual ones. Nothing
    /// for `direct`.
    async fn again(&self, entry: &mut Entry, protocol: Protocol, connections: usize) -> anyhow::Result<()> {
        entry.running = None;
        let Some(peer) = &entry.peer else { return Ok(()) };
        entry.running = Some(peer.start(self.behind(entry), protocol, connections + ROOM, self.cores).await?);
        Ok(())
    }

    /// Whom to ask.
    fn target(&self, entry: &Entry, protocol: Protocol) -> anyhow::Result<Target> {
        match (&entry.running, &entry.peer, protocol) {
            (Some(running), _, _) => Ok(running.target.clone()),
            (None, Some(_), _) => anyhow::bail!("it does not run"),
            (None, None, Protocol::Http1) => Ok(self.backend.http1()),
            (None, None, Protocol::H2c) => Ok(self.backend.h2c()),
        }
    }

    fn behind(&self, entry: &Entry) -> &Backend {
        match &self.apart {
            Some(apart) if entry.is(Kind::Upstream) => apart,
            _ => &self.backend,
        }
    }

    /// Memory of the program once it has had time to come to rest.
    async fn settled(&self, running: &Running) -> f64 {
        sleep(self.extent.settle).await;
        running.rss_kib()
    }
}
