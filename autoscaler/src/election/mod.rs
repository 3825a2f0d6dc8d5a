//! Several autoscalers share the revisions by buckets: one lease a bucket (upstream `knative.dev/pkg/leaderelection`,
//! `pkg/autoscaler/statforwarder`).
//!
//! [`lease`] says what to do with a lease (pure); [`elector`] does it, once per bucket; [`service`] tells senders where
//! a bucket's holder is; [`forward`] hands on reports that belong to another holder.

pub mod elector;
pub mod forward;
pub mod identity;
pub mod lease;
pub mod service;

pub use identity::Identity;
