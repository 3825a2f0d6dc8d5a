//! The runtime every data-plane thread runs: single-threaded, with `spawn_local` available everywhere.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

/// Builds a single-threaded runtime on which [`crate::serve`] and [`crate::Pool`] can be used.
pub fn local() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

/// Runs a future to its end on a new runtime of [`local`] on this thread.
pub fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    Ok(local()?.block_on(future))
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
