//! What the request path knows of a revision: its settings, its slots, its counts, in one shared object.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use api::activation::Policy;
use api::labels::serving;
use api::serving::Revision as RevisionObject;
use arc_swap::{ArcSwap, ArcSwapOption};
use dashmap::DashMap;
use k8s_openapi::api::core::v1::Container;
use kube::ResourceExt;
use proxy::deadline::Limits;

use crate::metrics::{Metrics, RevisionMetrics};
use crate::report::Load;
use crate::throttle::{Lines, Throttle};
use crate::wake::Wake;

/// Namespace and name of a revision. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RevisionKey {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl RevisionKey {
    /// The key of `namespace/name`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for RevisionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which protocol the app was declared to speak; it decides which port of the Endpoints is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS.
    H2c,
}

/// The settings of a revision that the request path obeys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Requests per pod; 0 = no limit. Fixed for the life of a revision.
    pub container_concurrency: u32,
    /// See [`Protocol`].
    pub protocol: Protocol,
    /// The three request timeouts.
    pub limits: Limits,
    /// Whether a pod may be used before Kubernetes calls it ready: not if only the kubelet can tell (exec readiness
    /// probe of the serving container, or any startup probe).
    pub trust_early_probe: bool,
    /// How its requests are held and ordered; `None` = as upstream does.
    pub policy: Option<Box<Policy>>,
    /// Service it belongs to; may be empty.
    pub service: Box<str>,
    /// Configuration it belongs to.
    pub configuration: Box<str>,
}

impl Settings {
    /// Reads them from the object.
    pub fn of(object: &RevisionObject) -> Self {
        let spec = &object.spec;
        let seconds = |value: Option<i64>| u64::try_from(value.unwrap_or(0)).ok().filter(|s| *s > 0);
        let label =
            |key: &str, labels: &BTreeMap<String, String>| Box::from(labels.get(key).map_or("", String::as_str));
        Self {
            container_concurrency: u32::try_from(spec.container_concurrency.unwrap_or(0).max(0)).unwrap_or(u32::MAX),
            protocol: protocol(&spec.pod.containers),
            limits: Limits {
                // Admission has filled it in; 300 is its default.
                total: Some(Duration::from_secs(seconds(spec.timeout_seconds).unwrap_or(300))),
                response_start: seconds(spec.response_start_timeout_seconds).map(Duration::from_secs),
                idle: seconds(spec.idle_timeout_seconds).map(Duration::from_secs),
            },
            trust_early_probe: trust_early_probe(&spec.pod.containers),
            policy: Some(api::activation::read(object.annotations()).0)
                .filter(|policy| !policy.is_default())
                .map(Box::new),
            service: label(serving::SERVICE, object.labels()),
            configuration: label(serving::CONFIGURATION, object.labels()),
        }
    }
}

/// The only container, or the first with ports.
fn serving_container(containers: &[Container]) -> Option<&Container> {
    match containers {
        [only] => Some(only),
        many => many.iter().find(|c| c.ports.as_ref().is_some_and(|ports| !ports.is_empty())),
    }
}

fn protocol(containers: &[Container]) -> Protocol {
    let named_h2c = serving_container(containers)
        .and_then(|container| container.ports.as_ref()?.first()?.name.as_deref())
        .is_some_and(|name| name == "h2c");
    if named_h2c { Protocol::H2c } else { Protocol::Http1 }
}

fn trust_early_probe(containers: &[Container]) -> bool {
    let exec_readiness = serving_container(containers)
        .and_then(|container| container.readiness_probe.as_ref())
        .is_some_and(|probe| probe.exec.is_some());
    !exec_readiness && containers.iter().all(|container| container.startup_probe.is_none())
}

/// One revision, shared by all threads. Its slots live as long as it does.
#[derive(Debug)]
pub struct Revision {
    /// Which one.
    pub key: RevisionKey,
    /// Its settings; timeouts may be corrected by an admin, concurrency never changes.
    pub settings: ArcSwap<Settings>,
    /// Its slots and waiters.
    pub throttle: Arc<Throttle>,
    /// Its requests in flight, as the autoscaler is told.
    pub load: Load,
    /// Its wake-up, if one is under way.
    pub wake: Wake,
    /// Made with the first request: 100k idle revisions must cost next to nothing.
    metrics: OnceLock<Arc<RevisionMetrics>>,
}

