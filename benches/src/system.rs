//! The system under test: the release `dormouse` of this checkout, started as a user starts it, in a folder of its
//! own, and stopped at the end.

use std::{
    env,
    ffi::OsStr,
    fs,
    net::SocketAddr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::http;

/// A running `dormouse up`.
pub(crate) struct System {
    child: Child,
    folder: TempDir,
    pub(crate) http: SocketAddr,
    pub(crate) console: SocketAddr,
    pub(crate) started: Instant,
}

/// Builds the release `dormouse` of this checkout, unless `OURS_DORMOUSE` names another build of it.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    if let Some(path) = named_build("dormouse") {
        return Ok(path);
    }
    build_binary("local", "dormouse", "")
}

/// Builds a release binary of this checkout, so that no figure is of an older one, and says where it is. `features`
/// may be empty.
pub(crate) fn build_binary(package: &str, binary: &str, features: &str) -> anyhow::Result<PathBuf> {
    cargo(&["--release", "-p", package, "--bin", binary, "--features", features])?;
    // This program lies in the same target folder.
    let binary = env::current_exe()?.with_file_name(binary);
    if !binary.exists() {
        bail!("{} is not there: run the bench with `cargo run --release`", binary.display());
    }
    Ok(binary)
}

/// Builds a release example of this checkout and says where it is, unless a variable such as `OURS_IDEAL_CLUSTER` names
/// another build of it.
pub(crate) fn build_example(package: &str, example: &str) -> anyhow::Result<PathBuf> {
    if let Some(path) = named_build(&example.replace('_', "-")) {
        return Ok(path);
    }
    cargo(&["--release", "-p", package, "--example", example])?;
    let folder = env::current_exe()?.parent().context("no target folder")?.join("examples");
    Ok(folder.join(example))
}

/// Builds a binary as the images ship it (`just dist`): the whole program optimised at once and linked without any
/// library of the system. Takes minutes when anything has changed. A variable such as `OURS_QUEUE_PROXY` names another
/// build of it instead, to be compared or tried.
pub(crate) fn build_shipped(package: &str, binary: &str) -> anyhow::Result<PathBuf> {
    if let Some(path) = named_build(binary) {
        return Ok(path);
    }
    let about = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV").output()?;
    let about = String::from_utf8(about.stdout)?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cargo/dist.toml");
    cargo(&["--config", config, "--profile", "dist", "--target", host, "-p", package, "--bin", binary])?;
    let folder = env::current_exe()?.parent().and_then(Path::parent).context("no target folder")?.join(host);
    Ok(folder.join("dist").join(binary))
}

/// The build of a binary that a variable such as `OURS_QUEUE_PROXY` names.
fn named_build(binary: &str) -> Option<PathBuf> {
    let variable = format!("OURS_{}", binary.to_uppercase().replace('-', "_"));
    let path = env::var_os(&variable)?;
    eprintln!("{binary}: not built here, {variable} names it");
    Some(path.into())
}

fn cargo(build: &[&str]) -> anyhow::Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // What `cargo run` tells this program about its package would make build scripts that look at it run again.
    let about_us =
        |name: &OsStr| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|p| name.as_bytes().starts_with(p.as_bytes()));
    for (name, _) in env::vars_os().filter(|(name, _)| about_us(name)) {
        command.env_remove(name);
    }
    let status = command
        .args(["build", "--locked", "--quiet"])
        .args(build)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("cannot run cargo build {build:?}"))?;
    if !status.success() {
        bail!("cargo build {build:?} failed");
    }
    Ok(())
}

impl System {
    /// Starts `up` with these manifests and arguments and waits until it says where it listens.
    pub(crate) fn start(binary: &Path, manifests: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(binary);
        command.args(["up", "--http", "127.0.0.1:0", "--api", "127.0.0.1:0", "--console", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(folder.path().join("data")).args(arguments);
        if !manifests.is_empty() {
            let file = folder.path().join("manifests.yaml");
            fs::write(&file, manifests)?;
            command.arg("-f").arg(file);
        }
        let log = fs::File::create(folder.path().join("up.log"))?;
        let started = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let path = folder.path().join("data/up.json");
        let state = loop {
            if let Some(status) = child.try_wait()? {
                let log = fs::read_to_string(folder.path().join("up.log")).unwrap_or_default();
                bail!("dormouse up ended with {status}:\n{log}");
            }
            if let Some(state) = fs::read(&path).ok().and_then(|b| serde_json::from_slice::<Value>(&b).ok()) {
                break state;
            }
            if started.elapsed() > Duration::from_secs(20) {
                child.kill()?;
                bail!("dormouse up did not write {}", path.display());
            }
            thread::sleep(Duration::from_millis(1));
        };
        let address = |key: &str| -> anyhow::Result<SocketAddr> {
            state[key].as_str().and_then(|s| s.parse().ok()).with_context(|| format!("up.json has no {key}"))
        };
        Ok(Self { http: address("http")?, console: address("console")?, child, folder, started })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// JSON from the console.
    pub(crate) fn console(&self, path: &str) -> anyhow::Result<Value> {
        let answer = http::get(self.console, "console", path)?;
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// Waits until the board says so.
    pub(crate) fn wait(&self, what: &str, done: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let state = self.console("/api/state")?;
            if done(&state) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.path().join("up.log")).unwrap_or_default();
                bail!("waited 60 s for {what}; the board is {state}\n{log}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for System {
    /// Asks it to stop, as Ctrl-C does; after ten seconds it has to.
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
