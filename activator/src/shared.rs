//! What all threads of the activator look at: snapshots, atomics, and one mutex per revision.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::timeline::Observer;
use arc_swap::ArcSwap;
use tokio::sync::broadcast;

use crate::certificates::Certificates;
use crate::feed::Feed;
use crate::metrics::Metrics;
use crate::observe::Switches;
use crate::report::Reporter;
use crate::revision::Revisions;
use crate::table::Table;

/// Addresses kept for a thread that is slow to hear of them; what it misses costs it a map entry, no more.
const GONE_KEPT: usize = 4096;

/// See the module.
#[derive(Debug)]
pub struct Shared {
    /// The routing table; replaced as a whole.
    pub table: ArcSwap<Table>,
    /// All revisions.
    pub revisions: Revisions,
    /// Certificates of the gateway's TLS.
    pub certificates: Certificates,
    /// What the autoscaler is told.
    pub reporter: Arc<Reporter>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// Where marks of wake-ups go.
    pub observer: Observer,
    /// What of the telemetry is on.
    pub switches: Switches,
    /// The way to the world.
    pub feed: Feed,
    /// Pods that are gone, for threads that keep connections to them.
    pub gone: broadcast::Sender<SocketAddr>,
    stopping: AtomicBool,
}

impl Shared {
    /// Nothing known yet.
    pub fn new(
        reporter: Arc<Reporter>,
        metrics: Arc<Metrics>,
        observer: Observer,
        switches: Switches,
        feed: Feed,
        certificates: Certificates,
    ) -> Self {
        Self {
            table: ArcSwap::default(),
            revisions: Revisions::default(),
            certificates,
            reporter,
            metrics,
            observer,
            switches,
            feed,
            gone: broadcast::channel(GONE_KEPT).0,
            stopping: AtomicBool::new(false),
        }
    }

    /// Why the kubelet should send nobody here, if so (upstream's texts).
    ///
    /// Before the first connection to the autoscaler nobody could be woken. Losing it later is no reason: what is awake
    /// is served, and the liveness probe asks the same question, so that upstream's pods are restarted, with all that
    /// they hold, while an autoscaler is away.
    pub fn unhealthy(&self) -> Option<&'static str> {
        if self.stopping.load(Ordering::Relaxed) {
            return Some("received SIGTERM from kubelet");
        }
        (!self.reporter.ever_connected()).then_some("connection has not yet been established")
    }

    /// The process has been asked to end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}