impl Revision {
    /// A revision without pods.
    pub fn new(key: RevisionKey, settings: Settings, lines: &Lines) -> Self {
        let terms = lines.terms(settings.container_concurrency, settings.policy.as_deref());
        Self {
            throttle: Throttle::new(terms, Arc::clone(&lines.budget)),
            load: Load::default(),
            wake: Wake::default(),
            metrics: OnceLock::new(),
            settings: ArcSwap::from_pointee(settings),
            key,
        }
    }

    /// Its metric handles; their series vanish with the revision.
    pub fn metrics(&self, all: &Metrics) -> &RevisionMetrics {
        self.metrics.get_or_init(|| all.revision(&self.key, &self.settings.load()))
    }

    /// Its metric handles, if it ever had a request.
    pub fn metrics_if_any(&self) -> Option<&RevisionMetrics> {
        self.metrics.get().map(|metrics| &**metrics)
    }
}

/// Two names as one key, so that a map can be asked without making a [`RevisionKey`].
trait Named {
    fn names(&self) -> (&str, &str);
}

impl Named for RevisionKey {
    fn names(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

impl Named for (&str, &str) {
    fn names(&self) -> (&str, &str) {
        *self
    }
}

impl<'a> Borrow<dyn Named + 'a> for RevisionKey {
    fn borrow(&self) -> &(dyn Named + 'a) {
        self
    }
}

impl PartialEq for dyn Named + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl Eq for dyn Named + '_ {}

/// As the derived one of [`RevisionKey`], which the map relies on.
impl Hash for dyn Named + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.names().hash(state);
    }
}

/// The place of a revision: there as soon as somebody names it, filled while the revision exists.
///
/// Routes hold the slot, so that a request finds the revision without a look-up of its own, and need not change when
/// the revision comes or goes.
#[derive(Debug)]
pub struct RevisionSlot {
    key: RevisionKey,
    current: ArcSwapOption<Revision>,
    /// Backends of routes that name it. Changed by the control thread only.
    routes: AtomicUsize,
}

impl RevisionSlot {
    /// Which revision.
    pub fn key(&self) -> &RevisionKey {
        &self.key
    }

    /// The revision, if it exists.
    pub fn get(&self) -> Option<Arc<Revision>> {
        self.current.load_full()
    }

    /// Whether the revision exists.
    pub fn is_filled(&self) -> bool {
        self.current.load().is_some()
    }
}

/// All revisions by name. Written by the control thread only.
///
/// A slot stays while its revision exists or a route names it ([`Revisions::name`], [`Revisions::unname`]).
#[derive(Debug, Default)]
pub struct Revisions {
    slots: DashMap<RevisionKey, Arc<RevisionSlot>>,
    /// One string for all revisions of a namespace, and how many slots use it. Off the request path.
    namespaces: Mutex<HashMap<Arc<str>, usize>>,
    existing: AtomicUsize,
}

impl Revisions {
    /// The revision of a name.
    pub fn get(&self, key: &RevisionKey) -> Option<Arc<Revision>> {
        self.slots.get(key)?.get()
    }

