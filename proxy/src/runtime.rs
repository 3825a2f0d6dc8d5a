//! The runtime every data-plane thread runs: single-threaded, with `spawn_local` available everywhere. And how many files
//! its process may open.

use std::future::Future;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

/// Builds a single-threaded runtime on which [`crate::serve`] and [`crate::Pool`] can be used.
pub fn local() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

/// Runs a future to its end on a new runtime of [`local`] on this thread.
pub fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    Ok(local()?.block_on(future))
}

/// Takes as many files as the system lets this process have, as Go's runtime does: some container runtimes start a
/// process with a limit of 1024 that it may raise, and a process that talks to thousands needs a socket for each.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::warn!(%error, limit = limit.current, "the limit of open files stays");
    }
}

/// How many files this process may have open.
pub fn file_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Spawns hyper's background work (h2 streams) on the current local runtime.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
