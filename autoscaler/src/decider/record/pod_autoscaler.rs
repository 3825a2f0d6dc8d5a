//! A PodAutoscaler, as it is kept.

use std::sync::Arc;

use api::{
    autoscaling::{PodAutoscaler, PodAutoscalerSpec, PodAutoscalerStatus},
    conditions::{self, Condition, READY},
    labels::serving,
    networking::ObjectRef,
};
use kube::api::ObjectMeta;

use super::{
    Annotations, Shared,
    conditions::Conditions,
    metadata::{Generation, version},
    name::{Name, TOLD_USUAL_TARGET, Uid},
};
use crate::{
    algorithm::{
        condition::{ACTIVE, activity},
        zero::Activity,
    },
    key::Key,
    moment::Moment,
};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct PaSpec {
    container_concurrency: Option<i64>,
    target_api_version: Option<String>,
    target_kind: Option<String>,
    reachability: Option<String>,
    protocol_type: String,
}

#[derive(Debug)]
struct Status {
    observed_generation: Generation,
    conditions: Conditions,
    service_name: Name,
    metrics_service_name: Name,
    desired_scale: Option<i32>,
    actual_scale: Option<i32>,
}

/// Labels and annotations of a PodAutoscaler whose ServerlessService or Metric is still to be made.
#[derive(Debug)]
struct Metadata {
    labels: Option<Annotations>,
    annotations: Option<Annotations>,
}

/// A PodAutoscaler.
#[derive(Debug)]
pub(in crate::decider) struct PaRecord {
    version: u64,
    pub(super) uid: Option<Uid>,
    generation: Generation,
    spec: Arc<PaSpec>,
    target: Name,
    status: Option<Status>,
    /// What decides: the annotations that are read here.
    annotations: Arc<Annotations>,
    metadata: Option<Box<Metadata>>,
    /// Name of the service and of the configuration, for metrics.
    service: Name,
    configuration: Name,
}

impl PaRecord {
    pub(in crate::decider) fn of(key: &Key, pa: PodAutoscaler, shared: &mut Shared) -> Self {
        let PodAutoscaler { metadata, spec, status } = pa;
        let label = |name: &str| metadata.labels.as_ref().and_then(|labels| labels.get(name)).map(String::as_str);
        let (service, configuration) =
            (Name::of(label(serving::SERVICE), key), Name::of(label(serving::CONFIGURATION), key));
        let kept = metadata.annotations.iter().flatten().filter(|(key, _)| is_read(key));
        let kept: Annotations = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
        let status = status.map(|status| Status {
            observed_generation: Generation::of(status.observed_generation),
            conditions: Conditions::of(status.conditions, shared),
            service_name: Name::of(status.service_name.as_deref(), key),
            metrics_service_name: Name::of(status.metrics_service_name.as_deref(), key),
            desired_scale: status.desired_scale,
            actual_scale: status.actual_scale,
        });
        Self {
            version: version(&metadata),
            uid: metadata.uid.as_deref().map(Uid::of),
            generation: Generation::of(metadata.generation),
            target: Name::of(spec.scale_target_ref.name.as_deref(), key),
            spec: shared.pa_specs.share(PaSpec {
                container_concurrency: spec.container_concurrency,
                target_api_version: spec.scale_target_ref.api_version,
                target_kind: spec.scale_target_ref.kind,
                reachability: spec.reachability,
                protocol_type: spec.protocol_type,
            }),
            status,
            annotations: shared.annotations.share(kept),
            metadata: Some(Box::new(Metadata { labels: metadata.labels, annotations: metadata.annotations })),
            service,
            configuration,
        }
    }

    /// The object, as far as it is kept.
    pub(in crate::decider) fn object(&self, key: &Key) -> PodAutoscaler {
        PodAutoscaler {
            metadata: ObjectMeta {
                name: Some(key.name().to_owned()),
                namespace: Some(key.namespace().to_owned()),
                uid: self.uid.as_ref().map(Uid::text),
                generation: self.generation.number(),
                resource_version: Some(self.version.to_string()),
                labels: self.metadata.as_ref().and_then(|m| m.labels.clone()),
                annotations: match &self.metadata {
                    Some(metadata) => metadata.annotations.clone(),
                    None => Some((*self.annotations).clone()),
                },
                ..ObjectMeta::default()
            },
            spec: PodAutoscalerSpec {
                container_concurrency: self.spec.container_concurrency,
                scale_target_ref: self.target_ref(key),
                reachability: self.spec.reachability.clone(),
                protocol_type: self.spec.protocol_type.clone(),
            },
            status: self.status.as_ref().map(|status| PodAutoscalerStatus {
                observed_generation: status.observed_generation.number(),
                conditions: status.conditions.list(),
                service_name: status.service_name.text(key),
                metrics_service_name: status.metrics_service_name.text(key),
                desired_scale: status.desired_scale,
                actual_scale: status.actual_scale,
            }),
        }
    }

