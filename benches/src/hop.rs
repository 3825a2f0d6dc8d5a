//! What one proxy in a request's path costs, beside others that could stand in its place.
//!
//! Load and backend share the first core, the proxy under test has the second; all subjects take turns in each round,
//! so that the machine's moods hit all alike, and each figure is the median of its rounds. `direct` is no proxy at all,
//! `relay` copies bytes without reading them; between these two and the others lies what HTTP costs. The benches
//! [`crate::queue_proxy`] and [`crate::activator`] say which subjects and which steps.

mod calls;
mod entry;
mod extent;
mod limited;
mod memory;
mod path;
mod requests;
mod rotation;
mod scaling;
mod subjects;
mod table;

use anyhow::bail;
use clap::ValueEnum;
use entry::Entry;
use extent::Extent;
pub(crate) use subjects::{Ours, Pass};
use tokio::{
    runtime::{Builder, LocalOptions},
    time::sleep,
};

use crate::{
    backend::Backend,
    cores::{self, Cores},
    load::Target,
    namespace::Namespace,
    peers::{Kind, Peer, Protocol, Running},
    quota::Quota,
    report::Report,
    system,
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
    /// activator: requests that name 1, 100 and 10,000 revisions in turn.
    Rotation,
    /// activator: one data thread and two.
    Scaling,
    /// activator: with a queue-proxy behind it, beside one Envoy alone.
    Path,
    /// Memory of requests in flight.
    InFlight,
    /// Memory of idle connections.
    Idle,
    /// Memory of WebSockets.
    WebSocket,
    /// Only if named: no measuring, but the subjects stay up until the bench is interrupted, for a profiler.
    Stay,
}

/// Everything the steps share.
struct Bench {
    extent: Extent,
    backend: Backend,
    /// For the subject that needs a network of its own.
    apart: Option<Backend>,
    /// What stands behind an activator in a pod.
    sidecar: Option<Peer>,
    cores: Cores,
}

/// Which bench.
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) ours: Ours,
    /// Steps that make sense for it.
    pub(crate) steps: &'static [Step],
    /// What stands before the metrics of our further passes, and what their columns are called.
    pub(crate) passes: &'static [(&'static str, &'static str)],
    /// Title of the plot.
    pub(crate) title: &'static str,
}

/// `only` names subjects and further passes, `steps` says what to measure; empty is all.
pub(crate) fn run(plan: &Plan, quick: bool, only: &[String], steps: &[Step]) -> anyhow::Result<Report> {
    if let Some(unknown) = steps.iter().find(|step| !plan.steps.contains(step)) {
        bail!("--steps {unknown:?}: {} has no such step", plan.name);
    }
    let (mut entries, mut notes) = subjects::find(&plan.ours, only)?;
    let extent = Extent::new(quick, cores::raise_file_limit());
    let cores = Cores::take()?;
    if !cores.apart() {
        notes.push("one core only: load and proxy share it, so latency and rate say little".to_owned());
    }
    notes.push(format!("idle connections: {}, WebSockets: {}", extent.idle_connections, extent.websockets));
    let quota = Quota::new(limited::MILLICORES).map(drop);
    if let Err(error) = &quota {
        notes.push(format!("what needs a CPU quota: left out, {error:#}"));
    }
    let wanted = |step| {
        let needs_quota = matches!(step, Step::Quota | Step::Scaling);
        let asked = steps.contains(&step) || (steps.is_empty() && step != Step::Stay);
        plan.steps.contains(&step) && asked && (!needs_quota || quota.is_ok())
    };
    let sidecar = if wanted(Step::Path) {
        Some(Peer::built(Kind::Sidecar, &system::build_shipped("queue-proxy", "queue-proxy")?))
    } else {
        None
    };
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let backend = Backend::start(Namespace::default())?;
        let mut bench = Bench { extent, backend, apart: None, sidecar, cores };
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
    let plots = vec![(format!("{}.svg", plan.name), table::plot(plan.title, &entries))];
    Ok(Report { bench: plan.name, subjects: table::subjects(&entries), notes, plots, passes: plan.passes })
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
        if wanted(Step::Path) {
            self.each(entries, Step::Path, async |entry| self.path_again(entry).await).await?;
            for _ in 0..self.extent.rounds {
                self.each(entries, Step::Path, async |entry| self.path(entry).await).await?;
            }
        }
        if wanted(Step::Scaling) {
            for _ in 0..self.extent.scaling_rounds {
                self.each(entries, Step::Scaling, async |entry| self.scaling(entry).await).await?;
            }
        }
        if wanted(Step::Rotation) {
            for _ in 0..self.extent.rotation_rounds {
                self.each(entries, Step::Rotation, async |entry| self.rotation(entry).await).await?;
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
        if wanted(Step::Stay) {
            for running in entries.iter().filter_map(|entry| entry.running.as_ref()) {
                eprintln!("pid {} listens on {}", running.pid(), running.target.address);
            }
            std::future::pending::<()>().await;
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
            let of_memory = matches!(step, Step::InFlight | Step::Idle | Step::WebSocket);
            let too_much = of_memory && self.extent.first_pass_only && !entry.prefix.is_empty();
            let asked = match step {
                Step::Rotation | Step::Scaling => entry.is_first_of_ours(),
                Step::Path => entry.is_first_of_ours() || entry.is(Kind::Envoy),
                _ => true,
            };
            entry.gone.is_none() && !entry.failed.contains_key(&step) && asked && !too_much
        };
        for entry in entries.iter_mut().filter(|entry| takes_part(entry)) {
            // What is measured is printed at the end, and that may be half an hour away.
            eprintln!("{step:?}: {}{}", entry.name, entry.prefix.trim_end_matches('_'));
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
        let app = self.behind(entry).target(protocol);
        entry.running = Some(peer.start(app, protocol, connections + ROOM, self.cores).await?);
        Ok(())
    }

    /// Whom to ask.
    fn target(&self, entry: &Entry, protocol: Protocol) -> anyhow::Result<Target> {
        match (&entry.running, &entry.peer) {
            (Some(running), _) => Ok(running.target.clone()),
            (None, Some(_)) => bail!("it does not run"),
            (None, None) => Ok(self.backend.target(protocol)),
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
