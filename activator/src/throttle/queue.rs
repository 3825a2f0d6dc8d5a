//! First come, first served, with O(1) to enter, to be granted and to leave from anywhere.
//!
//! A doubly linked list threaded through a slab: no allocation per waiter once the slab has grown, and it shrinks when
//! everybody has left. A granted waiter is out of the line but keeps its entry until it takes its grant or leaves.

/// A place in the queue. Must be taken ([`Queue::take_granted`]) or cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    entry: u32,
    /// Guards against an old ticket hitting a reused entry.
    generation: u32,
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
    next: u32,
}

/// The line of one revision. `W` wakes a waiter, `G` is what it is granted.
#[derive(Debug)]
pub struct Queue<W, G> {
    entries: Vec<Entry<W, G>>,
    vacant: Vec<u32>,
    head: u32,
    tail: u32,
    waiting: usize,
    limit: usize,
    /// Outlives the slab, so that tickets stay unique when it is given back.
    generation: u32,
}

impl<W, G> Queue<W, G> {
    /// A queue for at most `limit` waiters.
    pub fn new(limit: usize) -> Self {
        let limit = limit.min(NONE as usize / 2);
        Self { entries: Vec::new(), vacant: Vec::new(), head: NONE, tail: NONE, waiting: 0, limit, generation: 0 }
    }

    /// Waiters that have not been granted anything.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Joins at the end, if there is room.
    pub fn push_back(&mut self) -> Option<Ticket> {
        if self.waiting >= self.limit {
            return None;
        }
        let ticket = self.occupy();
        let previous = std::mem::replace(&mut self.tail, ticket.entry);
        self.link(previous, ticket.entry, NONE);
        Some(ticket)
    }

    /// Joins at the front, room or not.
    pub fn push_front(&mut self) -> Ticket {
        let ticket = self.occupy();
        let next = std::mem::replace(&mut self.head, ticket.entry);
        self.link(NONE, ticket.entry, next);
        ticket
    }

    /// Grants the first in line; returns its waker, if it has left one.
    pub fn grant_front(&mut self, grant: G) -> Option<W> {
        let first = self.head;
        self.unlink(first);
        let entry = self.entries.get_mut(first as usize)?;
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

    fn occupy(&mut self) -> Ticket {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let fresh = Entry { state: State::Waiting(None), generation, previous: NONE, next: NONE };
        let entry = if let Some(vacant) = self.vacant.pop() {
            self.entries[vacant as usize] = fresh;
            vacant
        } else {
            self.entries.push(fresh);
            (self.entries.len() - 1) as u32
        };
        self.waiting += 1;
        Ticket { entry, generation }
    }

    fn vacate(&mut self, index: u32) -> Option<G> {
        let entry = self.entries.get_mut(index as usize)?;
        let state = std::mem::replace(&mut entry.state, State::Vacant);
        self.vacant.push(index);
        if self.vacant.len() == self.entries.len() && self.entries.len() > KEPT_WHEN_EMPTY {
            self.entries = Vec::new();
            self.vacant = Vec::new();
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
        let (previous, next) = (entry.previous, entry.next);
        match self.entries.get_mut(previous as usize) {
            Some(entry) => entry.next = next,
            None => self.head = next,
        }
        match self.entries.get_mut(next as usize) {
            Some(entry) => entry.previous = previous,
            None => self.tail = previous,
        }
        self.waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[derive(Debug, Clone)]
    enum Step {
        Back,
        Front,
        Grant,
        /// Cancels or takes the n-th live ticket.
        Leave(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Back),
            1 => Just(Step::Front),
            2 => Just(Step::Grant),
            2 => (0..50_usize).prop_map(Step::Leave)
        ]
    }

    proptest! {
        /// Against the obvious model: a deque of tickets.
        #[test]
        fn behaves_like_a_deque(steps in proptest::collection::vec(step(), 0..300)) {
            let mut queue: Queue<(), u32> = Queue::new(20);
            let mut line: VecDeque<Ticket> = VecDeque::new();
            let mut granted: Vec<(Ticket, u32)> = Vec::new();
            let mut stamp = 0;
            for step in steps {
                match step {
                    Step::Back => match queue.push_back() {
                        Some(ticket) => line.push_back(ticket),
                        None => prop_assert!(line.len() >= 20),
                    },
                    Step::Front => line.push_front(queue.push_front()),
                    Step::Grant => {
                        if let Some(first) = line.pop_front() {
                            stamp += 1;
                            queue.grant_front(stamp);
                            granted.push((first, stamp));
                        }
                    }
                    Step::Leave(n) if n < line.len() => {
                        let ticket = line.remove(n).unwrap();
                        prop_assert_eq!(queue.take_granted(ticket), None);
                        prop_assert_eq!(queue.cancel(ticket), None);
                        prop_assert_eq!(queue.cancel(ticket), None, "a ticket works once");
                    }
                    Step::Leave(n) if !granted.is_empty() => {
                        let (ticket, grant) = granted.swap_remove(n % granted.len());
                        let got = if n % 2 == 0 { queue.cancel(ticket) } else { queue.take_granted(ticket) };
                        prop_assert_eq!(got, Some(grant));
                    }
                    Step::Leave(_) => {}
                }
                prop_assert_eq!(queue.waiting(), line.len());
            }
        }
    }
}
