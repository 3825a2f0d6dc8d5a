//! The Configuration and the Route that a Service stands for.

use api::{
    labels::serving,
    serving::{Configuration, ConfigurationSpec, Route, RouteSpec, Service},
};
use kube::ResourceExt;

use crate::owner;

/// The Configuration. What a Route noted on the existing one stays: the labeler owns that list, but our own Route is
/// in it from the start, so that the first Revision is born active.
pub fn configuration(service: &Service, existing: Option<&Configuration>) -> Configuration {
    let name = service.name_any();
    let labels = owner::with(service.labels().clone(), serving::SERVICE, name.clone());
    let labels = owner::with(labels, serving::SERVICE_UID, service.uid().unwrap_or_default());
    let annotations =
        owner::without(service.annotations(), |key| owner::is_its_own(key) || key == serving::ROLLOUT_DURATION);
    let mut routes = existing.map(|c| owner::list_value(c.annotations(), serving::ROUTES)).unwrap_or_default();
    routes.insert(&name);
    let routes = routes.into_iter().collect::<Vec<_>>().join(",");
    Configuration {
        metadata: owner::child_metadata(
            service,
            name.clone(),
            labels,
            owner::with(annotations, serving::ROUTES, routes),
        ),
        spec: ConfigurationSpec { template: service.spec.template.clone() },
        status: None,
    }
}

/// The Route; targets that name no Revision follow our Configuration.
pub fn route(service: &Service) -> Route {
    let name = service.name_any();
    let mut traffic = service.spec.traffic.clone();
    for target in &mut traffic {
        if target.revision_name.as_deref().unwrap_or_default().is_empty() {
            target.configuration_name = Some(name.clone());
        }
    }
    Route {
        metadata: owner::child_metadata(
            service,
            name.clone(),
            owner::with(service.labels().clone(), serving::SERVICE, name.clone()),
            owner::without(service.annotations(), owner::is_its_own),
        ),
        spec: RouteSpec { traffic },
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{owner::LAST_APPLIED, v1alpha1};

    fn service() -> Service {
        serde_json::from_value(json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Service",
            "metadata": {
                "name": "hello", "namespace": "ns", "uid": "u1", "labels": {"app": "x"},
                "annotations": {
                    LAST_APPLIED: "{}", "serving.knative.dev/creator": "me", v1alpha1::FORM: "runLatest",
                    "serving.knative.dev/rollout-duration": "60s"
                },
            },
            "spec": {
                "template": {"spec": {"containers": [{"image": "hello"}]}},
                "traffic": [{"latestRevision": true, "percent": 50}, {"revisionName": "hello-00001", "percent": 50}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn configuration_is_whole() {
        let got = serde_json::to_value(configuration(&service(), None)).unwrap();
        let want = json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Configuration",
            "metadata": {
                "name": "hello", "namespace": "ns",
                "labels": {
                    "app": "x", "serving.knative.dev/service": "hello", "serving.knative.dev/serviceUID": "u1"
                },
                "annotations": {"serving.knative.dev/creator": "me", "serving.knative.dev/routes": "hello"},
                "ownerReferences": [{
                    "apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "hello", "uid": "u1",
                    "controller": true, "blockOwnerDeletion": true
                }],
            },
            "spec": {"template": {"spec": {"containers": [{"name": "", "image": "hello"}]}}},
        });
        assert_eq!(got, want);
    }

    #[test]
    fn routes_noted_on_the_configuration_stay() {
        let mut existing = configuration(&service(), None);
        existing.annotations_mut().insert(serving::ROUTES.into(), "zoo,byhand".into());
        let got = configuration(&service(), Some(&existing));
        assert_eq!(got.annotations()[serving::ROUTES], "byhand,hello,zoo");
    }

    #[test]
    fn route_is_whole() {
        let got = serde_json::to_value(route(&service())).unwrap();
        assert_eq!(got["metadata"]["labels"], json!({"app": "x", "serving.knative.dev/service": "hello"}));
        assert_eq!(
            got["metadata"]["annotations"],
            json!({"serving.knative.dev/creator": "me", "serving.knative.dev/rollout-duration": "60s"})
        );
        assert_eq!(
            got["spec"],
            json!({"traffic": [
                {"configurationName": "hello", "latestRevision": true, "percent": 50},
                {"revisionName": "hello-00001", "percent": 50},
            ]})
        );
    }
}
