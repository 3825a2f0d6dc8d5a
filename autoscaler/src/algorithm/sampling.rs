//! How many and which pods to ask (upstream `pkg/autoscaler/metrics/sample_size.go`, `stats_scraper.go`).

use crate::moment::Moment;

/// How many of `pods` to ask so that the average is within the margin that upstream chose: all of three or fewer,
/// never more than sixteen.
pub fn sample_size(pods: usize) -> usize {
    // 1.96² · σ² / margin², at 95 % confidence, for an assumed variance of 100 and a margin of 5.
    const X: f64 = 1.96 * 1.96 * 100.0 / 25.0;
    if pods <= 3 {
        return pods;
    }
    let n = pods as f64;
    (n * X / (n + X - 1.0)).ceil() as usize
}

/// Order in which to ask: pods that saw at least one whole stable window first, younger ones as spares. The group
/// from which only a part is needed is shuffled so that all get their turn.
///
/// `pods` are (start, anything); returns the order and the number of answers wanted. `shuffle` permutes in place.
pub fn order<T>(pods: Vec<(Moment, T)>, old_since: Moment, mut shuffle: impl FnMut(&mut Vec<T>)) -> (Vec<T>, usize) {
    let wanted = sample_size(pods.len());
    let (old, young): (Vec<_>, Vec<_>) = pods.into_iter().partition(|(start, _)| *start <= old_since);
    let mut old: Vec<T> = old.into_iter().map(|(_, pod)| pod).collect();
    let mut young: Vec<T> = young.into_iter().map(|(_, pod)| pod).collect();
    if old.len() < wanted {
        shuffle(&mut young);
    } else {
        shuffle(&mut old);
    }
    old.append(&mut young);
    (old, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_sizes_match_upstream() {
        let table = [
            (0, 0),
            (1, 1),
            (3, 3),
            (4, 4),
            (5, 4),
            (6, 5),
            (7, 6),
            (8, 6),
            (10, 7),
            (12, 7),
            (20, 9),
            (25, 10),
            (30, 11),
            (50, 12),
            (100, 14),
            (200, 15),
            (500, 15),
            (1000, 16),
        ];
        for (pods, want) in table {
            assert_eq!(sample_size(pods), want, "{pods} pods");
        }
    }

    #[test]
    fn s53_old_pods_come_first() {
        let at = Moment::from_seconds;
        let pods = |old: usize, young: usize| -> Vec<(Moment, usize)> {
            (0..old).map(|i| (at(0), i)).chain((0..young).map(|i| (at(100), 100 + i))).collect()
        };
        let (order_few, wanted) = order(pods(5, 20), at(40), |v| v.reverse());
        assert_eq!(wanted, 10);
        assert_eq!(order_few[..5], [0, 1, 2, 3, 4]);
        assert_eq!(order_few[5], 119, "young spares are shuffled");
        let (order_many, wanted) = order(pods(25, 5), at(40), |v| v.reverse());
        assert_eq!(wanted, 11);
        assert!(order_many[..11].iter().all(|p| *p < 100));
        assert_eq!(order_many[0], 24, "old ones are shuffled");
        assert_eq!(order_many.len(), 30);
    }
}
