//! Where requests of one revision can go: its [`Pods`], or its cluster IP by the rules of [`Mesh`]. Pure: events in,
//! orders out.

use std::net::SocketAddr;

use super::mesh::{Mesh, Step};
use super::parse::Addresses;
use super::pods::{Look, Orders, Pods, Trust};

/// The backends of one revision.
#[derive(Debug)]
pub struct Backends {
    pods: Pods,
    mesh: Mesh,
}

/// What requests go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Usable {
    /// Pods; none = the revision sleeps.
    Pods(Vec<SocketAddr>),
    /// A cluster IP, with so many ready pods behind it.
    ClusterIp(SocketAddr, usize),
}

impl Backends {
    /// Nobody yet. `passthrough`: a mesh lets requests through to pods if asked.
    pub fn new(trust: Trust, passthrough: bool) -> Self {
        Self { pods: Pods::new(trust), mesh: Mesh::new(trust.mesh, passthrough) }
    }

    /// The Endpoints are now these.
    pub fn update(&mut self, addresses: &Addresses) -> Orders {
        self.change(|pods, _| pods.update(addresses))
    }

    /// A probe was answered well.
    pub fn probed(&mut self, address: SocketAddr) -> Orders {
        self.change(|pods, mesh| if mesh.answered(address) { Orders::default() } else { pods.probed(address) })
    }

    /// A probe met something else.
    pub fn asked(&mut self, address: SocketAddr, look: Look) -> Orders {
        self.change(|pods, _| {
            pods.asked(address, look);
            Orders::default()
        })
    }

    /// A request found nobody there.
    pub fn set_aside(&mut self, address: SocketAddr) -> Orders {
        self.change(|pods, mesh| if mesh.set_aside(address) { Orders::default() } else { pods.set_aside(address) })
    }

    /// The private Service's cluster IP and port are now these.
    pub fn located(&mut self, address: Option<SocketAddr>) -> Orders {
        self.change(|_, mesh| {
            let mut orders = Orders::default();
            obey(mesh.located(address), &mut orders);
            orders
        })
    }

    /// Where requests can go.
    pub fn usable(&self) -> Usable {
        match self.by_cluster_ip() {
            Some((_, 0)) => Usable::Pods(Vec::new()),
            Some((address, ready)) => Usable::ClusterIp(address, ready),
            None => Usable::Pods(self.pods.usable().collect()),
        }
    }

    /// Announced pods that cannot serve yet; none matter to a cluster IP.
    pub fn pending(&self) -> usize {
        if self.is_behind_mesh() { 0 } else { self.pods.pending() }
    }

    /// Whether requests go to the cluster IP; pods are then asked more seldom.
    pub fn is_behind_mesh(&self) -> bool {
        self.mesh.in_use().is_some()
    }

    fn by_cluster_ip(&self) -> Option<(SocketAddr, usize)> {
        self.mesh.in_use().map(|address| (address, self.pods.view().ready))
    }

    fn change(&mut self, change: impl FnOnce(&mut Pods, &mut Mesh) -> Orders) -> Orders {
        let before = self.by_cluster_ip();
        let mut orders = change(&mut self.pods, &mut self.mesh);
        obey(self.mesh.step(self.pods.view()), &mut orders);
        let now = self.by_cluster_ip();
        if let Some((address, _)) = before.filter(|(address, _)| now.is_none_or(|(now, _)| now != *address)) {
            orders.gone.push(address);
        }
        // What happens to pods does not matter while nobody goes to them.
        orders.changed = now != before || (now.is_none() && orders.changed);
        if now.is_some() != before.is_some() {
            // All in their new rhythm.
            let pods: Vec<SocketAddr> = self.pods.probing().collect();
            orders.probe.retain(|address| !pods.contains(address));
            orders.probe.extend(pods);
        }
        orders
    }
}

