//! Settings and annotations of one revision, resolved into a type that cannot be wrong.
//!
//! Admission refuses bad annotations; objects that came past it are read as if a bad one were absent, as upstream does.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use api::{
    labels::{
        autoscaling::{self as keys, Annotation},
        serving,
    },
    scaling::Extras,
    settings,
};

use crate::window::Weighting;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricKind {
    /// Requests in flight.
    #[default]
    Concurrency,
    /// Requests per second.
    Rps,
}

/// Everything the rules need to know about a revision's settings.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RevisionScaling {
    /// What is measured.
    pub metric: MetricKind,
    /// Load per pod at which a pod is added.
    pub target: f64,
    /// Load per pod that it can take.
    pub total: f64,
    /// Spare capacity below which the activator stays in the path; -1 = always, 0 = only at zero.
    pub target_burst_capacity: f64,
    /// Fewest pods while reachable.
    pub min_scale: i32,
    /// Most pods; 0 = no limit.
    pub max_scale: i32,
    /// Pods a new revision starts with.
    pub initial_scale: i32,
    /// Fewest pods when not at zero; 0 = no such rule.
    pub activation_scale: i32,
    /// How long lower load must last before pods go.
    pub scale_down_delay: Duration,
    /// Stable window.
    pub stable_window: Duration,
    /// Panic window.
    pub panic_window: Duration,
    /// Load, in multiples of what the ready pods can take, at which panic begins.
    pub panic_threshold: f64,
    /// Most growth in one decision, as a factor.
    pub max_scale_up_rate: f64,
    /// Most shrinking in one decision, as a divisor.
    pub max_scale_down_rate: f64,
    /// How much older seconds count.
    pub weighting: Weighting,
    /// Whether the last pod may go.
    pub scale_to_zero: bool,
    /// How long the activator must have been in the path before the last pod goes.
    pub grace_period: Duration,
    /// How long the last pod stays after the last request.
    pub retention_period: Duration,
    /// Requests in flight that one activator is taken to handle.
    pub activator_capacity: f64,
    /// How long a revision may take to get ready.
    pub progress_deadline: Duration,
    /// What is asked for beyond upstream.
    #[serde(default)]
    pub extras: Extras,
}

impl Default for RevisionScaling {
    fn default() -> Self {
        Self::resolve(&BTreeMap::new(), 0, &settings::Autoscaler::default(), &settings::Deployment::default())
    }
}

const MIN_TARGET: f64 = 0.01;
/// Upstream has no setting for the utilisation of the rps metric.
const RPS_UTILISATION: f64 = 0.7;
const HOUR: Duration = Duration::from_secs(3600);

impl RevisionScaling {
    /// Annotations over settings.
    pub fn resolve(
        annotations: &BTreeMap<String, String>,
        container_concurrency: i64,
        autoscaler: &settings::Autoscaler,
        deployment: &settings::Deployment,
    ) -> Self {
        let read = Reader(annotations);
        let metric = match keys::METRIC.value(annotations) {
            Some("rps") => MetricKind::Rps,
            _ => MetricKind::Concurrency,
        };
        let (target, total) = target_and_total(&read, metric, container_concurrency, autoscaler);
        let stable_window = read
            .duration(keys::WINDOW, Duration::from_secs(6)..=HOUR)
            .filter(whole_seconds)
            .unwrap_or(autoscaler.stable_window);
        let panic_percentage = read
            .float(keys::PANIC_WINDOW_PERCENTAGE, |p| (1.0..=100.0).contains(&p))
            .unwrap_or(autoscaler.panic_window_percentage);
        let initial_scale = read
            .integer(keys::INITIAL_SCALE)
            .filter(|n| *n > 0 || autoscaler.allow_zero_initial_scale)
            .unwrap_or(autoscaler.initial_scale);
        let weighting = match keys::METRIC_AGGREGATION_ALGORITHM.value(annotations) {
            Some("weighted-exponential" | "weightedExponential") => Weighting::Exponential,
            _ => Weighting::Linear,
        };
        Self {
            metric,
            target,
            total,
            target_burst_capacity: read
                .float(keys::TARGET_BURST_CAPACITY, |b| b >= 0.0 || b == -1.0)
                .unwrap_or(autoscaler.target_burst_capacity),
            min_scale: read.integer(keys::MIN_SCALE).unwrap_or(autoscaler.min_scale),
            max_scale: read.integer(keys::MAX_SCALE).unwrap_or(autoscaler.max_scale),
            initial_scale,
            activation_scale: read.integer(keys::ACTIVATION_SCALE).filter(|n| *n >= 2).unwrap_or(0),
            scale_down_delay: read
                .duration(keys::SCALE_DOWN_DELAY, Duration::ZERO..=HOUR)
                .filter(whole_seconds)
                .unwrap_or(autoscaler.scale_down_delay),
            stable_window,
            panic_window: panic_window(stable_window, panic_percentage),
            panic_threshold: read
                .float(keys::PANIC_THRESHOLD_PERCENTAGE, |p| (110.0..=1000.0).contains(&p))
                .unwrap_or(autoscaler.panic_threshold_percentage)
                / 100.0,
            max_scale_up_rate: autoscaler.max_scale_up_rate,
            max_scale_down_rate: autoscaler.max_scale_down_rate,
            weighting,
            scale_to_zero: autoscaler.enable_scale_to_zero,
            grace_period: autoscaler.scale_to_zero_grace_period,
            retention_period: read
                .duration(keys::SCALE_TO_ZERO_POD_RETENTION_PERIOD, Duration::ZERO..=HOUR)
                .unwrap_or(autoscaler.scale_to_zero_pod_retention_period),
            activator_capacity: autoscaler.activator_capacity,
            progress_deadline: annotations
                .get(serving::PROGRESS_DEADLINE)
                .and_then(|text| api::duration::parse(text).ok())
                .unwrap_or(deployment.progress_deadline),
            // Admission has told what is wrong with them.
            extras: api::scaling::read(annotations).0,
        }
    }

