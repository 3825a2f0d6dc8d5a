//! The programs under test, each started the same way: a command, a folder for its files, and a port that answers.
//!
//! All get the leanest settings that still make them a sidecar: one thread or worker, kept-alive connections on both
//! sides, no access log, no added identifiers, no statistics beyond what cannot be turned off.

pub(crate) mod door;
mod envoy;
mod haproxy;
mod nginx;
pub(crate) mod relay;
mod running;
mod sidecar;

use std::{
    env, fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
pub(crate) use door::Door;
pub(crate) use running::Running;

use crate::{
    cores::Cores,
    load::{
        Target, grpc,
        http1::{Client, Request},
    },
};

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ours, without limit and metrics.
    Sidecar,
    /// Ours, with a concurrency limit above the load and with the user's metrics on.
    FullSidecar,
    /// The same, with the request log, whose lines are read and forgotten.
    LoggingSidecar,
    /// Our activator.
    Door(Door),
    /// Any other queue-proxy, which takes ports of all addresses.
    Upstream,
    Relay,
    Haproxy,
    /// HAProxy whose server takes one request at a time.
    HoldingHaproxy,
    Nginx,
    Envoy,
    Pingora,
}

/// What is spoken on both sides of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    /// h2 in the clear, by prior knowledge.
    H2c,
}

/// A program that is installed.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    program: PathBuf,
}

/// Longest wait for a first answer; an activator may have very many objects to read before it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where an activator takes requests.
const DOOR: u16 = 8012;

/// What a configuration is made of.
struct Plan<'a> {
    listen: SocketAddr,
    backend: SocketAddr,
    protocol: Protocol,
    folder: &'a Path,
    /// Connections it must be able to hold.
    connections: usize,
}

impl Peer {
    /// One that was built here.
    pub(crate) fn built(kind: Kind, program: &Path) -> Self {
        Self { kind, program: program.to_owned() }
    }

    /// The same program, run in another way.
    pub(crate) fn of_kind(&self, kind: Kind) -> Self {
        Self { kind, program: self.program.clone() }
    }

    /// The relay is this program itself.
    pub(crate) fn relay() -> io::Result<Self> {
        Ok(Self { kind: Kind::Relay, program: env::current_exe()? })
    }

    /// A program of this name, or at the place its variable names; `None` when it is not installed.
    pub(crate) fn installed(kind: Kind, name: &str) -> Option<Self> {
        let program = named(&name.to_ascii_uppercase()).into_iter().chain(on_path(name)).find(|path| runnable(path))?;
        Some(Self { kind, program })
    }

    /// The queue-proxy that `UPSTREAM_QUEUE_PROXY` names.
    pub(crate) fn upstream() -> Option<Self> {
        let program = named("UPSTREAM_QUEUE_PROXY").filter(|path| runnable(path))?;
        Some(Self { kind: Kind::Upstream, program })
    }

    /// Size of the program file. The relay has none of its own.
    pub(crate) fn binary_kib(&self) -> Option<f64> {
        let size = || fs::metadata(&self.program).ok().map(|meta| (meta.len() / 1024) as f64);
        if self.kind == Kind::Relay { None } else { size() }
    }

    /// What it calls its version.
    pub(crate) fn version(&self) -> Option<String> {
        let flag = match self.kind {
            Kind::Haproxy | Kind::HoldingHaproxy | Kind::Nginx => "-v",
            Kind::Envoy => "--version",
            _ => return None,
        };
        let output = Command::new(&self.program).arg(flag).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        version_in(&text)
    }

    /// A launcher script replaces itself by the real program; from the second start on the real one is started at
    /// once, so that no interpreter is timed.
    pub(crate) fn skip_launcher(&mut self, running: &Running) {
        let is_script = fs::read(&self.program).is_ok_and(|bytes| bytes.starts_with(b"#!"));
        if let (true, Ok(real)) = (is_script, fs::read_link(format!("/proc/{}/exe", running.pid()))) {
            self.program = real;
        }
    }

