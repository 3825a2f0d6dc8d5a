//! Which pods of a revision are probed, and which can serve. Pure: events in, orders out.
//!
//! A pod can serve once its queue-proxy has answered a probe. Each pod stands alone: a silent one delays nobody. What the
//! questions met is remembered, for [`super::mesh`] to judge.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use api::settings::MeshCompatibility;

use super::parse::Addresses;

/// How far Kubernetes' own word is taken, and whether pods are asked at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trust {
    /// A pod that answers a probe is used before Kubernetes calls it ready.
    pub early_probe: bool,
    /// `disabled`: a pod that Kubernetes calls ready is used without a probe. `enabled`: no pod is asked or used.
    pub mesh: MeshCompatibility,
}

/// What a question met that was not the good answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// What stands before pods of a mesh says so: 502, 503, or no answer at all.
    Mesh,
    /// An answer that no mesh gives by itself.
    Other,
}

/// A revision's pods, as far as [`super::mesh`] needs to know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct View {
    /// Pods there are.
    pub known: usize,
    /// Those that Kubernetes calls ready.
    pub ready: usize,
    /// Those that can serve.
    pub usable: usize,
    /// All ready pods have been asked since they are ready, and what they met looks like a mesh.
    pub all_ready_look_meshed: bool,
    /// Some pod's last answer was none of a mesh.
    pub some_look_other: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Kubernetes must call it ready first.
    Waiting,
    /// A probe is under way.
    Probing,
    /// It can serve.
    Usable,
}

#[derive(Debug, Clone, Copy)]
struct Pod {
    ready: bool,
    state: State,
    /// What its probe met since it was started; `None` = nothing yet.
    look: Option<Look>,
}

/// What to do after an event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Start to probe these.
    pub probe: Vec<SocketAddr>,
    /// Stop probing these.
    pub stop: Vec<SocketAddr>,
    /// The set of usable pods is another one.
    pub changed: bool,
    /// These are no longer pods of this revision.
    pub gone: Vec<SocketAddr>,
}

/// The pods of one revision.
#[derive(Debug)]
pub struct Pods {
    pods: BTreeMap<SocketAddr, Pod>,
    trust: Trust,
}

impl Pods {
    /// No pods yet.
    pub fn new(trust: Trust) -> Self {
        Self { pods: BTreeMap::new(), trust }
    }

    /// The Endpoints are now these. An address in both lists is taken as ready.
    pub fn update(&mut self, addresses: &Addresses) -> Orders {
        let mut orders = Orders::default();
        let mut now: BTreeMap<SocketAddr, bool> = addresses.not_ready.iter().map(|address| (*address, false)).collect();
        now.extend(addresses.ready.iter().map(|address| (*address, true)));
        self.pods.retain(|address, pod| {
            let stays = now.contains_key(address);
            if !stays {
                orders.gone.push(*address);
                match pod.state {
                    State::Usable => orders.changed = true,
                    State::Probing => orders.stop.push(*address),
                    State::Waiting => {}
                }
            }
            stays
        });
        for (address, ready) in now {
            let before = self.pods.get(&address).copied();
            let state = self.next_state(before, ready);
            let mut look = before.and_then(|pod| pod.look);
            match (before.map(|pod| pod.state), state) {
                // Kubernetes calls it ready now: asked anew, for whoever does not hold the question answers at once,
                // and what was met before says nothing any more.
                (Some(State::Probing), State::Probing) if ready && before.is_some_and(|pod| !pod.ready) => {
                    orders.probe.push(address);
                    look = None;
                }
                (Some(old), new) if old == new => {}
                (old, State::Usable) => {
                    orders.changed = true;
                    if old == Some(State::Probing) {
                        orders.stop.push(address);
                    }
                }
                (old, State::Probing) => {
                    orders.changed |= old == Some(State::Usable);
                    orders.probe.push(address);
                    look = None;
                }
                (old, State::Waiting) => {
                    orders.changed |= old == Some(State::Usable);
                    if old == Some(State::Probing) {
                        orders.stop.push(address);
                    }
                }
            }
            self.pods.insert(address, Pod { ready, state, look });
        }
        orders
    }

