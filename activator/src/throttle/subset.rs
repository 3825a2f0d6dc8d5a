//! Which pods are this activator's when several share a revision: upstream's rule, so that mixed fleets agree on it.
//!
//! Everyone sorts the pods the same way and cuts the list into as many blocks as there are activators; what is left
//! over goes one each to the first ones. It applies only to revisions with a limit.

use std::ops::Range;

/// This activator's place among those that carry a revision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Place in the sorted list; `None` = not known.
    pub index: Option<usize>,
    /// How many there are; 0 = not known.
    pub activators: usize,
}

/// The block of `index` and how many pods are left over after all blocks (`begin..end`, rest).
pub fn slice(pods: usize, activators: usize, index: usize) -> (Range<usize>, usize) {
    if activators > pods {
        if pods == 0 {
            return (0..0, 0);
        }
        // More of us than pods: some share one.
        let mine = index % pods;
        return (mine..mine + 1, 0);
    }
    let size = pods.checked_div(activators).unwrap_or(pods);
    let rest = pods.checked_rem(activators).unwrap_or(0);
    (index * size..(index + 1) * size, rest)
}

/// The places in the sorted list of pods that are ours, in order.
pub fn assign(pods: usize, share: Share) -> impl Iterator<Item = usize> {
    let (block, extra) = match share.index {
        Some(index) if pods > 1 && share.activators > 1 => {
            let (block, rest) = slice(pods, share.activators, index);
            (block, (index < rest).then(|| pods - rest + index))
        }
        _ => (0..pods, None),
    };
    block.chain(extra)
}

/// Requests at once on one target: the limit for a pod. A cluster IP has the slots of all pods behind it, in equal
/// parts for the activators that share the revision, but one at least. Without a limit (0) it means nothing.
pub fn capacity(limit: u32, pods_behind: Option<usize>, activators: usize) -> u32 {
    let Some(pods) = pods_behind else { return limit };
    let all = u64::from(limit).saturating_mul(pods as u64);
    u32::try_from(all / activators.max(1) as u64).unwrap_or(u32::MAX).max(1)
}

/// The place of `own` among the activators' addresses (sorted as text) and their number; `None` if it is not there.
pub fn share_of(own: &str, addresses: &mut Vec<&str>) -> Option<Share> {
    addresses.sort_unstable();
    addresses.dedup();
    let index = addresses.iter().position(|address| *address == own)?;
    Some(Share { index: Some(index), activators: addresses.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t16_slices() {
        let cases = [
            ((1, 1, 0), (0..1, 0)),
            ((1, 2, 1), (0..1, 0)),
            ((2, 3, 1), (1..2, 0)),
            ((2, 3, 2), (0..1, 0)),
            ((3, 3, 2), (2..3, 0)),
            ((10, 3, 0), (0..3, 1)),
            ((10, 3, 2), (6..9, 1)),
            ((150, 5, 4), (120..150, 0)),
        ];
        for ((pods, activators, index), expected) in cases {
            assert_eq!(slice(pods, activators, index), expected, "{pods} pods, {activators} activators, {index}");
        }
    }

    #[test]
    fn t09_t10_t13_t17_assignment() {
        let assigned = |pods, index, activators| assign(pods, Share { index, activators }).collect::<Vec<_>>();
        assert_eq!(assigned(0, Some(1), 3), [0_usize; 0]);
        assert_eq!(assigned(3, None, 3), [0, 1, 2]);
        assert_eq!(assigned(3, Some(0), 1), [0, 1, 2]);
        assert_eq!(assigned(3, Some(1), 3), [1]);
        assert_eq!(assigned(1, Some(1), 3), [0]);
        assert_eq!(assigned(3, Some(1), 2), [1]);
        assert_eq!(assigned(3, Some(0), 2), [0, 2]);
        assert_eq!(assigned(5, Some(0), 2), [0, 1, 4]);
        assert_eq!(assigned(5, Some(1), 2), [2, 3]);
        assert_eq!(assigned(6, Some(0), 4), [0, 4]);
    }

    #[test]
    fn t02_t03_capacity_of_a_cluster_ip() {
        for (limit, pods, activators, expected) in [
            (10, None, 5, 10),
            (10, Some(10), 5, 20),
            (10, Some(10), 200, 1),
            (10, Some(1), 0, 10),
            (1, Some(1), 1, 1),
            (u32::MAX, Some(2), 1, u32::MAX),
        ] {
            assert_eq!(capacity(limit, pods, activators), expected, "{limit} {pods:?} {activators}");
        }
    }

    #[test]
    fn t15_own_index() {
        let index = |list: &[&str], own| share_of(own, &mut list.to_vec()).and_then(|share| share.index);
        assert_eq!(index(&[], "b"), None);
        assert_eq!(index(&["a", "c"], "b"), None);
        assert_eq!(index(&["c", "b"], "b"), Some(0));
        assert_eq!(index(&["d", "a", "c", "b"], "c"), Some(2));
        assert_eq!(index(&["a", "b", "c"], "c"), Some(2));
    }

    proptest::proptest! {
        /// With at least as many pods as activators, every pod belongs to exactly one of them.
        #[test]
        fn blocks_cover_all_pods_once(activators in 1..20_usize, more in 0..200_usize) {
            let pods = activators + more;
            let mut all: Vec<usize> =
                (0..activators).flat_map(|i| assign(pods, Share { index: Some(i), activators })).collect();
            all.sort_unstable();
            proptest::prop_assert_eq!(all, (0..pods).collect::<Vec<_>>());
        }
    }
}