    /// The revision of a name, in one look-up and without an allocation.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Revision>> {
        let wanted: &dyn Named = &(namespace, name);
        self.slots.get(wanted)?.get()
    }

    /// A route names a revision, which may not exist yet. To be taken back by [`Revisions::unname`].
    pub fn name(&self, namespace: &str, name: &str) -> Arc<RevisionSlot> {
        let slot = self.slot(namespace, name);
        slot.routes.fetch_add(1, Ordering::Relaxed);
        slot
    }

    /// A route that named a revision is gone. Requests that still look at the old route find the revision as long as
    /// it exists at this moment.
    pub fn unname(&self, slot: &RevisionSlot) {
        if slot.routes.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.forget_if_unused(slot);
        }
    }

    /// Adds or corrects a revision.
    pub fn apply(&self, key: &RevisionKey, settings: Settings, lines: &Lines) -> Arc<Revision> {
        let slot = self.slot(&key.namespace, &key.name);
        if let Some(known) = slot.get() {
            let same_limit = known.settings.load().container_concurrency == settings.container_concurrency;
            if same_limit {
                // Annotations may change.
                known.throttle.set_terms(lines.terms(settings.container_concurrency, settings.policy.as_deref()));
                known.settings.store(Arc::new(settings));
                return known;
            }
            // Deleted and made anew under the same name between two looks.
        }
        let revision = Arc::new(Revision::new(slot.key.clone(), settings, lines));
        if slot.current.swap(Some(Arc::clone(&revision))).is_none() {
            self.existing.fetch_add(1, Ordering::Relaxed);
        }
        revision
    }

    /// Forgets a revision; requests in flight keep it alive until they end.
    pub fn remove(&self, key: &RevisionKey) {
        let Some(slot) = self.slots.get(key).map(|found| Arc::clone(found.value())) else { return };
        if slot.current.swap(None).is_some() {
            self.existing.fetch_sub(1, Ordering::Relaxed);
        }
        self.forget_if_unused(&slot);
    }

    /// The one string of a namespace; a new one while it has no revision.
    pub fn namespace(&self, namespace: &str) -> Arc<str> {
        let namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        match namespaces.get_key_value(namespace) {
            Some((known, _)) => Arc::clone(known),
            None => namespace.into(),
        }
    }

    /// How many revisions exist.
    pub fn len(&self) -> usize {
        self.existing.load(Ordering::Relaxed)
    }

    /// Whether none exists.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many are known by name, whether they exist or not.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    fn slot(&self, namespace: &str, name: &str) -> Arc<RevisionSlot> {
        let wanted: &dyn Named = &(namespace, name);
        if let Some(found) = self.slots.get(wanted) {
            return Arc::clone(found.value());
        }
        let key = RevisionKey { namespace: self.shared_namespace(namespace), name: name.into() };
        let slot = RevisionSlot { key: key.clone(), current: ArcSwapOption::empty(), routes: AtomicUsize::default() };
        let slot = Arc::new(slot);
        self.slots.insert(key, Arc::clone(&slot));
        slot
    }

    fn forget_if_unused(&self, slot: &RevisionSlot) {
        if slot.routes.load(Ordering::Relaxed) > 0 || slot.is_filled() {
            return;
        }
        if self.slots.remove(&slot.key).is_none() {
            return;
        }
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(users) = namespaces.get_mut(&slot.key.namespace) {
            *users -= 1;
            if *users == 0 {
                namespaces.remove(&slot.key.namespace);
            }
        }
    }

    /// The one string of a namespace, with one more user.
    fn shared_namespace(&self, namespace: &str) -> Arc<str> {
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, _)) = namespaces.get_key_value(namespace) {
            let known = Arc::clone(known);
            namespaces.entry(Arc::clone(&known)).and_modify(|users| *users += 1);
            return known;
        }
        let known: Arc<str> = namespace.into();
        namespaces.insert(Arc::clone(&known), 1);
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(containers: &serde_json::Value, more: &serde_json::Value) -> Settings {
        let mut spec = json!({ "containers": containers });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let object = json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
            "metadata": { "name": "r", "namespace": "n", "labels": {
                "serving.knative.dev/service": "s", "serving.knative.dev/configuration": "c" } },
            "spec": spec,
        });
        Settings::of(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn settings_follow_the_object() {
        let read = settings(
            &json!([{ "image": "i", "ports": [{ "containerPort": 80, "name": "h2c" }] }]),
            &json!({ "containerConcurrency": 5, "timeoutSeconds": 10, "idleTimeoutSeconds": 0,
                    "responseStartTimeoutSeconds": 3 }),
        );
        assert_eq!(read.container_concurrency, 5);
        assert_eq!(read.protocol, Protocol::H2c);
        assert_eq!(read.limits.total, Some(Duration::from_secs(10)));
        assert_eq!(read.limits.response_start, Some(Duration::from_secs(3)));
        assert_eq!(read.limits.idle, None);
        assert_eq!((&*read.service, &*read.configuration), ("s", "c"));
        assert!(read.trust_early_probe);
    }

    #[test]
    fn annotations_make_a_policy_and_may_change() {
        let key = RevisionKey::new("n", "r");
        let of = |annotations: serde_json::Value| {
            let object = json!({
                "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
                "metadata": { "name": "r", "namespace": "n", "annotations": annotations },
                "spec": { "containers": [{ "image": "i" }] },
            });
            Settings::of(&serde_json::from_value(object).unwrap())
        };
        assert_eq!(of(json!({ "autoscaling.knative.dev/min-scale": "1" })).policy, None);
        assert_eq!(of(json!({ "activator.dormouse.dev/queue-length": "many" })).policy, None);
        let one = of(json!({ "activator.dormouse.dev/queue-length": "1" }));
        assert_eq!(one.policy.as_ref().and_then(|policy| policy.queue_length), Some(1));

        let lines = Lines::each(2);
        let revisions = Revisions::default();
        let revision = revisions.apply(&key, one, &lines);
        let enter = || match revision.throttle.enter(&crate::throttle::ask::Ask::default()) {
            crate::throttle::Admission::Waiting(wait, _) => Some(wait),
            _ => None,
        };
        let first = enter();
        assert!(first.is_some() && enter().is_none());
        assert!(Arc::ptr_eq(&revisions.apply(&key, of(json!({})), &lines), &revision));
        let second = enter();
        assert!(second.is_some() && enter().is_none(), "the activator's own bound");
    }

    #[test]
    fn only_the_kubelet_knows_exec_and_startup_probes() {
        let exec = json!({ "exec": { "command": ["true"] } });
        let trust = |containers: serde_json::Value| settings(&containers, &json!({})).trust_early_probe;
        assert!(!trust(json!([{ "image": "i", "readinessProbe": exec }])));
        assert!(!trust(json!([{ "image": "i", "startupProbe": exec }])));
        assert!(!trust(
            json!([{ "image": "i", "ports": [{ "containerPort": 1 }] }, { "image": "j", "startupProbe": exec }])
        ));
        // A sidecar's exec readiness probe does not count (upstream's code, whatever its test says).
        assert!(trust(
            json!([{ "image": "i", "ports": [{ "containerPort": 1 }] }, { "image": "j", "readinessProbe": exec }])
        ));
    }

    #[test]
    fn a_slot_lives_while_a_route_names_it_or_its_revision_exists() {
        let all = Revisions::default();
        let known = settings(&json!([{ "image": "i" }]), &json!({}));
        let (one, two) = (RevisionKey::new("ns", "one"), RevisionKey::new("ns", "two"));
        // Named before it exists: the route's slot is filled when it comes.
        let slot = all.name("ns", "one");
        assert!(slot.get().is_none() && all.get(&one).is_none() && all.is_empty());
        let revision = all.apply(&one, known.clone(), &Lines::each(10));
        assert!(Arc::ptr_eq(&slot.get().unwrap(), &revision));
        assert!(Arc::ptr_eq(&all.find("ns", "one").unwrap(), &revision));
        assert!(all.find("n", "sone").is_none() && all.find("one", "ns").is_none());
        // Existing before it is named; one namespace, one string.
        let second = all.apply(&two, known.clone(), &Lines::each(10));
        assert!(Arc::ptr_eq(&second.key.namespace, &revision.key.namespace));
        assert_eq!((all.len(), all.slots()), (2, 2));
        all.remove(&two);
        assert_eq!((all.len(), all.slots()), (1, 1));
        // Made anew under the same name: the same slot.
        all.remove(&one);
        assert!(slot.get().is_none());
        let again = all.apply(&one, known, &Lines::each(10));
        assert!(Arc::ptr_eq(&slot.get().unwrap(), &again) && !Arc::ptr_eq(&again, &revision));
        let other_route = all.name("ns", "one");
        all.unname(&other_route);
        all.remove(&one);
        assert_eq!((all.len(), all.slots()), (0, 1));
        all.unname(&slot);
        assert_eq!(all.slots(), 0);
        assert!(all.namespaces.lock().unwrap().is_empty());
    }
}
