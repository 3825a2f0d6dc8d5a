//! Numbers that one thread writes and any thread reads.
//!
//! A counter that several threads add to costs each of them the cache line, and a request touches a dozen. So every data
//! thread has cells of its own: it reads, adds and stores, without a locked instruction, and whoever wants the sum adds
//! up the threads. A cell with two writers would lose counts; [`Shard`] says whose it is.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Which thread's cells. Each data thread has its own number, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shard(pub usize);

/// Cells of every thread, made when a thread first has something to count.
#[derive(Debug)]
pub struct PerShard<C>(Box<[OnceLock<Box<C>>]>);

impl<C: Default> PerShard<C> {
    /// For so many threads, one at least.
    pub fn new(threads: usize) -> Self {
        Self((0..threads.max(1)).map(|_| OnceLock::new()).collect())
    }

    /// The cells of a thread.
    pub fn get(&self, Shard(n): Shard) -> &C {
        // No thread has a number beyond the last, and there is one at least.
        self.0.get(n).unwrap_or(&self.0[0]).get_or_init(Box::default)
    }

    /// All there are.
    pub fn iter(&self) -> impl Iterator<Item = &C> {
        self.0.iter().filter_map(|cells| cells.get().map(|cells| &**cells))
    }
}

/// What grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Some more; for the one writer.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// How much it is.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What goes up and down.
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

impl Level {
    /// One more; for the one writer.
    pub fn up(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// One less; for the one writer.
    pub fn down(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }

    /// How much it is.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A sum of fractions.
#[derive(Debug, Default)]
struct Sum(AtomicU64);

impl Sum {
    fn add(&self, value: f64) {
        self.0.store((self.get() + value).to_bits(), Ordering::Relaxed);
    }

    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Bounds of durations, in milliseconds: those of today's names and of the old ones together, so that one count serves
/// both.
pub const MILLISECONDS: [u32; 32] = [
    5, 10, 20, 25, 40, 50, 60, 75, 80, 100, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700, 750, 800, 900, 1000,
    2000, 2500, 5000, 7500, 10000, 20000, 50000, 100_000,
];

/// Bounds of sizes, in bytes.
pub const BYTES: [u32; 15] = [0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000];

/// How durations are spread.
#[derive(Debug)]
pub struct Durations {
    counts: [Count; MILLISECONDS.len() + 1],
    seconds: Sum,
}

impl Default for Durations {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| Count::default()), seconds: Sum::default() }
    }
}

impl Durations {
    /// One more; for the one writer.
    pub fn observe(&self, duration: Duration) {
        let place = MILLISECONDS.iter().position(|bound| duration <= Duration::from_millis(u64::from(*bound)));
        if let Some(count) = self.counts.get(place.unwrap_or(MILLISECONDS.len())) {
            count.add(1);
        }
        self.seconds.add(duration.as_secs_f64());
    }
}

/// How sizes are spread.
#[derive(Debug, Default)]
pub struct Sizes {
    counts: [Count; BYTES.len() + 1],
    bytes: Count,
}

impl Sizes {
    /// One more; for the one writer.
    pub fn observe(&self, bytes: u64) {
        let place = BYTES.iter().position(|bound| bytes <= u64::from(*bound));
        if let Some(count) = self.counts.get(place.unwrap_or(BYTES.len())) {
            count.add(1);
        }
        self.bytes.add(bytes);
    }
}

/// A histogram, read and added up.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Spread {
    /// How many up to each bound and above the one before; one more than bounds.
    counts: Vec<u64>,
    /// Sum of all values.
    sum: f64,
}

impl Spread {
    fn add(&mut self, counts: &[Count], sum: f64) {
        self.counts.resize(counts.len(), 0);
        self.counts.iter_mut().zip(counts).for_each(|(total, count)| *total = total.wrapping_add(count.get()));
        self.sum += sum;
    }

    /// Adds a thread's durations.
    pub fn add_durations(&mut self, durations: &Durations) {
        self.add(&durations.counts, durations.seconds.get());
    }

    /// Adds a thread's sizes.
    pub fn add_sizes(&mut self, sizes: &Sizes) {
        self.add(&sizes.counts, sizes.bytes.get() as f64);
    }

