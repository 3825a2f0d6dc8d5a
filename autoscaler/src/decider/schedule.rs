//! When each revision wants to be looked at next: one ordered queue for all of them.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::{key::Key, moment::Moment};

/// Entries are never removed, only outdated: an entry counts only if its moment is still the revision's own.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    queue: BinaryHeap<Reverse<(Moment, Key)>>,
}

impl Schedule {
    /// Adds `key` at `due`, where `current` is what the revision remembers; an earlier entry already does the job.
    pub(super) fn at(&mut self, key: &Key, current: &mut Option<Moment>, due: Moment) {
        if current.is_none_or(|current| due < current) {
            *current = Some(due);
            self.queue.push(Reverse((due, key.clone())));
        }
    }

    /// The earliest entry's moment.
    pub(super) fn next(&self) -> Option<Moment> {
        self.queue.peek().map(|Reverse((due, _))| *due)
    }

    /// Takes the earliest entry if it is due.
    pub(super) fn pop(&mut self, now: Moment) -> Option<(Moment, Key)> {
        if self.next()? > now {
            return None;
        }
        self.queue.pop().map(|Reverse(entry)| entry)
    }
}
