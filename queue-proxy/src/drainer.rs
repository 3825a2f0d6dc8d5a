//! The quiet period: a pod that is going away serves on until nobody sends new requests to it.
//!
//! Serving → draining (health checks fail, so that routers leave) → quiet (no new request for a while) → the sockets
//! may close. Everyone who asks for the drain shares one. A drain that turns out to be no shutdown is taken back.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// One per process.
#[derive(Debug, Clone)]
pub struct Drainer {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    quiet: Duration,
    /// While draining: when the last new request came, at first when the drain began.
    last_request: Cell<Option<Instant>>,
    taken_back: Notify,
    began: Notify,
}

impl Drainer {
    /// A serving pod whose drain needs `quiet` without a new request.
    pub fn new(quiet: Duration) -> Self {
        Self {
            inner: Rc::new(Inner {
                quiet,
                last_request: Cell::new(None),
                taken_back: Notify::new(),
                began: Notify::new(),
            }),
        }
    }

    /// Whether health checks must fail.
    pub fn draining(&self) -> bool {
        self.inner.last_request.get().is_some()
    }

    /// A new request of a user came.
    pub fn request(&self) {
        if self.draining() {
            self.inner.last_request.set(Some(Instant::now()));
        }
    }

    /// Starts or joins the drain; returns when it is quiet, or at once when it is taken back.
    pub async fn drain(&self) {
        if !self.draining() {
            self.inner.last_request.set(Some(Instant::now()));
            self.inner.began.notify_waiters();
        }
        loop {
            let taken_back = self.inner.taken_back.notified();
            let Some(last) = self.inner.last_request.get() else { return };
            let quiet_at = last + self.inner.quiet;
            if quiet_at <= Instant::now() {
                return;
            }
            tokio::select! {
                () = sleep_until(quiet_at) => {}
                () = taken_back => {}
            }
        }
    }

    /// Resolves when a drain begins, at once if one has: answers that are held back are due now.
    pub async fn began(&self) {
        let began = self.inner.began.notified();
        if !self.draining() {
            began.await;
        }
    }

    /// It was no shutdown: health checks pass again, waiting callers return.
    pub fn take_back(&self) {
        self.inner.last_request.set(None);
        self.inner.taken_back.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn each_new_request_restarts_the_quiet_period() {
        let drainer = Drainer::new(QUIET);
        let started = Instant::now();
        let requests = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(20)).await;
                drainer.request();
            }
        };
        futures::join!(drainer.drain(), requests);
        assert_eq!(started.elapsed().as_secs(), 90);
    }

    #[tokio::test(start_paused = true)]
    async fn callers_share_one_drain() {
        let drainer = Drainer::new(QUIET);
        let started = Instant::now();
        let late = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            drainer.drain().await;
        };
        futures::join!(drainer.drain(), late);
        assert_eq!(started.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_that_is_taken_back_returns_at_once() {
        let drainer = Drainer::new(QUIET);
        let started = Instant::now();
        let back = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drainer.take_back();
        };
        futures::join!(drainer.drain(), back);
        assert_eq!(started.elapsed().as_secs(), 1);
        assert!(!drainer.draining());
    }

    #[tokio::test(start_paused = true)]
    async fn requests_while_serving_start_no_drain() {
        let drainer = Drainer::new(QUIET);
        drainer.request();
        assert!(!drainer.draining());
    }
}
