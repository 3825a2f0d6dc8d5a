//! Requests in flight of one revision, averaged over the time between two reports. Pure.

use std::time::Instant;

/// One report about one revision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// Time-weighted average of requests in flight.
    pub concurrency: f64,
    /// Requests that arrived.
    pub count: f64,
}

/// The counts since the last report. Requests in flight outlive reports; the sums do not.
#[derive(Debug, Clone)]
pub struct Window {
    in_flight: u32,
    last: Instant,
    /// Sum of requests in flight × seconds.
    weighted: f64,
    seconds: f64,
    count: f64,
    /// Already told in an immediate message; taken off the next report so that nothing counts twice.
    told: Report,
    /// Concurrency that the autoscaler knows of: as last told, by whichever message.
    known: f64,
    /// Arrivals in reports that could not be sent.
    lost: f64,
}

const NOTHING: Report = Report { concurrency: 0.0, count: 0.0 };

impl Window {
    /// Starts to count now.
    pub fn new(now: Instant) -> Self {
        Self { in_flight: 0, last: now, weighted: 0.0, seconds: 0.0, count: 0.0, told: NOTHING, known: 0.0, lost: 0.0 }
    }

    /// A request arrives.
    pub fn enter(&mut self, now: Instant) {
        self.advance(now);
        self.in_flight += 1;
        self.count += 1.0;
    }

