//! One probe of one container: when to ask next, and what the answers mean. Kubelet's rules, pure.

use std::time::{Duration, Instant};

use super::plan::ProbePlan;

/// How fast a container that answers at once (`Dormouse-Hold`) is asked again while its port is still closed.
const FIRST_RETRY: Duration = Duration::from_millis(1);
const LAST_RETRY: Duration = Duration::from_millis(250);
/// A held probe that fails after this long did wait; one that fails sooner was refused.
const WAITED: Duration = Duration::from_secs(1);

/// The course of one probe.
#[derive(Debug, Clone)]
pub(super) struct Health {
    /// When to ask next; `None` while an answer is awaited.
    pub(super) next: Option<Instant>,
    asked: Instant,
    successes: u32,
    failures: u32,
    passing: bool,
    retry: Duration,
}

/// What an answer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Same,
    /// It passes now.
    Passed,
    /// It fails now; for startup and liveness: stop the container.
    Failed,
}

impl Health {
    /// A probe of a container that started now. Readiness and startup begin as failing, liveness as passing.
    pub(super) fn new(plan: &ProbePlan, passing: bool, now: Instant) -> Self {
        let next = Some(now + plan.initial_delay);
        Self { next, asked: now, successes: 0, failures: 0, passing, retry: FIRST_RETRY }
    }

    /// Notes that the question goes out now.
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked = now;
        self.next = None;
    }

    /// Whether to ask with `Dormouse-Hold`.
    pub(super) fn hold(&self, plan: &ProbePlan) -> bool {
        plan.hold && !self.passing
    }

    /// Takes an answer.
    pub(super) fn answered(&mut self, plan: &ProbePlan, good: bool, now: Instant) -> Verdict {
        let held = self.hold(plan);
        let was = self.passing;
        if good {
            self.successes += 1;
            self.failures = 0;
            self.passing |= self.successes >= plan.success_threshold;
            self.retry = FIRST_RETRY;
        } else {
            self.failures += 1;
            self.successes = 0;
            self.passing &= self.failures < plan.failure_threshold;
        }
        let failed = !good && self.failures >= plan.failure_threshold;
        let next = if held && !self.passing {
            let took = now.saturating_duration_since(self.asked);
            let wait = if took >= WAITED { Duration::ZERO } else { self.retry };
            self.retry = if took >= WAITED { FIRST_RETRY } else { (self.retry * 2).min(LAST_RETRY) };
            now + wait
        } else {
            (self.asked + plan.period).max(now)
        };
        self.next = Some(next);
        match (was, self.passing) {
            (false, true) => Verdict::Passed,
            (true, false) => Verdict::Failed,
            (false, false) if failed => Verdict::Failed,
            _ => Verdict::Same,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::plan::Check;

    fn plan(success: u32, failure: u32, hold: bool) -> ProbePlan {
        ProbePlan {
            check: Check::Sleep { seconds: 0 },
            initial_delay: Duration::from_secs(2),
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            success_threshold: success,
            failure_threshold: failure,
            hold,
            grace: None,
        }
    }

    #[test]
    fn thresholds_count_in_a_row() {
        use Verdict::{Failed, Passed, Same};
        for (success, failure, passing, answers, wanted) in [
            (1, 3, false, vec![true, false, false, false, true], vec![Passed, Same, Same, Failed, Passed]),
            (1, 3, true, vec![false, false, true, false, false, false], vec![Same, Same, Same, Same, Same, Failed]),
            (2, 1, false, vec![true, false, true, true], vec![Same, Failed, Same, Passed]),
        ] {
            let plan = plan(success, failure, false);
            let now = Instant::now();
            let mut health = Health::new(&plan, passing, now);
            let got: Vec<_> = answers.iter().map(|good| health.answered(&plan, *good, now)).collect();
            assert_eq!(got, wanted);
        }
    }

    #[test]
    fn asks_by_the_period_from_the_last_question() {
        let plan = plan(1, 3, false);
        let start = Instant::now();
        let mut health = Health::new(&plan, false, start);
        assert_eq!(health.next, Some(start + Duration::from_secs(2)));
        health.asked(start);
        assert_eq!(health.next, None);
        health.answered(&plan, true, start + Duration::from_secs(1));
        assert_eq!(health.next, Some(start + Duration::from_secs(10)));
        health.asked(start);
        health.answered(&plan, true, start + Duration::from_secs(12));
        assert_eq!(health.next, Some(start + Duration::from_secs(12)));
    }

    #[test]
    fn held_probes_retry_at_once_until_the_port_is_open() {
        let plan = plan(1, 3, true);
        let mut now = Instant::now();
        let mut health = Health::new(&plan, false, now);
        let mut waits = Vec::new();
        for _ in 0..10 {
            health.asked(now);
            health.answered(&plan, false, now);
            let next = health.next.unwrap();
            waits.push((next - now).as_millis());
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 250, 250]);
        // One that was held and not ready in time is asked again at once.
        health.asked(now);
        health.answered(&plan, false, now + Duration::from_secs(10));
        assert_eq!(health.next, Some(now + Duration::from_secs(10)));
        health.asked(now);
        assert!(health.hold(&plan));
        health.answered(&plan, true, now);
        assert_eq!(health.next, Some(now + plan.period));
        assert!(!health.hold(&plan));
    }
}
