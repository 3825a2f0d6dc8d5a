//! Turns measured load into a wanted number of pods and applies it.

pub mod algorithm;
pub mod moment;
pub mod window;
