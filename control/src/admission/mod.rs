//! Admission.
pub mod quantity;
