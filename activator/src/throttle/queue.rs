//! The line of one revision: bounded, in order, O(1) to enter, to be granted and to leave from anywhere.
//!
//! A doubly linked list in order of arrival, threaded through a slab: no allocation per waiter once the slab has grown,
//! and it shrinks when everybody has left. A granted waiter is out of the line but keeps its entry until it takes its
//! grant or leaves.
//!
//! Who is next: those at the front up to `settled` (requests that came back, and who was in line before a policy came),
//! then whom [`Lanes`] name if the revision has a policy that orders, else the first of the list.

use std::num::NonZeroU64;
use std::sync::Arc;

use super::ask::Ask;
use super::budget::Budget;
use super::lanes::Lanes;

/// A place in the queue. Must be taken ([`Queue::take_granted`]) or cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    entry: u32,
    /// Guards against an old ticket hitting a reused entry.
    generation: u32,
}

/// How long a revision's line may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Waiters.
    pub length: usize,
    /// Bytes they hold.
    pub bytes: usize,
}

/// Which bound keeps a request from joining the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Waiters of the revision.
    #[error("as many requests wait for this revision as may")]
    Length,
    /// Bytes held for the revision.
    #[error("requests that wait for this revision hold as many bytes as they may")]
    Bytes,
    /// Waiters of the process.
    #[error("as many requests wait in this activator as may")]
    TotalLength,
    /// Bytes held in the process.
    #[error("requests that wait in this activator hold as many bytes as they may")]
    TotalBytes,
}

/// No entry.
const NONE: u32 = u32::MAX;
/// A slab larger than this is given back to the allocator when empty.
const KEPT_WHEN_EMPTY: usize = 64;

#[derive(Debug)]
enum State<W, G> {
    Vacant,
    Waiting(Option<W>),
    Granted(G),
}

#[derive(Debug)]
struct Entry<W, G> {
    state: State<W, G>,
    generation: u32,
    previous: u32,
    /// The next in line; for a vacant entry the next vacant one.
    next: u32,
    bytes: u32,
}

/// The line of one revision. `W` wakes a waiter, `G` is what it is granted.
#[derive(Debug)]
pub struct Queue<W, G> {
    entries: Vec<Entry<W, G>>,
    vacant: u32,
    /// Entries that are not vacant.
    live: u32,
    head: u32,
    tail: u32,
    /// The last of those at the front who are served in the order of the list.
    settled: u32,
    waiting: usize,
    bytes: usize,
    bounds: Bounds,
    budget: Arc<Budget>,
    lanes: Option<Box<Lanes>>,
    /// Outlives the slab, so that tickets stay unique when it is given back.
    generation: u32,
}

impl<W, G> Queue<W, G> {
    /// An empty line within bounds of its own and those of the process; `ordered`: by classes and clients.
    pub fn new(bounds: Bounds, ordered: bool, budget: Arc<Budget>) -> Self {
        Self {
            entries: Vec::new(),
            vacant: NONE,
            live: 0,
            head: NONE,
            tail: NONE,
            settled: NONE,
            waiting: 0,
            bytes: 0,
            bounds,
            budget,
            lanes: ordered.then(Box::default),
            generation: 0,
        }
    }

    /// Changes the bounds and the order. Who is in line stays, and is served first, in order of arrival.
    pub fn set_rules(&mut self, bounds: Bounds, ordered: bool) {
        self.bounds = bounds;
        if ordered != self.lanes.is_some() {
            self.lanes = ordered.then(Box::default);
            if ordered {
                self.settled = self.tail;
            }
        }
    }

    /// Waiters that have not been granted anything.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Bytes they hold.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Whether there are neither waiters nor grants that have not been taken.
    pub fn is_unused(&self) -> bool {
        self.live == 0
    }

    /// Joins at the end, if there is room.
    pub fn push_back(&mut self, ask: &Ask) -> Result<Ticket, Full> {
        let bytes = ask.bytes as usize;
        if self.waiting >= self.bounds.length || self.live == NONE {
            return Err(Full::Length);
        }
        if bytes > 0 && self.bytes.saturating_add(bytes) > self.bounds.bytes {
            return Err(Full::Bytes);
        }
        self.budget.reserve(bytes)?;
        let ticket = self.occupy(ask.bytes);
        self.link(self.tail, ticket.entry, NONE);
        if let Some(lanes) = &mut self.lanes {
            lanes.push(ticket.entry, ask);
        }
        Ok(ticket)
    }

    /// Joins before all but those who did the same before, room or not.
    pub fn push_front(&mut self, ask: &Ask) -> Ticket {
        self.budget.force(ask.bytes as usize);
        let ticket = self.occupy(ask.bytes);
        let next = self.entries.get(self.settled as usize).map_or(self.head, |last| last.next);
        self.link(self.settled, ticket.entry, next);
        self.settled = ticket.entry;
        if let Some(lanes) = &mut self.lanes {
            lanes.push_outside(ticket.entry, ask);
        }
        ticket
    }

