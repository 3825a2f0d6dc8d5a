//! The `dormouse` command: parses the command line and hands over to the crate that does the work.

use std::process::ExitCode;

use clap::Parser;
use local::cli::{Cli, Command};
use tokio::runtime;

fn main() -> ExitCode {
    // The sidecar starts on every cold start: it does not wait for a command line parser.
    if std::env::args_os().nth(1).is_some_and(|a| a == "queue-proxy") {
        return queue_proxy::main_from_env();
    }
    let result = match Cli::parse().command {
        Command::Up(options) => on_one_thread(local::up::run(*options)),
        Command::Hello => on_one_thread(local::hello::run()),
        Command::Crds => print(&local::crds::yaml()),
        Command::Replay { file } => return replay(&file),
        Command::Keeper => local::keeper::main().map_err(Into::into),
        Command::Activator { flags } => return activator::main_with(flags),
        Command::QueueProxy => return queue_proxy::main_from_env(),
        Command::Autoscaler => return autoscaler::main_from_env(),
        Command::Controller => return control::main_from_env(),
        Command::Webhook => return control::webhook_from_env(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dormouse: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a text, even if whoever reads it has enough before its end.
fn print(text: &anyhow::Result<String>) -> anyhow::Result<()> {
    use std::io::Write;
    let text = text.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints what a replay found; fails where a decision differs.
fn replay(file: &std::path::Path) -> ExitCode {
    let found = std::fs::read(file).map_err(anyhow::Error::from).and_then(|log| Ok(autoscaler::replay::replay(&log)?));
    match found {
        Ok(found) => {
            println!("{found}");
            if found.difference.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("dormouse: {}: {error:#}", file.display());
            ExitCode::FAILURE
        }
    }
}

/// Runs the command on a runtime of this thread alone; `up` starts further threads of its own.
fn on_one_thread(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}
