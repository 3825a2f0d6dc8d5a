//! How a Route is (upstream `route_lifecycle.go`).

use api::{
    conditions::{ConditionSet, Editor},
    networking::Ingress,
    serving::{RouteStatus, TrafficTarget},
};
use jiff::Timestamp;

use super::{domains::InvalidDomain, traffic::BadTarget};
use crate::certificate::status::{PROVISIONED, Verdict, not_ours};

const ALL_TRAFFIC_ASSIGNED: &str = "AllTrafficAssigned";
/// The Ingress serves this generation.
pub const INGRESS_READY: &str = "IngressReady";

/// The conditions of a Route.
pub const CONDITIONS: ConditionSet = ConditionSet { dependents: &[ALL_TRAFFIC_ASSIGNED, INGRESS_READY, PROVISIONED] };

/// The Ingress does not yet say anything of this generation.
pub fn ingress_not_configured(status: &mut RouteStatus, now: Timestamp) {
    edit(status, now).mark_unknown(INGRESS_READY, "IngressNotConfigured", "Ingress has not yet been reconciled.");
}

/// A placeholder Service of our name is somebody else's.
pub fn service_not_owned(status: &mut RouteStatus, name: &str, now: Timestamp) {
    let message = format!("There is an existing placeholder Service {name:?} that we do not own.");
    edit(status, now).mark_false(INGRESS_READY, "NotOwned", &message);
}

/// A placeholder's Endpoints are somebody else's.
pub fn endpoints_not_owned(status: &mut RouteStatus, name: &str, now: Timestamp) {
    let message = format!("There is an existing placeholder Endpoint {name:?} that we do not own.");
    edit(status, now).mark_false(INGRESS_READY, "NotOwned", &message);
}

/// A template made no DNS name of this Route.
pub fn invalid_domain(status: &mut RouteStatus, error: &InvalidDomain, now: Timestamp) {
    edit(status, now).mark_false(ALL_TRAFFIC_ASSIGNED, "ErrorConfig", &error.to_string());
}

/// Some target cannot serve.
pub fn bad_target(status: &mut RouteStatus, target: &BadTarget, now: Timestamp) {
    let (failed, reason, message) = match target {
        BadTarget::Missing { kind, name } => {
            (true, format!("{kind}Missing"), format!("{kind} {name:?} referenced in traffic not found."))
        }
        BadTarget::Configuration { name, failed: true } => {
            (true, revision_missing(), format!("Configuration {name:?} does not have any ready Revision."))
        }
        BadTarget::Configuration { name, failed: false } => {
            (false, revision_missing(), format!("Configuration {name:?} is waiting for a Revision to become ready."))
        }
        BadTarget::Revision { name, failed: true } => {
            (true, revision_missing(), format!("Revision {name:?} failed to become ready."))
        }
        BadTarget::Revision { name, failed: false } => {
            (false, revision_missing(), format!("Revision {name:?} is not yet ready."))
        }
        BadTarget::NotOwned { name, expected, actual } if actual.is_empty() => {
            (true, not_owned(), format!("Revision {name:?} does not belong to Service {expected:?}."))
        }
        BadTarget::NotOwned { name, expected, actual } => {
            (true, not_owned(), format!("Revision {name:?} belongs to Service {actual:?}, not Service {expected:?}."))
        }
    };
    let mut editor = edit(status, now);
    if failed {
        editor.mark_false(ALL_TRAFFIC_ASSIGNED, &reason, &message);
    } else {
        editor.mark_unknown(ALL_TRAFFIC_ASSIGNED, &reason, &message);
    }
}

fn revision_missing() -> String {
    "RevisionMissing".to_owned()
}

fn not_owned() -> String {
    "RevisionNotOwned".to_owned()
}

/// Every target can serve.
pub fn traffic_assigned(status: &mut RouteStatus, traffic: Vec<TrafficTarget>, now: Timestamp) {
    status.traffic = traffic;
    edit(status, now).mark_true(ALL_TRAFFIC_ASSIGNED);
}

