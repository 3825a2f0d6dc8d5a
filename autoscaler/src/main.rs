//! The autoscaler's binary.

fn main() -> std::process::ExitCode {
    autoscaler::main_from_env()
}
