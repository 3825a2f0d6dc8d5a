//! Reading other processes from `/proc`: who belongs to whom, and how much memory each holds.

use std::{fs, path::Path};

/// One process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    /// Program and arguments, separated by blanks.
    pub(crate) command: String,
    pub(crate) rss_kib: u64,
}

/// The process and all that descend from it.
pub(crate) fn family(root: u32) -> Vec<Process> {
    let all: Vec<Process> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| read(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .collect();
    let mut family: Vec<Process> = all.iter().filter(|p| p.pid == root).cloned().collect();
    let mut next = 0;
    while next < family.len() {
        let parent = family[next].pid;
        family.extend(all.iter().filter(|p| p.parent == parent).cloned());
        next += 1;
    }
    family
}

/// A process that ends while it is read is none.
fn read(pid: u32) -> Option<Process> {
    let folder = Path::new("/proc").join(pid.to_string());
    let status = fs::read_to_string(folder.join("status")).ok()?;
    let field =
        |name: &str| status.lines().find_map(|l| l.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok());
    let command = fs::read(folder.join("cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned();
    Some(Process { pid, parent: field("PPid:")? as u32, command, rss_kib: field("VmRSS:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_its_own_family() {
        let family = family(std::process::id());
        assert_eq!(family[0].pid, std::process::id());
        assert!(family[0].rss_kib > 0);
    }
}
