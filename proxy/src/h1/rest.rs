//! The timers of an HTTP/1 connection that waits for a request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// A connection without a request for this long is parked.
const PARK_AFTER: Duration = Duration::from_millis(100);

/// The long one is moved only when it fires; requests in between
/// leave it alone.
pub(super) struct Rest {
    timer: Pin<Box<Sleep>>,
    registered: bool,
    /// Heads that had come when the timer was set.
    heads: u64,
    /// For a head that has begun.
    pub(super) head_timer: Option<Pin<Box<Sleep>>>,
}

impl Rest {
    /// For a connection by which this many heads have come.
    pub(super) fn new(heads: u64) -> Self {
        Self { timer: Box::pin(sleep(PARK_AFTER)), registered: false, heads, head_timer: None }
    }

    /// Ready when no head has come for a while.
    pub(super) fn poll(&mut self, heads: u64, cx: &mut Context<'_>) -> Poll<()> {
        // The task's waker stays the same, so that one poll is enough until the timer fires.
        if self.registered && !self.timer.is_elapsed() {
            return Poll::Pending;
        }
        self.registered = true;
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if heads == self.heads {
                return Poll::Ready(());
            }
            self.heads = heads;
            self.timer.as_mut().reset(tokio::time::Instant::now() + PARK_AFTER);
        }
    }
}
