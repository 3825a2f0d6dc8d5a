//! How a Service is, from how its Configuration and Route are (upstream `service_lifecycle.go`).

use api::{
    conditions::{self, ConditionSet, Editor, READY},
    serving::{Configuration, Route, ServiceStatus},
};
use jiff::Timestamp;
use kube::ResourceExt;

use crate::owner::not_owned_message;

const CONFIGURATIONS_READY: &str = "ConfigurationsReady";
const ROUTES_READY: &str = "RoutesReady";

/// The conditions of a Service.
pub const CONDITIONS: ConditionSet = ConditionSet { dependents: &[CONFIGURATIONS_READY, ROUTES_READY] };

/// Somebody else's Configuration has our name.
pub fn configuration_not_owned(status: &mut ServiceStatus, name: &str, now: Timestamp) {
    edit(status, now).mark_false(CONFIGURATIONS_READY, "NotOwned", &not_owned_message("Configuration", name));
}

/// Somebody else's Route has our name.
pub fn route_not_owned(status: &mut ServiceStatus, name: &str, now: Timestamp) {
    edit(status, now).mark_false(ROUTES_READY, "NotOwned", &not_owned_message("Route", name));
}

/// Configuration and Route are the user's (see [`crate::v1alpha1::is_manual`]): what they are like is not known.
pub fn manual(status: &mut ServiceStatus, now: Timestamp) {
    let message = "Service is set to Manual, and is not managing underlying resources.";
    (status.latest_created_revision_name, status.latest_ready_revision_name) = (None, None);
    status.traffic.clear();
    for condition in [CONFIGURATIONS_READY, ROUTES_READY] {
        edit(status, now).mark_unknown(condition, "Manual", message);
    }
}

/// The name that the template asks for is another Revision's.
pub fn revision_name_taken(status: &mut ServiceStatus, name: &str, now: Timestamp) {
    let message =
        format!("The revision name {name:?} is taken by a conflicting Revision, so traffic will not be migrated");
    edit(status, now).mark_false(ROUTES_READY, "RevisionNameTaken", &message);
}

/// Takes over what the Configuration says; false when it has not looked at its newest generation yet.
pub fn propagate_configuration(status: &mut ServiceStatus, configuration: &Configuration, now: Timestamp) -> bool {
    let observed = configuration.status.as_ref().and_then(|s| s.observed_generation);
    let Some(from) = configuration.status.as_ref().filter(|_| observed == configuration.metadata.generation) else {
        let message = "The Configuration is still working to reflect the latest desired specification.";
        edit(status, now).mark_unknown(CONFIGURATIONS_READY, "OutOfDate", message);
        return false;
    };
    status.latest_created_revision_name.clone_from(&from.latest_created_revision_name);
    status.latest_ready_revision_name.clone_from(&from.latest_ready_revision_name);
    carry_over(status, CONFIGURATIONS_READY, &from.conditions, now);
    true
}

/// Takes over what the Route says.
pub fn propagate_route(status: &mut ServiceStatus, route: &Route, now: Timestamp) {
    let observed = route.status.as_ref().and_then(|s| s.observed_generation);
    let Some(from) = route.status.as_ref().filter(|_| observed == route.metadata.generation) else {
        let message = "The Route is still working to reflect the latest desired specification.";
        edit(status, now).mark_unknown(ROUTES_READY, "OutOfDate", message);
        return;
    };
    status.url.clone_from(&from.url);
    status.address.clone_from(&from.address);
    status.traffic.clone_from(&from.traffic);
    carry_over(status, ROUTES_READY, &from.conditions, now);
}

/// A ready Route may still serve the Revision before: then the Service is not ready yet.
pub fn check_migrated(status: &mut ServiceStatus, configuration: &Configuration, route: &Route, now: Timestamp) {
    if !conditions::is_true(&status.conditions, ROUTES_READY) {
        return;
    }
    let latest_ready = configuration.status.as_ref().and_then(|s| s.latest_ready_revision_name.clone());
    let got = route.status.as_ref().map(|s| s.traffic.as_slice()).unwrap_or_default();
    let migrated = got.len() == route.spec.traffic.len()
        && route.spec.traffic.iter().zip(got).all(|(want, got)| {
            let mut want = want.clone();
            if want.configuration_name.as_deref() == Some(&configuration.name_any()) {
                want.revision_name.clone_from(&latest_ready);
                want.configuration_name = None;
            }
            // Where it is and whether it floats are not what moves traffic.
            want.url.clone_from(&got.url);
            want.latest_revision = got.latest_revision;
            want == *got
        });
    if !migrated {
        let message = "Traffic is not yet migrated to the latest revision.";
        edit(status, now).mark_unknown(ROUTES_READY, "TrafficNotMigrated", message);
    }
}

