//! `cold-start`: a request to a service that sleeps, until its first byte, phase by phase.
//!
//! Many sleeping services (`initial-scale: 0`) are woken one after the other, each once, through the whole system:
//! activator, autoscaler, API server, node, queue-proxy, user process. Beside it, `process` is the floor: the same
//! hello program started bare and asked until it answers. The same run gives the warm latency through activator and
//! queue-proxy, the memory of each process, and how long `up --demo` takes to its first 200.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{
    http, process,
    report::{Report, Subject, quantile, stacked_bars},
    system::{self, System},
};

/// Phases in order, as the console names them; each is timed from the one before it.
const PHASES: [&str; 6] = ["decided", "scale_written", "pod_scheduled", "containers_started", "ready", "first_byte"];
/// The one phase that is the user's program starting.
const APP_PHASE: &str = "ready";

pub(crate) fn run(quick: bool) -> anyhow::Result<Report> {
    let (services, warm) = if quick { (20, 2_000) } else { (60, 20_000) };
    let binary = system::build()?;
    let (first_200, idle) = up_with_demo(&binary)?;

    let arguments = ["--set", "config-autoscaler.allow-zero-initial-scale=true"];
    let system = System::start(&binary, &manifests(services), &arguments)?;
    system.wait("all services ready", |s| count_ready(s) == services)?;
    let many = process::family(system.pid());
    let mut cold = Vec::new();
    let mut bare = Vec::new();
    for i in 0..services {
        // Interleaved with the floor, so that the machine's moods hit both alike.
        bare.push(start_bare(&binary)?.as_secs_f64() * 1e6);
        let answer = http::get(system.http, &host(i), "/")?;
        if answer.status != 200 {
            bail!("{}: {} {}", host(i), answer.status, String::from_utf8_lossy(&answer.body));
        }
        cold.push(answer.first_byte.as_secs_f64() * 1e6);
    }
    let phases = phases(&system)?;
    let loaded = process::family(system.pid());
    let warm = warm_latency(&system, &host(services - 1), warm)?;

    let mut metrics = vec![
        ("n".to_owned(), cold.len() as f64),
        ("p50_us".to_owned(), quantile(&cold, 0.5).round()),
        ("p99_us".to_owned(), quantile(&cold, 0.99).round()),
    ];
    let median = |name: &str| phases.get(name).map_or(f64::NAN, |s| quantile(s, 0.5).round());
    metrics.extend(PHASES.iter().map(|name| (format!("phase_{name}_p50_us"), median(name))));
    metrics.push(("own_p50_us".to_owned(), quantile(&phases["own"], 0.5).round()));
    metrics.push(("own_p99_us".to_owned(), quantile(&phases["own"], 0.99).round()));
    metrics.push(("warm_p50_us".to_owned(), quantile(&warm, 0.5).round()));
    metrics.push(("warm_p99_us".to_owned(), quantile(&warm, 0.99).round()));
    metrics.push(("up_to_first_200_ms".to_owned(), (first_200.as_secs_f64() * 1e3).round()));
    metrics.push(("rss_up_idle_kib".to_owned(), rss(&idle, " up ")));
    metrics.push(("rss_keeper_idle_kib".to_owned(), rss(&idle, " __keeper")));
    metrics.push(("rss_idle_kib".to_owned(), idle.iter().map(|p| p.rss_kib as f64).sum()));
    metrics.push(("rss_up_services_kib".to_owned(), rss(&many, " up ")));
    metrics.push(("rss_up_load_kib".to_owned(), rss(&loaded, " up ")));
    metrics.push(("rss_queue_proxy_kib".to_owned(), rss(&loaded, " queue-proxy")));
    metrics.push(("rss_hello_kib".to_owned(), rss(&loaded, " hello")));

    let bars: Vec<(&str, f64)> = PHASES.iter().map(|name| (*name, median(name) / 1000.0)).collect();
    let floor = quantile(&bare, 0.5).round();
    let plot = stacked_bars(
        "Cold start: request in to first byte, median of each phase",
        &[("dormouse", bars), ("bare process", vec![("process starts and answers", floor / 1000.0)])],
    );
    Ok(Report {
        bench: "cold-start",
        subjects: vec![
            Subject { name: "dormouse", metrics },
            Subject {
                name: "process",
                metrics: vec![
                    ("n".to_owned(), bare.len() as f64),
                    ("p50_us".to_owned(), floor),
                    ("p99_us".to_owned(), quantile(&bare, 0.99).round()),
                ],
            },
        ],
        notes: vec![
            "process: the same hello program, started bare and asked until it answers; the floor for any cold start"
                .to_owned(),
            "rss idle: one service, asleep; rss_up_services: the n services of this bench, asleep; load: all awake"
                .to_owned(),
            "own: the whole wake-up less `ready`, in which the pod's processes start up".to_owned(),
        ],
        plots: vec![("cold-start.svg".to_owned(), plot)],
        passes: &[],
    })
}

