//! How many lines a second may bring: the first hundred of a message, then every hundredth.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tracing::Level;

use super::settings::Rate;

/// Messages told apart; two that share a place share its count.
const PLACES: usize = 512;
/// What "a second" is.
const WINDOW: Duration = Duration::from_secs(1);

/// The counts.
#[derive(Debug)]
pub(super) struct Sampler {
    rate: Rate,
    places: Box<[Place]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    ends: Duration,
    seen: u32,
}

impl Sampler {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, places: vec![Place::default(); PLACES].into() }
    }

    /// Whether a message is written; `now` is since any fixed moment.
    pub(super) fn admits(&mut self, level: Level, message: &str, now: Duration) -> bool {
        let Rate { first, then_every } = self.rate;
        if first == 0 {
            return true;
        }
        let mut hasher = DefaultHasher::new();
        (level, message).hash(&mut hasher);
        let Some(place) = self.places.get_mut(hasher.finish() as usize % PLACES) else { return true };
        // A clock that was set back starts a new window too.
        if place.ends.checked_sub(now).is_none_or(|left| left.is_zero() || left > WINDOW) {
            *place = Place { ends: now + WINDOW, seen: 0 };
        }
        place.seen = place.seen.saturating_add(1);
        place.seen <= first || (place.seen - first).is_multiple_of(then_every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_then_every_nth_and_again_in_the_next_second() {
        let mut sampler = Sampler::new(Rate { first: 3, then_every: 2 });
        let mut admitted = |at| (0..7).filter(|_| sampler.admits(Level::INFO, "m", Duration::from_millis(at))).count();
        assert_eq!(admitted(0), 5);
        assert_eq!(admitted(999), 3);
        assert_eq!(admitted(1000), 5);
        assert_eq!(admitted(10), 5, "the clock was set back");
    }

    #[test]
    fn levels_and_messages_count_apart_and_zero_means_no_bound() {
        let mut sampler = Sampler::new(Rate { first: 1, then_every: 0 });
        let now = Duration::ZERO;
        for (level, message, admitted) in [
            (Level::INFO, "a", true),
            (Level::WARN, "a", true),
            (Level::INFO, "b", true),
            (Level::INFO, "a", false),
            (Level::INFO, "a", false),
        ] {
            assert_eq!(sampler.admits(level, message, now), admitted, "{level} {message}");
        }
        let mut sampler = Sampler::new(Rate { first: 0, then_every: 0 });
        assert!((0..1000).all(|_| sampler.admits(Level::INFO, "a", now)));
    }
}
