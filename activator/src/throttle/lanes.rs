//! Who is next when a revision's policy orders its waiters: classes, and in each class clients in turn. Pure.
//!
//! - A higher class goes first, but not always: the classes below the highest that waits get one grant in
//!   [`LOWER_TURN`] between them, in rotation. So a class with waiters gets at least one of any
//!   [`LOWER_TURN`] × 9 = 144 grants.
//! - Within a class the clients that wait take turns; a client's own requests keep their order. Clients are told apart
//!   by one of [`KEYS`] buckets of their key's hash: two that share a bucket share a turn, and a client that waits
//!   gets at least one of any [`KEYS`] grants of its class.
//!
//! Everything is O(1): lanes are lists threaded through seats that lie beside the queue's entries, and the lanes with
//! waiters of a class form a ring. Made only for revisions that have such a policy.

use std::num::NonZeroU64;

use api::activation::CLASSES;

use super::ask::Ask;

/// One grant in so many goes to a class below the highest.
pub const LOWER_TURN: u32 = 16;
/// Buckets of clients per class.
pub const KEYS: u32 = 128;

/// No entry.
const NONE: u32 = u32::MAX;
/// Not in a lane.
const NOWHERE: u16 = u16::MAX;

#[derive(Debug, Clone, Copy)]
struct Seat {
    previous: u32,
    next: u32,
    /// Class × [`KEYS`] + bucket.
    lane: u16,
    affinity: Option<NonZeroU64>,
}

const EMPTY_SEAT: Seat = Seat { previous: NONE, next: NONE, lane: NOWHERE, affinity: None };

/// The waiters of one client (bucket) in one class, and its neighbours in the ring of those that have any.
#[derive(Debug, Clone, Copy)]
struct Lane {
    head: u32,
    tail: u32,
    before: u8,
    after: u8,
}

const EMPTY_LANE: Lane = Lane { head: NONE, tail: NONE, before: 0, after: 0 };

#[derive(Debug, Default)]
struct Class {
    /// By bucket; as long as the highest that was needed.
    lanes: Vec<Lane>,
    /// Whose turn it is, if anybody waits.
    turn: u8,
}

/// The order of waiters, by the number of their entry in the queue.
#[derive(Debug, Default)]
pub struct Lanes {
    seats: Vec<Seat>,
    classes: [Class; CLASSES as usize],
    /// Bit n: class n has waiters.
    busy: u16,
    /// Grants to the highest class since a lower one had its turn.
    skipped: u32,
    /// The class that had the last lower turn.
    lower: u8,
}

impl Lanes {
    /// A waiter joins its lane.
    pub fn push(&mut self, entry: u32, ask: &Ask) {
        let class = ask.class.min(CLASSES - 1);
        let bucket = (ask.key % KEYS) as u8;
        self.seat(
            entry,
            Seat { lane: u16::from(class) * KEYS as u16 + u16::from(bucket), affinity: ask.affinity, ..EMPTY_SEAT },
        );
        let Some(of_class) = self.classes.get_mut(usize::from(class)) else { return };
        if of_class.lanes.len() <= usize::from(bucket) {
            of_class.lanes.resize(usize::from(bucket) + 1, EMPTY_LANE);
        }
        let tail = std::mem::replace(&mut of_class.lanes[usize::from(bucket)].tail, entry);
        if let Some(last) = self.seats.get_mut(tail as usize) {
            last.next = entry;
            self.seats[entry as usize].previous = tail;
            return;
        }
        of_class.lanes[usize::from(bucket)].head = entry;
        of_class.join_ring(bucket, self.busy & (1 << class) == 0);
        self.busy |= 1 << class;
    }

    /// A waiter that is in no lane: it is served before all of them.
    pub fn push_outside(&mut self, entry: u32, ask: &Ask) {
        self.seat(entry, Seat { affinity: ask.affinity, ..EMPTY_SEAT });
    }

    /// Who is next, if anybody is in a lane.
    pub fn next(&self) -> Option<u32> {
        let class = self.classes.get(usize::from(self.next_class()?))?;
        class.lanes.get(usize::from(class.turn)).map(|lane| lane.head).filter(|head| *head != NONE)
    }

