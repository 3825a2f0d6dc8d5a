//! A CPU quota for one program and its children, by a control group of either version; gone when dropped.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::Context;

const V1: &str = "/sys/fs/cgroup/cpu";
const V2: &str = "/sys/fs/cgroup";
const NAME: &str = "dormouse-bench-";
/// Microseconds in which the quota is counted.
const PERIOD: u32 = 100_000;

/// Groups made so far, for their names.
static GROUPS: AtomicU32 = AtomicU32::new(0);

/// A control group.
pub(crate) struct Quota {
    folder: PathBuf,
}

impl Quota {
    /// A new group that gets so many thousandths of a core. It needs root and control groups that can be written.
    pub(crate) fn new(millicores: u32) -> anyhow::Result<Self> {
        Self::counted_in(PERIOD, millicores)
    }

    /// [`Quota::new`], counted in periods of so many microseconds: short ones make short pauses.
    pub(crate) fn counted_in(period: u32, millicores: u32) -> anyhow::Result<Self> {
        let v2 = fs::read_to_string(Path::new(V2).join("cgroup.controllers"));
        let root = Path::new(if v2.is_ok() { V2 } else { V1 });
        sweep(root);
        if v2.is_ok_and(|controllers| controllers.split_whitespace().any(|name| name == "cpu")) {
            // It may be on already, or not ours to turn on: the quota's own file says.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+cpu");
        }
        let nth = GROUPS.fetch_add(1, Ordering::Relaxed);
        let folder = root.join(format!("{NAME}{}-{nth}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let group = Self { folder };
        let quota = period / 1000 * millicores;
        let set = |file: &str, text: String| {
            let path = group.folder.join(file);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        if root == Path::new(V2) {
            set("cpu.max", format!("{quota} {period}"))?;
        } else {
            set("cpu.cfs_period_us", period.to_string())?;
            set("cpu.cfs_quota_us", quota.to_string())?;
        }
        Ok(group)
    }

    /// From now on this thread alone has to do with the quota. Control groups of version 1 only.
    pub(crate) fn hold_thread(&self, id: u32) -> io::Result<()> {
        fs::write(self.folder.join("tasks"), id.to_string())
    }

    /// From now on this process, with all its threads, has to do with the quota.
    pub(crate) fn hold(&self, pid: u32) -> io::Result<()> {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string())
    }
}

impl Drop for Quota {
    /// Whoever is still in it goes back to where all are; an empty group can be removed.
    fn drop(&mut self) {
        let left = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        if let Some(root) = self.folder.parent() {
            for pid in left.lines() {
                let _ = fs::write(root.join("cgroup.procs"), pid);
            }
        }
        for _ in 0..50 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Removes what a killed run has left. A group that is in use cannot be removed.
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(NAME) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_gone_when_dropped_and_its_processes_live_on() {
        // Only root can make one.
        let Ok(quota) = Quota::new(500) else { return };
        let folder = quota.folder.clone();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        quota.hold(child.id()).unwrap();
        assert!(folder.exists());
        drop(quota);
        assert!(!folder.exists());
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
