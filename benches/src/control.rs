//! `control`: one Service from its create until it is ready, in API writes and time; many Services, in memory of the
//! controller and time of a change.
//!
//! API server, deployments, endpoints and an ideal node are one program (`local/examples/ideal_cluster.rs`). Controller and
//! autoscaler are processes of their own, each behind a relay that counts what it writes ([`relay`]).

mod relay;

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use futures::StreamExt;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::{
    cluster::write_kubeconfig,
    process,
    report::{Report, Subject, quantile},
    system,
};
use relay::Relay;

/// Longest time anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(600);
/// Nothing was written for so long: what one change set off is over.
const QUIET: Duration = Duration::from_millis(400);

pub(crate) fn run(quick: bool) -> anyhow::Result<Report> {
    let programs = Programs { ours: system::build()?, cluster: system::build_example("local", "ideal_cluster")? };
    let (one_by_one, many, changes) = if quick { (10, 300, 50) } else { (50, 5_000, 500) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let metrics = runtime.block_on(async {
        let mut metrics = Metrics::default();
        creates(&programs, one_by_one, &mut metrics).await.context("one by one")?;
        crowd(&programs, many, changes, &mut metrics).await.context("many services")?;
        anyhow::Ok(metrics.0)
    })?;
    let notes = vec![format!("{one_by_one} services one by one, then {many} and {changes} changes")];
    let subjects = vec![Subject { name: "dormouse", metrics }];
    Ok(Report { bench: "control", subjects, notes, plots: Vec::new(), passes: &[] })
}

/// What is run.
struct Programs {
    ours: PathBuf,
    cluster: PathBuf,
}

#[derive(Default)]
struct Metrics(Vec<(String, f64)>);

impl Metrics {
    fn add(&mut self, name: &str, value: f64) {
        self.0.push((name.to_owned(), value));
    }
}

/// One Service after the other, each until it is ready and everybody has written what there was to write.
async fn creates(programs: &Programs, n: usize, metrics: &mut Metrics) -> anyhow::Result<()> {
    let bench = Bench::start(programs, &[])?;
    // The first pays for what is set up once.
    bench.create(0).await?;
    bench.ready(0).await?;
    bench.settle().await?;
    let mut times = Vec::new();
    let (mut by_controller, mut by_autoscaler, mut all) = (0, 0, 0);
    for nth in 1..=n {
        let before = (bench.controller.relay.writes(), bench.autoscaler.relay.writes(), bench.version().await?);
        let start = Instant::now();
        bench.create(nth).await?;
        bench.ready(nth).await?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
        bench.settle().await?;
        by_controller += bench.controller.relay.writes() - before.0;
        by_autoscaler += bench.autoscaler.relay.writes() - before.1;
        all += bench.version().await? - before.2;
    }
    let each = |sum: u64| sum as f64 / n as f64;
    metrics.add("api_writes_per_service", each(by_controller + by_autoscaler));
    metrics.add("api_writes_of_controller", each(by_controller));
    metrics.add("api_writes_of_autoscaler", each(by_autoscaler));
    metrics.add("versions_per_service", each(all));
    metrics.add("ready_p50_us", quantile(&times, 0.5));
    metrics.add("ready_p99_us", quantile(&times, 0.99));
    metrics.add("cpu_us_per_service", bench.controller.cpu_us() / (n + 1) as f64);
    Ok(())
}

/// Many Services that sleep from the start; then changes of some of them, in quiet and while others are deleted.
async fn crowd(programs: &Programs, many: usize, changes: usize, metrics: &mut Metrics) -> anyhow::Result<()> {
    let asleep = ["config-autoscaler.allow-zero-initial-scale=true", "config-autoscaler.initial-scale=0"];
    let bench = Bench::start(programs, &asleep)?;
    // It has listed everything and is at rest.
    bench.create(many).await?;
    bench.ready(many).await?;
    bench.settle().await?;
    let idle = bench.controller.rss_kib()?;
    let start = Instant::now();
    let all: Vec<usize> = (0..many).collect();
    for some in all.chunks(100) {
        futures::future::try_join_all(some.iter().map(|nth| bench.create(*nth))).await?;
        if some.last().is_some_and(|last| (last + 1) % 500 == 0) {
            eprintln!("control: {} of {many} services made", some[some.len() - 1] + 1);
        }
    }
    for nth in 0..many {
        bench.ready(nth).await?;
    }
    metrics.add("services", many as f64);
    metrics.add("all_ready_seconds", start.elapsed().as_secs_f64());
    bench.settle().await?;
    let full = bench.controller.rss_kib()?;
    metrics.add("rss_idle_mib", idle / 1024.0);
    metrics.add(&format!("rss_{many}_services_mib"), full / 1024.0);
    metrics.add("kib_per_service", (full - idle) / many as f64);

    let times = changed(&bench, 0..changes / 5, Between::Rest).await?;
    metrics.add("change_p50_us", quantile(&times, 0.5));
    metrics.add("change_p99_us", quantile(&times, 0.99));
    let times = changed(&bench, 0..changes / 5, Between::Deletion { last: many - 1 }).await?;
    metrics.add("change_while_one_is_deleted_p50_us", quantile(&times, 0.5));
    metrics.add("change_while_one_is_deleted_p99_us", quantile(&times, 0.99));
    let times = changed(&bench, 0..changes, Between::Nothing).await?;
    metrics.add("change_in_a_row_p99_us", quantile(&times, 0.99));
    let deleted = (many / 2..).take(changes);
    let deleting = async {
        for nth in deleted {
            bench.services.delete(&name(nth), &kube::api::DeleteParams::default()).await?;
        }
        anyhow::Ok(())
    };
    let (times, deleting) = tokio::join!(changed(&bench, 0..changes, Between::Nothing), deleting);
    deleting?;
    metrics.add("change_while_deleting_p99_us", quantile(&times?, 0.99));
    Ok(())
}

/// What is between two changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    /// Everything that the one before set off (a revision and all that is made for it) is over.
    Rest,
    /// The same, and then the deletion of another Service begins together with the change; this is the first to go, then
    /// those before it.
    Deletion {
        /// Its number.
        last: usize,
    },
    /// The next begins as soon as the status tells of the one before: so this is how much there is to do, too.
    Nothing,
}