    /// A probe was answered well.
    pub fn probed(&mut self, address: SocketAddr) -> Orders {
        match self.pods.get_mut(&address) {
            Some(pod) if pod.state == State::Probing => {
                (pod.state, pod.look) = (State::Usable, None);
                Orders { changed: true, ..Orders::default() }
            }
            _ => Orders::default(),
        }
    }

    /// A probe met something else than the good answer.
    pub fn asked(&mut self, address: SocketAddr, look: Look) {
        if let Some(pod) = self.pods.get_mut(&address).filter(|pod| pod.state == State::Probing) {
            pod.look = Some(look);
        }
    }

    /// The pods being probed.
    pub fn probing(&self) -> impl Iterator<Item = SocketAddr> {
        self.pods.iter().filter(|(_, pod)| pod.state == State::Probing).map(|(address, _)| *address)
    }

    /// See [`View`].
    pub fn view(&self) -> View {
        let mut view = View { known: self.pods.len(), all_ready_look_meshed: true, ..View::default() };
        for pod in self.pods.values() {
            view.usable += usize::from(pod.state == State::Usable);
            view.some_look_other |= pod.look == Some(Look::Other);
            if pod.ready {
                view.ready += 1;
                view.all_ready_look_meshed &= pod.look == Some(Look::Mesh);
            }
        }
        view.all_ready_look_meshed &= view.ready > 0;
        view
    }

    /// A request found nobody there: out until a probe is answered again.
    pub fn set_aside(&mut self, address: SocketAddr) -> Orders {
        match self.pods.get_mut(&address) {
            Some(pod) if pod.state == State::Usable => {
                pod.state = State::Probing;
                Orders { changed: true, probe: vec![address], ..Orders::default() }
            }
            _ => Orders::default(),
        }
    }

    /// The pods that can serve.
    pub fn usable(&self) -> impl Iterator<Item = SocketAddr> {
        self.pods.iter().filter(|(_, pod)| pod.state == State::Usable).map(|(address, _)| *address)
    }

    /// Pods that cannot serve yet.
    pub fn pending(&self) -> usize {
        self.pods.values().filter(|pod| pod.state != State::Usable).count()
    }

    fn next_state(&self, before: Option<Pod>, ready: bool) -> State {
        let Some(before) = before else { return self.first_state(ready) };
        match (before.ready, ready) {
            // It was ready and is not: what it said before no longer counts.
            (true, false) => self.first_state(false),
            (false, true) if before.state != State::Usable => self.first_state(true),
            _ => before.state,
        }
    }

    fn first_state(&self, ready: bool) -> State {
        match (self.trust.mesh, ready) {
            (MeshCompatibility::Enabled, _) => State::Waiting,
            (MeshCompatibility::Disabled, true) => State::Usable,
            (MeshCompatibility::Auto, true) => State::Probing,
            (_, false) if self.trust.early_probe => State::Probing,
            (_, false) => State::Waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use MeshCompatibility::{Auto, Disabled};

    const AUTO: Trust = Trust { early_probe: true, mesh: Auto };

    fn address(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 8012))
    }

    fn seen(ready: &[u8], not_ready: &[u8]) -> Addresses {
        let list = |numbers: &[u8]| numbers.iter().map(|n| address(*n)).collect();
        Addresses { ready: list(ready), not_ready: list(not_ready) }
    }

    fn usable(pods: &Pods) -> Vec<SocketAddr> {
        pods.usable().collect()
    }

    #[test]
    fn t37_a_not_ready_pod_that_answers_is_used() {
        let mut pods = Pods::new(AUTO);
        assert_eq!(pods.update(&seen(&[], &[1])).probe, [address(1)]);
        assert!(usable(&pods).is_empty());
        assert!(pods.probed(address(1)).changed);
        assert_eq!(usable(&pods), [address(1)]);
        // Becoming ready later changes nothing.
        assert_eq!(pods.update(&seen(&[1], &[])), Orders::default());
    }

    #[test]
    fn t39_each_pod_stands_alone() {
        let mut pods = Pods::new(AUTO);
        assert_eq!(pods.update(&seen(&[1], &[2])).probe, [address(1), address(2)]);
        assert_eq!(pods.pending(), 2);
        pods.probed(address(2));
        assert_eq!((usable(&pods), pods.pending()), (vec![address(2)], 1));
        pods.probed(address(1));
        assert_eq!(usable(&pods), [address(1), address(2)]);
    }

