//! Whether a revision is reached by its pods or by the cluster IP of its private Service. Pure.
//!
//! In a service mesh a pod may not be reachable by its own address. `enabled` says so, and only the cluster IP is used;
//! `disabled` says that it is not so. In between, `auto`, it is found out as upstream does: nobody answers, and what the
//! questions meet looks like a mesh (502, 503, silence); then the cluster IP is asked, and used if it answers.
//!
//! A pod whose app is just starting meets the same 503, and upstream, which never looks back, is bound to the cluster
//! IP by one such moment. So here only the word of pods that Kubernetes calls ready counts, asked since they are ready
//! (the cluster IP leads to no others anyway); and the pods are used again as soon as one of them answers.

use std::net::SocketAddr;

use api::settings::MeshCompatibility;

use super::pods::View;

/// When the cluster IP is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Never,
    IfPodsLookMeshed,
    Always,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Pods,
    /// The cluster IP is being asked; pods are used if there are any.
    Asking,
    ClusterIp,
}

/// What to do about the cluster IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing new.
    None,
    /// Probe it.
    Ask(SocketAddr),
    /// Stop probing it.
    Stop(SocketAddr),
}

/// One revision's way.
#[derive(Debug)]
pub struct Mesh {
    rule: Rule,
    address: Option<SocketAddr>,
    state: State,
}

impl Mesh {
    /// By its pods, at first.
    pub fn new(mode: MeshCompatibility, passthrough: bool) -> Self {
        let rule = match mode {
            // The mesh can be told to let requests through to a pod: no need to go around.
            MeshCompatibility::Auto if passthrough => Rule::Never,
            MeshCompatibility::Auto => Rule::IfPodsLookMeshed,
            MeshCompatibility::Disabled => Rule::Never,
            MeshCompatibility::Enabled => Rule::Always,
        };
        Self { rule, address: None, state: State::Pods }
    }

    /// The cluster IP that requests go to, if they do not go to pods.
    pub fn in_use(&self) -> Option<SocketAddr> {
        self.address.filter(|_| self.state == State::ClusterIp)
    }

    /// The cluster IP and its port are now these. [`Mesh::step`] must follow.
    pub fn located(&mut self, address: Option<SocketAddr>) -> Step {
        if address == self.address {
            return Step::None;
        }
        let stop = self.stop();
        self.address = address;
        stop
    }

    /// The cluster IP passed its probe; whether that was asked for.
    pub fn answered(&mut self, address: SocketAddr) -> bool {
        let asked = self.state == State::Asking && self.address == Some(address);
        if asked {
            self.state = State::ClusterIp;
        }
        asked
    }

    /// A request found nobody at the cluster IP; whether it was in use. [`Mesh::step`] must follow.
    pub fn set_aside(&mut self, address: SocketAddr) -> bool {
        let was = self.in_use() == Some(address);
        if was {
            self.state = State::Pods;
        }
        was
    }

    /// What follows from the pods as they are now.
    pub fn step(&mut self, pods: View) -> Step {
        let Some(address) = self.address else { return Step::None };
        let (wanted, doubtful) = match self.rule {
            Rule::Never => (false, false),
            Rule::Always => (pods.known > 0, false),
            Rule::IfPodsLookMeshed => {
                let nobody = pods.usable == 0 && pods.known > 0;
                let meshed = pods.all_ready_look_meshed && !pods.some_look_other;
                // A new pod that has not been asked yet is no reason to give up what works.
                (nobody && meshed, nobody && (self.state == State::ClusterIp || !pods.some_look_other))
            }
        };
        match self.state {
            State::Pods if wanted => {
                self.state = State::Asking;
                Step::Ask(address)
            }
            State::Asking | State::ClusterIp if !wanted && !doubtful => self.stop(),
            _ => Step::None,
        }
    }