fn host(i: usize) -> String {
    format!("sleeper-{i}.default.example.com")
}

/// Services that are ready without ever having had a pod.
fn manifests(n: usize) -> String {
    let one = |i: usize| {
        format!(
            "---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: sleeper-{i}}}\nspec:\n  template:\n    \
             metadata: {{annotations: {{autoscaling.knative.dev/initial-scale: \"0\"}}}}\n    \
             spec: {{containers: [{{image: dormouse.dev/hello}}]}}\n"
        )
    };
    (0..n).map(one).collect()
}

fn count_ready(state: &Value) -> usize {
    let services = state["services"].as_array().map(Vec::as_slice).unwrap_or_default();
    services.iter().filter(|s| s["ready"] == "True").count()
}

/// From the start of `up --demo` to the first 200 of its service; and its processes once that service sleeps.
fn up_with_demo(binary: &Path) -> anyhow::Result<(Duration, Vec<process::Process>)> {
    let system = System::start(binary, "", &["--demo"])?;
    let first_200 = loop {
        let answer = http::get(system.http, "hello.default.example.com", "/");
        if answer.is_ok_and(|a| a.status == 200) {
            break system.started.elapsed();
        }
        if system.started.elapsed() > Duration::from_secs(30) {
            bail!("up --demo gave no 200 within 30 s");
        }
        thread::sleep(Duration::from_millis(2));
    };
    system
        .wait("the demo service to sleep", |s| s["revisions"][0]["actual"] == 0 && s["revisions"][0]["desired"] == 0)?;
    // Its processes are on their way out.
    thread::sleep(Duration::from_secs(1));
    Ok((first_200, process::family(system.pid())))
}

/// Starts the hello program alone and asks it until it answers.
fn start_bare(binary: &Path) -> anyhow::Result<Duration> {
    let address: SocketAddr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let started = Instant::now();
    let mut child = Command::new(binary)
        .arg("hello")
        .env("PORT", address.port().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let result = loop {
        if http::get(address, "hello", "/").is_ok_and(|a| a.status == 200) {
            break Ok(started.elapsed());
        }
        if started.elapsed() > Duration::from_secs(10) {
            break Err(anyhow::anyhow!("the bare hello program did not answer within 10 s"));
        }
        thread::sleep(Duration::from_micros(100));
    };
    child.kill()?;
    child.wait()?;
    result
}

/// Microseconds by phase, each from the phase before it, and `own` for all but the app's start.
fn phases(system: &System) -> anyhow::Result<BTreeMap<String, Vec<f64>>> {
    let wakes = system.console("/api/wakes")?;
    let mut found: BTreeMap<String, Vec<f64>> = BTreeMap::from([("own".to_owned(), Vec::new())]);
    for wake in wakes.as_array().context("the console's list of wake-ups is no list")? {
        let at = |name: &str| {
            let steps = wake["phases"].as_array().map(Vec::as_slice).unwrap_or_default();
            steps.iter().find(|s| s["phase"] == name).and_then(|s| s["at_us"].as_f64())
        };
        let (mut last, mut app) = (0.0_f64, 0.0);
        for name in PHASES {
            let Some(now) = at(name) else { continue };
            let took = (now - last).max(0.0);
            found.entry(name.to_owned()).or_default().push(took);
            if name == APP_PHASE {
                app = took;
            }
            last = last.max(now);
        }
        found.entry("own".to_owned()).or_default().push(last - app);
    }
    Ok(found)
}

/// Microseconds of each request on one kept-alive connection.
fn warm_latency(system: &System, host: &str, n: usize) -> anyhow::Result<Vec<f64>> {
    let mut connection = http::Connection::open(system.http)?;
    for _ in 0..n / 10 {
        connection.get(host, "/")?;
    }
    (0..n).map(|_| Ok(connection.get(host, "/")?.first_byte.as_secs_f64() * 1e6)).collect()
}

/// Median memory of the processes whose command has this in it.
fn rss(family: &[process::Process], command: &str) -> f64 {
    let sizes: Vec<f64> = family.iter().filter(|p| p.command.contains(command)).map(|p| p.rss_kib as f64).collect();
    quantile(&sizes, 0.5)
}
