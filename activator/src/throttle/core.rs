//! The accounting of one revision's slots and waiters: a state machine with no clock, no thread and no socket.
//!
//! Invariants, checked by property in `core_tests.rs`:
//! 1. A pod never has more requests than its limit, through any number of endpoint changes; nor more than
//!    [`gate::FIRST_BATCH`] new ones while the gate is closed.
//! 2. While anybody waits, no candidate pod has a free slot. (So a newcomer can never overtake.)
//! 3. Slots are granted in the order of arrival, or as the revision's policy orders (`lanes.rs`); a request that comes
//!    back (its pod refused it) goes to the front.
//! 4. Every granted slot is given back exactly once: by its request, or by the waiter that left before it noticed.
//! 5. The line keeps its bounds, its own and those of the process; a request that comes back is not refused.
//! 6. A closed gate opens when no pod is pending or when its time is told; then nobody waits beside a pod.
//!
//! Entering, leaving and cancelling are O(1) but for the pick of a pod (`fleet.rs`); a change of pods is linear in their
//! number and in that of the waiters it lets in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::ask::Ask;
use super::budget::Budget;
use super::fleet::{Fleet, PodIndex};
use super::gate::{self, Gate, Seen};
use super::queue::{Bounds, Full, Queue, Ticket};
use super::subset::Share;
use super::target::Target;

/// What a revision grants and holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Slots per pod; 0 = no limit. Fixed for the life of a revision.
    pub limit: u32,
    /// How long its line may get.
    pub queue: Bounds,
    /// Its waiters are served by class, by client or by session, as [`Ask`]s say; else in order of arrival.
    pub ordered: bool,
}

/// Where a request runs. Must be given back with [`Core::leave`].
#[derive(Debug)]
pub struct Slot {
    pod: PodIndex,
    /// The pod's address.
    pub target: Arc<Target>,
}

/// What a request gets when it arrives.
#[derive(Debug)]
pub enum Enter {
    /// A slot, at once.
    Admitted(Slot),
    /// A place in the queue.
    Waiting(Ticket),
    /// Nothing: the queue is full.
    Full(Full),
}

/// What a waiter finds when it looks.
#[derive(Debug)]
pub enum Turn {
    /// Its slot.
    Admitted(Slot),
    /// Not yet; the waker is kept.
    Waiting,
}

/// The slots and waiters of one revision. `W` is how a waiter is woken.
#[derive(Debug)]
pub struct Core<W> {
    limit: u32,
    fleet: Fleet,
    queue: Queue<W, PodIndex>,
    gate: Gate,
}

impl<W> Core<W> {
    /// A revision with no pods. `seed` decides the draws of unlimited revisions.
    pub fn new(terms: Terms, share: Share, budget: Arc<Budget>, seed: u64) -> Self {
        Self {
            limit: terms.limit,
            fleet: Fleet::new(terms.limit, share, seed),
            queue: Queue::new(terms.queue, terms.ordered, budget),
            gate: Gate::default(),
        }
    }

    /// A slot for a request that asks for nothing, if there is one and nobody waits.
    pub fn enter_at_once(&mut self) -> Option<Slot> {
        if self.queue.is_empty() { self.take(&Ask::DEFAULT) } else { None }
    }

    /// A request arrives.
    pub fn enter(&mut self, ask: &Ask) -> Enter {
        if self.queue.is_empty()
            && let Some(slot) = self.take(ask)
        {
            return Enter::Admitted(slot);
        }
        self.queue.push_back(ask).map_or_else(Enter::Full, Enter::Waiting)
    }

    /// A request whose pod turned out not to be there comes back, before all others. It was let in once, so it is not
    /// refused now; there are never more of these than there were slots.
    pub fn enter_again(&mut self, ask: &Ask) -> Enter {
        match self.take(ask) {
            Some(slot) => Enter::Admitted(slot),
            None => Enter::Waiting(self.queue.push_front(ask)),
        }
    }

    /// A waiter looks whether it is its turn.
    pub fn poll(&mut self, ticket: Ticket, waker: impl FnOnce() -> W) -> Turn {
        // A granted slot pins its pod's record, so one is found whenever there is a grant.
        if let Some(slot) = self.queue.take_granted(ticket).and_then(|pod| self.slot(pod)) {
            return Turn::Admitted(slot);
        }
        self.queue.set_waker(ticket, waker());
        Turn::Waiting
    }

