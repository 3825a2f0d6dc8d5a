//! The load of one revision over time: what activators and pods reported, in four windows (upstream
//! `pkg/autoscaler/metrics/collector.go`).

use api::stat::Stat;

use crate::{
    algorithm::{MetricKind, RevisionScaling},
    moment::Moment,
    window::Window,
};

/// Stable and panic window of one metric.
#[derive(Debug, Clone)]
struct Pair {
    stable: Window,
    panic: Window,
}

impl Pair {
    fn new(scaling: &RevisionScaling) -> Self {
        Self {
            stable: Window::new(scaling.stable_window, scaling.weighting),
            panic: Window::new(scaling.panic_window, scaling.weighting),
        }
    }

    fn record(&mut self, at: Moment, value: f64) {
        self.stable.record(at, value);
        self.panic.record(at, value);
    }

    fn average(&self, now: Moment) -> (f64, f64) {
        (self.stable.average(now), self.panic.average(now))
    }
}

/// Load of one revision. Exists only while there is some to remember, so that a sleeping revision costs nothing.
#[derive(Debug, Clone)]
pub struct Load {
    concurrency: Pair,
    requests: Pair,
}

/// A number no pod can have; a report beyond it is broken or hostile.
const ABSURD: f64 = 1e9;

impl Load {
    /// Nothing recorded yet.
    pub fn new(scaling: &RevisionScaling) -> Self {
        Self { concurrency: Pair::new(scaling), requests: Pair::new(scaling) }
    }

    /// Adds a report. What came through an activator is taken off: the activator reported it already.
    pub fn record(&mut self, at: Moment, stat: &Stat) {
        self.add(at, stat.direct());
    }

    /// Adds requests in flight and per second.
    pub fn add(&mut self, at: Moment, (concurrency, requests): (f64, f64)) {
        self.concurrency.record(at, concurrency);
        self.requests.record(at, requests);
    }

    /// Averages over the stable and the panic window.
    pub fn averages(&self, metric: MetricKind, now: Moment) -> (f64, f64) {
        match metric {
            MetricKind::Concurrency => self.concurrency.average(now),
            MetricKind::Rps => self.requests.average(now),
        }
    }

    /// Whether nothing was reported for a stable window.
    pub fn is_empty(&self, now: Moment) -> bool {
        self.concurrency.stable.is_empty(now)
    }

    /// Follows changed settings.
    pub fn resize(&mut self, scaling: &RevisionScaling, now: Moment) {
        for pair in [&mut self.concurrency, &mut self.requests] {
            pair.stable.resize(scaling.stable_window, now);
            pair.panic.resize(scaling.panic_window, now);
        }
    }
}

/// Whether every number of a report is one.
pub fn is_plausible(stat: &Stat) -> bool {
    [
        stat.average_concurrent_requests,
        stat.average_proxied_concurrent_requests,
        stat.request_count,
        stat.proxied_request_count,
    ]
    .into_iter()
    .all(|value| (0.0..=ABSURD).contains(&value))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: i64) -> Moment {
        Moment::from_seconds(1_000_000 + second)
    }

    fn stat(concurrency: f64, count: f64) -> Stat {
        Stat { average_concurrent_requests: concurrency, request_count: count, ..Stat::default() }
    }

    fn both(load: &Load, now: Moment) -> (f64, f64) {
        (load.averages(MetricKind::Concurrency, now).0, load.averages(MetricKind::Rps, now).0)
    }

    #[test]
    fn s42_reports_of_one_second_add_up() {
        let mut load = Load::new(&RevisionScaling::default());
        for _ in 0..3 {
            load.record(at(0), &stat(10.0, 20.0));
        }
        assert_eq!(both(&load, at(0)), (30.0, 60.0));
        for _ in 0..4 {
            load.record(at(1), &stat(10.0, 20.0));
        }
        assert_eq!(both(&load, at(1)), (35.0, 70.0));
    }

    #[test]
    fn s43_proxied_load_is_taken_off_and_old_reports_ignored() {
        let mut load = Load::new(&RevisionScaling::default());
        let proxied =
            Stat { average_proxied_concurrent_requests: 10.0, proxied_request_count: 20.0, ..stat(20.0, 30.0) };
        load.record(at(70), &proxied);
        load.record(at(0), &stat(50.0, 50.0));
        assert_eq!(both(&load, at(70)), (10.0, 10.0));
    }

    #[test]
    fn s45_two_windows() {
        let scaling = RevisionScaling {
            stable_window: Duration::from_secs(6),
            panic_window: Duration::from_secs(2),
            ..RevisionScaling::default()
        };
        let mut load = Load::new(&scaling);
        for i in 0..10 {
            load.record(at(i), &stat((5 + i) as f64, 0.0));
        }
        assert_eq!(load.averages(MetricKind::Concurrency, at(9)), (11.5, 13.5));
    }

    #[test]
    fn absurd_reports_are_told() {
        assert!(is_plausible(&stat(1.0, 2.0)));
        for bad in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            assert!(!is_plausible(&stat(bad, 1.0)) && !is_plausible(&stat(1.0, bad)), "{bad}");
        }
    }
}