    fn target_ref(&self, key: &Key) -> ObjectRef {
        ObjectRef {
            api_version: self.spec.target_api_version.clone(),
            kind: self.spec.target_kind.clone(),
            name: self.target.text(key),
        }
    }

    pub(in crate::decider) fn version(&self) -> u64 {
        self.version
    }

    pub(in crate::decider) fn is(&self, other: &Self) -> bool {
        self.uid == other.uid
    }

    /// The annotations that decide, and `containerConcurrency`.
    pub(in crate::decider) fn settings(&self) -> (&Arc<Annotations>, i64) {
        (&self.annotations, self.spec.container_concurrency.unwrap_or(0))
    }

    pub(in crate::decider) fn reachable(&self) -> bool {
        self.spec.reachability.as_deref() != Some(api::autoscaling::UNREACHABLE)
    }

    pub(in crate::decider) fn is_h2c(&self) -> bool {
        self.spec.protocol_type == api::autoscaling::PROTOCOL_H2C
    }

    /// Name of the scale target.
    pub(in crate::decider) fn target(&self, key: &Key) -> Option<String> {
        self.target.text(key)
    }

    /// Whether the scale target's name follows from the revision's, so that the revision can be found by it.
    pub(in crate::decider) fn target_is_usual(&self) -> bool {
        self.target == TOLD_USUAL_TARGET
    }

    /// Name of the public Service, once there is one.
    pub(in crate::decider) fn service_name(&self, key: &Key) -> Option<String> {
        self.status.as_ref()?.service_name.text(key).filter(|name| !name.is_empty())
    }

    /// Name of the service, for metrics and queries.
    pub(in crate::decider) fn service(&self, key: &Key) -> String {
        self.service.text(key).unwrap_or_default()
    }

    /// Name of the configuration, for metrics and queries.
    pub(in crate::decider) fn configuration(&self, key: &Key) -> String {
        self.configuration.text(key).unwrap_or_default()
    }

    /// Whether labels and annotations are all here, as making an owned object needs them.
    pub(in crate::decider) fn is_whole(&self) -> bool {
        self.metadata.is_some()
    }

    /// Lets go of what only making owned objects needs.
    pub(in crate::decider) fn drop_metadata(&mut self) {
        self.metadata = None;
    }

    /// When its `Active` condition last changed, and how.
    pub(in crate::decider) fn activity(&self) -> Option<(Activity, Option<Moment>)> {
        self.status.as_ref().map(|status| activity(&status.conditions.list()))
    }

    /// Whether a status shows no more than the present one where anybody looks: Ready is the same, and Active is, or will
    /// be with Ready. A status that is not there says nothing, which is Unknown.
    pub(in crate::decider) fn shows_the_same(&self, status: &PodAutoscalerStatus) -> bool {
        let now = self.status.as_ref().map(|status| status.conditions.list()).unwrap_or_default();
        let word = |list: &[Condition], name| {
            conditions::get(list, name).map_or("Unknown", |condition| condition.status.as_str()).to_owned()
        };
        let (ready, active) = (word(&status.conditions, READY), word(&status.conditions, ACTIVE));
        let comes_up = ready == "Unknown" && active == "True" && word(&now, ACTIVE) == "Unknown";
        ready == word(&now, READY) && (active == word(&now, ACTIVE) || comes_up)
    }

    /// What the status said was wanted; -1 where it said nothing.
    pub(in crate::decider) fn wanted(&self) -> i32 {
        self.status.as_ref().and_then(|status| status.desired_scale).unwrap_or(-1)
    }
}

/// Annotations that this process reads.
fn is_read(key: &str) -> bool {
    key.starts_with("autoscaling.knative.dev/")
        || key.starts_with(api::scaling::PREFIX)
        || key == serving::PROGRESS_DEADLINE
}
