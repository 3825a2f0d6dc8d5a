//! The shared state of readiness: one check at a time, whoever asks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{LocalBoxFuture, Shared, join_all};
use tokio::time::{Instant, sleep, timeout};

use super::check::{NotReady, attempt};
use super::definition::{Action, Probe, Readiness};

/// An aggressive check gives up after this long; the next question starts another.
const AGGRESSIVE_LIMIT: Duration = Duration::from_secs(10);

/// Answers "is the app ready?".
#[derive(Clone)]
pub struct Gate {
    inner: Rc<Inner>,
}

struct Inner {
    probes: Vec<Watched>,
    running: RefCell<Option<Flight>>,
}

type Flight = Shared<LocalBoxFuture<'static, bool>>;

struct Watched {
    probe: Probe,
    /// Successes in a row of an aggressive probe; lives on over questions, so that later ones need one success only.
    in_a_row: Cell<u32>,
    /// Why the last attempt of a probe that is not aggressive failed, if it did.
    said: RefCell<Option<String>>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("probes", &self.inner.probes.len()).finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate for a definition.
    pub fn new(readiness: Readiness) -> Self {
        let watched = |probe| Watched { probe, in_a_row: Cell::new(0), said: RefCell::default() };
        let probes = readiness.probes.into_iter().map(watched).collect();
        Self { inner: Rc::new(Inner { probes, running: RefCell::default() }) }
    }

    /// Checks now, or shares the check that is running. It goes on when the caller leaves.
    pub async fn ready(&self) -> bool {
        if self.inner.probes.is_empty() {
            return true;
        }
        let flight = self.inner.running.borrow().as_ref().filter(|flight| flight.peek().is_none()).cloned();
        if let Some(flight) = flight {
            return flight.await;
        }
        let inner = Rc::clone(&self.inner);
        let flight = async move { inner.check_all().await }.boxed_local().shared();
        *self.inner.running.borrow_mut() = Some(flight.clone());
        tokio::task::spawn_local(flight.clone());
        flight.await
    }

    /// Waits until the app is ready, at most `hold`; says which.
    pub async fn ready_within(&self, hold: Duration) -> bool {
        let started = Instant::now();
        let wait = async {
            while !self.ready().await {
                sleep(pause(started.elapsed(), false)).await;
            }
        };
        timeout(hold, wait).await.is_ok()
    }
}

impl Inner {
    async fn check_all(&self) -> bool {
        join_all(self.probes.iter().map(Watched::check)).await.into_iter().all(|passed| passed)
    }
}

impl Watched {
    async fn check(&self) -> bool {
        // What cannot be done does not come true by repeating.
        let Some(threshold) = self.probe.aggressive.filter(|_| self.probe.action != Action::None) else {
            let failure = attempt(&self.probe).await.err().map(|error| error.to_string());
            let passed = failure.is_none();
            // Each reason once: the kubelet sees a bare 503 and asks again and again.
            if self.said.replace(failure.clone()) != failure
                && let Some(error) = failure
            {
                tracing::info!(error, "readiness probe failed");
            }
            return passed;
        };
        let started = Instant::now();
        let (mut failures, mut last): (u32, Option<NotReady>) = (0, None);
        let until_enough = async {
            loop {
                let refused = match attempt(&self.probe).await {
                    Ok(()) => {
                        self.in_a_row.set(self.in_a_row.get().saturating_add(1));
                        if self.in_a_row.get() >= threshold {
                            return;
                        }
                        false
                    }
                    Err(error) => {
                        self.in_a_row.set(0);
                        failures += 1;
                        let refused = error.is_refused();
                        last = Some(error);
                        refused
                    }
                };
                sleep(pause(started.elapsed(), refused)).await;
            }
        };
        if timeout(AGGRESSIVE_LIMIT, until_enough).await.is_ok() {
            return true;
        }
        let error = last.map(|error| error.to_string()).unwrap_or_default();
        tracing::warn!(failures, error, "aggressive probe error: gave up after {AGGRESSIVE_LIMIT:?}");
        false
    }
}

/// How long to wait before the next attempt: 2 % of the time waited so far, so that we add at most that much to the
/// app's own start. A refused connection costs the app nothing; one that was accepted is not repeated that fast.
fn pause(waited: Duration, refused: bool) -> Duration {
    let (least, most) = if refused { (1, 25) } else { (10, 50) };
    (waited / 50).clamp(Duration::from_millis(least), Duration::from_millis(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_is_two_percent_within_bounds() {
        let ms = Duration::from_millis;
        for (waited, refused, expected) in [
            (0, true, ms(1)),
            (40, true, ms(1)),
            (500, true, ms(10)),
            (60_000, true, ms(25)),
            (0, false, ms(10)),
            (1_000, false, ms(20)),
            (60_000, false, ms(50)),
        ] {
            assert_eq!(pause(ms(waited), refused), expected, "{waited} {refused}");
        }
    }
}
