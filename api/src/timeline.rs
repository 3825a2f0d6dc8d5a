//! One wake-up, phase by phase, from the request that found no pod to its first byte.
//!
//! Each process marks the phases it sees; whoever wires the processes together (`dormouse up`) merges the marks of a
//! revision into one timeline. Stand-alone processes keep their own part of it as metrics.

use std::{fmt, sync::Arc, time::SystemTime};

/// The steps of a wake-up, in the order in which they happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A request found no pod and waits (activator).
    Queued,
    /// The autoscaler wants at least one pod (autoscaler).
    Decided,
    /// The API server has the new scale (autoscaler).
    ScaleWritten,
    /// A pod object exists and a node has taken it (node).
    PodScheduled,
    /// Every container process of the pod is started (node).
    ContainersStarted,
    /// The pod's queue-proxy said that the app is ready (activator).
    Ready,
    /// The first byte of the answer went to the client (activator).
    FirstByte,
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Decided,
        Self::ScaleWritten,
        Self::PodScheduled,
        Self::ContainersStarted,
        Self::Ready,
        Self::FirstByte,
    ];

    /// The name used in metrics, JSON and `Server-Timing`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Decided => "decided",
            Self::ScaleWritten => "scale_written",
            Self::PodScheduled => "pod_scheduled",
            Self::ContainersStarted => "containers_started",
            Self::Ready => "ready",
            Self::FirstByte => "first_byte",
        }
    }
}

/// One phase of one revision, seen at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Namespace of the revision.
    pub namespace: String,
    /// Name of the revision.
    pub revision: String,
    /// What happened.
    pub phase: Phase,
    /// When; the processes that are merged share one clock.
    pub at: SystemTime,
}

/// Where marks go. Cheap to clone; called on the hot path only for requests that waited, so it must not block.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(Mark) + Send + Sync>);

impl Observer {
    /// Calls `f` for each mark.
    pub fn new(f: impl Fn(Mark) + Send + Sync + 'static) -> Self {
        Self(Arc::new(f))
    }

    /// Reports that `phase` of `namespace/revision` happens now.
    pub fn mark(&self, namespace: &str, revision: &str, phase: Phase) {
        (self.0)(Mark { namespace: namespace.into(), revision: revision.into(), phase, at: SystemTime::now() });
    }
}

impl Default for Observer {
    /// Drops every mark.
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
