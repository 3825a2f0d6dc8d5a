//! A ring of one-second buckets and its average.
//!
//! Sums are taken when read, not carried along: a window is read every two seconds and written every second, and a
//! carried sum would drift and could be poisoned for ever by one bad sample.

use std::time::Duration;

use crate::moment::Moment;

/// How much older seconds count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weighting {
    /// All the same.
    #[default]
    Linear,
    /// Newer ones more, exponentially.
    Exponential,
}

/// Values by second over the last `len` seconds. Values of the same second add up.
#[derive(Debug, Clone)]
pub struct Window {
    weighting: Weighting,
    buckets: Box<[f64]>,
    /// Number of buckets, as a number of seconds to calculate with.
    len: i64,
    /// Second of the first write since the window was last empty.
    first: Option<i64>,
    /// Second of the newest write.
    last: Option<i64>,
}

/// The longest window that annotations and settings allow; anything above is cut to it.
const MAX_SECONDS: u64 = 3600;

fn seconds(window: Duration) -> u16 {
    let seconds = window.as_secs() + u64::from(window.subsec_nanos() > 0);
    seconds.clamp(1, MAX_SECONDS) as u16
}

impl Window {
    /// An empty window.
    pub fn new(window: Duration, weighting: Weighting) -> Self {
        let len = seconds(window);
        Self { weighting, buckets: vec![0.0; usize::from(len)].into(), len: i64::from(len), first: None, last: None }
    }

    fn index(&self, second: i64) -> usize {
        second.rem_euclid(self.len) as usize
    }

    /// Adds `value` to the bucket of `at`. Values older than the window are ignored.
    pub fn record(&mut self, at: Moment, value: f64) {
        let second = at.seconds();
        match self.last {
            Some(last) if second <= last - self.len => return,
            Some(last) if second > last && second - last < self.len => {
                for skipped in last + 1..=second {
                    let i = self.index(skipped);
                    self.buckets[i] = 0.0;
                }
                self.last = Some(second);
            }
            Some(last) if second <= last => {}
            _ => {
                self.buckets.fill(0.0);
                self.first = None;
                self.last = Some(second);
            }
        }
        self.first = Some(self.first.map_or(second, |first| first.min(second)));
        let i = self.index(second);
        self.buckets[i] += value;
    }

    /// Whether nothing was recorded for longer than the window.
    pub fn is_empty(&self, now: Moment) -> bool {
        self.last.is_none_or(|last| now.seconds() - last > self.len)
    }

    /// The average at `now`.
    ///
    /// Linear: over the seconds since the first write; gaps between writes count as zeros, the silence since the last
    /// write does not count. Exponential: newest first with weights a, a(1-a), …; silence moves the weights on.
    pub fn average(&self, now: Moment) -> f64 {
        let (Some(first), Some(last)) = (self.first, self.last) else { return 0.0 };
        if self.is_empty(now) {
            return 0.0;
        }
        let silent = (now.seconds() - last).max(0);
        match self.weighting {
            Weighting::Linear => self.linear(first, last, silent),
            Weighting::Exponential => self.exponential(last, silent),
        }
    }

    fn linear(&self, first: i64, last: i64, silent: i64) -> f64 {
        let inside = self.len - silent;
        if inside <= 0 {
            return 0.0;
        }
        let sum: f64 = (last - inside + 1..=last).map(|second| self.buckets[self.index(second)]).sum();
        round6(sum / (last - first + 1).min(inside) as f64)
    }

    fn exponential(&self, last: i64, silent: i64) -> f64 {
        let a = smoothing(self.buckets.len());
        let mut weight = a * (1.0 - a).powi(silent as i32);
        let mut sum = 0.0;
        for back in 0..self.len - silent {
            sum += self.buckets[self.index(last - back)] * weight;
            weight *= 1.0 - a;
        }
        sum
    }

    /// Changes the length and keeps the newest seconds that fit both.
    ///
    /// As upstream, the window then counts as filled for the old length, even where it was not.
    pub fn resize(&mut self, window: Duration, now: Moment) {
        let old = self.len;
        let mut next = Self::new(window, self.weighting);
        if next.len == old {
            return;
        }
        if let Some(last) = self.last
            && now.seconds() - last <= old
        {
            for back in 0..old.min(next.len) {
                let to = next.index(last - back);
                next.buckets[to] = self.buckets[self.index(last - back)];
            }
            next.first = Some(last - (old - 1));
            next.last = Some(last);
        }
        *self = next;
    }
}

/// Coefficient such that the weights of `buckets` buckets sum to 0.9999, but at least 0.2.
fn smoothing(buckets: usize) -> f64 {
    (1.0 - (1.0f64 - 0.9999).powf(1.0 / buckets as f64)).max(0.2)
}

