//! What follows from a failed export: again or not, how soon, and what is said about it. Pure.

use std::time::{Duration, Instant};

use http::StatusCode;

/// Why an export has failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    /// What went wrong.
    pub what: String,
    /// Whether the same may go well later.
    pub retryable: bool,
    /// How long the collector wants to be left alone.
    pub after: Option<Duration>,
}

impl Failure {
    /// Not reached, or the connection broke.
    #[allow(clippy::needless_pass_by_value)] // so that it fits into `map_err`
    pub fn transport(what: impl ToString) -> Self {
        Self { what: what.to_string(), retryable: true, after: None }
    }

    /// An HTTP status that is no success.
    pub fn http(status: StatusCode, after: Option<Duration>) -> Self {
        let retryable = matches!(status.as_u16(), 429 | 502 | 503 | 504);
        Self { what: format!("the collector answered {status}"), retryable, after }
    }

    /// A gRPC status that is no success. The collector's own text is not repeated; it may quote what was sent.
    pub fn grpc(code: u32) -> Self {
        // Cancelled, deadline exceeded, aborted, out of range, unavailable, data loss.
        let retryable = matches!(code, 1 | 4 | 10 | 11 | 14 | 15);
        Self { what: format!("the collector answered grpc-status {code}"), retryable, after: None }
    }
}

/// First pause.
const FIRST: Duration = Duration::from_secs(1);
/// Longest pause of our own.
const LONGEST: Duration = Duration::from_secs(5);

/// The pauses of one export.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    next: Duration,
    patience: Duration,
}

impl Backoff {
    /// For an export that must be through within a time.
    pub fn new(patience: Duration) -> Self {
        Self { next: FIRST, patience }
    }

    /// The pause before the next attempt; `None` gives up. `spent`: time since the first attempt. `jitter`: 0 to 1,
    /// so that the pods of a fleet do not come back all at once.
    pub fn pause(&mut self, failure: &Failure, spent: Duration, jitter: f64) -> Option<Duration> {
        if !failure.retryable {
            return None;
        }
        let own = self.next.mul_f64(0.75 + 0.5 * jitter.clamp(0.0, 1.0));
        self.next = (self.next * 3 / 2).min(LONGEST);
        let pause = own.max(failure.after.unwrap_or_default());
        (spent.saturating_add(pause) < self.patience).then_some(pause)
    }
}

/// Losses while exports work are said no more often than this: they come with every batch when they come.
const LOSSES_EVERY: Duration = Duration::from_secs(60);

/// Whether exports work; says so once per change.
#[derive(Debug, Default)]
pub struct Health {
    failing: bool,
    lost: u64,
    losses_said: Option<Instant>,
}

/// What is worth a line.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// From now on it fails.
    Failing,
    /// It works again; so many items were lost since the last line.
    Recovered(u64),
    /// It works, but items were lost: they came faster than they could be sent, or the collector refused some.
    Losing(u64),
}

impl Health {
    /// Whether the last attempt failed.
    pub fn failing(&self) -> bool {
        self.failing
    }

    /// An attempt failed.
    pub fn failed(&mut self) -> Option<News> {
        (!std::mem::replace(&mut self.failing, true)).then_some(News::Failing)
    }

    /// Items are lost; said with a later success.
    pub fn lost(&mut self, items: u64) {
        self.lost += items;
    }

    /// An attempt went through.
    pub fn worked(&mut self, now: Instant) -> Option<News> {
        if std::mem::take(&mut self.failing) {
            return Some(News::Recovered(self.all_lost()));
        }
        let too_soon = self.losses_said.is_some_and(|said| now.saturating_duration_since(said) < LOSSES_EVERY);
        if self.lost == 0 || too_soon {
            return None;
        }
        self.losses_said = Some(now);
        Some(News::Losing(self.all_lost()))
    }

    /// Items lost that nothing was said about yet.
    pub fn all_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_go_well_later_is_tried_again() {
        for code in 1..=16 {
            assert_eq!(Failure::grpc(code).retryable, [1, 4, 10, 11, 14, 15].contains(&code), "{code}");
        }
        for (status, retryable) in
            [(400, false), (401, false), (404, false), (429, true), (500, false), (502, true), (503, true), (504, true)]
        {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(Failure::http(status, None).retryable, retryable, "{status}");
        }
    }

    #[test]
    fn pauses_grow_to_a_bound_and_end_with_the_patience() {
        let failure = Failure::transport("refused");
        let mut backoff = Backoff::new(Duration::from_secs(30));
        let pauses: Vec<_> = (0..6).filter_map(|_| backoff.pause(&failure, Duration::ZERO, 0.5)).collect();
        assert_eq!(pauses.iter().map(Duration::as_millis).collect::<Vec<_>>(), [1000, 1500, 2250, 3375, 5000, 5000]);
        assert_eq!(Backoff::new(Duration::from_secs(30)).pause(&failure, Duration::from_secs(29), 0.5), None);
        let wait = Failure { after: Some(Duration::from_secs(7)), ..failure.clone() };
        assert_eq!(
            Backoff::new(Duration::from_secs(30)).pause(&wait, Duration::ZERO, 0.5),
            Some(Duration::from_secs(7))
        );
        assert_eq!(Backoff::new(Duration::from_secs(5)).pause(&wait, Duration::ZERO, 0.5), None);
        let refused = Failure { retryable: false, ..failure };
        assert_eq!(Backoff::new(Duration::from_secs(30)).pause(&refused, Duration::ZERO, 0.5), None);
    }

    #[test]
    fn each_change_is_said_once_and_losses_once_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut health = Health::default();
        assert_eq!(health.worked(at(0)), None);
        assert_eq!(health.failed(), Some(News::Failing));
        assert_eq!(health.failed(), None);
        health.lost(3);
        assert_eq!(health.worked(at(1)), Some(News::Recovered(3)));
        assert_eq!(health.worked(at(2)), None);
        health.lost(2);
        assert_eq!(health.worked(at(3)), Some(News::Losing(2)));
        health.lost(4);
        assert_eq!(health.worked(at(4)), None);
        health.lost(5);
        assert_eq!(health.worked(at(62)), None);
        assert_eq!(health.worked(at(63)), Some(News::Losing(9)));
        health.lost(6);
        assert_eq!((health.all_lost(), health.all_lost()), (6, 0));
    }
}
