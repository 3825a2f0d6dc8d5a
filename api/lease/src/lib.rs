//! Which of several replicas does the work: leases of the API server, as client-go keeps them.
//!
//! [`candidate`] says what to do with a lease (pure); [`elector`] does it. For the autoscaler, one lease a bucket, and the
//! controller. What a lease's holder does, and how it stops, is theirs.

pub mod candidate;
pub mod elector;

pub use candidate::{Candidate, Record, Step};
pub use elector::Elector;
