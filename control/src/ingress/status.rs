//! How an Ingress of ours is (upstream `ingress_lifecycle.go`).

use api::{
    conditions::{self, Condition, ConditionSet, READY},
    networking::{Ingress, IngressStatus, LoadBalancerIngress, LoadBalancerStatus},
};
use jiff::Timestamp;

const NETWORK_CONFIGURED: &str = "NetworkConfigured";
const LOAD_BALANCER_READY: &str = "LoadBalancerReady";

/// The conditions of an Ingress.
pub const CONDITIONS: ConditionSet = ConditionSet { dependents: &[NETWORK_CONFIGURED, LOAD_BALANCER_READY] };

/// This generation is served.
pub fn is_ready(ingress: &Ingress) -> bool {
    said(ingress).is_some_and(Condition::is_true)
}

/// What is said of it being ready, if that is of this generation.
pub fn said(ingress: &Ingress) -> Option<&Condition> {
    let current = ingress.status.as_ref().filter(|s| s.observed_generation == ingress.metadata.generation)?;
    conditions::get(&current.conditions, READY)
}

/// Every gateway serves it; inside the cluster under this host.
pub fn served(status: &mut IngressStatus, gateway: String, now: Timestamp) {
    let balancer = LoadBalancerStatus {
        ingress: vec![LoadBalancerIngress { domain_internal: Some(gateway), ..LoadBalancerIngress::default() }],
    };
    status.public_load_balancer = Some(balancer.clone());
    status.private_load_balancer = Some(balancer);
    CONDITIONS.manage(&mut status.conditions, now).mark_true(NETWORK_CONFIGURED).mark_true(LOAD_BALANCER_READY);
}

/// Some gateway does not serve it yet.
pub fn not_served(status: &mut IngressStatus, now: Timestamp) {
    let mut editor = CONDITIONS.manage(&mut status.conditions, now);
    editor.mark_true(NETWORK_CONFIGURED);
    editor.mark_unknown(LOAD_BALANCER_READY, "Uninitialized", "Waiting for load balancer to be ready");
}
