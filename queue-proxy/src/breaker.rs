//! The concurrency limit: running slots, then a bounded line of waiters, strictly first come, first served.
//!
//! A freed slot goes to the first waiter *before* anybody else can ask for it, so that a newcomer never overtakes.
//! Entering, leaving and cancelling cost O(1). One thread; no lock.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Waiting places per slot, as upstream.
const WAITERS_PER_SLOT: usize = 10;

/// The limit of one user container.
#[derive(Debug, Clone)]
pub struct Breaker {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    slots: usize,
    places: usize,
    running: Cell<usize>,
    waiting: Cell<usize>,
    /// Waiters in order. One that left stays as a husk until it is reached or there are too many husks.
    line: RefCell<VecDeque<Rc<Waiter>>>,
}

#[derive(Debug, Default)]
struct Waiter {
    state: Cell<State>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Waiting,
    Granted,
    Left,
}

/// Slots and waiting places are all taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Breaker {
    /// A limit of `slots` at once with upstream's ten waiting places per slot.
    pub fn new(slots: u32) -> Self {
        let slots = slots as usize;
        Self::with_places(slots, slots.saturating_mul(WAITERS_PER_SLOT))
    }

    /// A limit with any number of waiting places.
    pub fn with_places(slots: usize, places: usize) -> Self {
        let inner = Inner { slots, places, running: Cell::new(0), waiting: Cell::new(0), line: RefCell::default() };
        Self { inner: Rc::new(inner) }
    }

    /// Takes a slot, or a place in the line for one. Drop the result to leave.
    pub fn enter(&self) -> Result<Entry, Full> {
        let inner = &self.inner;
        if inner.running.get() < inner.slots {
            // Slots are handed over, so a free slot means an empty line.
            inner.running.set(inner.running.get() + 1);
            return Ok(Entry { breaker: self.clone(), waiter: None, taken: false });
        }
        if inner.waiting.get() >= inner.places {
            return Err(Full);
        }
        let waiter = Rc::new(Waiter::default());
        inner.waiting.set(inner.waiting.get() + 1);
        inner.line.borrow_mut().push_back(Rc::clone(&waiter));
        Ok(Entry { breaker: self.clone(), waiter: Some(waiter), taken: false })
    }

    /// Running and waiting together.
    pub fn depth(&self) -> usize {
        self.inner.running.get() + self.inner.waiting.get()
    }

    /// Running now.
    pub fn running(&self) -> usize {
        self.inner.running.get()
    }

    fn release(&self) {
        let inner = &self.inner;
        let mut line = inner.line.borrow_mut();
        while let Some(waiter) = line.pop_front() {
            if waiter.state.get() == State::Waiting {
                waiter.state.set(State::Granted);
                inner.waiting.set(inner.waiting.get() - 1);
                drop(line);
                if let Some(waker) = waiter.waker.take() {
                    waker.wake();
                }
                return; // the slot changes hands, `running` stays
            }
        }
        inner.running.set(inner.running.get() - 1);
    }

    fn leave(&self, waiter: &Waiter) {
        let inner = &self.inner;
        waiter.state.set(State::Left);
        inner.waiting.set(inner.waiting.get() - 1);
        let mut line = inner.line.borrow_mut();
        // Amortised O(1): at most as many husks as waiters, plus a few.
        if line.len() > 2 * inner.waiting.get() + 32 {
            line.retain(|waiter| waiter.state.get() == State::Waiting);
        }
    }
}

/// A slot, or a place in the line; resolves to the slot.
#[derive(Debug)]
pub struct Entry {
    breaker: Breaker,
    waiter: Option<Rc<Waiter>>,
    taken: bool,
}

impl Future for Entry {
    type Output = Slot;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Slot> {
        if let Some(waiter) = &self.waiter
            && waiter.state.get() == State::Waiting
        {
            let mut waker = waiter.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        self.taken = true;
        Poll::Ready(Slot { breaker: self.breaker.clone() })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        match &self.waiter {
            Some(waiter) if waiter.state.get() == State::Waiting => self.breaker.leave(waiter),
            // A slot that was granted and never picked up goes on to the next.
            _ => self.breaker.release(),
        }
    }
}

/// A running slot; dropping it lets the next one run.
#[derive(Debug)]
pub struct Slot {
    breaker: Breaker,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.breaker.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use proptest::prelude::*;

