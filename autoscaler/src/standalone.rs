//! The autoscaler as a process of its own: environment in, run, drain on SIGTERM.

use std::process::ExitCode;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::{Autoscaler, Config};

/// `main` of the autoscaler's binary and of `dormouse autoscaler`. One thread is enough: the work is small and the
/// order of events is its correctness.
pub fn main_from_env() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).init();
    // A pod that tells its load by itself is a socket.
    proxy::runtime::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime");
    match runtime.and_then(|runtime| runtime.block_on(run())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("autoscaler: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let config = Config::from_env().await.context("bad environment")?;
    let autoscaler = Autoscaler::bind(config).await.context("cannot start")?;
    let shutdown = proxy::shutdown::token().context("cannot listen for signals")?;
    autoscaler.run(shutdown).await.context("autoscaler failed")
}