    /// Who is next: its entry and the pod it would like.
    pub fn next(&self) -> Option<(u32, Option<NonZeroU64>)> {
        let entry = match &self.lanes {
            Some(lanes) if self.settled == NONE => lanes.next().unwrap_or(self.head),
            _ => self.head,
        };
        (entry != NONE).then(|| (entry, self.lanes.as_ref().and_then(|lanes| lanes.affinity(entry))))
    }

    /// Grants the one that [`Queue::next`] named; returns its waker, if it has left one.
    pub fn grant(&mut self, entry: u32, grant: G) -> Option<W> {
        if let Some(lanes) = &mut self.lanes {
            lanes.served(entry);
        }
        self.unlink(entry);
        let entry = self.entries.get_mut(entry as usize)?;
        match std::mem::replace(&mut entry.state, State::Granted(grant)) {
            State::Waiting(waker) => waker,
            State::Vacant | State::Granted(_) => None,
        }
    }

    /// What the ticket was granted; the ticket is used up then.
    pub fn take_granted(&mut self, ticket: Ticket) -> Option<G> {
        let entry = self.entry(ticket)?;
        if matches!(entry.state, State::Granted(_)) {
            return self.vacate(ticket.entry);
        }
        None
    }

    /// Leaves a waker with the ticket, in the place of an older one.
    pub fn set_waker(&mut self, ticket: Ticket, waker: W) {
        if let Some(entry) = self.entry(ticket)
            && let State::Waiting(slot) = &mut entry.state
        {
            *slot = Some(waker);
        }
    }

    /// The waiter leaves. Returns what it had been granted, if so.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<G> {
        let waits = matches!(self.entry(ticket)?.state, State::Waiting(_));
        if waits {
            self.unlink(ticket.entry);
        }
        self.vacate(ticket.entry)
    }

    /// The live entry of a ticket: one that was used up finds nothing.
    fn entry(&mut self, ticket: Ticket) -> Option<&mut Entry<W, G>> {
        self.entries
            .get_mut(ticket.entry as usize)
            .filter(|entry| entry.generation == ticket.generation && !matches!(entry.state, State::Vacant))
    }

    fn occupy(&mut self, bytes: u32) -> Ticket {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let fresh = Entry { state: State::Waiting(None), generation, previous: NONE, next: NONE, bytes };
        let entry = self.vacant;
        let entry = if let Some(place) = self.entries.get_mut(entry as usize) {
            self.vacant = place.next;
            *place = fresh;
            entry
        } else {
            self.entries.push(fresh);
            (self.entries.len() - 1) as u32
        };
        self.live += 1;
        self.waiting += 1;
        self.bytes += bytes as usize;
        Ticket { entry, generation }
    }

    fn vacate(&mut self, index: u32) -> Option<G> {
        let entry = self.entries.get_mut(index as usize)?;
        let state = std::mem::replace(&mut entry.state, State::Vacant);
        entry.next = std::mem::replace(&mut self.vacant, index);
        self.live -= 1;
        if self.live == 0 && self.entries.len() > KEPT_WHEN_EMPTY {
            self.entries = Vec::new();
            self.vacant = NONE;
            if let Some(lanes) = &mut self.lanes {
                lanes.shrink();
            }
        }
        match state {
            State::Granted(grant) => Some(grant),
            State::Vacant | State::Waiting(_) => None,
        }
    }

    fn link(&mut self, previous: u32, index: u32, next: u32) {
        match self.entries.get_mut(previous as usize) {
            Some(entry) => entry.next = index,
            None => self.head = index,
        }
        match self.entries.get_mut(next as usize) {
            Some(entry) => entry.previous = index,
            None => self.tail = index,
        }
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.previous = previous;
            entry.next = next;
        }
    }

    fn unlink(&mut self, index: u32) {
        let Some(entry) = self.entries.get(index as usize) else { return };
        let (previous, next, bytes) = (entry.previous, entry.next, entry.bytes as usize);
        match self.entries.get_mut(previous as usize) {
            Some(entry) => entry.next = next,
            None => self.head = next,
        }
        match self.entries.get_mut(next as usize) {
            Some(entry) => entry.previous = previous,
            None => self.tail = previous,
        }
        if self.settled == index {
            // Whoever is before one of them is one of them.
            self.settled = previous;
        }
        if let Some(lanes) = &mut self.lanes {
            lanes.remove(index);
        }
        self.waiting -= 1;
        self.bytes -= bytes;
        self.budget.release(bytes);
    }
}

/// Bytes that one waiter costs the line.
#[cfg(test)]
#[cfg(not(feature = "loom"))]
pub(super) const fn entry_size<W, G>() -> usize {
    size_of::<Entry<W, G>>()
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
#[path = "queue_tests.rs"]
mod tests;
