//! The CustomResourceDefinitions of all our kinds, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{
    autoscaling::{Metric, PodAutoscaler},
    networking::{Ingress, ServerlessService},
    serving::{Configuration, Revision, Route, Service},
};

/// All of them, in the order in which a reader meets the kinds.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        Service::crd(),
        Configuration::crd(),
        Revision::crd(),
        Route::crd(),
        PodAutoscaler::crd(),
        Metric::crd(),
        ServerlessService::crd(),
        Ingress::crd(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_short_names_and_columns_are_upstreams() {
        let crds = all();
        let find = |name: &str| crds.iter().find(|c| c.metadata.name.as_deref() == Some(name)).unwrap();
        let service = find("services.serving.knative.dev");
        assert_eq!(service.spec.names.short_names.as_deref(), Some(&["kservice".to_owned(), "ksvc".to_owned()][..]));
        let columns = service.spec.versions[0].additional_printer_columns.as_ref().unwrap();
        let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["URL", "LatestCreated", "LatestReady", "Ready", "Reason"]);
        for crd in &crds {
            let version = &crd.spec.versions[0];
            assert!(version.subresources.as_ref().unwrap().status.is_some(), "{:?}", crd.metadata.name);
            assert_eq!(crd.spec.scope, "Namespaced");
        }
    }

    #[test]
    fn a_service_reads_as_users_write_it() {
        let service: Service = serde_json::from_value(serde_json::json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "hello"},
            "spec": {"template": {"spec": {
                "containerConcurrency": 3,
                "containers": [{"image": "dev.local/hello", "env": [{"name": "TARGET", "value": "world"}]}]
            }}}
        }))
        .unwrap();
        let spec = &service.spec.template.spec;
        assert_eq!(spec.container_concurrency, Some(3));
        assert_eq!(spec.pod.containers[0].image.as_deref(), Some("dev.local/hello"));
        let back = serde_json::to_value(&service).unwrap();
        assert_eq!(back["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"], "world");
    }
}
