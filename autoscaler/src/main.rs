//! The autoscaler as a process of its own: environment in, run, drain on SIGTERM.

use anyhow::Context;
use autoscaler::{Autoscaler, Config};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).init();
    let config = Config::from_env().await.context("bad environment")?;
    let autoscaler = Autoscaler::bind(config).await.context("cannot start")?;
    let shutdown = CancellationToken::new();
    tokio::spawn(cancel_on_signal(shutdown.clone()));
    autoscaler.run(shutdown).await.context("autoscaler failed")
}

async fn cancel_on_signal(shutdown: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminated => {}
        // Where Ctrl-C cannot be heard there is nobody to press it.
        _ = tokio::signal::ctrl_c() => {}
    }
    shutdown.cancel();
}
