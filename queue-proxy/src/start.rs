//! From the process environment to a running sidecar, and from its signals to its end.

use std::process::ExitCode;

use telemetry::logging;

use crate::{Config, Error, QueueProxy};

/// Runs the sidecar as upstream's binary runs: configuration from the environment only. Used by this crate's binary
/// and by `dormouse queue-proxy`.
pub fn main_from_env() -> ExitCode {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("queue-proxy: {error}"); // there is no log yet
            return ExitCode::FAILURE;
        }
    };
    let identity = &config.identity;
    logging::start(
        &config.logging,
        logging::Process {
            name: "queueproxy",
            crates: &["queue_proxy", "telemetry", "proxy", "api"],
            context: vec![
                ("knative.dev/key", format!("{}/{}", identity.namespace, identity.revision)),
                ("knative.dev/pod", identity.pod.clone()),
            ],
        },
    );
    match proxy::runtime::block_on(run(config)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(&error),
        Err(error) => fail(&error),
    }
}

async fn run(config: Config) -> Result<(), Error> {
    // First of all, so that a signal during the start is not missed.
    let shutdown = proxy::shutdown::token().map_err(Error::Signals)?;
    QueueProxy::bind(config).await?.run(shutdown).await
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    tracing::error!(%error, "cannot run");
    ExitCode::FAILURE
}
