//! The pods of one revision: their slots, which of them get requests, and which gets the next. Pure.
//!
//! A pod that vanishes or flickers keeps its record while it has requests, so that coming back does not reset its
//! slots. Taking and giving back a slot is O(1) but for the pick: one bit per pod with a limit, two draws without, one
//! multiplication per pod for a session.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::pick::{self, Balance, FreeSet};
use super::subset::{self, Share};
use super::target::Target;

/// The number of a pod's record. Stays while the pod has requests.
pub type PodIndex = u32;

#[derive(Debug)]
struct Pod {
    target: Arc<Target>,
    /// [`Target::hash`], beside what else a pick reads.
    hash: u64,
    in_flight: u32,
    /// Requests at once; of no meaning without a cap.
    capacity: u32,
    /// Its place among the candidates; `None`: gets no new requests.
    rank: Option<u32>,
    /// It can serve, for us or for another activator.
    usable: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Fleet {
    /// Slots per pod that the revision has; 0 = no limit.
    limit: u32,
    /// Slots per pod that are given out now: `limit`, unless the gate is closed.
    cap: u32,
    balance: Balance,
    /// By index; a hole is free for reuse.
    pods: Vec<Option<Pod>>,
    holes: Vec<PodIndex>,
    by_address: HashMap<SocketAddr, PodIndex>,
    /// Pods that can serve, in the order of [`super::target::in_order`].
    usable: Vec<PodIndex>,
    /// The part of them that is this activator's share, in the same order.
    candidates: Vec<PodIndex>,
    /// Candidates with a free slot, by rank. Unused without a cap.
    free: FreeSet,
    share: Share,
    in_flight: usize,
    random: fastrand::Rng,
}

impl Fleet {
    /// No pods yet. `seed` decides the draws of unlimited revisions.
    pub fn new(limit: u32, share: Share, seed: u64) -> Self {
        Self {
            limit,
            cap: limit,
            balance: Balance::for_limit(limit),
            pods: Vec::new(),
            holes: Vec::new(),
            by_address: HashMap::new(),
            usable: Vec::new(),
            candidates: Vec::new(),
            free: FreeSet::default(),
            share,
            in_flight: 0,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Takes a slot on a candidate: the one a session likes most if that has room, else by the balance.
    pub fn take(&mut self, affinity: Option<NonZeroU64>) -> Option<PodIndex> {
        let rank = affinity.and_then(|session| self.favourite(session)).or_else(|| self.pick())?;
        let index = *self.candidates.get(rank)?;
        let pod = self.pods.get_mut(index as usize)?.as_mut()?;
        pod.in_flight += 1;
        self.in_flight += 1;
        if self.cap > 0 && pod.in_flight >= pod.capacity {
            self.free.remove(rank);
        }
        Some(index)
    }

    /// Gives a slot back. Returns whether somebody else can have one now.
    pub fn give_back(&mut self, index: PodIndex) -> bool {
        let Some(Some(pod)) = self.pods.get_mut(index as usize) else { return false };
        debug_assert!(pod.in_flight > 0, "a slot was given back twice");
        pod.in_flight = pod.in_flight.saturating_sub(1);
        self.in_flight = self.in_flight.saturating_sub(1);
        match pod.rank {
            Some(rank) if self.cap > 0 && pod.in_flight < pod.capacity => {
                self.free.insert(rank as usize);
                return true;
            }
            None if pod.in_flight == 0 => self.forget_if_unneeded(index),
            Some(_) | None => {}
        }
        false
    }

    /// The pod of a slot: a slot pins its pod's record, so there is one.
    pub fn target(&self, index: PodIndex) -> Option<Arc<Target>> {
        self.record(index).map(|pod| Arc::clone(&pod.target))
    }

    /// Sets which pods can serve, as [`super::target::in_order`] gives them. Pods that are not among them get no new
    /// requests; those they have go on.
    pub fn set_pods(&mut self, sorted: &[Arc<Target>]) {
        for pod in self.pods.iter_mut().flatten() {
            pod.usable = false;
        }
        self.usable.clear();
        for target in sorted {
            let index = self.admit(target);
            self.usable.push(index);
        }
        self.assign();
    }

    /// Sets which part of the pods is this activator's; whether that is news.
    pub fn set_share(&mut self, share: Share) -> bool {
        let news = share != self.share;
        if news {
            self.share = share;
            self.assign();
        }
        news
    }

    /// Takes one pod out; whether it was in.
    pub fn set_aside(&mut self, address: SocketAddr) -> bool {
        let Some(&index) = self.by_address.get(&address) else { return false };
        let Some(Some(pod)) = self.pods.get_mut(index as usize) else { return false };
        if !std::mem::take(&mut pod.usable) {
            return false;
        }
        self.usable.retain(|usable| *usable != index);
        self.assign();
        true
    }

    /// Gives out at most so many slots per pod for now; `None` = as many as the revision has.
    pub fn set_cap(&mut self, cap: Option<u32>) {
        let cap = cap.unwrap_or(self.limit);
        if cap != self.cap {
            self.cap = cap;
            self.balance = Balance::for_limit(cap);
            self.assign();
        }
    }

    /// Slots that are taken.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Pods that can serve.
    pub fn usable(&self) -> usize {
        self.usable.len()
    }

    /// Whether no pod gets new requests.
    pub fn is_asleep(&self) -> bool {
        self.candidates.is_empty()
    }

    /// Whether no pod is known.
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// Pods that get new requests.
    pub fn candidates(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.candidates.iter().filter_map(|index| self.record(*index)).map(|pod| &pod.target)
    }

    /// The requests each known pod has.
    pub fn loads(&self) -> impl Iterator<Item = (SocketAddr, u32)> {
        self.pods.iter().flatten().map(|pod| (pod.target.address, pod.in_flight))
    }

    /// Makes `candidates` and `free` from `usable`, and forgets pods nobody needs. Linear in the number of pods.
    fn assign(&mut self) {
        for pod in self.pods.iter_mut().flatten() {
            pod.rank = None;
        }
        self.candidates.clear();
        if self.limit == 0 {
            self.candidates.extend_from_slice(&self.usable);
        } else {
            let mine = subset::assign(self.usable.len(), self.share);
            self.candidates.extend(mine.filter_map(|place| self.usable.get(place)));
        }
        self.free.reset(self.candidates.len());
        for (rank, index) in self.candidates.iter().enumerate() {
            if let Some(Some(pod)) = self.pods.get_mut(*index as usize) {
                pod.rank = Some(rank as u32);
                pod.capacity = match self.limit {
                    0 => self.cap,
                    limit => subset::capacity(limit, pod.target.pods(), self.share.activators),
                };
                if pod.in_flight < pod.capacity {
                    self.free.insert(rank);
                }
            }
        }
        self.balance.resized(self.candidates.len());
        for index in 0..self.pods.len() {
            self.forget_if_unneeded(index as PodIndex);
        }
    }

    fn admit(&mut self, target: &Arc<Target>) -> PodIndex {
        if let Some(&index) = self.by_address.get(&target.address) {
            if let Some(Some(pod)) = self.pods.get_mut(index as usize) {
                pod.usable = true;
                if pod.target != *target {
                    // The same address, spoken to in another way or standing for more pods.
                    pod.target = Arc::clone(target);
                }
            }
            return index;
        }
        let target = Arc::clone(target);
        let (address, hash) = (target.address, target.hash);
        let pod = Some(Pod { target, hash, in_flight: 0, capacity: self.cap, rank: None, usable: true });
        let index = if let Some(hole) = self.holes.pop() {
            self.pods[hole as usize] = pod;
            hole
        } else {
            self.pods.push(pod);
            (self.pods.len() - 1) as PodIndex
        };
        self.by_address.insert(address, index);
        index
    }

    fn forget_if_unneeded(&mut self, index: PodIndex) {
        let Some(pod) = self.record(index) else { return };
        // A usable pod outside our share keeps its record too: `usable` points to it.
        if pod.in_flight == 0 && !pod.usable {
            let address = pod.target.address;
            self.by_address.remove(&address);
            self.pods[index as usize] = None;
            self.holes.push(index);
        }
    }

    fn record(&self, index: PodIndex) -> Option<&Pod> {
        self.pods.get(index as usize)?.as_ref()
    }

    /// The rank a session likes most, if it has room.
    fn favourite(&self, session: NonZeroU64) -> Option<usize> {
        let candidates = self.candidates.iter().enumerate();
        let (rank, pod) = candidates
            .filter_map(|(rank, index)| Some((rank, self.record(*index)?)))
            .max_by_key(|(_, pod)| pick::liking(session, pod.hash))?;
        (self.cap == 0 || pod.in_flight < pod.capacity).then_some(rank)
    }

    /// A rank with room.
    fn pick(&mut self) -> Option<usize> {
        if self.cap > 0 {
            return self.balance.pick(&self.free);
        }
        let Self { pods, candidates, random, .. } = self;
        pick::least_loaded_of_two(
            candidates.len(),
            |range| random.usize(range),
            |rank| {
                let pod = candidates.get(rank).and_then(|index| pods.get(*index as usize)?.as_ref());
                pod.map_or(u32::MAX, |pod| pod.in_flight)
            },
        )
    }
}
