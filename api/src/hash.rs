//! Which of several candidates own a key (upstream `knative.dev/pkg/hash`). Replicas of all versions must agree, so
//! every step is fixed: which autoscaler owns a revision, which activators carry it.

use std::hash::Hasher;

/// Size of the circle on which candidates and keys lie.
const UNIVERSE: u64 = 2048;

struct Fnv1a(u64);

impl Hasher for Fnv1a {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// FNV-1a, 64 bits: the same number for the same bytes in every process.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    let mut h = Fnv1a(0xcbf2_9ce4_8422_2325);
    h.write(bytes);
    h.finish()
}

fn fnv(text: &str) -> u64 {
    fnv1a(text.as_bytes())
}

/// The `n` of `candidates` that serve `key` (`namespace/name`), sorted by name; all of them when `n` is not smaller
/// than their number.
///
/// Each candidate gets a free place on the circle by hashing; the walk starts at an angle that the key gives and goes
/// on by a step that the key gives, each time taking the next candidate not taken yet.
pub fn choose_subset<'a>(candidates: &[&'a str], n: usize, key: &str) -> Vec<&'a str> {
    let mut sorted: Vec<&str> = candidates.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    if n >= sorted.len() {
        return sorted;
    }
    let mut places: Vec<(u64, usize)> = Vec::with_capacity(sorted.len());
    for (i, name) in sorted.iter().enumerate() {
        // The buffer grows by the last hash in hex until its hash falls on a free place.
        let mut buffer = format!("{name}{key}");
        let mut hash = fnv(&buffer);
        // More candidates than places would never end; past that, sharing a place is the only way.
        while places.iter().any(|(p, _)| *p == hash % UNIVERSE) && (places.len() as u64) < UNIVERSE {
            buffer.push_str(&format!("{hash:x}"));
            hash = fnv(&buffer);
        }
        places.push((hash % UNIVERSE, i));
    }
    places.sort_unstable();
    let mut angle = fnv(&format!("{key}start-angle-salt")) % UNIVERSE;
    let step = fnv(&format!("{key}step-angle-salt")) % UNIVERSE;
    let mut taken = vec![false; places.len()];
    let mut chosen = Vec::with_capacity(n);
    while chosen.len() < n {
        let first = places.partition_point(|(p, _)| *p < angle);
        let next = (0..places.len()).map(|k| (first + k) % places.len()).find(|k| !taken[*k]);
        let Some(k) = next else { break };
        taken[k] = true;
        chosen.push(sorted[places[k].1]);
        angle = (angle + step) % UNIVERSE;
    }
    chosen.sort_unstable();
    chosen
}

/// The one of `candidates` that owns `key`; none only when there are no candidates.
pub fn owner<'a>(candidates: &[&'a str], key: &str) -> Option<&'a str> {
    choose_subset(candidates, 1, key).into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("autoscaler-bucket-{i:02}-of-{n:02}")).collect()
    }

    #[test]
    fn bucket_owners_match_upstream_vectors() {
        let cases = [
            ("default/hello-00001", [0, 1, 0, 0, 5]),
            ("default/hello-00002", [0, 1, 1, 1, 8]),
            ("prod/api-00007", [0, 1, 0, 4, 8]),
            ("a/b", [0, 0, 2, 4, 4]),
        ];
        for (key, owners) in cases {
            for (n, want) in [1, 2, 3, 5, 10].into_iter().zip(owners) {
                let names = buckets(n);
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let want = format!("autoscaler-bucket-{want:02}-of-{n:02}");
                assert_eq!(owner(&names, key), Some(want.as_str()), "{key} of {n}");
            }
        }
    }

    #[test]
    fn activator_subsets_match_upstream_vectors() {
        let ips: Vec<String> = (1..=7).map(|i| format!("10.0.0.{i}")).collect();
        let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
        let cases: [(&str, usize, &[u8]); 7] = [
            ("rev", 1, &[3]),
            ("rev", 2, &[2, 3]),
            ("rev", 3, &[2, 3, 7]),
            ("rev", 5, &[2, 3, 4, 5, 7]),
            ("hello-00001", 1, &[7]),
            ("hello-00001", 2, &[4, 7]),
            ("hello-00001", 3, &[4, 6, 7]),
        ];
        for (key, n, want) in cases {
            let want: Vec<String> = want.iter().map(|i| format!("10.0.0.{i}")).collect();
            assert_eq!(choose_subset(&ips, n, key), want, "{key} {n}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_subset_has_n_distinct_members(n in 0usize..12, k in 0usize..12, key in "[a-z]{1,8}/[a-z]{1,8}") {
            let names: Vec<String> = (0..k).map(|i| format!("c{i}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let got = choose_subset(&names, n, &key);
            proptest::prop_assert_eq!(got.len(), n.min(k));
            proptest::prop_assert!(got.windows(2).all(|w| w[0] < w[1]));
        }
    }
}
