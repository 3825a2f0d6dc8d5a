//! How a Configuration is, from how its Revisions are (upstream `configuration_lifecycle.go`).

use api::{
    conditions::{self, ConditionSet, READY},
    labels::serving,
    serving::{Configuration, ConfigurationStatus, Revision},
};
use jiff::Timestamp;
use kube::ResourceExt;

use crate::configuration::name::template_name;

/// The conditions of a Configuration.
pub const CONDITIONS: ConditionSet = ConditionSet { dependents: &[] };

const FAILED: &str = "RevisionFailed";

/// The Revision of this generation exists; Ready follows it.
pub fn latest_created(status: &mut ConfigurationStatus, revision: &Revision, now: Timestamp) {
    let name = revision.name_any();
    status.latest_created_revision_name = Some(name.clone());
    if status.latest_ready_revision_name.as_ref() != Some(&name) {
        CONDITIONS.manage(&mut status.conditions, now).mark_unknown(READY, "", "");
    }
    let ready = revision.status.as_ref().and_then(|s| conditions::get(&s.conditions, READY));
    if let Some(failed) = ready.filter(|c| c.is_false()) {
        let why = failed.message.as_deref().unwrap_or_default();
        let message = format!("Revision {name:?} failed with message: {why}.");
        CONDITIONS.manage(&mut status.conditions, now).mark_false(READY, FAILED, &message);
    }
}

/// No Revision could be made.
pub fn creation_failed(status: &mut ConfigurationStatus, why: &str, now: Timestamp) {
    let message = format!("Revision creation failed with message: {why}.");
    CONDITIONS.manage(&mut status.conditions, now).mark_false(READY, FAILED, &message);
}

/// Sets the newest ready Revision; never one older than before, unless that one is gone.
pub fn latest_ready(
    status: &mut ConfigurationStatus,
    configuration: &Configuration,
    revisions: &[std::sync::Arc<Revision>],
    now: Timestamp,
) {
    let before = status.latest_ready_revision_name.as_deref();
    let floor = revisions.iter().find(|r| Some(r.name_any().as_str()) == before).and_then(|r| generation(r));
    let named = template_name(configuration);
    let newest = revisions
        .iter()
        .filter(|r| is_ready(r))
        .filter(|r| {
            let is_named = named == Some(r.name_any().as_str());
            is_named || floor.is_none_or(|floor| generation(r).is_some_and(|g| g >= floor))
        })
        // The name in the template stands for "now", whatever generation its Revision is of.
        .max_by_key(|r| (named == Some(r.name_any().as_str()), generation(r)));
    if let Some(revision) = newest {
        status.latest_ready_revision_name = Some(revision.name_any());
        if status.latest_ready_revision_name == status.latest_created_revision_name {
            CONDITIONS.manage(&mut status.conditions, now).mark_true(READY);
        }
    }
}

/// Ready, and for the generation it is at.
pub fn is_ready(revision: &Revision) -> bool {
    revision.status.as_ref().is_some_and(|s| {
        s.observed_generation == revision.metadata.generation && conditions::is_true(&s.conditions, READY)
    })
}

fn generation(revision: &Revision) -> Option<i64> {
    revision.labels().get(serving::CONFIGURATION_GENERATION)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn configuration(named: Option<&str>) -> Configuration {
        serde_json::from_value(json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Configuration", "metadata": {"name": "hello"},
            "spec": {"template": {"metadata": {"name": named}, "spec": {"containers": []}}},
        }))
        .unwrap()
    }

    fn revision(name: &str, generation: i64, ready: &str) -> Arc<Revision> {
        Arc::new(
            serde_json::from_value(json!({
                "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
                "metadata": {
                    "name": name, "generation": 1,
                    "labels": {"serving.knative.dev/configurationGeneration": generation.to_string()},
                },
                "spec": {"containers": []},
                "status": {
                    "observedGeneration": 1,
                    "conditions": [{"type": "Ready", "status": ready, "reason": "ExitCode5", "message": "boom"}],
                },
            }))
            .unwrap(),
        )
    }

    fn settle(
        before: Option<&str>,
        created: &str,
        named: Option<&str>,
        revisions: &[Arc<Revision>],
    ) -> ConfigurationStatus {
        let now = Timestamp::UNIX_EPOCH;
        let mut status = ConfigurationStatus {
            latest_ready_revision_name: before.map(str::to_owned),
            ..ConfigurationStatus::default()
        };
        CONDITIONS.manage(&mut status.conditions, now).initialize();
        let created = revisions.iter().find(|r| r.name_any() == created).unwrap();
        latest_created(&mut status, created, now);
        latest_ready(&mut status, &configuration(named), revisions, now);
        status
    }

    #[test]
    fn latest_ready_moves_forward_only() {
        let all = [revision("a-1", 1, "True"), revision("a-2", 2, "True"), revision("a-3", 3, "Unknown")];
        let cases = [
            (None, "a-3", None, "a-2", "Unknown"),
            (Some("a-1"), "a-3", None, "a-2", "Unknown"),
            (Some("gone"), "a-3", None, "a-2", "Unknown"),
            (Some("a-2"), "a-2", None, "a-2", "True"),
            (Some("a-2"), "a-1", Some("a-1"), "a-1", "True"),
        ];
        for (before, created, named, want, ready) in cases {
            let status = settle(before, created, named, &all);
            assert_eq!(status.latest_ready_revision_name.as_deref(), Some(want), "{before:?} {created}");
            assert_eq!(conditions::get(&status.conditions, READY).unwrap().status, ready, "{before:?} {created}");
        }
    }

    #[test]
    fn a_failed_revision_is_named_with_its_message() {
        let status = settle(Some("a-1"), "a-2", None, &[revision("a-1", 1, "True"), revision("a-2", 2, "False")]);
        let ready = conditions::get(&status.conditions, READY).unwrap();
        assert_eq!(ready.reason.as_deref(), Some("RevisionFailed"));
        assert_eq!(ready.message.as_deref(), Some(r#"Revision "a-2" failed with message: boom."#));
        assert_eq!(status.latest_ready_revision_name.as_deref(), Some("a-1"));
    }
}