fn edit(status: &mut ServiceStatus, now: Timestamp) -> Editor<'_> {
    CONDITIONS.manage(&mut status.conditions, now)
}

fn carry_over(status: &mut ServiceStatus, to: &str, from: &[conditions::Condition], now: Timestamp) {
    if let Some(ready) = conditions::get(from, READY) {
        edit(status, now).follow(to, ready);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn configuration(generation: i64, observed: i64, ready: &str) -> Configuration {
        serde_json::from_value(json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Configuration",
            "metadata": {"name": "hello", "generation": generation},
            "spec": {},
            "status": {
                "observedGeneration": observed, "latestCreatedRevisionName": "hello-00002",
                "latestReadyRevisionName": "hello-00002",
                "conditions": [{"type": "Ready", "status": ready, "reason": "R", "message": "M"}],
            },
        }))
        .unwrap()
    }

    #[allow(clippy::needless_pass_by_value)] // reads best with literals
    fn route(traffic: serde_json::Value) -> Route {
        serde_json::from_value(json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Route",
            "metadata": {"name": "hello", "generation": 1},
            "spec": {"traffic": [{"configurationName": "hello", "latestRevision": true, "percent": 100}]},
            "status": {
                "observedGeneration": 1, "url": "http://hello.ns.example.com", "traffic": traffic,
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }))
        .unwrap()
    }

    fn at() -> Timestamp {
        Timestamp::from_second(1).unwrap()
    }

    fn condition(status: &ServiceStatus, type_: &str) -> (String, String) {
        let c = conditions::get(&status.conditions, type_).unwrap();
        (c.status.clone(), c.reason.clone().unwrap_or_default())
    }

    #[test]
    fn ready_when_both_are_and_traffic_moved() {
        let mut status = ServiceStatus::default();
        CONDITIONS.manage(&mut status.conditions, at()).initialize();
        let configuration = configuration(1, 1, "True");
        assert!(propagate_configuration(&mut status, &configuration, at()));
        let moved = route(json!([{"revisionName": "hello-00002", "latestRevision": true, "percent": 100}]));
        propagate_route(&mut status, &moved, at());
        check_migrated(&mut status, &configuration, &moved, at());
        assert_eq!(condition(&status, "Ready").0, "True");
        assert_eq!(status.url.as_deref(), Some("http://hello.ns.example.com"));
        assert_eq!(status.latest_ready_revision_name.as_deref(), Some("hello-00002"));
    }

    #[test]
    fn what_is_done_by_hand_is_not_known() {
        let mut status = ServiceStatus { url: Some("http://x".into()), ..ServiceStatus::default() };
        status.latest_ready_revision_name = Some("x-00001".into());
        CONDITIONS.manage(&mut status.conditions, at()).initialize();
        manual(&mut status, at());
        assert_eq!(condition(&status, "Ready"), ("Unknown".into(), "Manual".into()));
        assert_eq!((status.latest_ready_revision_name, status.url.as_deref()), (None, Some("http://x")));
    }

    #[test]
    fn a_ready_route_on_the_old_revision_is_not_yet_ready() {
        let mut status = ServiceStatus::default();
        CONDITIONS.manage(&mut status.conditions, at()).initialize();
        let configuration = configuration(1, 1, "True");
        propagate_configuration(&mut status, &configuration, at());
        let old = route(json!([{"revisionName": "hello-00001", "latestRevision": true, "percent": 100}]));
        propagate_route(&mut status, &old, at());
        check_migrated(&mut status, &configuration, &old, at());
        assert_eq!(condition(&status, "Ready"), ("Unknown".into(), "TrafficNotMigrated".into()));
    }

    #[test]
    fn an_older_generation_of_the_configuration_says_nothing() {
        let mut status = ServiceStatus::default();
        CONDITIONS.manage(&mut status.conditions, at()).initialize();
        assert!(!propagate_configuration(&mut status, &configuration(2, 1, "True"), at()));
        assert_eq!(condition(&status, CONFIGURATIONS_READY), ("Unknown".into(), "OutOfDate".into()));
        assert_eq!(status.latest_created_revision_name, None);
    }

    #[test]
    fn failure_of_the_configuration_is_the_services() {
        let mut status = ServiceStatus::default();
        CONDITIONS.manage(&mut status.conditions, at()).initialize();
        propagate_configuration(&mut status, &configuration(1, 1, "False"), at());
        assert_eq!(condition(&status, "Ready"), ("False".into(), "R".into()));
        configuration_not_owned(&mut status, "hello", at());
        let c = conditions::get(&status.conditions, CONFIGURATIONS_READY).unwrap();
        assert_eq!(c.message.as_deref(), Some(r#"There is an existing Configuration "hello" that we do not own."#));
    }
}