/// No certificates are asked for.
pub fn tls_not_enabled(status: &mut RouteStatus, message: &str, now: Timestamp) {
    edit(status, now).mark_true_with_reason(PROVISIONED, "TLSNotEnabled", message);
}

/// How the Route is by its worst certificate, which has this name and says this reason.
pub fn certificate(status: &mut RouteStatus, verdict: Verdict, name: &str, reason: &str, now: Timestamp) {
    let awaited = format!("Certificate {name} is not ready: {reason}");
    let failed = format!("Certificate {name} fails to be provisioned: {reason}");
    verdict.mark(&mut edit(status, now), name, &awaited, &failed);
}

/// A Certificate of our name is somebody else's.
pub fn certificate_not_owned(status: &mut RouteStatus, name: &str, now: Timestamp) {
    not_ours(&mut edit(status, now), name);
}

/// Traffic is on its way to the latest Revision.
pub fn rolls_out(status: &mut RouteStatus, now: Timestamp) {
    let message = "A gradual rollout of the latest revision(s) is in progress.";
    edit(status, now).mark_unknown(INGRESS_READY, "RolloutInProgress", message);
}

/// Takes over what the Ingress says of its newest generation.
pub fn propagate_ingress(status: &mut RouteStatus, ingress: &Ingress, now: Timestamp) {
    match crate::ingress::status::said(ingress) {
        Some(ready) => {
            edit(status, now).follow(INGRESS_READY, ready);
        }
        None => ingress_not_configured(status, now),
    }
}

fn edit(status: &mut RouteStatus, now: Timestamp) -> Editor<'_> {
    CONDITIONS.manage(&mut status.conditions, now)
}

#[cfg(test)]
mod tests {
    use api::conditions::{self, READY};

    use super::*;

    #[test]
    fn bad_targets_are_told_in_upstreams_words() {
        let name = || "x".to_owned();
        let cases = [
            (
                BadTarget::Missing { kind: "Revision", name: name() },
                "False",
                "RevisionMissing",
                r#"Revision "x" referenced in traffic not found."#,
            ),
            (
                BadTarget::Missing { kind: "Configuration", name: name() },
                "False",
                "ConfigurationMissing",
                r#"Configuration "x" referenced in traffic not found."#,
            ),
            (
                BadTarget::Configuration { name: name(), failed: false },
                "Unknown",
                "RevisionMissing",
                r#"Configuration "x" is waiting for a Revision to become ready."#,
            ),
            (
                BadTarget::Configuration { name: name(), failed: true },
                "False",
                "RevisionMissing",
                r#"Configuration "x" does not have any ready Revision."#,
            ),
            (
                BadTarget::Revision { name: name(), failed: false },
                "Unknown",
                "RevisionMissing",
                r#"Revision "x" is not yet ready."#,
            ),
            (
                BadTarget::Revision { name: name(), failed: true },
                "False",
                "RevisionMissing",
                r#"Revision "x" failed to become ready."#,
            ),
            (
                BadTarget::NotOwned { name: name(), expected: "a".into(), actual: "b".into() },
                "False",
                "RevisionNotOwned",
                r#"Revision "x" belongs to Service "b", not Service "a"."#,
            ),
            (
                BadTarget::NotOwned { name: name(), expected: "a".into(), actual: String::new() },
                "False",
                "RevisionNotOwned",
                r#"Revision "x" does not belong to Service "a"."#,
            ),
        ];
        for (target, status_text, reason, message) in cases {
            let mut status = RouteStatus::default();
            edit(&mut status, Timestamp::UNIX_EPOCH).initialize();
            bad_target(&mut status, &target, Timestamp::UNIX_EPOCH);
            let ready = conditions::get(&status.conditions, READY).unwrap();
            assert_eq!(
                (ready.status.as_str(), ready.reason.as_deref(), ready.message.as_deref()),
                (status_text, Some(reason), Some(message))
            );
        }
    }
}
