//! The controller as a process of its own: environment in, reconciles until SIGTERM or SIGINT.

use std::process::ExitCode;

use crate::{Config, Controller};

/// Runs the controller by the environment's settings until the process is told to stop.
pub fn main_from_env() -> ExitCode {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).json().init();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("controller: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The errors say their causes themselves.
            eprintln!("controller: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let shutdown = proxy::shutdown::token()?;
    Controller::bind(Config::from_env().await?).await?.run(shutdown).await?;
    Ok(())
}
