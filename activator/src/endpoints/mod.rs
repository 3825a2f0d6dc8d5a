//! Pods in and out: from Endpoints and Services to the addresses that can serve right now.
//!
//! [`parse`] reads the objects, [`pods`] decides who is probed and who is usable, [`mesh`] whether the cluster IP is used
//! instead, [`backends`] is both of one revision (all pure); [`probe`] asks.

pub mod backends;
pub mod mesh;
pub mod parse;
pub mod pods;
pub mod probe;
