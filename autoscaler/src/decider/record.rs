//! What is kept of watched objects: enough to plan from, small enough for a hundred thousand sleeping revisions.
//!
//! An object is taken apart when it comes ([`PaRecord::of`] and its siblings) and put together again when somebody
//! looks ([`PaRecord::object`]), which is rare: only on a change. Most of an object is the same text in every revision
//! (conditions, settings, kinds); that is kept once, in [`Shared`]. Names that follow from the revision's own are kept
//! as that fact.

use std::{
    collections::{BTreeMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use api::{
    autoscaling::{Metric, MetricSpec, PodAutoscaler, PodAutoscalerSpec, PodAutoscalerStatus},
    conditions::Condition,
    labels::serving,
    networking::{ObjectRef, ServerlessService, ServerlessServiceSpec, ServerlessServiceStatus},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::api::ObjectMeta;
use uuid::Uuid;

use api::hash::fnv1a;

use crate::{key::Key, moment::Moment};

/// Text, kept once.
pub(super) type Annotations = BTreeMap<String, String>;

/// Values that many revisions have in common.
#[derive(Debug)]
pub(super) struct Pool<T> {
    values: HashSet<Arc<T>>,
    /// Size at which values that nobody holds any more are thrown out.
    sweep_at: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { values: HashSet::new(), sweep_at: 64 }
    }
}

impl<T: Eq + Hash> Pool<T> {
    pub(super) fn share(&mut self, value: T) -> Arc<T> {
        if let Some(known) = self.values.get(&value) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.sweep_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = (2 * self.values.len()).max(64);
        }
        let value = Arc::new(value);
        self.values.insert(Arc::clone(&value));
        value
    }
}

/// All pools.
#[derive(Debug, Default)]
pub(super) struct Shared {
    annotations: Pool<Annotations>,
    pa_specs: Pool<PaSpec>,
    sks_specs: Pool<SksSpec>,
    conditions: Pool<Vec<Saying>>,
}

/// A condition without its time.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Saying {
    type_: String,
    status: String,
    severity: Option<String>,
    reason: Option<String>,
    message: Option<String>,
}

/// Conditions: what they say is shared, since when is not.
#[derive(Debug)]
struct Conditions {
    say: Arc<Vec<Saying>>,
    /// [`NEVER`] where the condition does not say.
    since: Box<[Moment]>,
}

const NEVER: Moment = Moment::MIN;

impl Conditions {
    fn of(conditions: Vec<Condition>, shared: &mut Shared) -> Self {
        let mut since = Vec::with_capacity(conditions.len());
        let say = conditions
            .into_iter()
            .map(|c| {
                since.push(c.last_transition_time.map_or(NEVER, |at| Moment::from_timestamp(at.0)));
                Saying { type_: c.type_, status: c.status, severity: c.severity, reason: c.reason, message: c.message }
            })
            .collect();
        Self { say: shared.conditions.share(say), since: since.into() }
    }

    fn list(&self) -> Vec<Condition> {
        self.say
            .iter()
            .zip(&self.since)
            .map(|(say, since)| Condition {
                type_: say.type_.clone(),
                status: say.status.clone(),
                severity: say.severity.clone(),
                last_transition_time: (*since != NEVER).then(|| Time(since.timestamp())),
                reason: say.reason.clone(),
                message: say.message.clone(),
            })
            .collect()
    }
}

/// A name, mostly the revision's with something after it, or the beginning of it; or none.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    /// By [`NONE`], by the place of an ending in [`ENDINGS`], or by [`PREFIX`] plus the length of a beginning.
    Told(u32),
    Other(Box<str>),
}

const ENDINGS: [&str; 3] = ["", "-private", USUAL_TARGET];
const NONE: Name = Name::Told(255);
const PREFIX: u32 = 256;

impl Name {
    fn of(name: Option<&str>, key: &Key) -> Self {
        let Some(name) = name else { return NONE };
        let ending = name.strip_prefix(key.name());
        if let Some(nth) = ending.and_then(|ending| ENDINGS.iter().position(|known| *known == ending)) {
            return Self::Told(nth as u32);
        }
        if !name.is_empty() && key.name().starts_with(name) {
            return Self::Told(PREFIX + name.len() as u32);
        }
        Self::Other(name.into())
    }

