//! Asking pods through their Service, where a mesh keeps strangers from the pods themselves (upstream
//! `pkg/autoscaler/metrics/stats_scraper.go`, service mode). Which pod answers is the mesh's choice, so the same one may
//! answer twice; workers ask until they have met enough different ones.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use api::{settings::MeshCompatibility, stat::Stat};
use futures::stream::{FuturesUnordered, StreamExt};

/// Tries of one worker.
const TRIES: usize = 10;
/// How long it is remembered that pods of a revision cannot be asked directly.
const STICKY: Duration = Duration::from_secs(600);
/// Revisions of which that is remembered.
const MOST_STICKY: usize = 65_536;

/// How pods are reached (`config-network`, read once).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// `mesh-compatibility-mode`.
    pub mesh: MeshCompatibility,
    /// `enable-mesh-pod-addressability`: a mesh that lets pods be asked by address, if the request says so.
    pub addressable: bool,
}

impl Default for Reach {
    fn default() -> Self {
        Self { mesh: MeshCompatibility::Auto, addressable: false }
    }
}

/// What to try first, and whether the other way is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The pods; nothing else.
    Direct,
    /// The pods; the Service if they are out of reach.
    DirectFirst,
    /// The Service; nothing else.
    Service,
}

impl Reach {
    /// For a revision whose pods were found out of reach lately, or not.
    pub fn way(self, sticky: bool) -> Way {
        match self.mesh {
            MeshCompatibility::Enabled => Way::Service,
            MeshCompatibility::Disabled => Way::Direct,
            MeshCompatibility::Auto if self.addressable => Way::Direct,
            MeshCompatibility::Auto if sticky => Way::Service,
            MeshCompatibility::Auto => Way::DirectFirst,
        }
    }
}

/// Revisions whose pods were out of reach while their Service answered.
#[derive(Debug, Default)]
pub struct OutOfReach(HashMap<u64, Instant>);

impl OutOfReach {
    /// Whether it was so lately.
    pub fn has(&mut self, revision: u64, now: Instant) -> bool {
        let since = self.0.get(&revision).map(|at| now.saturating_duration_since(*at));
        if since.is_some_and(|since| since >= STICKY) {
            self.0.remove(&revision);
            return false;
        }
        since.is_some()
    }

    /// It is so now.
    pub fn add(&mut self, revision: u64, now: Instant) {
        if self.0.len() >= MOST_STICKY {
            self.0.retain(|_, at| now.saturating_duration_since(*at) < STICKY);
        }
        if self.0.len() < MOST_STICKY {
            self.0.insert(revision, now);
        }
    }
}

/// What all workers have met.
#[derive(Default)]
struct Met {
    old: Vec<Stat>,
    spare: Vec<Stat>,
    seen: HashSet<String>,
}

/// Reports of `sample` different pods, through `ask`, which asks whichever pod the mesh chooses. Pods that have been up
/// for `old_enough` are wanted; younger ones are spares. `None`: too few were met.
pub async fn meet<E, F>(ask: impl Fn() -> F, sample: usize, old_enough: Duration) -> Option<Vec<Stat>>
where
    F: Future<Output = Result<Stat, E>>,
{
    let met = Mutex::new(Met::default());
    let worker = || async {
        for _ in 0..TRIES {
            let Ok(stat) = ask().await else { continue };
            let mut met = met.lock().unwrap_or_else(PoisonError::into_inner);
            if !met.seen.insert(stat.pod_name.clone()) {
                continue;
            }
            if stat.process_uptime >= old_enough.as_secs_f64() {
                met.old.push(stat);
                return;
            }
            if met.spare.len() == sample {
                return;
            }
            met.spare.push(stat);
        }
    };
    let mut workers: FuturesUnordered<_> = (0..sample).map(|_| worker()).collect();
    while workers.next().await.is_some() {}
    drop(workers);
    let Met { old: mut met, spare, .. } = met.into_inner().unwrap_or_else(PoisonError::into_inner);
    met.extend(spare);
    (met.len() >= sample).then(|| {
        met.truncate(sample);
        met
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn stat(pod: usize, load: f64, uptime: f64) -> Stat {
        Stat {
            pod_name: format!("pod-{pod}"),
            average_concurrent_requests: load,
            process_uptime: uptime,
            ..Stat::default()
        }
    }

    /// Pods answer in turn, as a mesh's round robin would have it; the last one again and again.
    async fn of(answers: Vec<Result<Stat, ()>>, sample: usize) -> Option<f64> {
        let next = RefCell::new(answers.into_iter());
        let last = RefCell::new(Err(()));
        let ask = || {
            let answer = next.borrow_mut().next().unwrap_or_else(|| last.borrow().clone());
            *last.borrow_mut() = answer.clone();
            async { answer }
        };
        let met = meet(ask, sample, WINDOW).await?;
        Some(met.iter().map(|stat| stat.average_concurrent_requests).sum())
    }

    #[tokio::test]
    async fn s51_young_pods_count_where_there_are_no_old_ones() {
        let young = [2.0, 4.0, 6.0, 8.0].iter().enumerate().map(|(nth, load)| Ok(stat(nth, *load, 30.0)));
        assert_eq!(of(young.collect(), 4).await, Some(20.0));
        let old = (0..6).map(|nth| Ok(stat(nth, 4.0, 100.0)));
        assert_eq!(of(old.collect(), 5).await.map(|sum| sum / 5.0 * 6.0), Some(24.0));
        let mixed = (0..11).map(|nth| Ok(stat(nth, nth as f64, 30.0 + 7.5 * nth as f64)));
        assert_eq!(of(mixed.collect(), 7).await, Some((4..11).map(f64::from).sum()), "the seven that are old enough");
    }

    #[tokio::test]
    async fn s52_the_same_pod_twice_is_no_second_pod() {
        assert_eq!(of(vec![Ok(stat(0, 1.0, 100.0))], 2).await, None);
        assert_eq!(of(vec![Err(())], 1).await, None, "nobody answers");
        let late: Vec<_> = (0..9).map(|_| Err(())).chain([Ok(stat(0, 3.0, 100.0))]).collect();
        assert_eq!(of(late, 1).await, Some(3.0), "the tenth try counts");
    }

    #[test]
    fn s50_ways() {
        use MeshCompatibility::{Auto, Disabled, Enabled};
        let reach = |mesh, addressable| Reach { mesh, addressable };
        for (mesh, addressable, sticky, way) in [
            (Auto, false, false, Way::DirectFirst),
            (Auto, false, true, Way::Service),
            (Auto, true, true, Way::Direct),
            (Enabled, false, false, Way::Service),
            (Disabled, false, true, Way::Direct),
        ] {
            assert_eq!(reach(mesh, addressable).way(sticky), way, "{mesh:?} {addressable} {sticky}");
        }
        let (mut memory, now) = (OutOfReach::default(), Instant::now());
        memory.add(7, now);
        assert!(memory.has(7, now + STICKY / 2) && !memory.has(8, now));
        assert!(!memory.has(7, now + STICKY), "asked directly again after a while");
    }
}
