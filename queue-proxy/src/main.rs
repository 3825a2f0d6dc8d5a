//! The sidecar: measures and limits concurrency, probes, reports, drains.
fn main() {}
