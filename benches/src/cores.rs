//! One core for load and backend, another for the proxy under test.

use std::io;

use rustix::{
    process::{Pid, Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// Who runs where. With one core only, all share it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    load: usize,
    proxy: usize,
}

impl Cores {
    /// Takes the first two cores this process may use and keeps this thread on the first.
    pub(crate) fn take() -> io::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let load = cores.next().unwrap_or(0);
        let proxy = cores.next().unwrap_or(load);
        stay_on(load)?;
        Ok(Self { load, proxy })
    }

    pub(crate) fn apart(self) -> bool {
        self.load != self.proxy
    }

    /// Keeps a thread of a program under test on the proxy's core (0) or on the load's (1).
    pub(crate) fn pin(self, thread: u32, which: usize) -> io::Result<()> {
        let mut set = CpuSet::new();
        set.set(if which == 0 { self.proxy } else { self.load });
        Ok(sched_setaffinity(Pid::from_raw(thread.cast_signed()), &set)?)
    }

    /// Runs this with the thread on the proxy's core: a process started in it, and all its threads, stay there.
    pub(crate) fn on_proxy_core<T>(self, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        stay_on(self.proxy)?;
        let started = start();
        stay_on(self.load)?;
        started
    }
}

fn stay_on(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// Raises the limit of open files to what is of use, else as far as it goes, for this process and its children, and says
/// how far that is.
pub(crate) fn raise_file_limit() -> u64 {
    const OF_USE: u64 = 1 << 17;
    let hard = getrlimit(Resource::Nofile).maximum;
    if hard.is_none_or(|hard| hard >= OF_USE) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(OF_USE), maximum: hard });
    } else if setrlimit(Resource::Nofile, Rlimit { current: Some(OF_USE), maximum: Some(OF_USE) }).is_err() {
        // Only root goes beyond the hard limit.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(OF_USE)
}
