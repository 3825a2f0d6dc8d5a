//! The objects that a PodAutoscaler owns, as they should be (upstream `pkg/reconciler/autoscaling/resources`). Pure.

use api::{
    autoscaling::{Metric, MetricSpec, PodAutoscaler},
    labels::autoscaling::METRIC,
    networking::{ObjectRef, ServerlessService, ServerlessServiceSpec},
};
use kube::{Resource, ResourceExt, api::ObjectMeta};

use crate::algorithm::RevisionScaling;

/// Metadata of an owned object: same name, labels and annotations.
fn owned(pa: &PodAutoscaler) -> ObjectMeta {
    ObjectMeta {
        name: pa.metadata.name.clone(),
        namespace: pa.metadata.namespace.clone(),
        labels: pa.metadata.labels.clone(),
        annotations: pa.metadata.annotations.clone(),
        owner_references: pa.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

/// Whether `pa` is the controller of an object with this metadata.
pub fn is_controlled_by(object: &impl Resource, pa: &PodAutoscaler) -> bool {
    let uid = pa.uid().unwrap_or_default();
    object.meta().owner_references.iter().flatten().any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

/// The ServerlessService's spec.
pub fn sks_spec(pa: &PodAutoscaler, mode: &str, activators: i32) -> ServerlessServiceSpec {
    let target = &pa.spec.scale_target_ref;
    ServerlessServiceSpec {
        mode: Some(mode.to_owned()),
        object_ref: ObjectRef {
            api_version: target.api_version.clone(),
            kind: target.kind.clone(),
            name: target.name.clone(),
        },
        protocol_type: pa.spec.protocol_type.clone(),
        num_activators: Some(activators),
    }
}

/// The ServerlessService.
pub fn sks(pa: &PodAutoscaler, spec: ServerlessServiceSpec) -> ServerlessService {
    let mut metadata = owned(pa);
    if let Some(annotations) = &mut metadata.annotations {
        // The network layer has no use for what is measured; upstream leaves it off too.
        annotations.remove(METRIC.key);
    }
    ServerlessService { metadata, spec, status: None }
}

/// The Metric's spec; `private_service` is scraped unless the activator sees all traffic anyway.
pub fn metric_spec(scaling: &RevisionScaling, private_service: &str) -> MetricSpec {
    let nanoseconds = |d: std::time::Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
    MetricSpec {
        stable_window: nanoseconds(scaling.stable_window),
        panic_window: nanoseconds(scaling.panic_window),
        scrape_target: if scaling.activator_always_in_path() { String::new() } else { private_service.to_owned() },
    }
}

/// The Metric.
pub fn metric(pa: &PodAutoscaler, spec: MetricSpec) -> Metric {
    Metric { metadata: owned(pa), spec, status: None }
}
