//! Pods in and out: from Endpoints objects to the addresses that can serve right now.
//!
//! [`parse`] reads the objects, [`pods`] decides who is probed and who is usable (both pure), [`probe`] asks the pods.

pub mod parse;
pub mod pods;
pub mod probe;
