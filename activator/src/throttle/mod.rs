//! Admission: a request takes a slot on a pod, or waits for one in line.
//!
//! [`core`] decides (pure), [`queue`], [`pick`] and [`subset`] are its parts. Here is the shell that threads share: one
//! mutex per revision, the future that waits, and the permit that gives its slot back when dropped.
//!
//! Why a mutex: the line, the pods' counts and the pick must change together for "never above" and "first come, first
//! served" to hold across threads. The section under it is a few dozen instructions with no allocation in the common
//! case (some tens of nanoseconds, beside ~12 µs for a proxied request), it is one per revision, and wakers are called
//! after it is left.

pub mod core;
pub mod pick;
pub mod queue;
pub mod subset;
pub mod target;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use self::core::{Core, Enter, Slot, Turn};
use self::queue::Ticket;
use self::subset::Share;
use self::target::Target;

/// The slots and the line of one revision, shared by threads.
#[derive(Debug)]
pub struct Throttle {
    core: Mutex<Core<Waker>>,
}

/// What a request gets when it asks for a slot.
#[derive(Debug)]
pub enum Admission {
    /// A slot at once.
    Admitted(Permit),
    /// A place in line; the flag says that no pod was there at all.
    Waiting(Wait, bool),
    /// The line is full.
    Full,
}

impl Throttle {
    /// A revision with `limit` slots per pod (0 = no limit) and room for `queue_limit` waiters.
    pub fn new(limit: u32, queue_limit: usize) -> Arc<Self> {
        Arc::new(Self { core: Mutex::new(Core::new(limit, queue_limit)) })
    }

    /// A request arrives.
    pub fn enter(self: &Arc<Self>) -> Admission {
        let mut core = self.lock();
        let entered = core.enter();
        let asleep = core.is_asleep();
        drop(core);
        self.admission(entered, asleep)
    }

    /// A request whose pod was not there comes back, before all others. Its permit must have been dropped.
    pub fn enter_again(self: &Arc<Self>) -> Admission {
        let mut core = self.lock();
        let entered = core.enter_again();
        let asleep = core.is_asleep();
        drop(core);
        self.admission(entered, asleep)
    }

    /// Sets the pods that can serve.
    pub fn set_pods(&self, targets: &[Arc<Target>]) {
        self.change(|core, wake| core.set_pods(targets, wake));
    }

    /// Sets which part of them is ours.
    pub fn set_share(&self, share: Share) {
        self.change(|core, wake| core.set_share(share, wake));
    }

    /// Takes out a pod that does not answer; whether it was in (so that only one request reports it).
    pub fn set_aside(&self, target: &Target) -> bool {
        self.change(|core, wake| core.set_aside(target.address, wake))
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting()
    }

    /// Requests that have a slot.
    pub fn in_flight(&self) -> usize {
        self.lock().in_flight()
    }

    /// Pods that get new requests.
    pub fn pods(&self) -> usize {
        self.lock().candidates().count()
    }

    /// Where new requests go; for tests and consoles.
    pub fn targets(&self) -> Vec<Arc<Target>> {
        self.lock().candidates().cloned().collect()
    }

    /// Whether no pod can serve.
    pub fn is_asleep(&self) -> bool {
        self.lock().is_asleep()
    }

    fn admission(self: &Arc<Self>, entered: Enter, asleep: bool) -> Admission {
        match entered {
            Enter::Admitted(slot) => Admission::Admitted(Permit::new(self, slot)),
            Enter::Waiting(ticket) => {
                Admission::Waiting(Wait { throttle: Arc::clone(self), ticket: Some(ticket) }, asleep)
            }
            Enter::Full => Admission::Full,
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Core<Waker>, &mut Vec<Waker>) -> T) -> T {
        let mut wake = Vec::new(); // does not allocate until somebody is woken
        let mut core = self.lock();
        let result = change(&mut core, &mut wake);
        drop(core);
        wake.into_iter().for_each(Waker::wake);
        result
    }

    /// The core's methods leave it whole at every point where they could panic, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Core<Waker>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in line. Dropping it leaves the line at once.
#[derive(Debug)]
pub struct Wait {
    throttle: Arc<Throttle>,
    ticket: Option<Ticket>,
}

impl Future for Wait {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let Some(ticket) = self.ticket else { return Poll::Pending };
        let turn = self.throttle.lock().poll(ticket, || cx.waker().clone());
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
            self.throttle.change(|core, wake| core.cancel(ticket, wake));
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
            self.throttle.change(|core, wake| core.leave(slot, wake));
        }
    }
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
