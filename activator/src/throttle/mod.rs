//! Admission: a request takes a slot on a pod, or waits for one in line.
//!
//! [`core`] decides (pure); its parts are [`fleet`] (pods and slots), [`queue`] (the line), [`lanes`] (who is next),
//! [`gate`] (no herd onto the first pod), [`pick`] and [`subset`]. [`ask`] is what a request wants under its revision's
//! policy (`api::activation`), [`budget`] what all lines may hold together. Here is the shell that threads share: one
//! mutex per revision, the future that waits, and the permit that gives its slot back when dropped.
//!
//! Why a mutex: the line, the pods' counts and the pick must change together for "never above" and "first come, first
//! served" to hold across threads. The section under it is a few dozen instructions with no allocation in the common
//! case (some tens of nanoseconds, beside ~12 µs for a proxied request), it is one per revision, and wakers are called
//! after it is left.
//!
//! A revision that sleeps, without pods and requests, keeps its terms only: its core is made when needed.
//!
//! Every order in which threads may meet here is tried by `model.rs`:
//! `cargo test -p activator --features loom --lib throttle::model`.

pub mod ask;
pub mod budget;
pub mod core;
pub mod fleet;
pub mod gate;
pub mod lanes;
pub mod pick;
pub mod queue;
pub mod subset;
mod sync;
pub mod target;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use api::activation::Policy;

use self::ask::Ask;
use self::budget::Budget;
use self::core::{Core, Enter, Slot, Terms, Turn};
use self::queue::{Bounds, Full, Ticket};
use self::subset::Share;
use self::sync::{Mutex, MutexGuard};
use self::target::Target;

/// What lines may hold: every revision's own bound unless its policy says otherwise, and that of all together.
#[derive(Debug, Clone)]
pub struct Lines {
    /// Most waiters of one revision.
    pub length: usize,
    /// All revisions together.
    pub budget: Arc<Budget>,
}

impl Lines {
    /// So many for each revision, with no bound on all together.
    pub fn each(length: usize) -> Self {
        Self { length, budget: Budget::unlimited() }
    }

    /// The terms of a revision with `limit` slots per pod (0 = no limit).
    pub fn terms(&self, limit: u32, policy: Option<&Policy>) -> Terms {
        let default = Bounds { length: self.length, bytes: usize::MAX };
        let Some(policy) = policy else { return Terms { limit, queue: default, ordered: false } };
        let bytes = policy.queue_bytes.map_or(default.bytes, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        Terms {
            limit,
            queue: Bounds { length: policy.queue_length.unwrap_or(default.length), bytes },
            ordered: policy.priority_header.is_some()
                || policy.fair_share.is_some()
                || policy.session_affinity.is_some(),
        }
    }
}

/// The slots and the line of one revision, shared by threads.
#[derive(Debug)]
pub struct Throttle {
    state: Mutex<State>,
    budget: Arc<Budget>,
}

#[derive(Debug)]
struct State {
    terms: Terms,
    share: Share,
    /// `None` while there is neither a pod nor a request.
    core: Option<Box<Core<Waker>>>,
}

/// What a request gets when it asks for a slot.
#[derive(Debug)]
pub enum Admission {
    /// A slot at once.
    Admitted(Permit),
    /// A place in line; the flag says that no pod was there at all.
    Waiting(Wait, bool),
    /// The line is full.
    Full(Full),
}

impl Throttle {
    /// A revision without pods. All throttles of a process have one budget.
    pub fn new(terms: Terms, budget: Arc<Budget>) -> Arc<Self> {
        let state = State { terms, share: Share::default(), core: None };
        Arc::new(Self { state: Mutex::new(state), budget })
    }

    /// A slot for a request that asks for nothing, if there is one and nobody waits: most requests need not say what
    /// they would hold in line.
    pub fn enter_at_once(self: &Arc<Self>) -> Option<Permit> {
        let slot = self.lock().core.as_mut()?.enter_at_once()?;
        Some(Permit::new(self, slot))
    }

    /// A request arrives.
    pub fn enter(self: &Arc<Self>, ask: &Ask) -> Admission {
        self.admission(|core| core.enter(ask))
    }

    /// A request whose pod was not there comes back, before all others. Its permit must have been dropped.
    pub fn enter_again(self: &Arc<Self>, ask: &Ask) -> Admission {
        self.admission(|core| core.enter_again(ask))
    }

    /// Sets the pods that can serve; there are no others that will soon.
    pub fn set_pods(&self, targets: &[Arc<Target>]) {
        // Nothing is pending, so no gate closes.
        let _ = self.set_pods_of(targets, 0, Instant::now());
    }

    /// Sets the pods that can serve, of more that Kubernetes has announced: `pending` of them cannot yet. Returns when
    /// [`Throttle::time`] must be told, if those that wait are let in bit by bit until then (see [`gate`]).
    #[must_use = "waiters may depend on being told the time"]
    pub fn set_pods_of(&self, targets: &[Arc<Target>], pending: usize, now: Instant) -> Option<Instant> {
        // Outside the lock: the sort of a thousand addresses takes longer than all the rest.
        let sorted = target::in_order(targets);
        self.change(|core, wake| core.set_pods(&sorted, pending, now, wake))
    }

    /// It is now. To be told when [`Throttle::set_pods_of`] asks for it.
    pub fn time(&self, now: Instant) {
        self.change_if_any(|core, wake| core.time(now, wake));
    }

