//! One binary, one file per bench: ours and its peers in one run.
fn main() {}
