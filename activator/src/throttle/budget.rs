//! What all lines of the process may hold together. Two counters that every revision's queue takes from when a request
//! joins and gives back to when it leaves the line.
//!
//! They are touched by requests that wait, never by those that go straight in.

use std::sync::Arc;

use super::queue::Full;
use super::sync::{AtomicUsize, Ordering};

/// See the module.
#[derive(Debug)]
pub struct Budget {
    waiters: AtomicUsize,
    bytes: AtomicUsize,
    most_waiters: usize,
    most_bytes: usize,
}

impl Budget {
    /// At most so many waiters that hold at most so many bytes.
    pub fn new(most_waiters: usize, most_bytes: usize) -> Arc<Self> {
        Arc::new(Self { waiters: AtomicUsize::new(0), bytes: AtomicUsize::new(0), most_waiters, most_bytes })
    }

    /// No bound but the revisions' own.
    pub fn unlimited() -> Arc<Self> {
        Self::new(usize::MAX, usize::MAX)
    }

    /// Requests in all lines.
    pub fn waiters(&self) -> usize {
        self.waiters.load(Ordering::Relaxed)
    }

    /// Bytes they hold.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// One more waiter, if there is room. One that is refused for its bytes holds a waiter's place while it is being
    /// refused.
    pub(super) fn reserve(&self, bytes: usize) -> Result<(), Full> {
        if !take(&self.waiters, 1, self.most_waiters) {
            return Err(Full::TotalLength);
        }
        if !take(&self.bytes, bytes, self.most_bytes) {
            self.waiters.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::TotalBytes);
        }
        Ok(())
    }

    /// One more waiter, room or not.
    pub(super) fn force(&self, bytes: usize) {
        self.waiters.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// One waiter fewer.
    pub(super) fn release(&self, bytes: usize) {
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Adds to a counter unless that takes it over its bound. Relaxed: the counters guard a sum and order nothing else.
fn take(counter: &AtomicUsize, more: usize, most: usize) -> bool {
    if more == 0 {
        return true;
    }
    let fits = |now: usize| now.checked_add(more).filter(|sum| *sum <= most);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::*;

    #[test]
    fn says_which_bound_was_hit_and_keeps_nothing_of_what_it_refused() {
        let budget = Budget::new(2, 100);
        assert_eq!(budget.reserve(60), Ok(()));
        assert_eq!(budget.reserve(41), Err(Full::TotalBytes));
        assert_eq!((budget.waiters(), budget.bytes()), (1, 60));
        assert_eq!(budget.reserve(40), Ok(()));
        assert_eq!(budget.reserve(0), Err(Full::TotalLength));
        budget.force(7);
        assert_eq!((budget.waiters(), budget.bytes()), (3, 107));
        for bytes in [60, 40, 7] {
            budget.release(bytes);
        }
        assert_eq!((budget.waiters(), budget.bytes()), (0, 0));
    }
}