    /// Whether the activator is always in the path, so that it alone reports and pods need not be asked.
    pub fn activator_always_in_path(&self) -> bool {
        self.target_burst_capacity < 0.0
    }
}

fn target_and_total(
    read: &Reader<'_>,
    metric: MetricKind,
    container_concurrency: i64,
    autoscaler: &settings::Autoscaler,
) -> (f64, f64) {
    let limit = (container_concurrency > 0).then_some(container_concurrency as f64);
    let annotated = read.float(keys::TARGET, |t| t >= MIN_TARGET);
    let (total, utilisation) = match metric {
        MetricKind::Rps => (annotated.unwrap_or(autoscaler.requests_per_second_target_default), RPS_UTILISATION),
        MetricKind::Concurrency => {
            let total = match (annotated, limit) {
                (Some(annotated), Some(limit)) => annotated.min(limit),
                (Some(annotated), None) => annotated,
                (None, Some(limit)) => limit,
                (None, None) => autoscaler.container_concurrency_target_default,
            };
            (total, autoscaler.container_concurrency_target_fraction)
        }
    };
    let utilisation = read
        .float(keys::TARGET_UTILIZATION_PERCENTAGE, |p| (1.0..=100.0).contains(&p))
        .map_or(utilisation, |percent| percent / 100.0);
    ((total * utilisation).max(MIN_TARGET), total)
}

/// A part of the stable window, in whole seconds, at least one.
fn panic_window(stable: Duration, percentage: f64) -> Duration {
    Duration::from_secs((stable.as_secs_f64() * percentage / 100.0).round().max(1.0) as u64)
}

fn whole_seconds(duration: &Duration) -> bool {
    duration.subsec_nanos() == 0
}

/// Reads annotations; whatever is not valid is not there.
struct Reader<'a>(&'a BTreeMap<String, String>);