    fn text(&self, key: &Key) -> Option<String> {
        match self {
            Self::Told(code) if *code >= PREFIX => key.name().get(..(*code - PREFIX) as usize).map(str::to_owned),
            Self::Told(nth) => ENDINGS.get(*nth as usize).map(|ending| [key.name(), ending].concat()),
            Self::Other(name) => Some(name.to_string()),
        }
    }
}

/// Enough of a uid to tell two of them apart.
fn uid_hash(metadata: &ObjectMeta) -> u64 {
    metadata.uid.as_deref().map_or(0, |uid| fnv1a(uid.as_bytes()))
}

/// A uid: sixteen bytes where it is a UUID as Kubernetes writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Uid {
    Uuid(Uuid),
    Other(Box<str>),
}

impl Uid {
    fn of(text: &str) -> Self {
        match Uuid::parse_str(text) {
            Ok(uuid) if uuid.hyphenated().to_string() == text => Self::Uuid(uuid),
            _ => Self::Other(text.into()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Uuid(uuid) => uuid.hyphenated().to_string(),
            Self::Other(text) => text.to_string(),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct PaSpec {
    container_concurrency: Option<i64>,
    target_api_version: Option<String>,
    target_kind: Option<String>,
    reachability: Option<String>,
    protocol_type: String,
}

#[derive(Debug)]
struct PaStatus {
    observed_generation: Option<i64>,
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
pub(super) struct PaRecord {
    version: u64,
    uid: Option<Uid>,
    generation: Option<i64>,
    spec: Arc<PaSpec>,
    target: Name,
    status: Option<Box<PaStatus>>,
    /// What decides: the annotations that are read here.
    annotations: Arc<Annotations>,
    metadata: Option<Box<Metadata>>,
    /// Name of the service and of the configuration, for metrics.
    service: Name,
    configuration: Name,
}

impl PaRecord {
    pub(super) fn of(key: &Key, pa: PodAutoscaler, shared: &mut Shared) -> Self {
        let PodAutoscaler { metadata, spec, status } = pa;
        let label = |name: &str| metadata.labels.as_ref().and_then(|labels| labels.get(name)).map(String::as_str);
        let (service, configuration) =
            (Name::of(label(serving::SERVICE), key), Name::of(label(serving::CONFIGURATION), key));
        let kept = metadata.annotations.iter().flatten().filter(|(key, _)| is_read(key));
        let kept: Annotations = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
        let status = status.map(|status| {
            Box::new(PaStatus {
                observed_generation: status.observed_generation,
                conditions: Conditions::of(status.conditions, shared),
                service_name: Name::of(status.service_name.as_deref(), key),
                metrics_service_name: Name::of(status.metrics_service_name.as_deref(), key),
                desired_scale: status.desired_scale,
                actual_scale: status.actual_scale,
            })
        });
        Self {
            version: version(&metadata),
            uid: metadata.uid.as_deref().map(Uid::of),
            generation: metadata.generation,
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
    pub(super) fn object(&self, key: &Key) -> PodAutoscaler {
        PodAutoscaler {
            metadata: ObjectMeta {
                name: Some(key.name().to_owned()),
                namespace: Some(key.namespace().to_owned()),
                uid: self.uid.as_ref().map(Uid::text),
                generation: self.generation,
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
                observed_generation: status.observed_generation,
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

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.uid == other.uid
    }

    /// The annotations that decide, and `containerConcurrency`.
    pub(super) fn settings(&self) -> (&Arc<Annotations>, i64) {
        (&self.annotations, self.spec.container_concurrency.unwrap_or(0))
    }

    pub(super) fn reachable(&self) -> bool {
        self.spec.reachability.as_deref() != Some(api::autoscaling::UNREACHABLE)
    }

    pub(super) fn is_h2c(&self) -> bool {
        self.spec.protocol_type == api::autoscaling::PROTOCOL_H2C
    }

    /// Name of the scale target.
    pub(super) fn target(&self, key: &Key) -> Option<String> {
        self.target.text(key)
    }

    /// Whether the scale target's name follows from the revision's, so that the revision can be found by it.
    pub(super) fn target_is_usual(&self) -> bool {
        self.target == Name::Told(2)
    }

    /// Name of the public Service, once there is one.
    pub(super) fn service_name(&self, key: &Key) -> Option<String> {
        self.status.as_ref()?.service_name.text(key).filter(|name| !name.is_empty())
    }

    /// Name of the service, for metrics and queries.
    pub(super) fn service(&self, key: &Key) -> String {
        self.service.text(key).unwrap_or_default()
    }

    /// Name of the configuration, for metrics and queries.
    pub(super) fn configuration(&self, key: &Key) -> String {
        self.configuration.text(key).unwrap_or_default()
    }

    /// Whether labels and annotations are all here, as making an owned object needs them.
    pub(super) fn is_whole(&self) -> bool {
        self.metadata.is_some()
    }

    /// Lets go of what only making owned objects needs.
    pub(super) fn drop_metadata(&mut self) {
        self.metadata = None;
    }
}

/// The ending of a Deployment's name after its revision's.
pub(super) const USUAL_TARGET: &str = "-deployment";

/// Annotations that this process reads.
fn is_read(key: &str) -> bool {
    key.starts_with("autoscaling.knative.dev/")
        || key.starts_with(api::scaling::PREFIX)
        || key == serving::PROGRESS_DEADLINE
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SksSpec {
    mode: Option<String>,
    target_api_version: Option<String>,
    target_kind: Option<String>,
    protocol_type: String,
}

#[derive(Debug)]
struct SksStatus {
    observed_generation: Option<i64>,
    conditions: Conditions,
    service_name: Name,
    private_service_name: Name,
}

/// A ServerlessService.
#[derive(Debug)]
pub(super) struct SksRecord {
    version: u64,
    uid: u64,
    controller: Option<u64>,
    generation: Option<i64>,
    spec: Arc<SksSpec>,
    target: Name,
    num_activators: Option<i32>,
    status: Option<Box<SksStatus>>,
}

impl SksRecord {
    pub(super) fn of(key: &Key, sks: ServerlessService, shared: &mut Shared) -> Self {
        let ServerlessService { metadata, spec, status } = sks;
        Self {
            version: version(&metadata),
            uid: uid_hash(&metadata),
            controller: controller(&metadata),
            generation: metadata.generation,
            target: Name::of(spec.object_ref.name.as_deref(), key),
            num_activators: spec.num_activators,
            spec: shared.sks_specs.share(SksSpec {
                mode: spec.mode,
                target_api_version: spec.object_ref.api_version,
                target_kind: spec.object_ref.kind,
                protocol_type: spec.protocol_type,
            }),
            status: status.map(|status| {
                Box::new(SksStatus {
                    observed_generation: status.observed_generation,
                    conditions: Conditions::of(status.conditions, shared),
                    service_name: Name::of(status.service_name.as_deref(), key),
                    private_service_name: Name::of(status.private_service_name.as_deref(), key),
                })
            }),
        }
    }

    /// The object, as far as it is kept.
    pub(super) fn object(&self, key: &Key, pa: &PaRecord) -> ServerlessService {
        ServerlessService {
            metadata: metadata(key, self.version, self.controller, pa, self.generation),
            spec: ServerlessServiceSpec {
                mode: self.spec.mode.clone(),
                object_ref: ObjectRef {
                    api_version: self.spec.target_api_version.clone(),
                    kind: self.spec.target_kind.clone(),
                    name: self.target.text(key),
                },
                protocol_type: self.spec.protocol_type.clone(),
                num_activators: self.num_activators,
            },
            status: self.status.as_ref().map(|status| ServerlessServiceStatus {
                observed_generation: status.observed_generation,
                conditions: status.conditions.list(),
                service_name: status.service_name.text(key),
                private_service_name: status.private_service_name.text(key),
            }),
        }
    }

    /// Whether activators carry the revision, as far as the spec says.
    pub(super) fn is_proxy(&self) -> bool {
        self.spec.mode.as_deref() == Some(api::networking::MODE_PROXY)
    }

    /// Whether this is an older state of the same object than `known`.
    pub(super) fn is_older_than(&self, known: &Self) -> bool {
        self.uid == known.uid && self.version < known.version
    }
}

/// A Metric.
#[derive(Debug)]
pub(super) struct MetricRecord {
    version: u64,
    uid: u64,
    controller: Option<u64>,
    windows: (i64, i64),
    scrape_target: Name,
}

impl MetricRecord {
    pub(super) fn of(key: &Key, metric: Metric) -> Self {
        let Metric { metadata, spec, .. } = metric;
        Self {
            version: version(&metadata),
            uid: uid_hash(&metadata),
            controller: controller(&metadata),
            windows: (spec.stable_window, spec.panic_window),
            scrape_target: Name::of(Some(spec.scrape_target.as_str()).filter(|name| !name.is_empty()), key),
        }
    }

    /// The object, as far as it is kept.
    pub(super) fn object(&self, key: &Key, pa: &PaRecord) -> Metric {
        Metric {
            metadata: metadata(key, self.version, self.controller, pa, None),
            spec: MetricSpec {
                stable_window: self.windows.0,
                panic_window: self.windows.1,
                scrape_target: self.scrape_target(key),
            },
            status: None,
        }
    }

    /// The private Service, or nothing.
    pub(super) fn scrape_target(&self, key: &Key) -> String {
        self.scrape_target.text(key).unwrap_or_default()
    }

    /// Whether this is an older state of the same object than `known`.
    pub(super) fn is_older_than(&self, known: &Self) -> bool {
        self.uid == known.uid && self.version < known.version
    }
}

fn controller(metadata: &ObjectMeta) -> Option<u64> {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true)).map(|owner| fnv1a(owner.uid.as_bytes()))
}

/// Metadata as far as anybody here looks at it; of a controller that is not the revision's it says just that.
fn metadata(key: &Key, version: u64, controller: Option<u64>, pa: &PaRecord, generation: Option<i64>) -> ObjectMeta {
    let uid = pa.uid.as_ref().map(Uid::text).unwrap_or_default();
    let owner = controller.map(|controller| {
        let uid = if controller == fnv1a(uid.as_bytes()) { uid } else { "another".to_owned() };
        vec![OwnerReference { uid, controller: Some(true), ..OwnerReference::default() }]
    });
    ObjectMeta {
        name: Some(key.name().to_owned()),
        namespace: Some(key.namespace().to_owned()),
        resource_version: Some(version.to_string()),
        owner_references: owner,
        generation,
        ..ObjectMeta::default()
    }
}

/// The resource version as a number. Opaque by contract, but a counter in every API server there is; where it is not,
/// all versions are equal and the newest event wins.
fn version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// When a PodAutoscaler's `Active` condition last changed, and how.
pub(super) fn activity(pa: &PaRecord) -> Option<(crate::algorithm::zero::Activity, Option<Moment>)> {
    pa.status.as_ref().map(|status| crate::algorithm::condition::activity(&status.conditions.list()))
}

/// What the status said was wanted.
pub(super) fn wanted(pa: &PaRecord) -> i32 {
    pa.status.as_ref().and_then(|status| status.desired_scale).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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

    #[test]
    fn names_that_follow_from_the_revisions_own_take_no_room() {
        let key = Key::new("ns", "hello-00001");
        for (name, told) in [
            (Some("hello-00001"), true),
            (Some("hello-00001-private"), true),
            (Some("hello-00001-deployment"), true),
            (Some("hello"), true),
            (Some(""), false),
            (Some("hello-00001-x"), false),
            (Some("other"), false),
            (None, true),
        ] {
            let kept = Name::of(name, &key);
            assert_eq!(matches!(kept, Name::Told(_)), told, "{name:?}");
            assert_eq!(kept.text(&key).as_deref(), name);
        }
        assert_eq!(std::mem::size_of::<Name>(), 16);
    }

    #[test]
    fn values_that_nobody_holds_are_thrown_out() {
        let mut pool = Pool::default();
        let held = pool.share(0u32);
        for value in 1..10_000 {
            pool.share(value);
        }
        assert!(pool.values.len() <= 64, "{}", pool.values.len());
        assert!(Arc::ptr_eq(&held, &pool.share(0)));
    }
}
