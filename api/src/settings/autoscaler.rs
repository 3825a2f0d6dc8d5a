//! `config-autoscaler` (upstream `pkg/autoscaler/config/config.go`).

use std::time::Duration;

use super::{Data, InvalidSetting, Reader};
use crate::labels::autoscaling::KPA_CLASS;

/// Defaults of every revision's scaling; annotations override most of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Autoscaler {
    /// Class of revisions that name none.
    pub pod_autoscaler_class: String,
    /// Whether a revision may have no pods.
    pub enable_scale_to_zero: bool,
    /// Whether `initial-scale: 0` is allowed.
    pub allow_zero_initial_scale: bool,
    /// Pods a new revision starts with.
    pub initial_scale: i32,
    /// Fewest pods.
    pub min_scale: i32,
    /// Most pods; 0 = no limit.
    pub max_scale: i32,
    /// Highest `max-scale` a revision may ask for; 0 = no limit.
    pub max_scale_limit: i32,
    /// Most growth in one decision, as a factor.
    pub max_scale_up_rate: f64,
    /// Most shrinking in one decision, as a divisor.
    pub max_scale_down_rate: f64,
    /// Part of the target at which pods are added, 0 < x <= 1.
    pub container_concurrency_target_fraction: f64,
    /// Concurrent requests a pod without a limit is taken to handle.
    pub container_concurrency_target_default: f64,
    /// Requests per second a pod is taken to handle.
    pub requests_per_second_target_default: f64,
    /// Spare capacity below which the activator stays in the path; -1 = always, 0 = only at zero.
    pub target_burst_capacity: f64,
    /// Stable window.
    pub stable_window: Duration,
    /// Panic window as percent of the stable one, 1..=100.
    pub panic_window_percentage: f64,
    /// Load in percent of what the ready pods can take, at which panic begins.
    pub panic_threshold_percentage: f64,
    /// How long to wait, at zero load, for the activator to be in the path.
    pub scale_to_zero_grace_period: Duration,
    /// How long the last pod stays after the last request.
    pub scale_to_zero_pod_retention_period: Duration,
    /// How long lower load must last before pods go.
    pub scale_down_delay: Duration,
    /// Concurrent requests one activator is taken to handle.
    pub activator_capacity: f64,
}

const NAME: &str = "config-autoscaler";
const MIN_TARGET: f64 = 0.01;

impl Default for Autoscaler {
    fn default() -> Self {
        Self {
            pod_autoscaler_class: KPA_CLASS.to_owned(),
            enable_scale_to_zero: true,
            allow_zero_initial_scale: false,
            initial_scale: 1,
            min_scale: 0,
            max_scale: 0,
            max_scale_limit: 0,
            max_scale_up_rate: 1000.0,
            max_scale_down_rate: 2.0,
            container_concurrency_target_fraction: 0.7,
            container_concurrency_target_default: 100.0,
            requests_per_second_target_default: 200.0,
            target_burst_capacity: 211.0,
            stable_window: Duration::from_secs(60),
            panic_window_percentage: 10.0,
            panic_threshold_percentage: 200.0,
            scale_to_zero_grace_period: Duration::from_secs(30),
            scale_to_zero_pod_retention_period: Duration::ZERO,
            scale_down_delay: Duration::ZERO,
            activator_capacity: 100.0,
        }
    }
}

fn whole_seconds(d: Duration) -> bool {
    d.subsec_nanos() == 0
}

impl Autoscaler {
    /// Reads the ConfigMap's data.
    pub fn parse(data: &Data) -> Result<Self, InvalidSetting> {
        let r = Reader { config_map: NAME, data };
        let d = Self::default();
        let c = Self {
            pod_autoscaler_class: r.text("pod-autoscaler-class").map_or(d.pod_autoscaler_class, str::to_owned),
            enable_scale_to_zero: r.boolean("enable-scale-to-zero", d.enable_scale_to_zero)?,
            allow_zero_initial_scale: r.boolean("allow-zero-initial-scale", d.allow_zero_initial_scale)?,
            initial_scale: r.number("initial-scale", d.initial_scale)?,
            min_scale: r.number("min-scale", d.min_scale)?,
            max_scale: r.number("max-scale", d.max_scale)?,
            max_scale_limit: r.number("max-scale-limit", d.max_scale_limit)?,
            max_scale_up_rate: r.float("max-scale-up-rate", d.max_scale_up_rate)?,
            max_scale_down_rate: r.float("max-scale-down-rate", d.max_scale_down_rate)?,
            container_concurrency_target_fraction: {
                let v = r.float("container-concurrency-target-percentage", d.container_concurrency_target_fraction)?;
                if v > 1.0 { v / 100.0 } else { v }
            },
            container_concurrency_target_default: r
                .float("container-concurrency-target-default", d.container_concurrency_target_default)?,
            requests_per_second_target_default: r
                .float("requests-per-second-target-default", d.requests_per_second_target_default)?,
            target_burst_capacity: r.float("target-burst-capacity", d.target_burst_capacity)?,
            stable_window: r.duration("stable-window", d.stable_window)?,
            panic_window_percentage: r.float("panic-window-percentage", d.panic_window_percentage)?,
            panic_threshold_percentage: r.float("panic-threshold-percentage", d.panic_threshold_percentage)?,
            scale_to_zero_grace_period: r.duration("scale-to-zero-grace-period", d.scale_to_zero_grace_period)?,
            scale_to_zero_pod_retention_period: r
                .duration("scale-to-zero-pod-retention-period", d.scale_to_zero_pod_retention_period)?,
            scale_down_delay: r.duration("scale-down-delay", d.scale_down_delay)?,
            activator_capacity: r.float("activator-capacity", d.activator_capacity)?,
        };
        c.validate(&r)?;
        Ok(c)
    }

