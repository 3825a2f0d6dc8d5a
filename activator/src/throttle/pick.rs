//! Which pod gets the next request, as upstream does it: without a limit the less loaded of two at random; small limits
//! fill pods in order, so that the others can be scaled away; larger ones go round. And, if a session asks for it, always
//! the same pod.

use std::num::NonZeroU64;

/// The set of pods with a free slot, by rank: one bit each.
#[derive(Debug, Default, Clone)]
pub struct FreeSet {
    words: Vec<u64>,
    len: usize,
}

impl FreeSet {
    /// Makes it an empty set over `len` ranks.
    pub fn reset(&mut self, len: usize) {
        self.words.clear();
        self.words.resize(len.div_ceil(64), 0);
        self.len = len;
    }

    /// Adds a rank.
    pub fn insert(&mut self, rank: usize) {
        if let Some(word) = self.words.get_mut(rank / 64) {
            *word |= 1 << (rank % 64);
        }
    }

    /// Removes a rank.
    pub fn remove(&mut self, rank: usize) {
        if let Some(word) = self.words.get_mut(rank / 64) {
            *word &= !(1 << (rank % 64));
        }
    }

    /// The lowest rank that is at least `from`.
    pub fn first_from(&self, from: usize) -> Option<usize> {
        let mut index = from / 64;
        let mut word = self.words.get(index)? & (u64::MAX << (from % 64));
        loop {
            if word != 0 {
                return Some(index * 64 + word.trailing_zeros() as usize);
            }
            index += 1;
            word = *self.words.get(index)?;
        }
    }
}

/// How pods with a limit are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// The first with a free slot.
    FirstAvailable,
    /// The next one after the last pick.
    RoundRobin {
        /// Where to look first.
        cursor: usize,
    },
}

impl Balance {
    /// Upstream's choice: packing up to 3.
    pub fn for_limit(limit: u32) -> Self {
        if limit <= 3 { Self::FirstAvailable } else { Self::RoundRobin { cursor: 0 } }
    }

    /// A rank with a free slot.
    pub fn pick(&mut self, free: &FreeSet) -> Option<usize> {
        match self {
            Self::FirstAvailable => free.first_from(0),
            Self::RoundRobin { cursor } => {
                let rank = free.first_from(*cursor).or_else(|| free.first_from(0))?;
                *cursor = rank + 1;
                Some(rank)
            }
        }
    }

    /// The number of pods changed.
    pub fn resized(&mut self, len: usize) {
        if let Self::RoundRobin { cursor } = self
            && *cursor >= len
        {
            *cursor = 0;
        }
    }
}

/// The less loaded of two ranks drawn at random; equal load is decided by the draw. `random(0..n)` is uniform.
pub fn least_loaded_of_two(
    len: usize,
    mut random: impl FnMut(std::ops::Range<usize>) -> usize,
    load: impl Fn(usize) -> u32,
) -> Option<usize> {
    match len {
        0 => None,
        1 => Some(0),
        _ => {
            let first = random(0..len);
            // Distinct and uniform: draw from one fewer and step over the first.
            let second = random(0..len - 1);
            let second = if second >= first { second + 1 } else { second };
            Some(if load(second) < load(first) { second } else { first })
        }
    }
}

