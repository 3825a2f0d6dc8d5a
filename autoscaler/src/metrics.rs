//! Every metric of the autoscaler, with its name, in one place.
//!
//! What is said about each revision has two names: upstream's present one and the one it had before July 2025, so that
//! dashboards of both ages work. A revision costs one small array of numbers; names and labels come in when somebody
//! scrapes, because most revisions sleep most of the time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, Registry,
    core::{Collector, Desc},
    proto,
};

use crate::algorithm::MetricKind;

/// Handles of the whole process.
#[derive(Clone)]
pub struct Metrics {
    /// Revisions known.
    pub revisions: Gauge,
    /// Pods that are listened to.
    pub listened_pods: Gauge,
    /// Frames that could not be decoded.
    pub bad_frames: IntCounter,
    /// Reports refused because a number was none, or absurd.
    pub bad_stats: IntCounter,
    /// Reports about revisions that are not known here.
    pub unknown_stats: IntCounter,
    /// Reports that belonged to another holder and could not be handed on.
    pub unforwarded_stats: IntCounter,
    /// Writes to the API server.
    pub writes: IntCounter,
    /// Writes that failed.
    pub write_errors: IntCounter,
    /// Time from the decision that wakes a revision to the answer of the API server.
    pub wake_seconds: Histogram,
    /// Time of one round of scraping a revision.
    pub scrape_seconds: Histogram,
    series: Arc<Mutex<AllSeries>>,
}

impl Metrics {
    /// Registers everything with `registry`.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
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
        let gauge = |name: &str, help: &str| -> Result<Gauge, prometheus::Error> {
            let gauge = Gauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let series = Arc::default();
        registry.register(Box::new(RevisionCollector::new(Arc::clone(&series))?))?;
        Ok(Self {
            revisions: gauge("dormouse_autoscaler_revisions", "Revisions known")?,
            listened_pods: gauge("dormouse_autoscaler_listened_pods", "Pods that tell their load by themselves")?,
            series,
            bad_frames: counter("dormouse_autoscaler_bad_frames_total", "Stat frames that could not be decoded")?,
            bad_stats: counter("dormouse_autoscaler_bad_stats_total", "Reports refused as implausible")?,
            unknown_stats: counter("dormouse_autoscaler_unknown_stats_total", "Reports about unknown revisions")?,
            unforwarded_stats: counter(
                "dormouse_autoscaler_unforwarded_stats_total",
                "Reports for another holder that found its queue full",
            )?,
            writes: counter("dormouse_autoscaler_writes_total", "Writes to the API server")?,
            write_errors: counter("dormouse_autoscaler_write_errors_total", "Failed writes to the API server")?,
            wake_seconds: histogram(
                "dormouse_autoscaler_wake_seconds",
                "From the decision that wakes a revision to the API server's answer",
                &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0],
            )?,
            scrape_seconds: histogram(
                "kn_autoscaler_scrape_duration_seconds",
                "Time of one round of scraping a revision",
                &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0],
            )?,
        })
    }

    /// Handles for one revision. `labels`: namespace, service, configuration, revision.
    pub fn revision(&self, labels: [String; 4]) -> RevisionMetrics {
        let series = Arc::new(Series { labels, rps: AtomicBool::new(false), values: Default::default() });
        let mut all = lock(&self.series);
        all.next += 1;
        let id = all.next;
        all.by_id.insert(id, Arc::clone(&series));
        RevisionMetrics { series, id, all: Arc::clone(&self.series) }
    }
}

/// One number of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// Pods wanted by the last decision.
    Desired,
    /// Excess burst capacity.
    Excess,
    /// 1 in panic.
    PanicMode,
    /// Average over the stable window.
    Stable,
    /// Average over the panic window.
    Panic,
    /// Target per pod.
    Target,
    /// Pods asked for, after bounds.
    Requested,
    /// Ready pods.
    Ready,
    /// Pods not ready.
    NotReady,
    /// Pods not started.
    Pending,
    /// Pods being deleted.
    Terminating,
}

const NUMBERS: usize = 11;