    /// The one that [`Lanes::next`] named has been granted: the turn passes on. Before [`Lanes::remove`].
    pub fn served(&mut self, entry: u32) {
        let Some(lane) = self.seats.get(entry as usize).map(|seat| seat.lane).filter(|lane| *lane != NOWHERE) else {
            return;
        };
        let (number, bucket) = place(lane);
        if self.busy >> number > 1 {
            // A higher one waits: this was the turn of the lower ones.
            self.skipped = 0;
            self.lower = number;
        } else if self.busy == 1 << number {
            self.skipped = 0;
        } else {
            self.skipped = self.skipped.saturating_add(1);
        }
        if let Some(class) = self.classes.get_mut(usize::from(number))
            && let Some(lane) = class.lanes.get(usize::from(bucket))
        {
            class.turn = lane.after;
        }
    }

    /// A waiter leaves, granted or not.
    pub fn remove(&mut self, entry: u32) {
        let Some(seat) = self.seats.get_mut(entry as usize) else { return };
        let Seat { previous, next, lane, .. } = std::mem::replace(seat, EMPTY_SEAT);
        if lane == NOWHERE {
            return;
        }
        let (number, bucket) = place(lane);
        let Some(class) = self.classes.get_mut(usize::from(number)) else { return };
        let Some(lane) = class.lanes.get_mut(usize::from(bucket)) else { return };
        match self.seats.get_mut(previous as usize) {
            Some(seat) => seat.next = next,
            None => lane.head = next,
        }
        match self.seats.get_mut(next as usize) {
            Some(seat) => seat.previous = previous,
            None => lane.tail = previous,
        }
        if lane.head == NONE && !class.leave_ring(bucket) {
            self.busy &= !(1 << number);
        }
    }

    /// The pod a waiter would like.
    pub fn affinity(&self, entry: u32) -> Option<NonZeroU64> {
        self.seats.get(entry as usize)?.affinity
    }

    /// Nobody waits and the queue gives its memory back: so does this.
    pub fn shrink(&mut self) {
        self.seats = Vec::new();
        for class in &mut self.classes {
            class.lanes = Vec::new();
        }
    }

    fn seat(&mut self, entry: u32, seat: Seat) {
        if self.seats.len() <= entry as usize {
            self.seats.resize(entry as usize + 1, EMPTY_SEAT);
        }
        self.seats[entry as usize] = seat;
    }

    fn next_class(&self) -> Option<u8> {
        let top = highest(self.busy)?;
        let lower = self.busy & !(1 << top);
        if lower == 0 || self.skipped + 1 < LOWER_TURN {
            return Some(top);
        }
        // Downwards from the one that had the last turn, then from the highest of them again.
        highest(lower & ((1 << self.lower) - 1)).or_else(|| highest(lower))
    }
}

impl Class {
    /// A lane has its first waiter: it comes last in the round.
    fn join_ring(&mut self, bucket: u8, alone: bool) {
        if alone {
            self.lanes[usize::from(bucket)] = Lane { before: bucket, after: bucket, ..self.lanes[usize::from(bucket)] };
            self.turn = bucket;
            return;
        }
        let after = self.turn;
        let before = self.lanes[usize::from(after)].before;
        self.lanes[usize::from(before)].after = bucket;
        self.lanes[usize::from(after)].before = bucket;
        let lane = &mut self.lanes[usize::from(bucket)];
        (lane.before, lane.after) = (before, after);
    }

    /// A lane has lost its last waiter. Returns whether others have some.
    fn leave_ring(&mut self, bucket: u8) -> bool {
        let Lane { before, after, .. } = self.lanes[usize::from(bucket)];
        if after == bucket {
            return false;
        }
        self.lanes[usize::from(before)].after = after;
        self.lanes[usize::from(after)].before = before;
        if self.turn == bucket {
            self.turn = after;
        }
        true
    }
}

/// Class and bucket of a lane's number.
fn place(lane: u16) -> (u8, u8) {
    ((lane / KEYS as u16) as u8, (lane % KEYS as u16) as u8)
}

/// The highest bit that is set.
fn highest(bits: u16) -> Option<u8> {
    bits.checked_ilog2().map(|bit| bit as u8)
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
#[path = "lanes_tests.rs"]
mod tests;
