//! `autoscaler`: what revisions by the ten thousand cost. The autoscaler is a process of its own on a core of its own;
//! API server, activators' reports and pods are simulated on the other.
//!
//! - idle: memory and CPU with revisions that sleep, less that with none; then some of them are woken, one by one, and
//!   the time from the report's sending to the scale's arrival at the API server is taken.
//! - active: three pods each, load within what they can take, reported once a second by activators; pods would tell if
//!   something came past those. Writes are counted: there should be none.
//! - told: the same, but activators see nothing, and every pod has something new to tell every second.
//! - scraped: the same with upstream's pods, that must be asked every second.

mod objects;
mod pods;
mod reports;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use objects::Revisions;
use pods::{Manner, Pods};
use reports::Reporter;
use tokio::runtime::{Builder, LocalOptions};

use crate::{
    cluster::Cluster,
    cores::{self, Cores},
    process::{self, CpuTime},
    report::{Report, Subject, quantile},
    system,
};

/// Longest time anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(180);

/// How much of it.
struct Extent {
    idle: usize,
    wakes: usize,
    active: usize,
    direct: usize,
    settle: Duration,
    measure: Duration,
}

const FULL: Extent = Extent {
    idle: 100_000,
    wakes: 1_000,
    active: 10_000,
    direct: 500,
    settle: Duration::from_secs(75),
    measure: Duration::from_secs(60),
};
const QUICK: Extent = Extent {
    idle: 50_000,
    wakes: 100,
    active: 2_000,
    direct: 100,
    settle: Duration::from_secs(15),
    measure: Duration::from_secs(10),
};

pub(crate) fn run(quick: bool) -> anyhow::Result<Report> {
    let program = system::build_shipped("autoscaler", "autoscaler")?;
    cores::raise_file_limit();
    let cores = Cores::take()?;
    let extent = if quick { &QUICK } else { &FULL };
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let metrics = runtime.block_on(async {
        let mut bench = Bench { program, cores, pods: Pods::start()?, metrics: Vec::new() };
        bench.idle(extent).await.context("idle")?;
        bench.active(extent).await.context("active")?;
        bench.direct(extent, Manner::Restless).await.context("told")?;
        bench.direct(extent, Manner::Asked).await.context("scraped")?;
        anyhow::Ok(bench.metrics)
    })?;
    let notes = vec![format!(
        "{} idle, {} wake-ups, {} active with 3 pods each, {} past the activators; {} s each",
        extent.idle,
        extent.wakes,
        extent.active,
        extent.direct,
        extent.measure.as_secs()
    )];
    let subject = Subject { name: "dormouse", metrics };
    Ok(Report { bench: "autoscaler", subjects: vec![subject], notes, plots: Vec::new(), passes: &[] })
}

struct Bench {
    program: PathBuf,
    cores: Cores,
    pods: Pods,
    metrics: Vec<(String, f64)>,
}

impl Bench {
    async fn idle(&mut self, extent: &Extent) -> anyhow::Result<()> {
        let base = {
            let running = self.start(Revisions::Idle, 0).await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            running.rss_kib()?
        };
        let running = self.start(Revisions::Idle, extent.idle).await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        self.add("writes_at_start_idle", running.cluster.take_writes().len() as f64);
        let cores = running.cores(extent.measure).await?;
        self.add("rss_base_kib", base);
        self.add("bytes_per_idle_revision", (running.rss_kib()? - base) * 1024.0 / extent.idle as f64);
        self.add("cores_idle", cores);
        self.wakes(&running, extent).await
    }

    /// One report after the other; each wakes another revision.
    async fn wakes(&mut self, running: &Running, extent: &Extent) -> anyhow::Result<()> {
        let mut reporter = Reporter::connect(running.address).await?;
        let mut took = Vec::with_capacity(extent.wakes);
        for nth in 0..extent.wakes {
            // What the last one led to is over.
            tokio::time::sleep(Duration::from_millis(10)).await;
            running.cluster.take_writes();
            let sent = Instant::now();
            reporter.report(std::iter::once((nth, 1.0))).await?;
            let scale = format!("{}-deployment/scale", objects::name(nth));
            let at = tokio::time::timeout(Duration::from_secs(10), async {
                loop {
                    running.cluster.written().await;
                    let writes = running.cluster.take_writes();
                    if let Some((at, _)) = writes.iter().find(|(_, path)| path.ends_with(&scale)) {
                        return *at;
                    }
                }
            });
            took.push((at.await.context("no scale was written")? - sent).as_secs_f64() * 1e6);
        }
        took.sort_by(f64::total_cmp);
        self.add("decide_p50_us", quantile(&took, 0.5));
        self.add("decide_p99_us", quantile(&took, 0.99));
        Ok(())
    }

