//! The accounting of one revision's slots and waiters: a state machine with no clock, no thread and no socket.
//!
//! Invariants, checked by property in `core_tests.rs`:
//! 1. A pod never has more requests than its capacity, through any number of endpoint changes.
//! 2. While anybody waits, no candidate pod has a free slot. (So a newcomer can never overtake.)
//! 3. Slots are granted in the order of arrival; a request that comes back (its pod refused it) goes to the front.
//! 4. Every granted slot is given back exactly once: by its request, or by the waiter that left before it noticed.
//!
//! Entering, leaving and cancelling are O(1) but for the pick of a pod (a scan of one bit per pod). A pod that vanishes
//! or flickers keeps its record while it has requests, so that coming back does not reset its slots.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::pick::{FreeSet, Policy};
use super::queue::{Queue, Ticket};
use super::subset;
use super::target::Target;

/// Where a request runs. Must be given back with [`Core::leave`].
#[derive(Debug)]
pub struct Slot {
    pod: usize,
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
    Full,
}

/// What a waiter finds when it looks.
#[derive(Debug)]
pub enum Turn {
    /// Its slot.
    Admitted(Slot),
    /// Not yet; the waker is kept.
    Waiting,
}

#[derive(Debug)]
struct Pod {
    target: Arc<Target>,
    in_flight: u32,
    /// Requests at once; of no meaning without a limit.
    capacity: u32,
    /// Its place among the candidates; `None`: gets no new requests.
    rank: Option<usize>,
}

/// The slots and waiters of one revision. `W` is how a waiter is woken.
#[derive(Debug)]
pub struct Core<W> {
    /// Slots per pod; 0 = no limit.
    limit: u32,
    policy: Policy,
    queue: Queue<W, usize>,
    /// Records of pods by index; a hole is free for reuse.
    pods: Vec<Option<Pod>>,
    holes: Vec<usize>,
    by_address: HashMap<SocketAddr, usize>,
    /// Pods that can serve, sorted by the text of their address.
    usable: Vec<usize>,
    /// The part of them that is this activator's share, in the same order.
    candidates: Vec<usize>,
    /// Candidates with a free slot, by place in `candidates`. Unused without a limit.
    free: FreeSet,
    share: subset::Share,
    in_flight: usize,
}

impl<W> Core<W> {
    /// A revision with no pods. `limit` 0 means unlimited; at most `queue_limit` requests wait.
    pub fn new(limit: u32, queue_limit: usize) -> Self {
        Self {
            limit,
            policy: Policy::for_limit(limit),
            queue: Queue::new(queue_limit),
            pods: Vec::new(),
            holes: Vec::new(),
            by_address: HashMap::new(),
            usable: Vec::new(),
            candidates: Vec::new(),
            free: FreeSet::default(),
            share: subset::Share::default(),
            in_flight: 0,
        }
    }

    /// A request arrives.
    pub fn enter(&mut self) -> Enter {
        if self.queue.is_empty()
            && let Some(slot) = self.take()
        {
            return Enter::Admitted(slot);
        }
        self.queue.push_back().map_or(Enter::Full, Enter::Waiting)
    }

    /// A request whose pod turned out not to be there comes back, before all others. It was let in once, so it is not
    /// refused now; there are never more of these than there were slots.
    pub fn enter_again(&mut self) -> Enter {
        match self.take() {
            Some(slot) => Enter::Admitted(slot),
            None => Enter::Waiting(self.queue.push_front()),
        }
    }