/// (number, whether it is about rps (else concurrency), name, older name, help)
type Named = (Number, Option<bool>, &'static str, &'static str, &'static str);

#[rustfmt::skip]
const NAMES: [Named; 14] = [
    (Number::Desired, None, "kn_revision_pods_desired", "autoscaler_desired_pods", "Pods the autoscaler wants"),
    (Number::Excess, None, "kn_revision_capacity_excess", "autoscaler_excess_burst_capacity", "Capacity beyond load and target burst"),
    (Number::PanicMode, None, "kn_revision_panic_mode", "autoscaler_panic_mode", "1 while in panic"),
    (Number::Stable, Some(false), "kn_revision_concurrency_stable", "autoscaler_stable_request_concurrency", "Average over the stable window"),
    (Number::Panic, Some(false), "kn_revision_concurrency_panic", "autoscaler_panic_request_concurrency", "Average over the panic window"),
    (Number::Target, Some(false), "kn_revision_concurrency_target", "autoscaler_target_concurrency_per_pod", "Load per pod at which a pod is added"),
    (Number::Stable, Some(true), "kn_revision_rps_stable", "autoscaler_stable_requests_per_second", "Average over the stable window"),
    (Number::Panic, Some(true), "kn_revision_rps_panic", "autoscaler_panic_requests_per_second", "Average over the panic window"),
    (Number::Target, Some(true), "kn_revision_rps_target", "autoscaler_target_requests_per_second", "Load per pod at which a pod is added"),
    (Number::Requested, None, "kn_revision_pods_requested", "autoscaler_requested_pods", "Pods asked for, after bounds"),
    (Number::Ready, None, "kn_revision_pods_count", "autoscaler_actual_pods", "Ready pods"),
    (Number::NotReady, None, "kn_revision_pods_not_ready_count", "autoscaler_not_ready_pods", "Pods not ready"),
    (Number::Pending, None, "kn_revision_pods_pending_count", "autoscaler_pending_pods", "Pods not started"),
    (Number::Terminating, None, "kn_revision_pods_terminating_count", "autoscaler_terminating_pods", "Pods being deleted"),
];
const LABELS: [&str; 4] = ["k8s_namespace_name", "kn_service_name", "kn_configuration_name", "kn_revision_name"];
const OLD_LABELS: [&str; 4] = ["namespace_name", "service_name", "configuration_name", "revision_name"];

struct Series {
    labels: [String; 4],
    rps: AtomicBool,
    values: [AtomicU64; NUMBERS],
}

#[derive(Default)]
struct AllSeries {
    next: u64,
    by_id: BTreeMap<u64, Arc<Series>>,
}

/// Handles of one revision; gone with it.
pub struct RevisionMetrics {
    series: Arc<Series>,
    id: u64,
    all: Arc<Mutex<AllSeries>>,
}

impl RevisionMetrics {
    /// Sets a number.
    pub fn set(&self, number: Number, value: impl Into<f64>) {
        self.series.values[number as usize].store(value.into().to_bits(), Ordering::Relaxed);
    }

    /// Says what [`Number::Stable`], [`Number::Panic`] and [`Number::Target`] are about.
    pub fn set_kind(&self, kind: MetricKind) {
        self.series.rps.store(kind == MetricKind::Rps, Ordering::Relaxed);
    }
}

impl Drop for RevisionMetrics {
    fn drop(&mut self) {
        lock(&self.all).by_id.remove(&self.id);
    }
}

fn lock(all: &Mutex<AllSeries>) -> MutexGuard<'_, AllSeries> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

struct RevisionCollector {
    descriptions: Vec<Desc>,
    series: Arc<Mutex<AllSeries>>,
}

impl RevisionCollector {
    fn new(series: Arc<Mutex<AllSeries>>) -> Result<Self, prometheus::Error> {
        let mut descriptions = Vec::with_capacity(2 * NAMES.len());
        for (_, _, name, old_name, help) in NAMES {
            for (name, labels) in [(name, LABELS), (old_name, OLD_LABELS)] {
                let labels = labels.iter().map(|l| (*l).to_owned()).collect();
                descriptions.push(Desc::new(
                    name.to_owned(),
                    help.to_owned(),
                    labels,
                    std::collections::HashMap::default(),
                )?);
            }
        }
        Ok(Self { descriptions, series })
    }
}

impl Collector for RevisionCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        // The lock is held to copy pointers only: the engine takes it when revisions come and go.
        let all: Vec<Arc<Series>> = lock(&self.series).by_id.values().cloned().collect();
        let mut families = Vec::with_capacity(2 * NAMES.len());
        for (number, rps, name, old_name, help) in NAMES {
            for (name, labels) in [(name, LABELS), (old_name, OLD_LABELS)] {
                let metrics: Vec<_> = all
                    .iter()
                    .filter(|series| rps.is_none_or(|rps| rps == series.rps.load(Ordering::Relaxed)))
                    .map(|series| sample(series, number, &labels))
                    .collect();
                if metrics.is_empty() {
                    continue;
                }
                let mut family = proto::MetricFamily::default();
                family.set_name(name.to_owned());
                family.set_help(help.to_owned());
                family.set_field_type(proto::MetricType::GAUGE);
                family.set_metric(metrics);
                families.push(family);
            }
        }
        families
    }
}

fn sample(series: &Series, number: Number, names: &[&str; 4]) -> proto::Metric {
    let labels = names
        .iter()
        .zip(&series.labels)
        .map(|(name, value)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value.clone());
            pair
        })
        .collect();
    let mut gauge = proto::Gauge::default();
    gauge.set_value(f64::from_bits(series.values[number as usize].load(Ordering::Relaxed)));
    let mut metric = proto::Metric::default();
    metric.set_label(labels);
    metric.set_gauge(gauge);
    metric
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn a_revision_has_both_names_and_leaves_nothing_behind() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let text = || TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let revision = metrics.revision(["ns", "svc", "cfg", "rev"].map(str::to_owned));
        revision.set(Number::Desired, 3);
        revision.set(Number::Stable, 1.5);
        let seen = text();
        for line in [
            r#"kn_revision_pods_desired{k8s_namespace_name="ns",kn_service_name="svc",kn_configuration_name="cfg",kn_revision_name="rev"} 3"#,
            r#"autoscaler_desired_pods{namespace_name="ns",service_name="svc",configuration_name="cfg",revision_name="rev"} 3"#,
        ] {
            assert!(seen.contains(line), "{seen}");
        }
        assert!(seen.contains("kn_revision_concurrency_stable{") && !seen.contains("kn_revision_rps_stable{"));
        revision.set_kind(MetricKind::Rps);
        assert!(!text().contains("kn_revision_concurrency_stable{") && text().contains("kn_revision_rps_stable{"));
        drop(revision);
        assert!(!text().contains("kn_revision"));
    }
}