    async fn active(&mut self, extent: &Extent) -> anyhow::Result<()> {
        self.pods.set(Manner::Steady, 0.0);
        let running = self.start(Revisions::Active, extent.active).await?;
        let reporter = Reporter::connect(running.address).await?;
        let reporting = tokio::task::spawn_local(reporter.keep_reporting(extent.active));
        tokio::time::sleep(extent.settle).await;
        running.cluster.take_writes();
        let (asked, told) = (self.pods.asked(), self.pods.told());
        let cores = running.cores(extent.measure).await?;
        let seconds = extent.measure.as_secs_f64();
        let of = if extent.active == FULL.active { "10k" } else { "quick" };
        self.add(&format!("cores_{of}_active"), cores);
        self.add(&format!("rss_{of}_active_mib"), running.rss_kib()? / 1024.0);
        self.add("writes_per_s_active", running.cluster.take_writes().len() as f64 / seconds);
        self.add("pods_asked_per_s_active", (self.pods.asked() - asked) as f64 / seconds);
        self.add("pods_told_per_s_active", (self.pods.told() - told) as f64 / seconds);
        if reporting.is_finished() {
            bail!("the autoscaler hung up on the reporter");
        }
        reporting.abort();
        Ok(())
    }

    /// Traffic past the activators.
    async fn direct(&mut self, extent: &Extent, manner: Manner) -> anyhow::Result<()> {
        self.pods.set(manner, 15.0);
        let running = self.start(Revisions::Active, extent.direct).await?;
        tokio::time::sleep(extent.settle.min(Duration::from_secs(15))).await;
        let before = self.pods.asked() + self.pods.told();
        let cores = running.cores(extent.measure).await?;
        let reports = (self.pods.asked() + self.pods.told() - before) as f64;
        let per_second = reports / extent.measure.as_secs_f64();
        let how = if manner == Manner::Asked { "asked" } else { "told" };
        self.add(&format!("pods_{how}_per_s_direct"), per_second);
        self.add(&format!("us_per_pod_{how}"), cores * 1e6 / per_second.max(1.0));
        Ok(())
    }

    fn add(&mut self, name: &str, value: f64) {
        self.metrics.push((name.to_owned(), value));
    }

    /// An autoscaler that knows so many revisions.
    async fn start(&self, which: Revisions, revisions: usize) -> anyhow::Result<Running> {
        let cluster = Cluster::start()?;
        for nth in 0..revisions {
            objects::apply(&cluster, which, nth);
        }
        let folder = tempfile::tempdir()?;
        let kubeconfig = folder.path().join("kubeconfig");
        cluster.write_kubeconfig(&kubeconfig)?;
        let address = free_address()?;
        let child = self.spawn(address, &kubeconfig)?;
        let running = Running { child, address, cluster, _folder: folder };
        let deadline = Instant::now() + PATIENCE;
        while !running.knows(revisions).await {
            if Instant::now() > deadline {
                bail!("the autoscaler never knew {revisions} revisions");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(running)
    }

    fn spawn(&self, address: SocketAddr, kubeconfig: &Path) -> anyhow::Result<Child> {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("KUBECONFIG", kubeconfig)
            .env("POD_NAME", "autoscaler-bench")
            .env("POD_IP", "127.0.0.1")
            .env("DORMOUSE_LISTEN", address.to_string())
            .env("DORMOUSE_SCRAPE_PORT", self.pods.port().to_string())
            .env("RUST_LOG", "error")
            .stdout(Stdio::null());
        let child = self.cores.on_proxy_core(|| command.spawn());
        child.with_context(|| format!("cannot start {}", self.program.display()))
    }
}

/// A running autoscaler and its cluster; gone when dropped.
struct Running {
    child: Child,
    address: SocketAddr,
    cluster: Cluster,
    _folder: tempfile::TempDir,
}

impl Running {
    /// Whether it knows the last of so many; they are listed in order.
    async fn knows(&self, revisions: usize) -> bool {
        let (address, host) = (self.address, self.address.to_string());
        let path = match revisions.checked_sub(1) {
            Some(last) => format!("/debug/decisions/{}/{}", objects::NAMESPACE, objects::name(last)),
            None => "/debug/decisions/none/none".to_owned(),
        };
        let wanted = if revisions == 0 { 404 } else { 200 };
        let asked = tokio::task::spawn_blocking(move || crate::http::get(address, &host, &path));
        asked.await.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status == wanted))
    }

    fn process(&self) -> anyhow::Result<process::Process> {
        process::family(self.child.id()).into_iter().next().context("the autoscaler is gone")
    }

    fn rss_kib(&self) -> anyhow::Result<f64> {
        Ok(self.process()?.rss_kib as f64)
    }

    /// Cores in use over this time.
    async fn cores(&self, time: Duration) -> anyhow::Result<f64> {
        let (before, start): (CpuTime, _) = (self.process()?.cpu, Instant::now());
        tokio::time::sleep(time).await;
        Ok(self.process()?.cpu.since(before).us() / start.elapsed().as_secs_f64() / 1e6)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
