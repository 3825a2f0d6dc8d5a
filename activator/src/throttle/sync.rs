//! The primitives that threads share, in one place, so that the model (`model.rs`, feature `loom`) can put its own in
//! their stead and try every order in which threads may meet.
//!
//! `Arc` stays the standard one: nothing here depends on when a count reaches zero, and loom's cannot be a method's
//! receiver.

#[cfg(feature = "loom")]
pub(super) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};
#[cfg(not(feature = "loom"))]
pub(super) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};