/// Changes Services one after the other; from the request until the status tells of it.
async fn changed(bench: &Bench, which: std::ops::Range<usize>, between: Between) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for nth in which {
        if between != Between::Nothing {
            bench.settle().await?;
        }
        if let Between::Deletion { last } = between {
            let (services, doomed) = (bench.services.clone(), name(last - nth));
            tokio::spawn(async move { services.delete(&doomed, &kube::api::DeleteParams::default()).await });
        }
        let annotations = json!({ "bench.example.com/change": fastrand::u64(..).to_string() });
        let patch = json!({ "spec": { "template": { "metadata": { "annotations": annotations } } } });
        let start = Instant::now();
        let object = bench.services.patch(&name(nth), &PatchParams::default(), &Patch::Merge(patch)).await?;
        bench.until(nth, |seen| seen.observed >= object.metadata.generation.unwrap_or(0)).await?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

fn name(nth: usize) -> String {
    format!("bench-{nth:05}")
}

/// What a Service's status says.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    observed: i64,
    ready: bool,
}

impl Seen {
    fn of(object: &DynamicObject) -> Self {
        let status = &object.data["status"];
        let conditions = status["conditions"].as_array();
        let ready = conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True");
        Self { observed: status["observedGeneration"].as_i64().unwrap_or(0), ready }
    }
}

/// A running system. What stands first ends first.
struct Bench {
    services: Api<DynamicObject>,
    controller: Part,
    autoscaler: Part,
    seen: watch::Receiver<HashMap<String, Seen>>,
    _cluster: Killed,
    _folder: TempDir,
}

/// A process that ends with this.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One of our processes and its way to the API server.
struct Part {
    process: Killed,
    relay: Relay,
}

