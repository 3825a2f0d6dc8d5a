//! Several autoscalers share the revisions by buckets: one lease a bucket (upstream `knative.dev/pkg/leaderelection`,
//! `pkg/autoscaler/statforwarder`).
//!
//! [`elector`] holds or awaits a lease, once per bucket; [`service`] tells senders where
//! a bucket's holder is; [`forward`] hands on reports that belong to another holder.

pub mod elector;
pub mod forward;
pub mod identity;
pub mod service;

pub use identity::Identity;
