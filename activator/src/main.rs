//! The door: Host to revision to slot to pod; holds a request while its revision wakes.
fn main() {}