    /// Sets which part of the pods is ours.
    pub fn set_share(&self, share: Share) {
        self.lock().share = share;
        self.change_if_any(|core, wake| core.set_share(share, wake));
    }

    /// Changes how long the line may get and how it is ordered. Slots per pod stay what they were.
    pub fn set_terms(&self, terms: Terms) {
        let mut state = self.lock();
        state.terms = Terms { limit: state.terms.limit, ..terms };
        if let Some(core) = &mut state.core {
            core.set_terms(terms);
        }
    }

    /// Takes out a pod that does not answer; whether it was in (so that only one request reports it).
    pub fn set_aside(&self, target: &Target) -> bool {
        self.change_if_any(|core, wake| core.set_aside(target.address, wake)).unwrap_or(false)
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.lock().core.as_ref().map_or(0, |core| core.waiting())
    }

    /// Requests that have a slot.
    pub fn in_flight(&self) -> usize {
        self.lock().core.as_ref().map_or(0, |core| core.in_flight())
    }

    /// Pods that get new requests.
    pub fn pods(&self) -> usize {
        self.lock().core.as_ref().map_or(0, |core| core.candidates().count())
    }

    /// Where new requests go; for tests and consoles.
    pub fn targets(&self) -> Vec<Arc<Target>> {
        self.lock().core.as_ref().map_or_else(Vec::new, |core| core.candidates().cloned().collect())
    }

    /// Whether no pod can serve.
    pub fn is_asleep(&self) -> bool {
        self.lock().core.as_ref().is_none_or(|core| core.is_asleep())
    }

    fn admission(self: &Arc<Self>, enter: impl FnOnce(&mut Core<Waker>) -> Enter) -> Admission {
        let mut state = self.lock();
        let core = state.core(&self.budget);
        let entered = enter(core);
        let asleep = core.is_asleep();
        if matches!(entered, Enter::Full(_)) {
            state.forget_idle_core();
        }
        drop(state);
        match entered {
            Enter::Admitted(slot) => Admission::Admitted(Permit::new(self, slot)),
            Enter::Waiting(ticket) => {
                Admission::Waiting(Wait { throttle: Arc::clone(self), ticket: Some(ticket) }, asleep)
            }
            Enter::Full(bound) => Admission::Full(bound),
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Core<Waker>, &mut Vec<Waker>) -> T) -> T {
        let mut wake = Vec::new(); // does not allocate until somebody is woken
        let mut state = self.lock();
        let result = change(state.core(&self.budget), &mut wake);
        state.forget_idle_core();
        drop(state);
        wake.into_iter().for_each(Waker::wake);
        result
    }

    fn change_if_any<T>(&self, change: impl FnOnce(&mut Core<Waker>, &mut Vec<Waker>) -> T) -> Option<T> {
        let mut wake = Vec::new();
        let mut state = self.lock();
        let result = state.core.as_mut().map(|core| change(core, &mut wake));
        state.forget_idle_core();
        drop(state);
        wake.into_iter().for_each(Waker::wake);
        result
    }

    /// The core's methods leave it whole at every point where they could panic, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn core(&mut self, budget: &Arc<Budget>) -> &mut Core<Waker> {
        self.core
            .get_or_insert_with(|| Box::new(Core::new(self.terms, self.share, Arc::clone(budget), fastrand::u64(..))))
    }

    fn forget_idle_core(&mut self) {
        if self.core.as_ref().is_some_and(|core| core.is_idle()) {
            self.core = None;
        }
    }
}

/// A place in line. Dropping it leaves the line at once.
#[derive(Debug)]
pub struct Wait {
    throttle: Arc<Throttle>,
    ticket: Option<Ticket>,
}

impl Wait {
    /// Waits no longer than so: `None` = that was too long, and the place is given up.
    pub async fn within(self, limit: Option<Duration>) -> Option<Permit> {
        match limit {
            None => Some(self.await),
            // A slot granted in the last moment is taken: the time is looked at second.
            Some(limit) => tokio::time::timeout(limit, self).await.ok(),
        }
    }
}

impl Future for Wait {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let Some(ticket) = self.ticket else { return Poll::Pending };
        // Whoever waits keeps the core in being.
        let Some(turn) = self.throttle.lock().core.as_mut().map(|core| core.poll(ticket, || cx.waker().clone())) else {
            return Poll::Pending;
        };
        match turn {
            Turn::Waiting => Poll::Pending,
            Turn::Admitted(slot) => {
                self.ticket = None;
                Poll::Ready(Permit::new(&self.throttle, slot))
            }
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.throttle.change_if_any(|core, wake| core.cancel(ticket, wake));
        }
    }
}

/// A slot on a pod. Dropping it gives the slot to the next in line.
#[derive(Debug)]
pub struct Permit {
    throttle: Arc<Throttle>,
    target: Arc<Target>,
    slot: Option<Slot>,
}

impl Permit {
    fn new(throttle: &Arc<Throttle>, slot: Slot) -> Self {
        Self { throttle: Arc::clone(throttle), target: Arc::clone(&slot.target), slot: Some(slot) }
    }

    /// The pod.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.throttle.change_if_any(|core, wake| core.leave(slot, wake));
        }
    }
}

#[cfg(test)]
#[cfg(feature = "loom")]
mod model;

#[cfg(test)]
#[cfg(not(feature = "loom"))]
#[path = "shared_tests.rs"]
mod tests;
