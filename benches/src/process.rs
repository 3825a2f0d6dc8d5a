//! Reading other processes from `/proc`: who belongs to whom, and how much memory each holds.

use std::{fs, path::Path, time::Duration};

/// One process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    /// Program and arguments, separated by blanks.
    pub(crate) command: String,
    pub(crate) rss_kib: u64,
    /// Time on a core, in user and kernel, of all its threads.
    pub(crate) cpu: Duration,
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
    let ticks = cpu_ticks(&fs::read_to_string(folder.join("stat")).ok()?)?;
    let cpu = Duration::from_secs(ticks) / rustix::param::clock_ticks_per_second() as u32;
    Some(Process { pid, parent: field("PPid:")? as u32, command, rss_kib: field("VmRSS:")?, cpu })
}

/// `utime` + `stime` of a `/proc/PID/stat` line, which are in ticks.
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The command, in parentheses, may hold anything, blanks and parentheses too.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    Some(times.next()?.parse::<u64>().ok()? + times.next()?.parse::<u64>().ok()?)
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

    #[test]
    fn ticks_are_read_past_any_command() {
        let stat = "77 (a) b (c)) S 1 77 77 0 -1 4194560 100 0 0 0 250 125 3 4 20 0 1 0 5 6 7";
        assert_eq!(cpu_ticks(stat), Some(375));
        assert_eq!(cpu_ticks("77 (a) S 1"), None);
    }
}
