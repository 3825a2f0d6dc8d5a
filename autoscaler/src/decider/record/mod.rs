//! What is kept of watched objects: enough to plan from, small enough for a hundred thousand sleeping revisions.
//!
//! An object is taken apart when it comes ([`PaRecord::of`] and its siblings) and put together again when somebody
//! looks ([`PaRecord::object`]), which is rare: only on a change. Most of an object is the same text in every revision
//! (conditions, settings, kinds); that is kept once, in [`Shared`]. Names that follow from the revision's own are kept
//! as that fact.

mod conditions;
mod metadata;
mod metric;
mod name;
mod pod_autoscaler;
mod pool;
mod serverless_service;

pub(super) use metric::MetricRecord;
pub(super) use name::USUAL_TARGET;
pub(super) use pod_autoscaler::PaRecord;
pub(super) use pool::Shared;
pub(super) use serverless_service::SksRecord;

/// Annotations, or labels.
pub(super) type Annotations = std::collections::BTreeMap<String, String>;

#[cfg(test)]
mod tests {
    use api::{autoscaling::PodAutoscaler, networking::ServerlessService};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
    use serde_json::json;

    use super::*;
    use crate::key::Key;

    #[test]
    fn an_object_comes_back_as_it_was() {
        let key = Key::new("ns", "rev");
        let conditions = json!([
            { "type": "Active", "status": "False", "reason": "NoTraffic", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z" },
            { "type": "Ready", "status": "Unknown", "severity": "Info" },
        ]);
        for (uid, service) in [("00000000-0000-4000-8000-000000000001", "rev"), ("odd", "elsewhere")] {
            let pa: PodAutoscaler = serde_json::from_value(json!({
                "apiVersion": "autoscaling.internal.knative.dev/v1alpha1", "kind": "PodAutoscaler",
                "metadata": {
                    "name": "rev", "namespace": "ns", "uid": uid, "generation": 3, "resourceVersion": "7",
                    "labels": { "l": "1" }, "annotations": { "autoscaling.knative.dev/min-scale": "2", "else": "x" },
                },
                "spec": { "containerConcurrency": 5, "reachability": "Reachable", "protocolType": "h2c",
                    "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "rev-deployment" } },
                "status": { "observedGeneration": 3, "conditions": conditions, "serviceName": service,
                    "metricsServiceName": "rev-private", "desiredScale": 0, "actualScale": 1 },
            }))
            .unwrap();
            let mut shared = Shared::default();
            let mut record = PaRecord::of(&key, pa.clone(), &mut shared);
            assert_eq!(record.object(&key), pa);
            record.drop_metadata();
            let kept = record.object(&key).metadata.annotations.unwrap();
            assert_eq!(kept.keys().collect::<Vec<_>>(), ["autoscaling.knative.dev/min-scale"]);

            let mut sks: ServerlessService = serde_json::from_value(json!({
                "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "ServerlessService",
                "metadata": { "name": "rev", "namespace": "ns", "uid": uid, "generation": 3, "resourceVersion": "7" },
                "spec": { "mode": "Proxy", "protocolType": "http1", "numActivators": 3,
                    "objectRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "rev-deployment" } },
                "status": { "observedGeneration": 3, "conditions": conditions, "serviceName": service,
                    "privateServiceName": "rev-private" },
            }))
            .unwrap();
            let ours = OwnerReference { uid: uid.to_owned(), controller: Some(true), ..OwnerReference::default() };
            for owner in [
                None,
                Some(ours),
                Some(OwnerReference { uid: "another".into(), controller: Some(true), ..OwnerReference::default() }),
            ] {
                sks.metadata.owner_references = owner.map(|owner| vec![owner]);
                let back = SksRecord::of(&key, sks.clone(), &mut shared).object(&key, &record);
                sks.metadata.uid = None;
                assert_eq!(back, sks);
            }
        }
    }
}
