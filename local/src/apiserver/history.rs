//! The last changes of one collection, so that a watch can resume where it broke off.
//!
//! Bounded by count and by bytes; [`History::oldest`] says from which resourceVersion on nothing is missing.
use std::collections::VecDeque;
use std::sync::Arc;

use super::store::Event;

const MAX_EVENTS: usize = 2048;
const MAX_BYTES: usize = 4 << 20;

/// A ring of events in resourceVersion order.
#[derive(Debug, Default)]
pub(crate) struct History {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Version of the newest event that was dropped.
    dropped: u64,
}

impl History {
    /// Remembers a change and forgets the oldest over the bounds.
    pub(crate) fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.line.len();
        self.events.push_back(event);
        while self.events.len() > MAX_EVENTS || (self.bytes > MAX_BYTES && self.events.len() > 1) {
            let Some(old) = self.events.pop_front() else { return };
            self.bytes -= old.line.len();
            self.dropped = old.object.resource_version;
        }
    }

    /// The oldest resourceVersion a watch can resume after.
    pub(crate) fn oldest(&self) -> u64 {
        self.dropped
    }

    /// The changes after a resourceVersion.
    pub(crate) fn after(&self, version: u64) -> impl Iterator<Item = &Arc<Event>> {
        let from = self.events.partition_point(|event| event.object.resource_version <= version);
        self.events.range(from..)
    }
}