fn obey(step: Step, orders: &mut Orders) {
    match step {
        Step::None => {}
        Step::Ask(address) => orders.probe.push(address),
        Step::Stop(address) => orders.stop.push(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::settings::MeshCompatibility::{self, Auto, Enabled};

    fn pod(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 8012))
    }

    fn cluster_ip() -> SocketAddr {
        SocketAddr::from(([10, 96, 0, 1], 80))
    }

    fn seen(ready: &[u8], not_ready: &[u8]) -> Addresses {
        let list = |numbers: &[u8]| numbers.iter().map(|n| pod(*n)).collect();
        Addresses { ready: list(ready), not_ready: list(not_ready) }
    }

    fn backends(mesh: MeshCompatibility, passthrough: bool) -> Backends {
        let mut backends = Backends::new(Trust { early_probe: true, mesh }, passthrough);
        assert_eq!(backends.located(Some(cluster_ip())), Orders::default());
        backends
    }

    #[test]
    fn t40_by_cluster_ip_with_the_ready_pods_behind_it_and_back() {
        let mut backends = backends(Auto, false);
        assert_eq!(backends.update(&seen(&[1, 2], &[3])).probe, [pod(1), pod(2), pod(3)]);
        assert_eq!(backends.asked(pod(1), Look::Mesh), Orders::default());
        assert_eq!(backends.asked(pod(2), Look::Mesh).probe, [cluster_ip()], "all that are ready look meshed");
        let orders = backends.probed(cluster_ip());
        assert!(orders.changed && backends.is_behind_mesh());
        assert_eq!(orders.probe, [pod(1), pod(2), pod(3)], "in their new rhythm");
        assert_eq!(backends.usable(), Usable::ClusterIp(cluster_ip(), 2));
        // One more is ready: more fit behind the cluster IP.
        assert!(backends.update(&seen(&[1, 2, 3], &[])).changed);
        assert_eq!(backends.usable(), Usable::ClusterIp(cluster_ip(), 3));
        // What upstream never does: a pod answers, and is used.
        let orders = backends.probed(pod(2));
        assert_eq!((orders.changed, orders.gone), (true, vec![cluster_ip()]));
        assert_eq!(orders.probe, [pod(1), pod(3)]);
        assert_eq!(backends.usable(), Usable::Pods(vec![pod(2)]));
    }

    #[test]
    fn t41_a_pod_that_says_500_first_is_used_later() {
        let mut backends = backends(Auto, false);
        backends.update(&seen(&[1], &[]));
        assert_eq!(backends.asked(pod(1), Look::Other), Orders::default());
        assert!(backends.probed(pod(1)).changed);
        assert_eq!(backends.usable(), Usable::Pods(vec![pod(1)]));
    }

    #[test]
    fn t43_passthrough_stays_with_the_pods() {
        let mut backends = backends(Auto, true);
        backends.update(&seen(&[1], &[]));
        assert_eq!(backends.asked(pod(1), Look::Mesh), Orders::default());
    }

    #[test]
    fn t44_enabled_asks_no_pod() {
        let mut backends = backends(Enabled, false);
        assert_eq!(backends.update(&seen(&[1], &[2])).probe, [cluster_ip()]);
        backends.probed(cluster_ip());
        assert_eq!(backends.usable(), Usable::ClusterIp(cluster_ip(), 1));
        // No pod is ready any more, then none is there.
        assert!(backends.update(&seen(&[], &[1])).changed);
        assert_eq!(backends.usable(), Usable::Pods(vec![]));
        let orders = backends.update(&seen(&[], &[]));
        assert!(orders.gone.contains(&cluster_ip()), "{orders:?}");
    }

    #[test]
    fn a_cluster_ip_set_aside_is_asked_again_and_pods_stay_out() {
        let mut backends = backends(Enabled, false);
        backends.update(&seen(&[1], &[]));
        backends.probed(cluster_ip());
        let orders = backends.set_aside(cluster_ip());
        assert!(orders.changed && orders.probe.contains(&cluster_ip()), "{orders:?}");
        assert_eq!(backends.usable(), Usable::Pods(vec![]));
        assert_eq!(backends.set_aside(cluster_ip()), Orders::default());
    }

    #[test]
    fn another_cluster_ip_is_asked_before_it_is_used() {
        let mut backends = backends(Enabled, false);
        backends.update(&seen(&[1], &[]));
        backends.probed(cluster_ip());
        let other = SocketAddr::from(([10, 96, 0, 2], 80));
        let orders = backends.located(Some(other));
        assert_eq!((orders.changed, &orders.gone[..], &orders.probe[..]), (true, &[cluster_ip()][..], &[other][..]));
        backends.probed(other);
        assert_eq!(backends.usable(), Usable::ClusterIp(other, 1));
        let orders = backends.located(None);
        assert!(orders.changed && backends.usable() == Usable::Pods(vec![]));
    }
}