    /// A waiter leaves. If it had been granted a slot, the next in line gets it.
    pub fn cancel(&mut self, ticket: Ticket, wake: &mut Vec<W>) {
        if let Some(pod) = self.queue.cancel(ticket) {
            self.give_back(pod, wake);
        }
    }

    /// A request is over.
    // By value: a slot given back cannot be used again.
    #[allow(clippy::needless_pass_by_value)]
    pub fn leave(&mut self, slot: Slot, wake: &mut Vec<W>) {
        self.give_back(slot.pod, wake);
    }

    /// Sets which pods can serve, in the order of [`super::target::in_order`]; `pending` more are announced and cannot
    /// yet. Pods that are not among them get no new requests; those they have go on. Returns when [`Core::time`] must
    /// be told, if the gate has closed.
    #[must_use = "waiters may depend on being told the time"]
    pub fn set_pods(
        &mut self,
        sorted: &[Arc<Target>],
        pending: usize,
        now: Instant,
        wake: &mut Vec<W>,
    ) -> Option<Instant> {
        let was_asleep = self.fleet.usable() == 0;
        self.fleet.set_pods(sorted);
        let mut told = None;
        if self.limit == 0 {
            let seen = Seen { was_asleep, usable: sorted.len(), pending, waiting: self.queue.waiting() };
            told = self.gate.pods(seen, now);
            self.obey_gate();
        }
        self.grant(wake);
        told
    }

    /// It is now: a closed gate may open.
    pub fn time(&mut self, now: Instant, wake: &mut Vec<W>) {
        if self.gate.time(now) {
            self.obey_gate();
            self.grant(wake);
        }
    }

    /// Sets which part of the pods is this activator's.
    pub fn set_share(&mut self, share: Share, wake: &mut Vec<W>) {
        if self.fleet.set_share(share) {
            self.grant(wake);
        }
    }

    /// Changes bounds and order of the line. The limit stays what it was.
    pub fn set_terms(&mut self, terms: Terms) {
        self.queue.set_rules(terms.queue, terms.ordered);
    }

    /// Takes one pod out at once, because it did not answer. Returns whether it was in.
    pub fn set_aside(&mut self, address: SocketAddr, wake: &mut Vec<W>) -> bool {
        let was_in = self.fleet.set_aside(address);
        if was_in {
            // Another pod may have come into our share for it.
            self.grant(wake);
        }
        was_in
    }

    /// Requests that have a slot.
    pub fn in_flight(&self) -> usize {
        self.fleet.in_flight()
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// Pods that get new requests.
    pub fn candidates(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.fleet.candidates()
    }

    /// Whether no pod can serve.
    pub fn is_asleep(&self) -> bool {
        self.fleet.is_asleep()
    }

    /// Whether there is nothing here that must be kept: no pod, no request.
    pub fn is_idle(&self) -> bool {
        self.fleet.is_empty() && self.queue.is_unused()
    }

    /// The requests each known pod has.
    pub fn loads(&self) -> impl Iterator<Item = (SocketAddr, u32)> {
        self.fleet.loads()
    }

    /// Whether a herd is being let in bit by bit.
    pub fn is_gated(&self) -> bool {
        self.gate.is_closed()
    }

    fn obey_gate(&mut self) {
        self.fleet.set_cap(self.gate.is_closed().then_some(gate::FIRST_BATCH));
    }

    fn take(&mut self, ask: &Ask) -> Option<Slot> {
        let pod = self.fleet.take(ask.affinity)?;
        self.slot(pod)
    }

    fn slot(&self, pod: PodIndex) -> Option<Slot> {
        Some(Slot { pod, target: self.fleet.target(pod)? })
    }

    fn give_back(&mut self, pod: PodIndex, wake: &mut Vec<W>) {
        if self.fleet.give_back(pod) {
            self.grant(wake);
        }
    }

    /// Lets waiters in while there are slots: this is what keeps invariant 2.
    fn grant(&mut self, wake: &mut Vec<W>) {
        while let Some((entry, affinity)) = self.queue.next() {
            let Some(pod) = self.fleet.take(affinity) else { return };
            if let Some(waker) = self.queue.grant(entry, pod) {
                wake.push(waker);
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
#[path = "core_tests.rs"]
mod tests;