/// Half away from zero at the sixth decimal: hides the rests of float sums, which would keep a pod alive.
fn round6(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: i64 = 1_000_000;

    fn at(second: i64) -> Moment {
        Moment::from_seconds(T0 + second)
    }

    fn window(seconds: u64) -> Window {
        Window::new(Duration::from_secs(seconds), Weighting::Linear)
    }

    fn close(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-6, "got {got}, want {want}");
    }

    #[test]
    fn s35_partial_full_silent_and_restarted_windows() {
        let mut w = window(5);
        w.record(at(0), 1.0);
        close(w.average(at(0)), 1.0);
        for (second, value) in [(1, 2.0), (2, 3.0), (3, 4.0), (4, 5.0)] {
            w.record(at(second), value);
        }
        close(w.average(at(4)), 3.0);
        close(w.average(at(6)), 4.0);
        close(w.average(at(9)), 0.0);
        assert!(!w.is_empty(at(9)) && w.is_empty(at(10)));
        w.record(at(6), 91.0);
        close(w.average(at(6)), 20.6 * 5.0 / 5.0);
        w.record(at(66), 1984.0);
        close(w.average(at(66)), 1984.0);
        w.record(at(63), 4.0);
        close(w.average(at(66)), 497.0);
        w.record(at(67), 5.0);
        close(w.average(at(67)), 398.6);
        w.record(at(64), 10.0);
        close(w.average(at(67)), 400.6);
        w.record(at(61), 10.0);
        w.record(at(62), 10.0);
        close(w.average(at(67)), 400.6);
        w.record(at(72), 10.0);
        close(w.average(at(72)), 10.0);
    }

    #[test]
    fn s36_resize_keeps_the_newest() {
        let mut w = window(5);
        for i in 0..5 {
            w.record(at(i), (i + 2) as f64);
        }
        w.resize(Duration::from_secs(10), at(4));
        close(w.average(at(4)), 4.0);
        w.record(at(5), 7.0);
        close(w.average(at(5)), 4.5);
        w.resize(Duration::from_secs(4), at(5));
        close(w.average(at(5)), 5.5);
        w.resize(Duration::from_secs(4), at(500));
        close(w.average(at(5)), 5.5);
        w.resize(Duration::from_secs(6), at(500));
        close(w.average(at(500)), 0.0);
    }

    #[test]
    fn s36_weighted() {
        let mut w = Window::new(Duration::from_secs(5), Weighting::Exponential);
        for i in 0..5 {
            w.record(at(i), (i + 2) as f64);
        }
        assert!((w.average(at(4)) - 5.812).abs() < 1e-3, "{}", w.average(at(4)));
    }

    #[test]
    fn s37_descending_writes() {
        let mut w = window(5);
        for i in (0..5).rev() {
            w.record(at(i), 5.0);
        }
        close(w.average(at(4)), 5.0);
    }

    #[test]
    fn s39_silence_leaves_the_divisor() {
        let mut w = window(6);
        let mut e = Window::new(Duration::from_secs(6), Weighting::Exponential);
        for i in 0..6 {
            w.record(at(i), (i + 1) as f64);
            e.record(at(i), (i + 1) as f64);
        }
        for (second, want) in [(5, 3.5), (6, 4.0), (7, 4.5), (10, 6.0), (11, 0.0), (12, 0.0)] {
            close(w.average(at(second)), want);
        }
        assert!(!w.is_empty(at(11)) && w.is_empty(at(12)));
        close(e.average(at(5)), 5.725_422);
        close(e.average(at(6)), 1.233_426);
    }

    #[test]
    fn s40_float_rests_are_rounded_away() {
        close(round6(3.6e-17), 0.0);
        assert_eq!(round6(3.6e-17).to_bits(), 0.0f64.to_bits());
        close(round6(1.234_567_5), 1.234_568);
        close(round6(-1.234_567_5), -1.234_568);
    }

    #[test]
    fn coefficients_match_upstream() {
        for (n, want) in [(5, 0.841_511), (6, 0.784_557), (12, 0.535_841), (41, 0.201_198), (42, 0.2), (60, 0.2)] {
            close(smoothing(n), want);
        }
    }

    proptest::proptest! {
        #[test]
        fn the_linear_average_lies_between_the_extremes(
            writes in proptest::collection::vec((0i64..100, 0.0f64..1e6), 1..80), read in 0i64..120, len in 1u64..70,
        ) {
            let mut w = window(len);
            let mut writes = writes;
            writes.sort_by_key(|(second, _)| *second);
            writes.dedup_by_key(|(second, _)| *second);
            for (second, value) in &writes {
                w.record(at(*second), *value);
            }
            let top = writes.iter().map(|(_, v)| *v).fold(0.0, f64::max);
            let got = w.average(at(read.max(writes[writes.len() - 1].0)));
            proptest::prop_assert!(got >= 0.0 && got <= top + 1e-6, "{}", got);
        }
    }
}
