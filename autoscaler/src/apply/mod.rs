//! From a decision to the cluster: [`plan`] says what should be written (pure), [`write`] writes it, [`probe`] makes
//! sure that an activator is in the path before the last pod goes, [`watch`] says what exists.

pub mod desired;
pub mod plan;
pub mod probe;
pub mod watch;
pub mod write;
