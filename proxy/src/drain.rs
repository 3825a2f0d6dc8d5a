//! Graceful end of everything in flight.
//!
//! A [`Drain`] is one switch and one counter. The switch is thrown once: accept loops stop, HTTP/1 connections turn
//! keep-alive off, h2 connections send GOAWAY. The counter is held up by [`Guard`]s (connections, tunnels); when it is
//! back at zero nothing can be lost by exiting. It may be shared by threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// One switch and one counter; clones share both.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    token: CancellationToken,
    active: AtomicUsize,
    idle: Notify,
}

impl Drain {
    /// A drain that begins when the token is cancelled (or by [`Drain::begin`], which cancels the token).
    pub fn new(token: CancellationToken) -> Self {
        Self { inner: Arc::new(Inner { token, ..Inner::default() }) }
    }

    /// Throws the switch. Doing it again does nothing.
    pub fn begin(&self) {
        self.inner.token.cancel();
    }

    /// Whether the switch has been thrown.
    pub fn begun(&self) -> bool {
        self.inner.token.is_cancelled()
    }

    /// Resolves when the switch is thrown.
    pub fn started(&self) -> WaitForCancellationFutureOwned {
        self.inner.token.clone().cancelled_owned()
    }

    /// Counts one thing in flight until the guard is dropped.
    pub fn guard(&self) -> Guard {
        self.inner.active.fetch_add(1, Ordering::Relaxed);
        Guard { inner: Arc::clone(&self.inner) }
    }

    /// How many guards are alive.
    pub fn active(&self) -> usize {
        self.inner.active.load(Ordering::Relaxed)
    }

    /// Resolves when no guard is alive.
    pub async fn idle(&self) {
        loop {
            let notified = self.inner.idle.notified();
            tokio::pin!(notified);
            // Registered before the look, so that a guard dropped in between is not missed.
            notified.as_mut().enable();
            if self.active() == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// Something in flight; see [`Drain::guard`].
#[derive(Debug)]
pub struct Guard {
    inner: Arc<Inner>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.inner.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.inner.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn idle_waits_for_the_last_guard() {
        let drain = Drain::default();
        assert!(drain.idle().now_or_never().is_some());
        let first = drain.guard();
        let second = drain.guard();
        let idle = drain.idle();
        tokio::pin!(idle);
        assert!(idle.as_mut().now_or_never().is_none());
        drop(first);
        assert!(idle.as_mut().now_or_never().is_none());
        drop(second);
        assert!(idle.as_mut().now_or_never().is_some());
        assert_eq!(drain.active(), 0);
    }

    #[tokio::test]
    async fn the_switch_is_shared_by_clones() {
        let drain = Drain::default();
        let other = drain.clone();
        let started = other.started();
        assert!(!other.begun());
        drain.begin();
        assert!(other.begun());
        started.await;
    }
}
