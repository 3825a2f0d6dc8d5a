//! A program under test while it runs.

use std::{
    io::{self, Read},
    process::{Child, ChildStdout},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::Kind;
use crate::{
    cluster::Cluster,
    load::Target,
    process::{self, CpuTime},
};

/// A program under test, stopped when dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) target: Target,
    /// From its start to the end of its first answer.
    pub(crate) first_answer: Duration,
    /// What an activator lives in.
    pub(crate) cluster: Option<Cluster>,
    /// The program behind it, where that is not the app itself.
    pub(crate) behind: Option<Box<Self>>,
    /// What it has logged, where that is read.
    lines: Option<Arc<AtomicU64>>,
    /// What it is stopped by.
    signal: Signal,
    _folder: TempDir,
}

impl Running {
    pub(super) fn new(
        child: Child,
        target: Target,
        folder: TempDir,
        lines: Option<Arc<AtomicU64>>,
        kind: Kind,
    ) -> Self {
        // A queue-proxy as upstream's, and an activator, go on for half a minute and more when they are asked to end.
        let signal = if matches!(kind, Kind::Upstream | Kind::Door(_)) { Signal::KILL } else { Signal::TERM };
        let (first_answer, cluster, behind) = (Duration::ZERO, None, None);
        Self { child, target, first_answer, cluster, behind, lines, signal, _folder: folder }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// The program and its children.
    pub(crate) fn pids(&self) -> Vec<u32> {
        process::family(self.pid()).iter().map(|p| p.pid).collect()
    }

    /// Lines of its log so far; `None` where nobody reads them.
    pub(crate) fn lines(&self) -> Option<u64> {
        self.lines.as_ref().map(|lines| lines.load(Ordering::Relaxed))
    }

    /// The thread of this name.
    pub(crate) fn thread(&self, name: &str) -> anyhow::Result<u32> {
        process::thread(self.pid(), name).with_context(|| format!("there is no thread {name}"))
    }

    /// Memory of the program and its children.
    pub(crate) fn rss_kib(&self) -> f64 {
        process::family(self.pid()).iter().map(|p| p.rss_kib as f64).sum()
    }

    /// Time on a core since its start, its children's and what stands behind it with it.
    pub(crate) fn cpu(&self) -> CpuTime {
        let own = process::family(self.pid()).iter().map(|p| p.cpu).sum();
        [Some(own), self.behind.as_ref().map(|behind| behind.cpu())].into_iter().flatten().sum()
    }
}

/// Reads a log as whoever collects logs would, and forgets all but the number of its lines. Ends with the program.
pub(super) fn count_lines(mut log: ChildStdout) -> Arc<AtomicU64> {
    let lines = Arc::<AtomicU64>::default();
    let count = Arc::clone(&lines);
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(n @ 1..) = log.read(&mut buffer) {
            let ends = buffer[..n].split(|byte| *byte == b'\n').count() - 1;
            count.fetch_add(ends as u64, Ordering::Relaxed);
        }
    });
    lines
}

impl Drop for Running {
    fn drop(&mut self) {
        let family = self.pids();
        let _ = kill_process(Pid::from_child(&self.child), self.signal);
        let deadline = Instant::now() + Duration::from_secs(1);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(2));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            // Still held by its parent, so these ids are still theirs.
            for pid in family.iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
                let _ = kill_process(pid, Signal::KILL);
            }
            let _ = self.child.wait();
        }
    }
}