    fn stop(&mut self) -> Step {
        let before = std::mem::replace(&mut self.state, State::Pods);
        match (before, self.address) {
            (State::Asking, Some(address)) => Step::Stop(address),
            _ => Step::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MeshCompatibility::{Auto, Disabled, Enabled};

    fn cluster_ip() -> SocketAddr {
        SocketAddr::from(([10, 96, 0, 1], 80))
    }

    fn mesh(mode: MeshCompatibility, passthrough: bool) -> Mesh {
        let mut mesh = Mesh::new(mode, passthrough);
        assert_eq!(mesh.located(Some(cluster_ip())), Step::None);
        mesh
    }

    fn meshed() -> View {
        View { known: 1, ready: 1, usable: 0, all_ready_look_meshed: true, some_look_other: false }
    }

    #[test]
    fn t40_auto_pods_look_meshed_and_the_cluster_ip_answers() {
        let mut mesh = mesh(Auto, false);
        assert_eq!(mesh.step(View { all_ready_look_meshed: false, ..meshed() }), Step::None, "not asked yet");
        assert_eq!(mesh.step(meshed()), Step::Ask(cluster_ip()));
        assert_eq!((mesh.step(meshed()), mesh.in_use()), (Step::None, None));
        assert!(mesh.answered(cluster_ip()));
        assert_eq!(mesh.in_use(), Some(cluster_ip()));
        // A second pod, which has not been asked.
        let second = View { known: 2, ready: 2, all_ready_look_meshed: false, ..meshed() };
        assert_eq!((mesh.step(second), mesh.in_use()), (Step::None, Some(cluster_ip())));
    }

    #[test]
    fn t41_t42_an_answer_of_no_mesh_forbids_it() {
        let mut mesh = mesh(Auto, false);
        let other = View { some_look_other: true, ..meshed() };
        assert_eq!(mesh.step(other), Step::None);
        assert_eq!(mesh.step(meshed()), Step::Ask(cluster_ip()));
        assert_eq!(mesh.step(other), Step::Stop(cluster_ip()));
        assert!(!mesh.answered(cluster_ip()), "too late");
    }

    #[test]
    fn t43_passthrough_and_t45_disabled_never_use_it() {
        for (mode, passthrough) in [(Auto, true), (Disabled, false), (Disabled, true)] {
            assert_eq!(mesh(mode, passthrough).step(meshed()), Step::None);
        }
    }

    #[test]
    fn t44_enabled_uses_nothing_else() {
        let mut mesh = mesh(Enabled, false);
        let healthy = View { known: 1, ready: 1, usable: 1, ..View::default() };
        assert_eq!(mesh.step(View::default()), Step::None, "nobody there");
        assert_eq!(mesh.step(healthy), Step::Ask(cluster_ip()));
        assert!(mesh.answered(cluster_ip()));
        assert_eq!((mesh.step(healthy), mesh.in_use()), (Step::None, Some(cluster_ip())));
        assert_eq!((mesh.step(View::default()), mesh.in_use()), (Step::None, None), "asleep again");
    }

    #[test]
    fn t51_without_a_service_there_is_no_other_way() {
        let mut mesh = Mesh::new(Auto, false);
        assert_eq!(mesh.step(meshed()), Step::None);
        mesh.located(Some(cluster_ip()));
        assert_eq!(mesh.step(meshed()), Step::Ask(cluster_ip()), "when it comes, it is asked");
        assert_eq!(mesh.located(None), Step::Stop(cluster_ip()));
        assert_eq!(mesh.step(meshed()), Step::None);
    }

    #[test]
    fn pods_are_used_again_when_one_answers() {
        let mut mesh = mesh(Auto, false);
        mesh.step(meshed());
        mesh.answered(cluster_ip());
        assert_eq!(mesh.step(View { usable: 1, ..meshed() }), Step::None);
        assert_eq!(mesh.in_use(), None);
    }

    #[test]
    fn a_cluster_ip_that_refuses_is_asked_again() {
        for mode in [Auto, Enabled] {
            let mut mesh = mesh(mode, false);
            mesh.step(meshed());
            mesh.answered(cluster_ip());
            assert!(mesh.set_aside(cluster_ip()));
            assert!(!mesh.set_aside(cluster_ip()), "once");
            assert_eq!((mesh.in_use(), mesh.step(meshed())), (None, Step::Ask(cluster_ip())));
        }
    }

    #[test]
    fn starting_pods_are_no_sign_of_a_mesh() {
        // Not ready, and so far 503: what Kubernetes calls ready is what counts.
        let starting = View { known: 3, ready: 0, usable: 0, all_ready_look_meshed: false, some_look_other: false };
        assert_eq!(mesh(Auto, false).step(starting), Step::None);
    }
}
