//! `table`: the gateway's routing table with 100,000 hosts, as the activator keeps it.
//!
//! In one process and without sockets: how long it takes to build, how long until one changed Ingress is seen, how long
//! a thread that looks up without a pause is held up meanwhile, what a look-up costs, and what a host takes. `copied` is
//! the plain way to do it: one `HashMap` that is copied for each change.

use std::{
    collections::HashMap,
    fs,
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use activator::{
    Change,
    certificates::Certificates,
    revision::Revisions,
    table::{Names, Routes, Table},
};
use anyhow::Context;
use api::{labels::networking::DORMOUSE_INGRESS_CLASS, networking::Ingress};
use arc_swap::ArcSwap;
use serde_json::json;

use crate::report::{Report, Subject, quantile};

const HOSTS: usize = 100_000;
/// Of the hosts, how many are wildcards.
const WILDCARDS: usize = 1_000;

pub(crate) fn run(quick: bool) -> anyhow::Result<Report> {
    let (changes, rounds, reading) = if quick { (500, 1, 1) } else { (5_000, 5, 10) };
    let reading = Duration::from_secs(reading);
    let mut metrics: Vec<(String, f64)> = vec![("hosts".into(), HOSTS as f64)];
    let mut add = |name: &str, value: f64| metrics.push((name.into(), value));

    // First, while the process is small: objects come one by one, as from a watch, and are dropped.
    let before = rss()?;
    let mut gateway = Gateway::new();
    for n in 0..HOSTS {
        gateway.change(Change::Applied(ingress(n, 0)?));
    }
    gateway.publish();
    add("bytes_per_host", (rss()? - before) / HOSTS as f64);

    let names: Vec<String> = (0..HOSTS).map(host).collect();
    let mut rng = Random(1);
    let some = |of: &[String], rng: &mut Random| -> Vec<String> { (0..50_000).map(|_| rng.pick(of).clone()).collect() };
    let exact = some(&names[WILDCARDS..], &mut rng);
    let wild: Vec<String> = some(&names[..WILDCARDS], &mut rng).iter().map(|name| format!("a{}", &name[1..])).collect();
    let miss: Vec<String> = exact.iter().map(|name| format!("x{name}")).collect();
    let hot: Vec<String> = (0..exact.len()).map(|n| exact[n % 64].clone()).collect();
    for (name, asked, found) in
        [("exact", &exact, true), ("exact_64_hosts", &hot, true), ("wildcard", &wild, true), ("miss", &miss, false)]
    {
        let table = gateway.table.load();
        assert!(asked.iter().all(|host| table.host(host).is_some() == found), "{name}");
        let each = |host: &String| gateway.table.load().host(host).is_some();
        add(&format!("lookup_{name}_ns"), nanoseconds(asked, rounds, each));
    }

    let mut times = Vec::with_capacity(changes);
    for n in 0..changes {
        let ingress = ingress(rng.below(HOSTS), n + 1)?;
        let start = Instant::now();
        gateway.change(Change::Applied(ingress));
        gateway.publish();
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    add("change_p50_us", quantile(&times, 0.5));
    add("change_p99_us", quantile(&times, 0.99));

    // The same reader without and with changes: what the machine does to it by itself is in both.
    let quiet = read_for(&gateway.table, &exact, || thread::sleep(reading))?;
    quiet.add("quiet", &mut add);
    let mut made = 0;
    let table = Arc::clone(&gateway.table);
    let changing = read_for(&table, &exact, || {
        let start = Instant::now();
        while start.elapsed() < reading {
            made += 1;
            if let Ok(ingress) = ingress(rng.below(HOSTS), changes + made) {
                gateway.change(Change::Applied(ingress));
                gateway.publish();
            }
        }
    })?;
    changing.add("changing", &mut add);
    add("changes_per_second", made as f64 / reading.as_secs_f64());

    // All at once: a list in which every object is another one than before.
    let all: Vec<Ingress> = (0..HOSTS).map(|n| ingress(n, usize::MAX)).collect::<anyhow::Result<_>>()?;
    let mut relisted = Duration::ZERO;
    let again = all.clone();
    let relisting = read_for(&table, &exact, || {
        let start = Instant::now();
        gateway.change(Change::Listed(again));
        gateway.publish();
        relisted = start.elapsed();
    })?;
    add("relist_ms", relisted.as_secs_f64() * 1e3);
    relisting.add("relist", &mut add);
    drop(gateway);
    let mut builds = Vec::new();
    for _ in 0..rounds {
        let (mut anew, all) = (Gateway::new(), all.clone());
        let start = Instant::now();
        anew.change(Change::Listed(all));
        anew.publish();
        builds.push(start.elapsed().as_secs_f64() * 1e3);
    }
    add("build_ms", quantile(&builds, 0.5));
    let dormouse = Subject { name: "dormouse", metrics };
    let copied = Subject { name: "copied", metrics: copied(&names, &exact, &miss, changes.min(100), rounds) };
    Ok(Report { bench: "table", subjects: vec![dormouse, copied], notes: Vec::new(), plots: Vec::new(), passes: &[] })
}

/// What the control thread has, and what requests see.
struct Gateway {
    routes: Routes,
    revisions: Revisions,
    certificates: Certificates,
    table: Arc<ArcSwap<Table>>,
}

impl Gateway {
    fn new() -> Self {
        Self {
            routes: Routes::new(DORMOUSE_INGRESS_CLASS),
            revisions: Revisions::default(),
            certificates: Certificates::default(),
            table: Arc::default(),
        }
    }

    fn change(&mut self, change: Change<Ingress>) {
        let names = Names { revisions: &self.revisions, certificates: &self.certificates };
        let skipped = self.routes.change(change, names);
        assert!(skipped.is_empty(), "{skipped:?}");
    }

    fn publish(&mut self) {
        self.routes.publish(&self.table);
    }
}

/// The plain way: the whole map is copied for a change.
fn copied(names: &[String], exact: &[String], miss: &[String], changes: usize, rounds: usize) -> Vec<(String, f64)> {
    let map: HashMap<Box<str>, Arc<usize>> =
        names.iter().enumerate().map(|(n, name)| (name.as_str().into(), Arc::new(n))).collect();
    let table = ArcSwap::from_pointee(map);
    let mut times = Vec::new();
    for (n, name) in names.iter().take(changes).enumerate() {
        let start = Instant::now();
        let mut next = HashMap::clone(&table.load());
        next.insert(name.as_str().into(), Arc::new(n));
        drop(table.swap(Arc::new(next)));
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    let each = |host: &String| table.load().contains_key(host.as_str());
    vec![
        ("hosts".into(), names.len() as f64),
        ("lookup_exact_ns".into(), nanoseconds(exact, rounds, each)),
        ("lookup_miss_ns".into(), nanoseconds(miss, rounds, each)),
        ("change_p50_us".into(), quantile(&times, 0.5)),
        ("change_p99_us".into(), quantile(&times, 0.99)),
    ]
}

/// The nth host; the first ones are wildcards.
fn host(n: usize) -> String {
    if n < WILDCARDS {
        format!("*.team-{n}.example.com")
    } else {
        format!("service-{n}.namespace-{}.example.com", n % 500)
    }
}

/// An Ingress as a Route's controller writes it, in one of its versions.
fn ingress(n: usize, version: usize) -> anyhow::Result<Ingress> {
    let (namespace, revision) = (format!("namespace-{}", n % 500), format!("service-{n}-{:05}", version % 100_000));
    let object = json!({
        "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
        "metadata": { "name": format!("service-{n}"), "namespace": namespace, "resourceVersion": version.to_string(),
            "uid": "7d1c7d9e-27b4-4b0a-9b5c-2f1f0a4ad2c1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": { "networking.knative.dev/ingress.class": DORMOUSE_INGRESS_CLASS } },
        "spec": { "httpOption": "Enabled", "rules": [{ "hosts": [host(n)], "visibility": "ExternalIP", "http": { "paths": [{
            "splits": [{ "serviceNamespace": namespace, "serviceName": revision, "servicePort": 80, "percent": 100,
                "appendHeaders": { "Knative-Serving-Namespace": namespace, "Knative-Serving-Revision": revision } }] }] } }] },
    });
    serde_json::from_value(object).context("the bench's own object")
}

/// Median of the rounds, per look-up.
fn nanoseconds(asked: &[String], rounds: usize, each: impl Fn(&String) -> bool) -> f64 {
    let mut of_rounds = Vec::new();
    for _ in 0..rounds.max(3) {
        let start = Instant::now();
        for host in asked {
            black_box(each(black_box(host)));
        }
        of_rounds.push(start.elapsed().as_secs_f64() * 1e9 / asked.len() as f64);
    }
    quantile(&of_rounds, 0.5)
}

/// What a reader met with.
struct Reading {
    /// The longest look-up by the clock: what the machine did to the thread is in it.
    longest: Duration,
    /// The longest look-up in CPU time of its own thread: whatever it had to do itself, and no more.
    longest_cpu: Duration,
    per_second: f64,
}

impl Reading {
    fn add(&self, when: &str, add: &mut impl FnMut(&str, f64)) {
        add(&format!("reader_longest_cpu_us_{when}"), self.longest_cpu.as_secs_f64() * 1e6);
        add(&format!("reader_longest_us_{when}"), self.longest.as_secs_f64() * 1e6);
        add(&format!("reader_lookups_per_second_{when}"), self.per_second);
    }
}

/// Looks up on a thread of its own without a pause while something is done here.
fn read_for(table: &Arc<ArcSwap<Table>>, asked: &[String], meanwhile: impl FnOnce()) -> anyhow::Result<Reading> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut longest, mut longest_cpu, mut lookups) = (Duration::ZERO, Duration::ZERO, 0_u64);
            let mut hosts = asked.iter().cycle();
            let start = Instant::now();
            let (mut before, mut cpu_before) = (start, thread_cpu());
            while !stop.load(Ordering::Relaxed) {
                let Some(host) = hosts.next() else { break };
                black_box(table.load().host(black_box(host)).is_some());
                let (now, cpu) = (Instant::now(), thread_cpu());
                longest = longest.max(now - before);
                longest_cpu = longest_cpu.max(cpu.saturating_sub(cpu_before));
                (before, cpu_before, lookups) = (now, cpu, lookups + 1);
            }
            Reading { longest, longest_cpu, per_second: lookups as f64 / start.elapsed().as_secs_f64() }
        });
        meanwhile();
        stop.store(true, Ordering::Relaxed);
        reader.join().map_err(|_| anyhow::anyhow!("the reader broke"))
    })
}

/// What this thread has worked.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Resident bytes of this process.
fn rss() -> anyhow::Result<f64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = statm.split_whitespace().nth(1).context("statm")?.parse()?;
    Ok(pages * 4096.0)
}

/// SplitMix64: the same hosts in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    fn pick<'a>(&mut self, of: &'a [String]) -> &'a String {
        &of[self.below(of.len())]
    }
}
