//! The pods of each revision, as counted and scraped (upstream `pkg/resources/pods.go`). Kept by watch events, so that
//! counting is never a search.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use api::labels::serving;
use k8s_openapi::api::core::v1::Pod;

use crate::{key::Key, moment::Moment};

/// What is kept of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    /// Pod's key.
    pub pod: Key,
    /// Revision it belongs to.
    pub revision: Key,
    /// Where it listens, once it has an address.
    pub address: Option<IpAddr>,
    /// When it started.
    pub started: Moment,
    /// What it counts as; `None` for pods that are over.
    pub phase: Option<PodPhase>,
    /// Its `controller.kubernetes.io/pod-deletion-cost`; 0 where there is none.
    pub deletion_cost: i32,
}

/// Annotation: of two pods the one with the lower number is taken away first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A ready pod, as whoever marks the idlest needs it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Candidate {
    /// Name.
    pub name: String,
    /// Where it reports.
    pub address: IpAddr,
    /// Its mark.
    pub deletion_cost: i32,
}

/// What a pod counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodPhase {
    /// Not started yet; also not ready.
    Pending,
    /// Being deleted; also not ready.
    Terminating,
    /// Running and ready.
    Ready,
    /// Running, not ready.
    NotReady,
}

impl PodView {
    /// Reads a pod; `None` if it belongs to no revision.
    pub fn of(pod: &Pod) -> Option<Self> {
        let revision = pod.metadata.labels.as_ref()?.get(serving::REVISION)?;
        let status = pod.status.as_ref();
        let ready = || {
            status
                .and_then(|s| s.conditions.as_ref())
                .is_some_and(|conditions| conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
        };
        let phase = match status.and_then(|s| s.phase.as_deref()).unwrap_or("Pending") {
            "Pending" => Some(PodPhase::Pending),
            "Running" if pod.metadata.deletion_timestamp.is_some() => Some(PodPhase::Terminating),
            "Running" if ready() => Some(PodPhase::Ready),
            "Running" => Some(PodPhase::NotReady),
            _ => None,
        };
        let started = status.and_then(|s| s.start_time.as_ref()).or(pod.metadata.creation_timestamp.as_ref());
        Some(Self {
            pod: Key::of(pod),
            revision: Key::new(pod.metadata.namespace.as_deref().unwrap_or_default(), revision),
            address: status.and_then(|s| s.pod_ip.as_deref()).and_then(|ip| ip.parse().ok()),
            started: started.map(|t| Moment::from_timestamp(t.0)).unwrap_or_default(),
            phase,
            deletion_cost: pod
                .metadata
                .annotations
                .as_ref()
                .and_then(|annotations| annotations.get(DELETION_COST)?.parse().ok())
                .unwrap_or(0),
        })
    }
}

/// Pods of one revision by what they count as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Running and ready.
    pub ready: i32,
    /// All others that are not over.
    pub not_ready: i32,
    /// Not started yet.
    pub pending: i32,
    /// Being deleted.
    pub terminating: i32,
}

/// All pods, by revision.
#[derive(Debug, Default)]
pub struct Pods {
    by_revision: HashMap<Key, BTreeMap<Key, PodView>>,
    revision_of: HashMap<Key, Key>,
}

impl Pods {
    /// Takes a pod's new state; returns the revision whose pods changed, if any did.
    pub fn apply(&mut self, view: &PodView) -> Option<Key> {
        let revision = view.revision.clone();
        if self.revision_of.get(&view.pod).is_some_and(|before| *before != revision) {
            self.remove(&view.pod);
        }
        self.revision_of.insert(view.pod.clone(), revision.clone());
        let before = self.by_revision.entry(revision.clone()).or_default().insert(view.pod.clone(), view.clone());
        (before.as_ref() != Some(view)).then_some(revision)
    }

    /// Forgets a pod; returns its revision.
    pub fn remove(&mut self, pod: &Key) -> Option<Key> {
        let revision = self.revision_of.remove(pod)?;
        if let Some(pods) = self.by_revision.get_mut(&revision) {
            pods.remove(pod);
            if pods.is_empty() {
                self.by_revision.remove(&revision);
            }
        }
        Some(revision)
    }

