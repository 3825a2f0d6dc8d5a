//! The door: Host to revision to slot to pod; holds a request while its revision wakes.
//!
//! What comes in is a request for a host; what goes out is the same request to a pod that has room for it, as soon as
//! there is one. In the order in which it happens:
//!
//! 1. [`server`]: sockets and threads; one runtime per core for requests, one thread for everything else. Which socket
//!    it was, says [`entrance`].
//! 2. [`handler`]: probes, then which revision, then wait and send, then answer.
//! 3. [`table`]: host, path and headers → weighted backends, as an immutable snapshot.
//! 4. [`revision`]: settings, slots and counts of one revision in one object.
//! 5. [`throttle`]: exact slots per pod, first come first served.
//! 6. [`report`]: requests in flight, told to the autoscaler; the first one at once.
//! 7. [`endpoints`]: pods come and go; each is asked by itself whether it can serve.
//! 8. [`wake`]: the phases of a wake-up as seen from here; [`metrics`].
//!
//! Off the request path: [`certificates`] of the gateway's TLS; [`watch`] (API server) → [`feed`] → [`world`] (the single writer of all of the above).
//! [`shared`] is what threads have in common; [`config`] what they are told at the start.

pub mod certificates;
pub mod config;
pub mod endpoints;
pub mod entrance;
pub mod feed;
pub mod handler;
pub mod metrics;
pub mod report;
pub mod revision;
pub mod server;
pub mod shared;
pub mod table;
pub mod throttle;
pub mod wake;
pub mod watch;
pub mod world;

pub use certificates::SecretName;
pub use config::{Config, ConfigError, Routing};
pub use feed::{Change, Feed};
pub use server::{Activator, Error};

use std::process::ExitCode;

/// The stand-alone process: upstream's drop-in, told everything by its environment.
pub fn main_from_env() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve_from_env()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve_from_env() -> anyhow::Result<()> {
    use anyhow::Context;
    let shutdown = proxy::shutdown::token().context("cannot listen for signals")?;
    let mut config = Config::from_env()?;
    config.client = Some(kube::Client::try_default().await.context("cannot reach the API server")?);
    Activator::bind(config).await?.run(shutdown).await?;
    Ok(())
}