    /// Starts it on the proxy's core, in front of this app, and waits for its first answer.
    pub(crate) async fn start(
        &self,
        app: Target,
        protocol: Protocol,
        connections: usize,
        cores: Cores,
    ) -> anyhow::Result<Running> {
        let folder = tempfile::tempdir()?;
        let namespace = app.namespace;
        let listen = match self.kind {
            Kind::Door(_) => SocketAddr::new(self.ip().into(), DOOR),
            _ => namespace.within(|| TcpListener::bind((self.ip(), 0))?.local_addr())?,
        };
        let plan = Plan { listen, backend: app.address, protocol, folder: folder.path(), connections };
        let mut command = Command::new(&self.program);
        let log = folder.path().join("log");
        let file = fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let mut cluster = None;
        match self.kind {
            Kind::Door(door) => {
                let its = door.cluster(&plan)?;
                door::prepare(&mut command, &plan, door, &its)?;
                cluster = Some(its);
            }
            Kind::Sidecar | Kind::FullSidecar | Kind::LoggingSidecar | Kind::Upstream => {
                sidecar::prepare(&mut command, &plan, self.kind);
            }
            Kind::Relay => relay::prepare(&mut command, &plan),
            Kind::Pingora => {
                let protocol = if protocol == Protocol::H2c { "h2c" } else { "http1" };
                command.args([&listen.to_string(), &app.address.to_string(), protocol]);
            }
            Kind::Haproxy => haproxy::prepare(&mut command, &plan, "")?,
            Kind::HoldingHaproxy => haproxy::prepare(&mut command, &plan, " maxconn 1")?,
            Kind::Nginx => nginx::prepare(&mut command, &plan)?,
            Kind::Envoy => envoy::prepare(&mut command, &plan)?,
        }
        let begun = Instant::now();
        let mut child = cores
            .on_proxy_core(|| namespace.within(|| command.spawn()))
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let lines = child.stdout.take().map(running::count_lines);
        let target = Target { address: listen, namespace };
        let mut running = Running::new(child, target, folder, lines, self.kind);
        running.cluster = cluster;
        while begun.elapsed() < PATIENCE {
            if answers(&running.target, protocol).await {
                running.first_answer = begun.elapsed();
                return Ok(running);
            }
            if running.has_ended()? {
                break;
            }
            // Lets the backend answer, and asks again at once: a timer would be coarser than what is timed.
            tokio::task::yield_now().await;
        }
        bail!("it gave no answer: {}", fs::read_to_string(&log).unwrap_or_default().trim());
    }

    /// Ours open fixed ports, so each start has an address of its own.
    fn ip(&self) -> Ipv4Addr {
        match self.kind {
            Kind::Door(_) | Kind::Sidecar | Kind::FullSidecar | Kind::LoggingSidecar => own_address(),
            _ => Ipv4Addr::LOCALHOST,
        }
    }
}

async fn answers(target: &Target, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Http1 => {
            let Ok(mut client) = Client::open(target).await else { return false };
            client.exchange(&Request::Tiny.bytes()).await.is_ok()
        }
        Protocol::H2c => grpc::streams(target, 1, 1).await.is_ok(),
    }
}

fn named(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from)
}

/// The first thing in this text that looks like `1.2` or `1.2.3`.
fn version_in(text: &str) -> Option<String> {
    let words = text.split(|c: char| !(c.is_ascii_digit() || c == '.'));
    words.map(|word| word.trim_matches('.')).find(|word| word.contains('.')).map(str::to_owned)
}

/// Programs in `PATH`, and where Debian keeps servers, which is not in every user's `PATH`.
fn on_path(name: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(["/usr/sbin".into()]).map(|folder| folder.join(name)).collect()
}

fn runnable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A loopback address for each start of this process, away from those that pods get.
fn own_address() -> Ipv4Addr {
    static STARTS: AtomicU8 = AtomicU8::new(0);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 200 + STARTS.fetch_add(1, Ordering::Relaxed) % 50, high, low.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_where_programs_write_them() {
        for (text, version) in [
            ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/", Some("2.6.12")),
            ("nginx version: nginx/1.22.1\n", Some("1.22.1")),
            ("/x/envoy  version: 9e55809/1.40.0/Clean/RELEASE/BoringSSL", Some("1.40.0")),
            ("none.", None),
        ] {
            assert_eq!(version_in(text).as_deref(), version, "{text}");
        }
    }
}
