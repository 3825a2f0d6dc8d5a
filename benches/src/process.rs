//! Reading other processes from `/proc`: who belongs to whom, how much memory each holds, and its time on a core.

use std::{fs, iter::Sum, path::Path, time::Duration};

/// One process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    /// Program and arguments, separated by blanks.
    pub(crate) command: String,
    pub(crate) rss_kib: u64,
    /// Time on a core of all its threads.
    pub(crate) cpu: CpuTime,
}

/// Time on a core, in user space and in the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    /// Of threads that still live, to the nanosecond, where the kernel keeps it.
    exact: Duration,
    /// To the tick, which is coarse (10 ms), but told apart.
    user: Duration,
    system: Duration,
}

impl CpuTime {
    /// What came since then.
    pub(crate) fn since(self, then: Self) -> Self {
        Self {
            exact: self.exact.saturating_sub(then.exact),
            user: self.user.saturating_sub(then.user),
            system: self.system.saturating_sub(then.system),
        }
    }

    pub(crate) fn us(self) -> f64 {
        let whole = if self.exact.is_zero() { self.user + self.system } else { self.exact };
        whole.as_secs_f64() * 1e6
    }

    /// The part in user space; the ticks give the proportion.
    pub(crate) fn user_us(self) -> f64 {
        let ticks = self.user + self.system;
        if ticks.is_zero() { 0.0 } else { self.us() * self.user.div_duration_f64(ticks) }
    }
}

impl Sum for CpuTime {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |a, b| Self {
            exact: a.exact + b.exact,
            user: a.user + b.user,
            system: a.system + b.system,
        })
    }
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

/// The thread of a process that has this name.
pub(crate) fn thread(pid: u32, name: &str) -> Option<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let named = |thread: &fs::DirEntry| {
        fs::read_to_string(thread.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    threads.filter(named).find_map(|thread| thread.file_name().to_str()?.parse().ok())
}

/// A process that ends while it is read is none.
fn read(pid: u32) -> Option<Process> {
    let folder = Path::new("/proc").join(pid.to_string());
    let status = fs::read_to_string(folder.join("status")).ok()?;
    let field =
        |name: &str| status.lines().find_map(|l| l.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok());
    let command = fs::read(folder.join("cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned();
    let (user, system) = cpu_ticks(&fs::read_to_string(folder.join("stat")).ok()?)?;
    let time = |ticks: u64| Duration::from_secs(ticks) / rustix::param::clock_ticks_per_second() as u32;
    let cpu = CpuTime { exact: exact(&folder), user: time(user), system: time(system) };
    Some(Process { pid, parent: field("PPid:")? as u32, command, rss_kib: field("VmRSS:")?, cpu })
}

/// Time on a core of all threads that live; zero where the kernel does not say.
fn exact(folder: &Path) -> Duration {
    let threads = fs::read_dir(folder.join("task")).into_iter().flatten().flatten();
    let ns = |text: String| text.split_whitespace().next()?.parse().ok();
    let of = |thread: fs::DirEntry| ns(fs::read_to_string(thread.path().join("schedstat")).ok()?);
    threads.filter_map(of).map(Duration::from_nanos).sum()
}

/// `utime` and `stime` of a `/proc/PID/stat` line, in ticks.
fn cpu_ticks(stat: &str) -> Option<(u64, u64)> {
    // The command, in parentheses, may hold anything, blanks and parentheses too.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    Some((times.next()?.parse().ok()?, times.next()?.parse().ok()?))
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
        assert_eq!(cpu_ticks(stat), Some((250, 125)));
        assert_eq!(cpu_ticks("77 (a) S 1"), None);
    }

    #[test]
    fn ticks_only_divide_what_is_known_exactly() {
        let at = |exact, user, system| {
            let ms = Duration::from_millis;
            CpuTime { exact: ms(exact), user: ms(user), system: ms(system) }
        };
        let spent = at(1_500, 30, 50).since(at(500, 20, 20));
        assert_eq!((spent.us(), spent.user_us()), (1e6, 0.25e6));
        assert_eq!((at(0, 10, 20).us(), at(7, 0, 0).user_us()), (30e3, 0.0));
    }
}
