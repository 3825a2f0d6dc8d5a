//! From the process environment to a running sidecar, and from its signals to its end.

use std::process::ExitCode;

use tracing_subscriber::filter::LevelFilter;

use crate::{Config, Error, QueueProxy};

/// Runs the sidecar as upstream's binary runs: configuration from the environment only. Used by this crate's binary
/// and by `dormouse queue-proxy`.
pub fn main_from_env() -> ExitCode {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    start_logging(&config.log_level);
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

/// JSON lines on stderr; a level that is none means info. Levels only: a filter language would cost a MiB of regex.
fn start_logging(level: &str) {
    let level = match level {
        "dpanic" | "panic" | "fatal" => LevelFilter::ERROR,
        other => other.parse().unwrap_or(LevelFilter::INFO),
    };
    let _ = tracing_subscriber::fmt().json().with_max_level(level).with_writer(std::io::stderr).try_init();
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("queue-proxy: {error}");
    ExitCode::FAILURE
}