    fn validate(&self, r: &Reader<'_>) -> Result<(), InvalidSetting> {
        let fraction = self.container_concurrency_target_fraction;
        r.check(
            "container-concurrency-target-percentage",
            fraction > 0.0 && fraction <= 1.0,
            "want a percentage above 0, up to 100, or a fraction up to 1",
        )?;
        r.check(
            "container-concurrency-target-default",
            fraction * self.container_concurrency_target_default >= MIN_TARGET,
            "target times utilisation must be at least 0.01",
        )?;
        r.check(
            "requests-per-second-target-default",
            self.requests_per_second_target_default >= MIN_TARGET,
            "want at least 0.01",
        )?;
        let burst = self.target_burst_capacity;
        r.check("target-burst-capacity", burst >= 0.0 || burst == -1.0, "want 0 or more, or -1 for unlimited")?;
        r.check("max-scale-up-rate", self.max_scale_up_rate > 1.0, "want more than 1")?;
        r.check("max-scale-down-rate", self.max_scale_down_rate > 1.0, "want more than 1")?;
        r.check(
            "scale-to-zero-grace-period",
            self.scale_to_zero_grace_period > Duration::ZERO,
            "want a positive duration",
        )?;
        r.check("scale-down-delay", whole_seconds(self.scale_down_delay), "want whole seconds")?;
        let window = self.stable_window;
        r.check(
            "stable-window",
            (Duration::from_secs(6)..=Duration::from_secs(3600)).contains(&window) && whole_seconds(window),
            "want 6s to 1h in whole seconds",
        )?;
        r.check("panic-window-percentage", (1.0..=100.0).contains(&self.panic_window_percentage), "want 1 to 100")?;
        r.check("activator-capacity", self.activator_capacity >= 1.0, "want at least 1")?;
        r.check(
            "initial-scale",
            self.initial_scale > 0 || self.initial_scale == 0 && self.allow_zero_initial_scale,
            "want 1 or more, or 0 with allow-zero-initial-scale",
        )?;
        r.check("max-scale-limit", self.max_scale_limit >= 0, "want 0 or more")?;
        let max_ok =
            self.max_scale >= 0 && (self.max_scale_limit == 0 || (1..=self.max_scale_limit).contains(&self.max_scale));
        r.check("max-scale", max_ok, "want 0 or more, and 1 to max-scale-limit where that is set")?;
        let min_ok = self.min_scale >= 0 && (self.max_scale == 0 || self.min_scale <= self.max_scale);
        r.check("min-scale", min_ok, "want 0 or more, and at most max-scale")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Autoscaler, InvalidSetting> {
        Autoscaler::parse(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn empty_means_defaults() {
        assert_eq!(parse(&[]).unwrap(), Autoscaler::default());
    }

    #[test]
    fn percentages_are_read_as_fraction_or_percent() {
        for (text, want) in [("55", 0.55), ("0.71", 0.71), ("100", 1.0), ("1", 1.0)] {
            let got = parse(&[("container-concurrency-target-percentage", text)]).unwrap();
            assert!((got.container_concurrency_target_fraction - want).abs() < 1e-9, "{text}");
        }
    }

    #[test]
    fn upstream_s71_is_refused_and_names_the_key() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("container-concurrency-target-percentage", &[("container-concurrency-target-percentage", "142.4")]),
            ("container-concurrency-target-percentage", &[("container-concurrency-target-percentage", "-42")]),
            ("target-burst-capacity", &[("target-burst-capacity", "-11")]),
            ("max-scale-up-rate", &[("max-scale-up-rate", "1")]),
            ("max-scale-down-rate", &[("max-scale-down-rate", "1")]),
            ("stable-window", &[("stable-window", "1s")]),
            ("stable-window", &[("stable-window", "1h1s")]),
            ("stable-window", &[("stable-window", "61984ms")]),
            ("panic-window-percentage", &[("panic-window-percentage", "0.1")]),
            ("panic-window-percentage", &[("panic-window-percentage", "110")]),
            ("scale-to-zero-grace-period", &[("scale-to-zero-grace-period", "0s")]),
            ("activator-capacity", &[("activator-capacity", "0.95")]),
            ("initial-scale", &[("initial-scale", "0")]),
            ("max-scale", &[("max-scale", "-1")]),
            ("max-scale", &[("max-scale", "10"), ("max-scale-limit", "9")]),
            ("max-scale", &[("max-scale", "0"), ("max-scale-limit", "11")]),
            ("min-scale", &[("min-scale", "4"), ("max-scale", "3")]),
            ("max-scale-up-rate", &[("max-scale-up-rate", "NaN")]),
            ("enable-scale-to-zero", &[("enable-scale-to-zero", "yes")]),
        ];
        for (key, pairs) in cases {
            let error = parse(pairs).expect_err(&format!("{pairs:?}"));
            assert_eq!(error.key, *key, "{pairs:?}");
        }
    }

    #[test]
    fn upstream_s71_is_accepted() {
        assert_eq!(parse(&[("min-scale", "4")]).unwrap().min_scale, 4);
        assert!(parse(&[("enable-scale-to-zero", "TRUE")]).unwrap().enable_scale_to_zero);
        assert_eq!(parse(&[("initial-scale", "0"), ("allow-zero-initial-scale", "true")]).unwrap().initial_scale, 0);
    }
}
