//! Pods kept although nobody asks: at set times, or while the next request is due. Off by default.
//!
//! Learned idle times follow "Serverless in the Wild" (Shahrad et al., USENIX ATC 2020, §4.2): a histogram of idle
//! times in one-minute bins up to four hours; the revision may sleep until shortly before the 5th percentile and is
//! kept until shortly after the 99th. Where the histogram says nothing (few samples, most idle times beyond it, or
//! spread evenly over it), nothing is kept.

use std::time::Duration;

use api::scaling::WarmWindow;

use crate::moment::Moment;

const MINUTE: i64 = 60;
/// Bins of one minute.
const BINS: usize = 240;
/// Fewer idle times than this say nothing.
const FEWEST: u32 = 10;
/// Percentiles between which a pod is kept.
const HEAD: f64 = 0.05;
const TAIL: f64 = 0.99;
/// Both ends are moved outwards by this part.
const MARGIN: f64 = 0.1;
/// Coefficient of variation of the bins below which idle times have no pattern.
const LEAST_VARIATION: f64 = 2.0;

/// Fewest pods by the open windows, and when that changes next. Windows last a day at most.
pub fn scheduled(windows: &[WarmWindow], now: Moment) -> (i32, Option<Moment>) {
    let minute = now.seconds().div_euclid(MINUTE);
    let (mut pods, mut change) = (0, None);
    for window in windows {
        let lasts = i64::try_from(window.lasts.as_secs() / 60).unwrap_or(0);
        let open = window.opens.last(minute, lasts - 1);
        let at = match open {
            Some(start) => {
                pods = pods.max(window.min_scale);
                start + lasts
            }
            // Not within a day: look again then.
            None => window.opens.next(minute, 24 * 60).unwrap_or(minute + 24 * 60),
        };
        change = Some(change.map_or(at, |change: i64| change.min(at)));
    }
    (pods, change.map(|minute| Moment::from_seconds(minute * MINUTE)))
}

/// Idle times of one revision. Half a KiB, made only where asked for.
#[derive(Debug, Clone)]
pub struct IdleTimes {
    bins: Box<[u16; BINS]>,
    /// Idle times in the bins, and beyond the last.
    inside: u32,
    outside: u32,
    /// When the last request was in flight.
    active_at: Option<Moment>,
}

impl Default for IdleTimes {
    fn default() -> Self {
        Self { bins: Box::new([0; BINS]), inside: 0, outside: 0, active_at: None }
    }
}

impl IdleTimes {
    /// A request was in flight at `now`.
    pub fn active(&mut self, now: Moment) {
        if let Some(before) = self.active_at {
            let idle = now.since(before).as_secs() / 60;
            // Within a minute it was not idle.
            if idle >= 1 {
                self.add(idle);
            }
        }
        self.active_at = Some(self.active_at.map_or(now, |before| before.max(now)));
    }

    fn add(&mut self, minutes: u64) {
        let bin = usize::try_from(minutes).ok().and_then(|minutes| self.bins.get_mut(minutes));
        let Some(bin) = bin else {
            self.outside = self.outside.saturating_add(1);
            return;
        };
        *bin += 1;
        self.inside += 1;
        if *bin == u16::MAX {
            // Half of everything: proportions stay, and what is old counts less.
            self.bins.iter_mut().for_each(|bin| *bin /= 2);
            self.inside = self.bins.iter().map(|bin| u32::from(*bin)).sum();
            self.outside /= 2;
        }
    }

    /// From how long after the last request until how long after it a pod is kept.
    pub fn window(&self) -> Option<(Duration, Duration)> {
        if self.inside < FEWEST || self.outside > self.inside {
            return None;
        }
        let mean = f64::from(self.inside) / BINS as f64;
        let variance = self.bins.iter().map(|bin| (f64::from(*bin) - mean).powi(2)).sum::<f64>() / BINS as f64;
        if variance.sqrt() / mean < LEAST_VARIATION {
            return None;
        }
        let minutes = |minutes: f64| Duration::from_secs_f64(minutes * 60.0);
        let (head, tail) = (self.quantile(HEAD), self.quantile(TAIL));
        // A bin holds what is at least its number; its end is one further.
        Some((minutes(head as f64 * (1.0 - MARGIN)), minutes((tail + 1) as f64 * (1.0 + MARGIN))))
    }

