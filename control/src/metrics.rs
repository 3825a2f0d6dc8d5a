//! Every metric of the controller, declared in one place.

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, core::Collector};

/// Handles of the metrics; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Reconciles by reconciler and outcome (`settled`, `again`, `failed`).
    pub reconciles: IntCounterVec,
    /// Seconds that a reconcile took, by reconciler.
    pub reconcile_seconds: HistogramVec,
    /// Writes to the API by verb and kind.
    pub writes: IntCounterVec,
    /// Keys waiting for a worker.
    pub queue_depth: IntGauge,
    /// Seconds from an Ingress's change until the gateway answered for it.
    pub ingress_ready_seconds: Histogram,
}

const BUCKETS: [f64; 12] = [0.000_1, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 10.0];

impl Metrics {
    /// Declares the metrics in `registry`.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            reconciles: IntCounterVec::new(
                Opts::new("dormouse_control_reconciles_total", "Reconciles by reconciler and outcome."),
                &["reconciler", "outcome"],
            )?,
            reconcile_seconds: HistogramVec::new(
                HistogramOpts::new("dormouse_control_reconcile_seconds", "Seconds that a reconcile took.")
                    .buckets(BUCKETS.to_vec()),
                &["reconciler"],
            )?,
            writes: IntCounterVec::new(
                Opts::new("dormouse_control_writes_total", "Writes to the API by verb and kind."),
                &["verb", "kind"],
            )?,
            queue_depth: IntGauge::new("dormouse_control_queue_depth", "Keys waiting for a worker.")?,
            ingress_ready_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "dormouse_control_ingress_ready_seconds",
                    "Seconds from an Ingress's change until the gateway answered for it.",
                )
                .buckets(BUCKETS.to_vec()),
            )?,
        };
        let collectors: [Box<dyn Collector>; 5] = [
            Box::new(metrics.reconciles.clone()),
            Box::new(metrics.reconcile_seconds.clone()),
            Box::new(metrics.writes.clone()),
            Box::new(metrics.queue_depth.clone()),
            Box::new(metrics.ingress_ready_seconds.clone()),
        ];
        for collector in collectors {
            registry.register(collector)?;
        }
        Ok(metrics)
    }
}
