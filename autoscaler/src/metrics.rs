//! Every metric of the autoscaler, with its name, in one place. Names follow upstream's OpenTelemetry names as
//! Prometheus writes them. Handles are resolved once per revision and dropped with it.

use prometheus::{Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, Opts, Registry};

/// Handles of the whole process.
#[derive(Clone)]
pub struct Metrics {
    /// Revisions known.
    pub revisions: Gauge,
    /// Frames that could not be decoded.
    pub bad_frames: IntCounter,
    /// Reports refused because a number was none, or absurd.
    pub bad_stats: IntCounter,
    /// Reports about revisions that are not known here.
    pub unknown_stats: IntCounter,
    /// Writes to the API server.
    pub writes: IntCounter,
    /// Writes that failed.
    pub write_errors: IntCounter,
    /// Time from a report that wakes a revision to the answer of the API server.
    pub wake_seconds: Histogram,
    /// Time of one round of scraping a revision.
    pub scrape_seconds: Histogram,
    desired: GaugeVec,
    excess: GaugeVec,
    panic_mode: GaugeVec,
    stable: GaugeVec,
    panic: GaugeVec,
    target: GaugeVec,
    requested: GaugeVec,
    ready: GaugeVec,
    not_ready: GaugeVec,
    pending: GaugeVec,
    terminating: GaugeVec,
}

/// Handles of one revision.
pub struct RevisionMetrics {
    owner: Metrics,
    labels: [String; 4],
    /// Pods wanted by the last decision.
    pub desired: Gauge,
    /// Excess burst capacity.
    pub excess: Gauge,
    /// 1 in panic.
    pub panic_mode: Gauge,
    /// Stable average.
    pub stable: Gauge,
    /// Panic average.
    pub panic: Gauge,
    /// Target per pod.
    pub target: Gauge,
    /// Pods asked for, after bounds.
    pub requested: Gauge,
    /// Ready pods.
    pub ready: Gauge,
    /// Pods not ready.
    pub not_ready: Gauge,
    /// Pods not started.
    pub pending: Gauge,
    /// Pods being deleted.
    pub terminating: Gauge,
}

const LABELS: [&str; 4] = ["k8s_namespace_name", "kn_service_name", "kn_configuration_name", "kn_revision_name"];

impl Metrics {
    /// Registers everything with `registry`.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauges = |name: &str, help: &str| -> Result<GaugeVec, prometheus::Error> {
            let gauges = GaugeVec::new(Opts::new(name, help), &LABELS)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| -> Result<Histogram, prometheus::Error> {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let revisions = Gauge::new("dormouse_autoscaler_revisions", "Revisions known")?;
        registry.register(Box::new(revisions.clone()))?;
        Ok(Self {
            revisions,
            bad_frames: counter("dormouse_autoscaler_bad_frames_total", "Stat frames that could not be decoded")?,
            bad_stats: counter("dormouse_autoscaler_bad_stats_total", "Reports refused as implausible")?,
            unknown_stats: counter("dormouse_autoscaler_unknown_stats_total", "Reports about unknown revisions")?,
            writes: counter("dormouse_autoscaler_writes_total", "Writes to the API server")?,
            write_errors: counter("dormouse_autoscaler_write_errors_total", "Failed writes to the API server")?,
            wake_seconds: histogram(
                "dormouse_autoscaler_wake_seconds",
                "From the report that wakes a revision to the API server's answer to the scale write",
                &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0],
            )?,
            scrape_seconds: histogram(
                "kn_autoscaler_scrape_duration_seconds",
                "Time of one round of scraping a revision",
                &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0],
            )?,
            desired: gauges("kn_revision_pods_desired", "Pods the autoscaler wants")?,
            excess: gauges("kn_revision_capacity_excess", "Excess burst capacity")?,
            panic_mode: gauges("kn_revision_panic_mode", "1 while in panic")?,
            stable: gauges("kn_revision_load_stable", "Average load over the stable window")?,
            panic: gauges("kn_revision_load_panic", "Average load over the panic window")?,
            target: gauges("kn_revision_load_target", "Load per pod at which a pod is added")?,
            requested: gauges("kn_revision_pods_requested", "Pods asked for, after bounds")?,
            ready: gauges("kn_revision_pods_count", "Ready pods")?,
            not_ready: gauges("kn_revision_pods_not_ready_count", "Pods not ready")?,
            pending: gauges("kn_revision_pods_pending_count", "Pods not started")?,
            terminating: gauges("kn_revision_pods_terminating_count", "Pods being deleted")?,
        })
    }

    /// Handles for one revision: namespace, service, configuration, revision.
    pub fn revision(&self, labels: [String; 4]) -> RevisionMetrics {
        let values: Vec<&str> = labels.iter().map(String::as_str).collect();
        let of = |gauges: &GaugeVec| gauges.with_label_values(&values);
        RevisionMetrics {
            desired: of(&self.desired),
            excess: of(&self.excess),
            panic_mode: of(&self.panic_mode),
            stable: of(&self.stable),
            panic: of(&self.panic),
            target: of(&self.target),
            requested: of(&self.requested),
            ready: of(&self.ready),
            not_ready: of(&self.not_ready),
            pending: of(&self.pending),
            terminating: of(&self.terminating),
            owner: self.clone(),
            labels,
        }
    }
}

impl Drop for RevisionMetrics {
    /// A deleted revision leaves no series behind.
    fn drop(&mut self) {
        let values: Vec<&str> = self.labels.iter().map(String::as_str).collect();
        let m = &self.owner;
        for gauges in [
            &m.desired,
            &m.excess,
            &m.panic_mode,
            &m.stable,
            &m.panic,
            &m.target,
            &m.requested,
            &m.ready,
            &m.not_ready,
            &m.pending,
            &m.terminating,
        ] {
            // Gone already is as good.
            drop(gauges.remove_label_values(&values));
        }
    }
}
