//! The largest value of the last while: a pod count may fall only once the higher one has left this window.

use std::{collections::VecDeque, time::Duration};

use crate::moment::Moment;

/// Seconds in a slot: the rhythm of decisions.
const SLOT_SECONDS: i64 = 2;

/// Largest value over the last `slots` slots. Memory is bounded by the number of slots.
#[derive(Debug, Clone)]
pub struct MaxWindow {
    slots: i64,
    /// (slot, value), values falling from front to back: the front is the maximum.
    falling: VecDeque<(i64, i32)>,
}

impl MaxWindow {
    /// A window of `delay` in slots of two seconds.
    pub fn new(delay: Duration) -> Self {
        Self::of_slots(
            i64::try_from(delay.as_secs()).unwrap_or(i64::MAX - 1).saturating_add(SLOT_SECONDS - 1) / SLOT_SECONDS,
        )
    }

    fn of_slots(slots: i64) -> Self {
        Self { slots: slots.max(1), falling: VecDeque::new() }
    }

    /// Records `value` and returns the maximum of the window, `value` included.
    pub fn record(&mut self, at: Moment, value: i32) -> i32 {
        self.record_slot(at.seconds().div_euclid(SLOT_SECONDS), value)
    }

    /// Whether the window would hold back a fall.
    pub fn holds_above(&self, value: i32) -> bool {
        self.falling.front().is_some_and(|(_, max)| *max > value)
    }

    /// The maximum of what the window at `now` holds, if anything.
    pub fn max_at(&self, now: Moment) -> Option<i32> {
        let oldest = now.seconds().div_euclid(SLOT_SECONDS) - self.slots;
        self.falling.iter().find(|(slot, _)| *slot > oldest).map(|(_, max)| *max)
    }

    fn record_slot(&mut self, slot: i64, value: i32) -> i32 {
        while self.falling.front().is_some_and(|(s, _)| *s <= slot - self.slots) {
            self.falling.pop_front();
        }
        while self.falling.back().is_some_and(|(_, v)| *v <= value) {
            self.falling.pop_back();
        }
        self.falling.push_back((slot, value));
        self.falling.front().map_or(value, |(_, max)| *max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s41_moving_maximum() {
        let values = [5, 8, 5, 7, 5, 5, 1, 4, 4, 4, 4, 9, 3, 4, 2, 1, 0];
        let maxima = [5, 8, 8, 8, 8, 8, 7, 7, 5, 5, 4, 9, 9, 9, 9, 9, 4];
        let mut w = MaxWindow::of_slots(5);
        for (slot, (value, want)) in (0..).zip(values.into_iter().zip(maxima)) {
            assert_eq!(w.record_slot(slot, value), want, "slot {slot}");
        }
    }

    #[test]
    fn s41_same_slot_keeps_the_largest_and_a_gap_forgets() {
        let mut w = MaxWindow::of_slots(5);
        assert_eq!([7, 6, 5].map(|v| w.record_slot(0, v)), [7, 7, 7]);
        assert_eq!(w.record_slot(6, 1), 1);
    }
}