impl Reader<'_> {
    fn parse<T: FromStr>(&self, annotation: Annotation) -> Option<T> {
        annotation.value(self.0).and_then(|text| text.parse().ok())
    }

    fn integer(&self, annotation: Annotation) -> Option<i32> {
        self.parse(annotation).filter(|n| *n >= 0)
    }

    fn float(&self, annotation: Annotation, valid: impl Fn(f64) -> bool) -> Option<f64> {
        self.parse(annotation).filter(|n: &f64| n.is_finite() && valid(*n))
    }

    fn duration(&self, annotation: Annotation, valid: std::ops::RangeInclusive<Duration>) -> Option<Duration> {
        annotation.value(self.0).and_then(|text| api::duration::parse(text).ok()).filter(|d| valid.contains(d))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(pairs: &[(&str, &str)], concurrency: i64, autoscaler: &settings::Autoscaler) -> RevisionScaling {
        let annotations =
            pairs.iter().map(|(k, v)| (format!("autoscaling.knative.dev/{k}"), (*v).to_owned())).collect();
        RevisionScaling::resolve(&annotations, concurrency, autoscaler, &settings::Deployment::default())
    }

    #[test]
    fn s56_target_and_total() {
        type Case<'a> = (&'a [(&'a str, &'a str)], i64, f64, f64, f64, f64);
        // annotations, containerConcurrency, default, utilisation → target, total
        let table: &[Case<'_>] = &[
            (&[], 0, 100.0, 1.0, 100.0, 100.0),
            (&[], 0, 100.0, 0.8, 80.0, 100.0),
            (&[], 0, 2.0, 0.3, 0.6, 2.0),
            (&[("target-utilization-percentage", "75")], 12, 100.0, 0.8, 9.0, 12.0),
            (&[], 1, 100.0, 0.8, 0.8, 1.0),
            (&[("target", "1")], 0, 100.0, 0.001, 0.01, 1.0),
            (&[("target", "500")], 0, 100.0, 1.0, 500.0, 500.0),
            (&[("target", "10")], 1, 100.0, 1.0, 1.0, 1.0),
            (&[("target", "1")], 10, 100.0, 1.0, 1.0, 1.0),
            (&[("metric", "rps")], 0, 100.0, 1.0, 140.0, 200.0),
            (&[("metric", "rps"), ("target", "1")], 0, 100.0, 1.0, 0.7, 1.0),
            (&[("metric", "rps"), ("targetUtilizationPercentage", "75")], 0, 100.0, 1.0, 150.0, 200.0),
            (&[("metric", "rps"), ("target", "300")], 0, 100.0, 1.0, 210.0, 300.0),
        ];
        for (pairs, concurrency, default, fraction, target, total) in table {
            let config = settings::Autoscaler {
                container_concurrency_target_default: *default,
                container_concurrency_target_fraction: *fraction,
                ..settings::Autoscaler::default()
            };
            let got = resolve(pairs, *concurrency, &config);
            assert!((got.target - target).abs() < 1e-9 && (got.total - total).abs() < 1e-9, "{pairs:?}: {got:?}");
        }
    }

    #[test]
    fn s57_panic_windows() {
        for (window, percent, want) in [(10, 10.0, 1), (600, 10.0, 60), (60, 51.0, 31), (6, 1.0, 1)] {
            assert_eq!(panic_window(Duration::from_secs(window), percent), Duration::from_secs(want));
        }
    }

    #[test]
    fn bad_annotations_count_as_absent() {
        let bad = [
            ("target", "0"),
            ("target", "NaN"),
            ("target-utilization-percentage", "101"),
            ("window", "1s"),
            ("window", "1m9s82ms"),
            ("window", "365h"),
            ("panic-threshold-percentage", "109"),
            ("panic-window-percentage", "0"),
            ("min-scale", "-1"),
            ("max-scale", "many"),
            ("initial-scale", "0"),
            ("activation-scale", "1"),
            ("scale-down-delay", "42.5s"),
            ("scale-to-zero-pod-retention-period", "311m"),
            ("target-burst-capacity", "-2"),
        ];
        for pair in bad {
            assert_eq!(resolve(&[pair], 0, &settings::Autoscaler::default()), RevisionScaling::default(), "{pair:?}");
        }
    }

    #[test]
    fn good_annotations_win_over_settings() {
        let got = resolve(
            &[
                ("minScale", "2"),
                ("max-scale", "9"),
                ("window", "10s"),
                ("panic-window-percentage", "20"),
                ("panic-threshold-percentage", "150"),
                ("scale-down-delay", "15s"),
                ("target-burst-capacity", "-1"),
                ("metric-aggregation-algorithm", "weighted-exponential"),
            ],
            0,
            &settings::Autoscaler::default(),
        );
        assert_eq!((got.min_scale, got.max_scale), (2, 9));
        assert_eq!((got.stable_window, got.panic_window), (Duration::from_secs(10), Duration::from_secs(2)));
        assert!((got.panic_threshold - 1.5).abs() < 1e-9);
        assert_eq!(got.scale_down_delay, Duration::from_secs(15));
        assert!(got.activator_always_in_path());
        assert_eq!(got.weighting, Weighting::Exponential);
    }
}