    /// A request is over.
    pub fn leave(&mut self, now: Instant) {
        self.advance(now);
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// The first message of a revision that had none: one request, at once.
    pub fn poke(&mut self) -> Report {
        self.told = Report { concurrency: 1.0, count: 1.0 };
        self.known = 1.0;
        self.told
    }

    /// Somebody has to wait: what to tell at once, if what is in flight is at least twice what is known. It is taken off
    /// the next report, as the poke is, so that the sums over both are upstream's.
    pub fn crossing(&mut self, now: Instant) -> Option<Report> {
        self.advance(now);
        let in_flight = f64::from(self.in_flight);
        if in_flight < 2.0 * self.known.max(0.5) {
            return None;
        }
        let more = Report {
            concurrency: (in_flight - self.told.concurrency).max(0.0),
            count: (self.count - self.told.count).max(0.0),
        };
        self.told = Report { concurrency: in_flight.max(self.told.concurrency), count: self.count };
        self.known = in_flight;
        Some(more)
    }

    /// The poke could not be sent.
    pub fn poke_lost(&mut self) {
        self.lost += 1.0;
    }

    /// Closes the period: what to report, and whether the revision was idle for all of it.
    pub fn report(&mut self, now: Instant) -> (Report, bool) {
        self.advance(now);
        let average = if self.seconds > 0.0 { self.weighted / self.seconds } else { f64::from(self.in_flight) };
        let idle = self.in_flight == 0 && self.weighted == 0.0 && self.count == 0.0;
        let report = Report {
            concurrency: (average - self.told.concurrency).max(0.0),
            count: (self.count - self.told.count).max(0.0),
        };
        self.told = NOTHING;
        self.known = average;
        self.weighted = 0.0;
        self.seconds = 0.0;
        self.count = 0.0;
        (report, idle)
    }

    /// The report just made could not be sent.
    pub fn report_lost(&mut self, report: Report) {
        self.lost += report.count;
    }

    /// After a time without anyone to report to: what is in flight now, with the arrivals among it that nobody heard
    /// of. `None` if nothing is in flight.
    pub fn catch_up(&mut self, now: Instant) -> Option<Report> {
        self.advance(now);
        let lost = std::mem::take(&mut self.lost);
        if self.in_flight == 0 {
            return None;
        }
        let in_flight = f64::from(self.in_flight);
        // The arrivals of this period are told at its end; here only those of periods before.
        let report = Report { concurrency: in_flight, count: lost.min(in_flight) };
        self.told.concurrency = in_flight;
        self.known = in_flight;
        Some(report)
    }

    /// Adds the time since the last event; a clock that goes backwards adds none.
    fn advance(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.last).as_secs_f64();
        self.weighted += f64::from(self.in_flight) * seconds;
        self.seconds += seconds;
        self.last = self.last.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn clock() -> impl Fn(u64) -> Instant {
        let start = Instant::now();
        move |ms| start + Duration::from_millis(ms)
    }

    fn pair(report: Report) -> (f64, f64) {
        (report.concurrency, report.count)
    }

    #[test]
    fn t61_averages_are_weighted_by_time() {
        let at = clock();
        let mut window = Window::new(at(0));
        window.enter(at(0));
        window.leave(at(3000));
        assert_eq!(pair(window.report(at(6000)).0), (0.5, 1.0));

        let mut window = Window::new(at(0));
        window.enter(at(0));
        let first: Vec<_> = [1000, 2000, 3000].map(|ms| pair(window.report(at(ms)).0)).into();
        assert_eq!(first, [(1.0, 1.0), (1.0, 0.0), (1.0, 0.0)]);
        window.leave(at(3500));
        assert_eq!(pair(window.report(at(4000)).0), (0.5, 0.0));
    }

    #[test]
    fn t61_events_out_of_order_do_not_go_negative() {
        let at = clock();
        let mut window = Window::new(at(1000));
        window.enter(at(1000));
        window.leave(at(500));
        assert_eq!(pair(window.report(at(2000)).0), (0.0, 1.0));
    }

    #[test]
    fn t55_t58_t59_what_the_poke_told_is_taken_off() {
        let at = clock();
        let mut window = Window::new(at(0));
        assert_eq!(pair(window.poke()), (1.0, 1.0));
        window.enter(at(0));
        window.leave(at(1));
        window.enter(at(1));
        window.leave(at(2));
        assert_eq!(pair(window.report(at(2)).0), (0.0, 1.0));

        let mut window = Window::new(at(0));
        window.poke();
        (0..3).for_each(|_| window.enter(at(0)));
        assert_eq!(pair(window.report(at(1000)).0), (2.0, 2.0));

        let mut window = Window::new(at(0));
        window.poke();
        window.enter(at(0));
        window.enter(at(0));
        window.leave(at(1000));
        window.leave(at(2000));
        assert_eq!(pair(window.report(at(2000)).0), (0.5, 1.0));
    }

    #[test]
    fn a_burst_is_told_by_doublings_and_sums_to_the_same() {
        let at = clock();
        let mut window = Window::new(at(0));
        window.poke();
        let mut told = vec![];
        for _ in 0..100 {
            window.enter(at(0));
            told.extend(window.crossing(at(0)).map(pair));
        }
        // 2, 4, 8, 16, 32, 64 in flight, each message with what is new in it.
        assert_eq!(told, [(1.0, 1.0), (2.0, 2.0), (4.0, 4.0), (8.0, 8.0), (16.0, 16.0), (32.0, 32.0)]);
        let (rest, _) = window.report(at(1000));
        assert_eq!(pair(rest), (36.0, 36.0));
        // The report has told all of it: who waits on is no news.
        window.enter(at(1001));
        assert_eq!(window.crossing(at(1001)), None);
        assert_eq!(pair(window.report(at(2000)).0).1, 1.0);
    }

    #[test]
    fn after_an_outage_only_what_is_in_flight_is_told_and_only_once() {
        let at = clock();
        let mut window = Window::new(at(0));
        window.poke();
        window.poke_lost();
        (0..3).for_each(|_| window.enter(at(0)));
        let (report, _) = window.report(at(1000));
        window.report_lost(report);
        window.leave(at(1000));
        // Two of the three that nobody heard of are still there.
        assert_eq!(window.catch_up(at(1200)).map(pair), Some((2.0, 2.0)));
        let (report, _) = window.report(at(2000));
        assert_eq!(pair(report), (0.0, 0.0), "told at the reconnect already");
        assert_eq!(pair(window.report(at(3000)).0), (2.0, 0.0));
        window.leave(at(3000));
        window.leave(at(3000));
        assert_eq!(window.catch_up(at(3000)), None);
    }
}
