//! How a ServerlessService is (upstream `serverlessservice_lifecycle.go`).

use api::{
    conditions::{ConditionSet, Editor},
    networking::ServerlessServiceStatus,
};
use jiff::Timestamp;

const ENDPOINTS: &str = "EndpointsPopulated";
const ACTIVATOR: &str = "ActivatorEndpointsPopulated";

/// The conditions of a ServerlessService.
pub const CONDITIONS: ConditionSet = ConditionSet { dependents: &[ENDPOINTS] };

/// An object that has our child's name is somebody else's.
pub fn not_owned(status: &mut ServerlessServiceStatus, kind: &str, name: &str, now: Timestamp) {
    edit(status, now).mark_false(ENDPOINTS, "NotOwned", &format!("Resource {name} of type {kind} is not owned by SKS"));
}

/// What backs the public Service now.
pub fn backed(status: &mut ServerlessServiceStatus, has_pods: bool, by_activator: bool, now: Timestamp) {
    let mut editor = edit(status, now);
    if has_pods {
        editor.mark_true(ENDPOINTS);
    } else {
        editor.mark_unknown(ENDPOINTS, "NoHealthyBackends", "K8s Service is not ready");
    }
    // Upstream gives the same words for both; dashboards and the autoscaler look at the status alone.
    let (reason, message) = (ACTIVATOR, "Revision is backed by Activator");
    if by_activator {
        editor.mark_true_with_reason(ACTIVATOR, reason, message);
    } else {
        editor.mark_false(ACTIVATOR, reason, message);
    }
}

fn edit(status: &mut ServerlessServiceStatus, now: Timestamp) -> Editor<'_> {
    CONDITIONS.manage(&mut status.conditions, now)
}

#[cfg(test)]
mod tests {
    use api::conditions;

    use super::*;

    #[test]
    fn ready_means_pods_and_the_activator_is_told_apart() {
        for (has_pods, by_activator, ready, activator) in
            [(true, false, "True", "False"), (true, true, "True", "True"), (false, true, "Unknown", "True")]
        {
            let mut status = ServerlessServiceStatus::default();
            edit(&mut status, Timestamp::UNIX_EPOCH).initialize();
            backed(&mut status, has_pods, by_activator, Timestamp::UNIX_EPOCH);
            assert_eq!(conditions::get(&status.conditions, "Ready").unwrap().status, ready);
            let c = conditions::get(&status.conditions, ACTIVATOR).unwrap();
            assert_eq!((c.status.as_str(), c.severity.as_deref()), (activator, Some("Info")));
        }
    }
}