    /// A waiter looks whether it is its turn.
    pub fn poll(&mut self, ticket: Ticket, waker: impl FnOnce() -> W) -> Turn {
        let granted = self.queue.take_granted(ticket);
        // A granted slot pins its pod's record, so one is found whenever there is a grant.
        if let Some((pod, record)) = granted.and_then(|pod| Some((pod, self.pods.get(pod)?.as_ref()?))) {
            return Turn::Admitted(Slot { pod, target: Arc::clone(&record.target) });
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

    /// Sets which pods can serve. Pods that are not among them get no new requests; those they have go on.
    pub fn set_pods(&mut self, targets: &[Arc<Target>], wake: &mut Vec<W>) {
        self.usable.clear();
        let mut sorted: Vec<&Arc<Target>> = targets.iter().collect();
        // By text, as upstream: activators of both kinds must cut the same list the same way.
        sorted.sort_by(|a, b| a.text().cmp(b.text()));
        sorted.dedup_by_key(|target| target.address);
        for target in sorted {
            let index = self.record(target);
            self.usable.push(index);
        }
        self.assign(wake);
    }

    /// Sets which part of the pods is this activator's.
    pub fn set_share(&mut self, share: subset::Share, wake: &mut Vec<W>) {
        if share != self.share {
            self.share = share;
            self.assign(wake);
        }
    }

    /// Takes one pod out at once, because it did not answer. Returns whether it was in.
    pub fn set_aside(&mut self, address: SocketAddr, wake: &mut Vec<W>) -> bool {
        let Some(&index) = self.by_address.get(&address) else { return false };
        let before = self.usable.len();
        self.usable.retain(|usable| *usable != index);
        let was_in = self.usable.len() != before;
        if was_in {
            self.assign(wake);
        }
        was_in
    }

    /// Requests that have a slot.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// Pods that get new requests.
    pub fn candidates(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.candidates.iter().filter_map(|index| self.pods.get(*index)?.as_ref()).map(|pod| &pod.target)
    }

    /// Whether no pod can serve.
    pub fn is_asleep(&self) -> bool {
        self.candidates.is_empty()
    }

    /// The requests each known pod has.
    pub fn loads(&self) -> impl Iterator<Item = (SocketAddr, u32)> {
        self.pods.iter().flatten().map(|pod| (pod.target.address, pod.in_flight))
    }

    /// Makes `candidates` and `free` from `usable`, forgets pods nobody needs, and lets waiters in.
    fn assign(&mut self, wake: &mut Vec<W>) {
        for pod in self.pods.iter_mut().flatten() {
            pod.rank = None;
        }
        self.candidates.clear();
        if self.limit == 0 {
            self.candidates.extend_from_slice(&self.usable);
        } else {
            let mine = subset::assign(self.usable.len(), self.share);
            self.candidates.extend(mine.filter_map(|place| self.usable.get(place)));
        }
        self.free.reset(self.candidates.len());
        for (rank, index) in self.candidates.iter().enumerate() {
            if let Some(Some(pod)) = self.pods.get_mut(*index) {
                pod.rank = Some(rank);
                pod.capacity = subset::capacity(self.limit, pod.target.pods(), self.share.activators);
                if pod.in_flight < pod.capacity {
                    self.free.insert(rank);
                }
            }
        }
        self.policy.resized(self.candidates.len());
        for index in 0..self.pods.len() {
            self.forget_if_unneeded(index);
        }
        self.grant(wake);
    }

    fn record(&mut self, target: &Arc<Target>) -> usize {
        if let Some(index) = self.by_address.get(&target.address) {
            if let Some(Some(pod)) = self.pods.get_mut(*index)
                && pod.target != *target
            {
                pod.target = Arc::clone(target);
            }
            return *index;
        }
        let pod = Some(Pod { target: Arc::clone(target), in_flight: 0, capacity: self.limit, rank: None });
        let index = if let Some(hole) = self.holes.pop() {
            self.pods[hole] = pod;
            hole
        } else {
            self.pods.push(pod);
            self.pods.len() - 1
        };
        self.by_address.insert(target.address, index);
        index
    }

    fn forget_if_unneeded(&mut self, index: usize) {
        let Some(Some(pod)) = self.pods.get(index) else { return };
        // A usable pod outside our share keeps its record too: `usable` points to it.
        if pod.in_flight == 0 && pod.rank.is_none() && !self.usable.contains(&index) {
            self.by_address.remove(&pod.target.address);
            self.pods[index] = None;
            self.holes.push(index);
        }
    }

    fn take(&mut self) -> Option<Slot> {
        let index = self.take_index()?;
        let pod = self.pods.get(index)?.as_ref()?;
        Some(Slot { pod: index, target: Arc::clone(&pod.target) })
    }

    /// Picks a pod with a free slot and takes the slot.
    fn take_index(&mut self) -> Option<usize> {
        let rank = if self.limit == 0 {
            let (pods, candidates) = (&self.pods, &self.candidates);
            super::pick::least_loaded_of_two(candidates.len(), fastrand::usize, |rank| {
                candidates.get(rank).and_then(|index| pods.get(*index)?.as_ref()).map_or(u32::MAX, |pod| pod.in_flight)
            })?
        } else {
            self.policy.pick(&self.free)?
        };
        let index = *self.candidates.get(rank)?;
        let pod = self.pods.get_mut(index)?.as_mut()?;
        pod.in_flight += 1;
        self.in_flight += 1;
        if pod.in_flight == pod.capacity {
            self.free.remove(rank);
        }
        Some(index)
    }

    fn give_back(&mut self, index: usize, wake: &mut Vec<W>) {
        let Some(Some(pod)) = self.pods.get_mut(index) else { return };
        debug_assert!(pod.in_flight > 0, "a slot was given back twice");
        pod.in_flight = pod.in_flight.saturating_sub(1);
        self.in_flight = self.in_flight.saturating_sub(1);
        match pod.rank {
            Some(rank) if pod.in_flight < pod.capacity => {
                self.free.insert(rank);
                self.grant(wake);
            }
            None if pod.in_flight == 0 => self.forget_if_unneeded(index),
            Some(_) | None => {}
        }
    }

    /// Lets waiters in while there are slots: this is what keeps invariant 2.
    fn grant(&mut self, wake: &mut Vec<W>) {
        while !self.queue.is_empty() {
            let Some(pod) = self.take_index() else { return };
            if let Some(waker) = self.queue.grant_front(pod) {
                wake.push(waker);
            }
        }
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
