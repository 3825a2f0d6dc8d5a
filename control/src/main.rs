//! The stand-alone controller.

use std::process::ExitCode;

fn main() -> ExitCode {
    control::main_from_env()
}
