//! The Revision that a Configuration's newest generation stands for.

use api::{
    labels::serving,
    names,
    serving::{Configuration, ROUTING_ACTIVE, ROUTING_PENDING, Revision},
};
use jiff::Timestamp;
use kube::ResourceExt;

use crate::{configuration::name::template_name, owner};

/// Name of that Revision.
pub fn revision_name(configuration: &Configuration) -> String {
    template_name(configuration).map_or_else(
        || names::revision(&configuration.name_any(), configuration.metadata.generation.unwrap_or_default()),
        str::to_owned,
    )
}

/// The Revision, as it is born: pending until a Route takes it, active where the Configuration's Route is known.
pub fn revision(configuration: &Configuration, now: Timestamp) -> Revision {
    let template = &configuration.spec.template;
    let metadata = template.metadata.clone().unwrap_or_default();
    let mut labels = metadata.labels.unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    let of = configuration;
    let from_service = |key: &str| of.labels().get(key).cloned().unwrap_or_default();
    let copied = [
        (serving::CONFIGURATION, of.name_any()),
        (serving::CONFIGURATION_GENERATION, of.metadata.generation.unwrap_or_default().to_string()),
        (serving::CONFIGURATION_UID, of.uid().unwrap_or_default()),
        (serving::SERVICE, from_service(serving::SERVICE)),
        (serving::SERVICE_UID, from_service(serving::SERVICE_UID)),
    ];
    labels.extend(copied.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), v)));
    if let Some(modifier) = of.annotations().get(serving::LAST_MODIFIER) {
        annotations.insert(serving::CREATOR.to_owned(), modifier.clone());
    }
    let mut state = ROUTING_PENDING;
    if let Some(routes) = of.annotations().get(serving::ROUTES) {
        annotations.insert(serving::ROUTES.to_owned(), routes.clone());
        state = ROUTING_ACTIVE;
    }
    labels.insert(serving::ROUTING_STATE.to_owned(), state.to_owned());
    annotations.insert(serving::ROUTING_STATE_MODIFIED.to_owned(), timestamp(now));
    let mut metadata = owner::child_metadata(of, revision_name(of), labels, annotations);
    if let Some(others) = template.metadata.as_ref().and_then(|m| m.owner_references.clone()) {
        metadata.owner_references.get_or_insert_default().splice(0..0, others);
    }
    Revision { metadata, spec: template.spec.clone(), status: None }
}

/// RFC 3339 in whole seconds, as annotations carry it.
pub fn timestamp(now: Timestamp) -> String {
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn configuration(routes: bool) -> Configuration {
        let mut value = json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Configuration",
            "metadata": {
                "name": "hello", "namespace": "ns", "uid": "c1", "generation": 7,
                "labels": {"serving.knative.dev/service": "hello", "serving.knative.dev/serviceUID": "s1", "x": "y"},
                "annotations": {"serving.knative.dev/lastModifier": "me", "serving.knative.dev/creator": "you"},
            },
            "spec": {"template": {
                "metadata": {"labels": {"team": "blue"}, "annotations": {"autoscaling.knative.dev/min-scale": "1"}},
                "spec": {"containers": [{"name": "user-container", "image": "hello"}], "timeoutSeconds": 300},
            }},
        });
        if routes {
            value["metadata"]["annotations"]["serving.knative.dev/routes"] = json!("hello");
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn revision_is_whole() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let got = serde_json::to_value(revision(&configuration(true), now)).unwrap();
        let want = json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
            "metadata": {
                "name": "hello-00007", "namespace": "ns",
                "labels": {
                    "team": "blue",
                    "serving.knative.dev/configuration": "hello",
                    "serving.knative.dev/configurationGeneration": "7",
                    "serving.knative.dev/configurationUID": "c1",
                    "serving.knative.dev/service": "hello",
                    "serving.knative.dev/serviceUID": "s1",
                    "serving.knative.dev/routingState": "active",
                },
                "annotations": {
                    "autoscaling.knative.dev/min-scale": "1",
                    "serving.knative.dev/creator": "me",
                    "serving.knative.dev/routes": "hello",
                    "serving.knative.dev/routingStateModified": "2023-11-14T22:13:20Z",
                },
                "ownerReferences": [{
                    "apiVersion": "serving.knative.dev/v1", "kind": "Configuration", "name": "hello", "uid": "c1",
                    "controller": true, "blockOwnerDeletion": true
                }],
            },
            "spec": {"containers": [{"name": "user-container", "image": "hello"}], "timeoutSeconds": 300},
        });
        assert_eq!(got, want);
    }

    #[test]
    fn without_a_route_it_is_pending_and_a_name_is_kept() {
        let mut configuration = configuration(false);
        configuration.spec.template.metadata.as_mut().unwrap().name = Some("hello-byo".into());
        let got = revision(&configuration, Timestamp::UNIX_EPOCH);
        assert_eq!(got.labels()[serving::ROUTING_STATE], "pending");
        assert_eq!(got.name_any(), "hello-byo");
    }
}