    fn quantile(&self, q: f64) -> usize {
        let rank = (f64::from(self.inside) * q).ceil().max(1.0) as u32;
        let mut seen = 0;
        self.bins
            .iter()
            .position(|bin| {
                seen += u32::from(*bin);
                seen >= rank
            })
            .unwrap_or(BINS - 1)
    }

    /// Whether the next request is due, and when that changes next.
    pub fn due(&self, now: Moment) -> (bool, Option<Moment>) {
        let (Some(active_at), Some((from, until))) = (self.active_at, self.window()) else { return (false, None) };
        let (from, until) = (active_at.plus(from), active_at.plus(until));
        if now < from {
            (false, Some(from))
        } else if now < until {
            (true, Some(until))
        } else {
            (false, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Moment {
        Moment::from_seconds(minute * MINUTE)
    }

    fn window(opens: &str, hours: u64, min_scale: i32) -> WarmWindow {
        WarmWindow { opens: opens.parse().unwrap(), lasts: Duration::from_secs(hours * 3600), min_scale }
    }

    #[test]
    fn the_largest_open_window_counts() {
        let windows = [window("0 8 * * *", 10, 1), window("0 9 * * *", 1, 3), window("0 20 * * *", 12, 2)];
        // (minute of the day, pods, minute of the next change)
        for (minute, pods, next) in [
            (479, 2, 480),
            (480, 1, 540),
            (540, 3, 600),
            (599, 3, 600),
            (600, 1, 1080),
            (1080, 0, 1200),
            (1200, 2, 1920),
        ] {
            let day = 20_000 * 24 * 60;
            let (got, change) = scheduled(&windows, at(day + minute));
            assert_eq!(got, pods, "minute {minute}");
            let change = change.unwrap().seconds() / 60 - day;
            assert_eq!(change, next, "minute {minute}");
        }
        assert_eq!(scheduled(&[], at(5)), (0, None));
    }

    #[test]
    fn a_regular_revision_is_warm_when_its_next_request_is_due() {
        let mut idle = IdleTimes::default();
        let mut minute = 0;
        for nth in 0..50 {
            idle.active(at(minute));
            minute += 30 + nth % 3;
        }
        let last = minute - 31;
        let (from, until) = idle.window().unwrap();
        assert_eq!((from.as_secs() / 60, until.as_secs() / 60), (27, 36));
        assert!(!idle.due(at(last + 20)).0);
        assert!(idle.due(at(last + 28)).0 && idle.due(at(last + 34)).0);
        let (warm, next) = idle.due(at(last + 60));
        assert!(!warm && next.is_none(), "nobody came: it may sleep");
    }

    #[test]
    fn without_a_pattern_nothing_is_kept() {
        let mut few = IdleTimes::default();
        (0..10).for_each(|nth| few.active(at(nth * 10)));
        assert_eq!(few.window(), None, "nine idle times");
        let mut rare = IdleTimes::default();
        (0..50).for_each(|nth| rare.active(at(nth * 500)));
        assert_eq!(rare.window(), None, "beyond the histogram");
        let mut even = IdleTimes::default();
        let mut minute = 0;
        for nth in 0..2000 {
            minute += 1 + (nth * 97) % 239;
            even.active(at(minute));
        }
        assert_eq!(even.window(), None, "anything is as likely as anything else");
    }

    proptest::proptest! {
        #[test]
        fn learning_is_bounded_and_never_panics(gaps in proptest::collection::vec(-100i64..100_000, 0..400)) {
            let mut idle = IdleTimes::default();
            let mut second = 0;
            for gap in gaps {
                second += gap;
                idle.active(Moment::from_seconds(second));
                let (_, next) = idle.due(Moment::from_seconds(second));
                proptest::prop_assert!(next.is_none_or(|next| next >= Moment::from_seconds(second)));
            }
            if let Some((from, until)) = idle.window() {
                proptest::prop_assert!(from < until && until <= Duration::from_secs(240 * 66));
            }
        }
    }
}