    /// Adds another one of the same bounds.
    pub fn merge(&mut self, other: &Self) {
        self.counts.resize(other.counts.len().max(self.counts.len()), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(total, count)| *total = total.wrapping_add(*count));
        self.sum += other.sum;
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Sum of all values.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// How many are up to each of some bounds, which are among those it was counted by.
    pub fn up_to(&self, counted_by: &[u32], wanted: &[u32]) -> Vec<u64> {
        let up_to = |bound: &u32| {
            self.counts.iter().zip(counted_by).take_while(|(_, other)| *other <= bound).map(|(count, _)| count).sum()
        };
        wanted.iter().map(up_to).collect()
    }
}

/// Cells by a key, few of them: found by walking, never moved, never removed, added without a lock.
#[derive(Debug)]
pub struct List<K, C> {
    first: Link<K, C>,
}

type Link<K, C> = OnceLock<Box<Node<K, C>>>;

#[derive(Debug)]
struct Node<K, C> {
    key: K,
    cells: C,
    next: Link<K, C>,
}

/// The most keys of a [`List`]: the walk stays short, and what clients and apps can vary stays bounded.
pub const MOST_KEYS: usize = 64;

impl<K, C> Default for List<K, C> {
    fn default() -> Self {
        Self { first: OnceLock::new() }
    }
}

impl<K: PartialEq + Copy, C: Default> List<K, C> {
    /// The cells of a key; `None` if there are [`MOST_KEYS`] others.
    pub fn get(&self, key: K) -> Option<&C> {
        let mut link = &self.first;
        for _ in 0..MOST_KEYS {
            let node = link.get_or_init(|| Box::new(Node { key, cells: C::default(), next: OnceLock::new() }));
            if node.key == key {
                return Some(&node.cells);
            }
            link = &node.next;
        }
        None
    }

    /// All there are.
    pub fn iter(&self) -> impl Iterator<Item = (K, &C)> {
        std::iter::successors(self.first.get(), |node| node.next.get()).map(|node| (node.key, &node.cells))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::core::Collector;
    use prometheus::{Histogram, HistogramOpts};
    use proptest::prelude::*;

    #[test]
    fn bounds_are_inclusive_and_in_order() {
        assert!(MILLISECONDS.is_sorted() && BYTES.is_sorted());
        let durations = Durations::default();
        for ns in [0, 5_000_000, 5_000_001, 100_000_000_000, 100_000_000_001] {
            durations.observe(Duration::from_nanos(ns));
        }
        let mut spread = Spread::default();
        spread.add_durations(&durations);
        assert_eq!(spread.up_to(&MILLISECONDS, &[5, 10, 100_000]), [2, 3, 4]);
        assert_eq!(spread.count(), 5);
        let sizes = Sizes::default();
        for bytes in [0, 1, 10_001] {
            sizes.observe(bytes);
        }
        let mut spread = Spread::default();
        spread.add_sizes(&sizes);
        assert_eq!((spread.up_to(&BYTES, &[0, 5, 10_000]), spread.sum()), (vec![1, 2, 2], 10_002.0));
    }

    #[test]
    fn keys_beyond_the_bound_find_no_cells() {
        let list = List::<usize, Count>::default();
        for key in 0..2 * MOST_KEYS {
            if let Some(count) = list.get(key) {
                count.add(1);
            }
        }
        assert!(list.get(0).is_some() && list.get(MOST_KEYS).is_none());
        assert_eq!(list.iter().map(|(key, count)| (key, count.get())).collect::<Vec<_>>(), {
            (0..MOST_KEYS).map(|key| (key, 1)).collect::<Vec<_>>()
        });
    }

    proptest! {
        /// What is counted here is what the usual histogram counts, whichever of the bounds are asked for.
        #[test]
        fn spread_as_prometheus_does(values in proptest::collection::vec(0_u64..200_000, 0..50)) {
            let wanted = [5, 25, 100, 750, 2500, 10_000];
            let bounds: Vec<f64> = wanted.iter().map(|ms| f64::from(*ms) / 1000.0).collect();
            let theirs = Histogram::with_opts(HistogramOpts::new("h", "h").buckets(bounds)).unwrap();
            let ours = [Durations::default(), Durations::default()];
            for (n, ms) in values.iter().enumerate() {
                theirs.observe(Duration::from_millis(*ms).as_secs_f64());
                ours[n % 2].observe(Duration::from_millis(*ms));
            }
            let mut spread = Spread::default();
            for ours in &ours {
                spread.add_durations(ours);
            }
            let families = theirs.collect();
            let theirs = families[0].get_metric()[0].get_histogram();
            let counts: Vec<u64> = theirs.get_bucket().iter().map(prometheus::proto::Bucket::cumulative_count).collect();
            prop_assert_eq!(spread.up_to(&MILLISECONDS, &wanted), counts);
            prop_assert_eq!(spread.count(), theirs.get_sample_count());
            prop_assert!((spread.sum() - theirs.get_sample_sum()).abs() < 1e-6);
        }

        /// Two threads that find a place at once get the same cells.
        #[test]
        fn a_list_is_one_list_for_all_threads(keys in proptest::collection::vec(0_u8..20, 1..40)) {
            let list = List::<u8, Level>::default();
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| keys.iter().for_each(|key| { let _ = list.get(*key); }));
                }
            });
            let mut known: Vec<u8> = list.iter().map(|(key, _)| key).collect();
            known.sort_unstable();
            let mut expected = keys.clone();
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(known, expected);
        }
    }
}
