//! The stand-alone activator.

fn main() -> std::process::ExitCode {
    activator::main_from_env()
}
