//! The sidecar: measures and limits concurrency, probes, reports, drains.

use std::process::ExitCode;

fn main() -> ExitCode {
    queue_proxy::main_from_env()
}
