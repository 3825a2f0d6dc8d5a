//! Who descends from whom, read from `/proc`: the keeper's way to find every process that its containers left.
//!
//! The keeper is a child subreaper, so whatever a container forks, even twice and with a session of its own, stays
//! below the keeper. [`MARKER`] in the environment says which container a process came from.

use std::{collections::HashMap, fs};

use rustix::process::{Pid, Signal, kill_process};

/// Environment variable by which descendants of one container are told from those of another.
pub(super) const MARKER: &str = "DORMOUSE_CONTAINER";

/// Children of every process, at one moment.
pub(super) struct Family(HashMap<i32, Vec<i32>>);

impl Family {
    /// Reads the process table.
    pub(super) fn read() -> Self {
        let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some(parent) = parent(pid) {
                children.entry(parent).or_default().push(pid);
            }
        }
        Self(children)
    }

    /// The direct children of `pid`.
    pub(super) fn children(&self, pid: i32) -> &[i32] {
        self.0.get(&pid).map_or(&[], Vec::as_slice)
    }

    /// `pid` and everything below it.
    pub(super) fn tree(&self, pid: i32) -> Vec<i32> {
        let mut tree = vec![pid];
        let mut next = 0;
        while let Some(&pid) = tree.get(next) {
            // A pid that was used again while the table was read could close a circle.
            tree.extend(self.children(pid).iter().filter(|child| !tree.contains(child)).copied().collect::<Vec<_>>());
            next += 1;
        }
        tree
    }
}

/// Parent of a process that lives (a zombie holds nothing and is only waited for).
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // "pid (comm) state ppid": comm may hold anything, but the last parenthesis ends it.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.next()?.parse().ok()
}

/// Whether the process came from the container whose mark this is.
pub(super) fn has_mark(pid: i32, mark: &str) -> bool {
    let Ok(environ) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    let wanted = format!("{MARKER}={mark}");
    environ.split(|&b| b == 0).any(|variable| variable == wanted.as_bytes())
}

/// Ends a process; one that is gone already is fine.
pub(super) fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, Signal::KILL);
    }
}