    #[test]
    fn t45_disabled_takes_kubernetes_word() {
        let mut pods = Pods::new(Trust { early_probe: true, mesh: Disabled });
        let orders = pods.update(&seen(&[1], &[2]));
        assert_eq!(orders, Orders { probe: vec![address(2)], changed: true, ..Orders::default() });
        assert_eq!(usable(&pods), [address(1)]);
        // The pod being probed turns ready: the probe is not needed any more.
        let orders = pods.update(&seen(&[1, 2], &[]));
        assert_eq!(orders, Orders { stop: vec![address(2)], changed: true, ..Orders::default() });
    }

    #[test]
    fn t46_t49_t52_same_again_is_no_news_and_gone_is() {
        let mut pods = Pods::new(AUTO);
        pods.update(&seen(&[1], &[2]));
        pods.probed(address(1));
        assert_eq!(pods.update(&seen(&[1], &[2])), Orders::default());
        let orders = pods.update(&seen(&[], &[]));
        assert_eq!(
            orders,
            Orders { stop: vec![address(2)], changed: true, gone: vec![address(1), address(2)], ..Orders::default() }
        );
        assert!(usable(&pods).is_empty());
        assert_eq!(pods.probed(address(1)), Orders::default(), "a late answer of a pod that is gone");
    }

    #[test]
    fn t47_with_an_exec_probe_kubernetes_must_agree() {
        let mut pods = Pods::new(Trust { early_probe: false, mesh: Auto });
        assert_eq!(pods.update(&seen(&[], &[1])), Orders::default());
        assert_eq!(pods.update(&seen(&[1], &[])).probe, [address(1)]);
        assert!(pods.probed(address(1)).changed);
        // Not ready again: out, and not probed.
        assert_eq!(pods.update(&seen(&[], &[1])), Orders { changed: true, ..Orders::default() });
    }

    #[test]
    fn t48_ready_to_not_ready_is_probed_again() {
        let mut pods = Pods::new(AUTO);
        pods.update(&seen(&[1], &[]));
        pods.probed(address(1));
        let orders = pods.update(&seen(&[], &[1]));
        assert_eq!(orders, Orders { probe: vec![address(1)], changed: true, ..Orders::default() });
        assert!(usable(&pods).is_empty());
    }

    #[test]
    fn a_pod_that_refused_comes_back_after_a_probe() {
        let mut pods = Pods::new(AUTO);
        pods.update(&seen(&[1], &[]));
        pods.probed(address(1));
        assert_eq!(pods.set_aside(address(1)).probe, [address(1)]);
        assert_eq!(pods.set_aside(address(1)), Orders::default(), "two requests report it, one probe starts");
        assert!(usable(&pods).is_empty());
        assert!(pods.probed(address(1)).changed);
    }

    #[test]
    fn t52_who_is_probed() {
        for (trust, probed, usable_at_once) in [
            (AUTO, &[1, 2][..], &[][..]),
            (Trust { early_probe: true, mesh: Disabled }, &[2], &[1]),
            (Trust { early_probe: false, mesh: Disabled }, &[], &[1]),
            (Trust { early_probe: true, mesh: MeshCompatibility::Enabled }, &[], &[]),
            // Upstream asks the one that is not ready too, to no use.
            (Trust { early_probe: false, mesh: Auto }, &[1], &[]),
        ] {
            let mut pods = Pods::new(trust);
            let addresses = |numbers: &[u8]| numbers.iter().map(|n| address(*n)).collect::<Vec<_>>();
            assert_eq!(pods.update(&seen(&[1], &[2])).probe, addresses(probed), "{trust:?}");
            assert_eq!(usable(&pods), addresses(usable_at_once), "{trust:?}");
        }
    }

    #[test]
    fn a_pod_that_turns_ready_is_asked_anew() {
        let mut pods = Pods::new(AUTO);
        pods.update(&seen(&[], &[1]));
        pods.asked(address(1), Look::Mesh);
        assert_eq!(pods.update(&seen(&[1], &[])).probe, [address(1)]);
        assert!(!pods.view().all_ready_look_meshed, "it was not ready when it met that");
        assert_eq!(pods.update(&seen(&[1], &[])), Orders::default());
        pods.asked(address(1), Look::Mesh);
        assert!(pods.view().all_ready_look_meshed);
    }
}