    /// Counts a revision's pods.
    pub fn counts(&self, revision: &Key) -> Counts {
        let mut counts = Counts::default();
        for phase in self.by_revision.get(revision).into_iter().flat_map(BTreeMap::values).filter_map(|p| p.phase) {
            match phase {
                PodPhase::Ready => counts.ready += 1,
                PodPhase::NotReady => counts.not_ready += 1,
                PodPhase::Pending => {
                    counts.pending += 1;
                    counts.not_ready += 1;
                }
                PodPhase::Terminating => {
                    counts.terminating += 1;
                    counts.not_ready += 1;
                }
            }
        }
        counts
    }

    /// Ready pods to choose from when some are to go; at most `limit`, else none: a choice among a part of them would
    /// be no choice.
    pub fn candidates(&self, revision: &Key, limit: usize) -> Vec<Candidate> {
        let pods = self.by_revision.get(revision).into_iter().flat_map(BTreeMap::values);
        let ready: Vec<Candidate> = pods
            .filter(|pod| pod.phase == Some(PodPhase::Ready))
            .filter_map(|pod| {
                let name = pod.pod.name().to_owned();
                Some(Candidate { name, address: pod.address?, deletion_cost: pod.deletion_cost })
            })
            .take(limit + 1)
            .collect();
        if ready.len() > limit { Vec::new() } else { ready }
    }

    /// Pods that are not among these, by [`Key::hashed`].
    pub fn others(&self, listed: &std::collections::HashSet<u64>) -> Vec<Key> {
        self.revision_of.keys().filter(|pod| !listed.contains(&pod.hashed())).cloned().collect()
    }

    /// Start and address of each ready pod.
    pub fn ready(&self, revision: &Key) -> Vec<(Moment, IpAddr)> {
        self.by_revision
            .get(revision)
            .into_iter()
            .flat_map(BTreeMap::values)
            .filter(|pod| pod.phase == Some(PodPhase::Ready))
            .filter_map(|pod| Some((pod.started, pod.address?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, phase: Option<PodPhase>) -> PodView {
        PodView {
            pod: Key::new("ns", name),
            revision: Key::new("ns", "rev"),
            address: Some([127, 0, 0, 1].into()),
            started: Moment::default(),
            phase,
            deletion_cost: 0,
        }
    }

    #[test]
    fn pods_count_once_in_their_present_state() {
        let revision = Key::new("ns", "rev");
        let mut pods = Pods::default();
        assert_eq!(pods.apply(&pod("a", Some(PodPhase::Pending))), Some(revision.clone()));
        assert_eq!(pods.counts(&revision), Counts { pending: 1, not_ready: 1, ..Counts::default() });
        assert_eq!(pods.apply(&pod("a", Some(PodPhase::Pending))), None, "nothing changed");
        pods.apply(&pod("a", Some(PodPhase::Ready)));
        pods.apply(&pod("b", Some(PodPhase::Terminating)));
        pods.apply(&pod("c", None));
        assert_eq!(pods.counts(&revision), Counts { ready: 1, not_ready: 1, terminating: 1, pending: 0 });
        assert_eq!(pods.ready(&revision).len(), 1);
        for name in ["a", "b", "c"] {
            assert_eq!(pods.remove(&Key::new("ns", name)), Some(revision.clone()));
        }
        assert!(pods.by_revision.is_empty() && pods.revision_of.is_empty());
    }

    #[test]
    fn s54_pods_of_another_revision_are_not_asked() {
        let mut pods = Pods::default();
        pods.apply(&pod("a", Some(PodPhase::Ready)));
        let other = PodView { revision: Key::new("ns", "other"), ..pod("b", Some(PodPhase::Ready)) };
        pods.apply(&other);
        let elsewhere = PodView {
            pod: Key::new("elsewhere", "c"),
            revision: Key::new("elsewhere", "rev"),
            ..pod("c", Some(PodPhase::Ready))
        };
        pods.apply(&elsewhere);
        assert_eq!(pods.ready(&Key::new("ns", "rev")).len(), 1);
        assert_eq!(pods.candidates(&Key::new("ns", "rev"), 9)[0].name, "a");
    }
}
