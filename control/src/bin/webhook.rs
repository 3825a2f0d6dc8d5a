//! The stand-alone webhook.

use std::process::ExitCode;

fn main() -> ExitCode {
    control::webhook_from_env()
}