    fn slot(entry: Entry) -> Slot {
        entry.now_or_never().expect("has a slot")
    }

    #[test]
    fn the_twelfth_of_limit_one_is_refused() {
        let breaker = Breaker::new(1);
        let held: Vec<_> = (0..11).map(|_| breaker.enter().unwrap()).collect();
        assert_eq!(breaker.enter().unwrap_err(), Full);
        drop(held);
        assert_eq!(breaker.depth(), 0);
    }

    #[test]
    fn waiters_run_in_order_and_newcomers_do_not_overtake() {
        let breaker = Breaker::with_places(1, 5);
        let running = slot(breaker.enter().unwrap());
        let mut first = breaker.enter().unwrap();
        let mut second = breaker.enter().unwrap();
        drop(running);
        let mut newcomer = breaker.enter().unwrap();
        assert!((&mut newcomer).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        let running = (&mut first).now_or_never().unwrap();
        drop(running);
        assert!((&mut newcomer).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_some());
    }

    #[test]
    fn a_waiter_that_leaves_gives_its_place_back() {
        let breaker = Breaker::with_places(1, 1);
        let running = slot(breaker.enter().unwrap());
        let waiter = breaker.enter().unwrap();
        assert_eq!(breaker.enter().unwrap_err(), Full);
        drop(waiter);
        let mut waiter = breaker.enter().unwrap();
        drop(running);
        assert!((&mut waiter).now_or_never().is_some());
    }

    #[test]
    fn a_granted_slot_nobody_picks_up_goes_on() {
        let breaker = Breaker::with_places(1, 2);
        let running = slot(breaker.enter().unwrap());
        let first = breaker.enter().unwrap();
        let mut second = breaker.enter().unwrap();
        drop(running);
        drop(first);
        assert!((&mut second).now_or_never().is_some());
    }

    #[test]
    fn husks_do_not_pile_up() {
        let breaker = Breaker::with_places(1, 10);
        let _running = slot(breaker.enter().unwrap());
        for _ in 0..10_000 {
            drop(breaker.enter().unwrap());
        }
        assert!(breaker.inner.line.borrow().len() <= 64);
    }

    proptest! {
        /// Whatever happens, `running` never exceeds the slots, order is kept, and the end is empty.
        #[test]
        fn accounting_is_exact(slots in 1_usize..4, places in 0_usize..6, steps in proptest::collection::vec(0_u8..4, 0..200)) {
            let breaker = Breaker::with_places(slots, places);
            let mut waiting: VecDeque<Entry> = VecDeque::new();
            let mut running: Vec<Slot> = Vec::new();
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => {
                        let full = running.len() + waiting.len() >= slots + places;
                        match breaker.enter() {
                            Ok(entry) => { prop_assert!(!full); waiting.push_back(entry); }
                            Err(Full) => prop_assert!(full),
                        }
                    }
                    2 if !running.is_empty() => { running.swap_remove(n % running.len()); }
                    3 if !waiting.is_empty() => { waiting.remove(n % waiting.len()); }
                    _ => {}
                }
                while let Some(front) = waiting.front_mut() {
                    let Some(slot) = front.now_or_never() else { break };
                    waiting.pop_front();
                    running.push(slot);
                }
                for entry in &mut waiting {
                    prop_assert!(entry.now_or_never().is_none(), "overtook the first in line");
                }
                prop_assert_eq!(breaker.running(), running.len());
                prop_assert!(running.len() == slots || waiting.is_empty());
                prop_assert_eq!(breaker.depth(), running.len() + waiting.len());
            }
            drop(waiting);
            drop(running);
            prop_assert_eq!(breaker.depth(), 0);
        }
    }
}