/// How much a session likes a pod; it gets the one it likes most (rendezvous hashing: Thaler and Ravishankar, "Using
/// name-based mappings to increase hit rates", 1998). When a pod comes or goes only the sessions that get it or had it
/// move, nothing is stored or rebuilt, and every activator comes to the same result.
pub fn liking(session: NonZeroU64, pod: u64) -> u64 {
    // The finalizer of SplitMix64: each bit of the input changes half of the output's.
    let mut mixed = session.get() ^ pod;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(len: usize, ranks: &[usize]) -> FreeSet {
        let mut set = FreeSet::default();
        set.reset(len);
        for rank in ranks {
            set.insert(*rank);
        }
        set
    }

    #[test]
    fn free_set_finds_the_next_across_words() {
        let mut set = free(200, &[3, 64, 199]);
        let found: Vec<_> = [0, 3, 4, 64, 65, 199, 200, 500].map(|from| set.first_from(from)).into();
        assert_eq!(found, [Some(3), Some(3), Some(64), Some(64), Some(199), Some(199), None, None]);
        set.remove(3);
        assert_eq!(set.first_from(0), Some(64));
        assert_eq!(free(0, &[]).first_from(0), None);
    }

    #[test]
    fn t32_both_idle_pods_get_some() {
        let picks: Vec<_> = (0..100).filter_map(|_| least_loaded_of_two(2, fastrand::usize, |_| 0)).collect();
        assert!(picks.contains(&0) && picks.contains(&1), "{picks:?}");
    }

    #[test]
    fn t33_the_second_pick_goes_to_the_other_pod() {
        for _ in 0..100 {
            assert_eq!(least_loaded_of_two(2, fastrand::usize, |rank| u32::from(rank == 0)), Some(1));
        }
    }

    #[test]
    fn t34_first_available_packs() {
        let mut balance = Balance::for_limit(1);
        let mut set = free(2, &[0, 1]);
        assert_eq!(balance.pick(&set), Some(0));
        set.remove(0);
        assert_eq!(balance.pick(&set), Some(1));
        set.remove(1);
        assert_eq!(balance.pick(&set), None);
    }

    #[test]
    fn t35_round_robin_goes_on_where_it_was() {
        let mut balance = Balance::for_limit(4);
        let all = free(3, &[0, 1, 2]);
        let picks: Vec<_> = (0..4).map(|_| balance.pick(&all)).collect();
        assert_eq!(picks, [Some(0), Some(1), Some(2), Some(0)]);
        balance.resized(1);
        assert_eq!(balance.pick(&free(1, &[0])), Some(0));
        assert_eq!(balance.pick(&free(1, &[])), None);
    }

    #[test]
    fn t36_round_robin_serves_each_pod_once_a_round() {
        let mut balance = Balance::for_limit(4);
        let all = free(3, &[0, 1, 2]);
        let mut picks: Vec<_> = (0..2).map(|_| balance.pick(&all)).collect();
        balance.resized(1);
        picks.push(balance.pick(&free(1, &[0])));
        picks.extend((0..2).map(|_| balance.pick(&all)));
        picks.push(balance.pick(&free(3, &[2])));
        assert_eq!(picks, [0, 1, 0, 1, 2, 2].map(Some));
    }

    fn favourite(session: u64, pods: &[u64]) -> u64 {
        let session = NonZeroU64::new(session).unwrap();
        pods.iter().copied().max_by_key(|pod| liking(session, *pod)).unwrap()
    }

    #[test]
    fn sessions_spread_evenly_and_move_only_with_their_pod() {
        let pods: Vec<u64> = (0..10_u8).map(|n| api::hash::fnv1a(&[10, 0, 0, n])).collect();
        let sessions: Vec<u64> = (0..10_000_u32).map(|n| api::hash::fnv1a(&n.to_le_bytes()).max(1)).collect();
        let before: Vec<u64> = sessions.iter().map(|session| favourite(*session, &pods)).collect();
        for pod in &pods {
            let share = before.iter().filter(|favourite| *favourite == pod).count();
            assert!((800..1200).contains(&share), "{share} of 10,000 sessions on one of 10 pods");
        }
        let fewer = &pods[1..];
        for (session, before) in sessions.iter().zip(before) {
            let after = favourite(*session, fewer);
            assert!(after == before || before == pods[0], "moved although its pod stayed");
        }
    }

    #[test]
    fn two_draws_are_always_distinct() {
        for len in 2..6 {
            for first in 0..len {
                for second in 0..len - 1 {
                    let draws = std::cell::Cell::new(0);
                    let seen = std::cell::RefCell::new(Vec::new());
                    least_loaded_of_two(
                        len,
                        |_| if draws.replace(draws.get() + 1) == 0 { first } else { second },
                        |rank| {
                            seen.borrow_mut().push(rank);
                            0
                        },
                    );
                    let seen = seen.into_inner();
                    assert_ne!(seen[0], seen[1]);
                    assert!(seen.iter().all(|rank| *rank < len));
                }
            }
        }
    }
}
