//! Revisions of class `hpa.autoscaling.knative.dev`: handed to a real HorizontalPodAutoscaler (upstream
//! `pkg/reconciler/autoscaling/hpa`). They never go to zero, and nothing is decided here.
//!
//! [`desired`] says what the HorizontalPodAutoscaler and the status should be (pure); [`reconcile`] reads and writes. The
//! engine only says which revision to look at.

pub mod desired;
pub mod reconcile;

pub use reconcile::run;