impl Part {
    fn start(program: &Path, command: &str, server: SocketAddr, folder: &Path) -> anyhow::Result<Self> {
        let relay = Relay::start(server)?;
        let kubeconfig = folder.join(format!("{command}.kubeconfig"));
        write_kubeconfig(&kubeconfig, relay.address)?;
        let log = std::fs::File::create(folder.join(format!("{command}.log")))?;
        let child = Command::new(program)
            .arg(command)
            .env_clear()
            .envs([
                ("POD_NAME", "bench"),
                ("POD_IP", "127.0.0.1"),
                ("DORMOUSE_LISTEN", "127.0.0.1:0"),
                ("RUST_LOG", "warn"),
            ])
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Self { process: Killed(child), relay })
    }

    fn itself(&self) -> anyhow::Result<process::Process> {
        process::family(self.process.0.id()).into_iter().next().context("it has ended")
    }

    fn rss_kib(&self) -> anyhow::Result<f64> {
        Ok(self.itself()?.rss_kib as f64)
    }

    fn cpu_us(&self) -> f64 {
        self.itself().map_or(0.0, |process| process.cpu.us())
    }
}

impl Bench {
    fn start(programs: &Programs, sets: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut cluster = Command::new(&programs.cluster);
        cluster.arg(folder.path().join("data")).args(sets).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut cluster =
            Killed(cluster.spawn().with_context(|| format!("cannot run {}", programs.cluster.display()))?);
        let mut line = String::new();
        BufReader::new(cluster.0.stdout.take().context("no output")?).read_line(&mut line)?;
        let address: SocketAddr = line.trim().parse().context("the cluster did not start")?;
        let client = Client::try_from(kube::Config::new(format!("http://{address}").parse()?))?;
        let controller = Part::start(&programs.ours, "controller", address, folder.path())?;
        let autoscaler = Part::start(&programs.ours, "autoscaler", address, folder.path())?;
        let kind = GroupVersionKind::gvk("serving.knative.dev", "v1", "Service");
        let kind = ApiResource::from_gvk_with_plural(&kind, "services");
        let services: Api<DynamicObject> = Api::default_namespaced_with(client, &kind);
        let (sender, seen) = watch::channel(HashMap::new());
        let watched = services.clone();
        tokio::spawn(async move {
            let mut events =
                std::pin::pin!(watcher(watched, watcher::Config::default()).default_backoff().touched_objects());
            while let Some(Ok(object)) = events.next().await {
                sender.send_modify(|all: &mut HashMap<String, Seen>| {
                    all.insert(object.name_any(), Seen::of(&object));
                });
            }
        });
        Ok(Self { services, controller, autoscaler, seen, _cluster: cluster, _folder: folder })
    }

    async fn create(&self, nth: usize) -> anyhow::Result<()> {
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": { "name": name(nth) },
            "spec": { "template": { "spec": { "containers": [{
                "image": "registry.example.com/bench/app@sha256:0000000000000000000000000000000000000000000000000000000000000000",
                "env": [{ "name": "NAME", "value": "value" }] }] } } },
        }))?;
        self.services.create(&PostParams::default(), &object).await?;
        Ok(())
    }

    async fn ready(&self, nth: usize) -> anyhow::Result<()> {
        self.until(nth, |seen| seen.ready).await
    }

    async fn until(&self, nth: usize, is_so: impl Fn(&Seen) -> bool) -> anyhow::Result<()> {
        let (name, mut seen) = (name(nth), self.seen.clone());
        let found = tokio::time::timeout(PATIENCE, seen.wait_for(|all| all.get(&name).is_some_and(&is_so))).await;
        match found {
            Ok(Ok(_)) => Ok(()),
            _ => bail!("{name} never got there: {:?}", self.seen.borrow().get(&name)),
        }
    }

    /// The API server's version of everything: one more with each write that changes something.
    async fn version(&self) -> anyhow::Result<u64> {
        let list = self.services.list_metadata(&kube::api::ListParams::default().limit(1)).await?;
        Ok(list.metadata.resource_version.context("a list without a version")?.parse()?)
    }

    /// Waits until nobody writes any more.
    async fn settle(&self) -> anyhow::Result<()> {
        let mut last = self.version().await?;
        loop {
            tokio::time::sleep(QUIET).await;
            let now = self.version().await?;
            if now == last {
                return Ok(());
            }
            last = now;
        }
    }
}
