//! Turns measured load into a wanted number of pods and applies it.
fn main() {}
