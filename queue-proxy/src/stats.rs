//! Concurrency and rate as the autoscaler wants them: time-weighted averages over a window, exactly upstream's formula.
//!
//! Pure: the caller brings the time. [`Window`] is fed by every request; the reporter takes a [`Report`] each second.

use std::time::Duration;

use api::stat::Stat;

/// Running requests and the sums of the current window. Times count from any fixed moment.
#[derive(Debug, Clone, Default)]
pub struct Window {
    last: Duration,
    running: u64,
    running_proxied: u64,
    arrived: u64,
    arrived_proxied: u64,
    elapsed: f64,
    weighted: f64,
    weighted_proxied: f64,
}

/// The averages of one window.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Report {
    /// Average requests in flight.
    pub concurrency: f64,
    /// The part that came through an activator.
    pub proxied_concurrency: f64,
    /// Requests that arrived.
    pub arrived: u64,
    /// The part that came through an activator.
    pub arrived_proxied: u64,
}

impl Window {
    /// A window that begins at a time.
    pub fn starting_at(now: Duration) -> Self {
        Self { last: now, ..Self::default() }
    }

    /// A request arrives; it counts from now, waiting or running.
    pub fn arrive(&mut self, now: Duration, proxied: bool) {
        self.advance(now);
        self.running += 1;
        self.arrived += 1;
        if proxied {
            self.running_proxied += 1;
            self.arrived_proxied += 1;
        }
    }

    /// A request ends; `proxied` as it arrived.
    pub fn leave(&mut self, now: Duration, proxied: bool) {
        self.advance(now);
        self.running = self.running.saturating_sub(1);
        if proxied {
            self.running_proxied = self.running_proxied.saturating_sub(1);
        }
    }

    /// Closes the window and opens the next; what runs goes on running.
    pub fn report(&mut self, now: Duration) -> Report {
        self.advance(now);
        let average = |sum: f64| if self.elapsed > 0.0 { sum / self.elapsed } else { 0.0 };
        let report = Report {
            concurrency: average(self.weighted),
            proxied_concurrency: average(self.weighted_proxied),
            arrived: self.arrived,
            arrived_proxied: self.arrived_proxied,
        };
        *self =
            Self { last: self.last, running: self.running, running_proxied: self.running_proxied, ..Self::default() };
        report
    }

    /// Requests in flight now.
    pub fn running(&self) -> u64 {
        self.running
    }

    /// A stamp older than the last adds no time.
    fn advance(&mut self, now: Duration) {
        let Some(step) = now.checked_sub(self.last) else { return };
        let step = step.as_secs_f64();
        self.elapsed += step;
        self.weighted += self.running as f64 * step;
        self.weighted_proxied += self.running_proxied as f64 * step;
        self.last = now;
    }
}

impl Report {
    /// The message the autoscaler scrapes. Counts become rates, averages stay.
    pub fn to_stat(self, pod: &str, period: Duration, uptime: Duration) -> Stat {
        let seconds = period.as_secs_f64();
        Stat {
            pod_name: pod.to_string(),
            average_concurrent_requests: self.concurrency,
            average_proxied_concurrent_requests: self.proxied_concurrency,
            request_count: self.arrived as f64 / seconds,
            proxied_request_count: self.arrived_proxied as f64 / seconds,
            process_uptime: uptime.as_secs_f64(),
            timestamp: 0, // the reader stamps it
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    enum Event {
        In(u64, bool),
        Out(u64, bool),
        Report(u64, f64, f64, u64, u64),
    }
    use Event::{In, Out, Report as Tick};

    #[test]
    fn upstream_cases() {
        let cases: &[(&str, &[Event])] = &[
            ("no requests", &[Tick(1000, 0., 0., 0, 0)]),
            ("whole window", &[In(0, false), Out(1000, false), Tick(1000, 1., 0., 1, 0)]),
            ("half", &[In(0, false), Out(500, false), Tick(1000, 0.5, 0., 1, 0)]),
            ("one millisecond", &[In(0, false), Out(1, false), Tick(1000, 0.001, 0., 1, 0)]),
            (
                "back to back",
                &[
                    In(0, false),
                    Out(300, false),
                    In(300, false),
                    Out(600, false),
                    In(600, false),
                    Out(1000, false),
                    Tick(1000, 1., 0., 3, 0),
                ],
            ),
            ("overlap", &[In(0, false), In(100, false), Out(600, false), Out(1000, false), Tick(1000, 1.5, 0., 2, 0)]),
            (
                "over two windows",
                &[In(0, false), Tick(1000, 1., 0., 1, 0), Out(1500, false), Tick(2000, 0.5, 0., 0, 0)],
            ),
            (
                "over four windows",
                &[
                    In(0, false),
                    Tick(1000, 1., 0., 1, 0),
                    Tick(2000, 1., 0., 0, 0),
                    Tick(3000, 1., 0., 0, 0),
                    Out(3500, false),
                    Tick(4000, 0.5, 0., 0, 0),
                ],
            ),
            ("proxied whole", &[In(0, true), Out(1000, true), Tick(1000, 1., 1., 1, 1)]),
            ("proxied half", &[In(0, true), Out(500, true), Tick(1000, 0.5, 0.5, 1, 1)]),
            (
                "proxied half and plain whole",
                &[In(0, true), In(0, false), Out(500, true), Out(1000, false), Tick(1000, 1.5, 0.5, 2, 1)],
            ),
            (
                "stamps out of order add no time",
                &[In(500, false), In(499, false), Out(1000, false), Out(999, false), Tick(1000, 1., 0., 2, 0)],
            ),
        ];
        for (name, events) in cases {
            let mut window = Window::starting_at(ms(0));
            for event in *events {
                match *event {
                    In(at, proxied) => window.arrive(ms(at), proxied),
                    Out(at, proxied) => window.leave(ms(at), proxied),
                    Tick(at, concurrency, proxied, n, n_proxied) => {
                        let report = window.report(ms(at));
                        assert!((report.concurrency - concurrency).abs() < 1e-9, "{name}: {report:?}");
                        assert!((report.proxied_concurrency - proxied).abs() < 1e-9, "{name}: {report:?}");
                        assert_eq!((report.arrived, report.arrived_proxied), (n, n_proxied), "{name}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_period_divides_counts_not_averages() {
        let report = Report { concurrency: 3.0, proxied_concurrency: 2.0, arrived: 39, arrived_proxied: 15 };
        for (period, count, proxied) in [(1, 39.0, 15.0), (2, 19.5, 7.5), (10, 3.9, 1.5)] {
            let stat = report.to_stat("pod", Duration::from_secs(period), Duration::from_secs(5));
            assert_eq!((stat.average_concurrent_requests, stat.average_proxied_concurrent_requests), (3.0, 2.0));
            assert_eq!((stat.request_count, stat.proxied_request_count), (count, proxied));
            assert_eq!((stat.process_uptime, stat.timestamp), (5.0, 0));
        }
    }
}
