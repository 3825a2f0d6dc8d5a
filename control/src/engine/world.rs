//! Everything the reconcilers know, and who has to look again when a piece of it changes.

use std::sync::Arc;

use api::{
    autoscaling::PodAutoscaler,
    labels,
    networking::{Certificate, ClusterDomainClaim, Ingress, ServerlessService},
    serving::{Configuration, DomainMapping, Revision, Route, Service},
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Endpoints, Namespace, Pod, Service as CoreService},
};
use kube::{Api, Client, Resource, ResourceExt};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    store::{Change, Store},
    tracker::{Referred, Tracker},
    work::Work,
};
use crate::owner;

/// A reconciler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// [`crate::service`]
    Service,
    /// [`crate::configuration`]
    Configuration,
    /// [`crate::gc`], by Configuration
    Gc,
    /// [`crate::labeler`], by Route
    Labeler,
    /// [`crate::revision`]
    Revision,
    /// [`crate::serverless_service`]
    ServerlessService,
    /// [`crate::route`]
    Route,
    /// [`crate::ingress`]
    Ingress,
    /// [`crate::domain_mapping`]
    DomainMapping,
    /// [`crate::certificate`]
    Certificate,
    /// [`crate::certificate::namespaces`]
    Namespace,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Service,
        Self::Configuration,
        Self::Gc,
        Self::Labeler,
        Self::Revision,
        Self::ServerlessService,
        Self::Route,
        Self::Ingress,
        Self::DomainMapping,
        Self::Certificate,
        Self::Namespace,
    ];

    /// As written in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Configuration => "configuration",
            Self::Gc => "gc",
            Self::Labeler => "labeler",
            Self::Revision => "revision",
            Self::ServerlessService => "serverlessservice",
            Self::Route => "route",
            Self::Ingress => "ingress",
            Self::DomainMapping => "domainmapping",
            Self::Certificate => "certificate",
            Self::Namespace => "namespace",
        }
    }
}

/// One object for one reconciler.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Who works on it.
    pub kind: Kind,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}

/// What the reconcilers know.
pub struct World {
    /// `serving.knative.dev` Services.
    pub services: Store<Service>,
    /// Configurations, indexed by the Routes that are noted on them.
    pub configurations: Store<Configuration>,
    /// Revisions, indexed by the UID of their Configuration and by the Routes that are noted on them.
    pub revisions: Store<Revision>,
    /// Routes.
    pub routes: Store<Route>,
    /// PodAutoscalers.
    pub autoscalers: Store<PodAutoscaler>,
    /// ServerlessServices.
    pub serverless_services: Store<ServerlessService>,
    /// Ingresses of every class.
    pub ingresses: Store<Ingress>,
    /// Deployments of revisions.
    pub deployments: Store<Deployment>,
    /// Pods of revisions, indexed by `namespace/revision`; without their spec.
    pub pods: Store<Pod>,
    /// Kubernetes Services, indexed by the UID of their owner.
    pub core_services: Store<CoreService>,
    /// Endpoints.
    pub endpoints: Store<Endpoints>,
    /// DomainMappings, indexed by what they refer to and by their name.
    pub domain_mappings: Store<DomainMapping>,
    /// Certificates, indexed by the UID of their owner and by the domain of which they are good for all hosts.
    pub certificates: Store<Certificate>,
    /// Namespaces; their own namespace is empty.
    pub namespaces: Store<Namespace>,
    /// ClusterDomainClaims; their namespace is empty.
    pub domain_claims: Store<ClusterDomainClaim>,
    /// Which Routes refer to what.
    pub tracker: Tracker,
    /// What is to be worked on.
    pub work: Work,
    /// Where the activator's Endpoints live.
    pub system_namespace: String,
}

/// Name of the Endpoints that list the activators.
pub const ACTIVATOR_SERVICE: &str = "activator-service";

impl World {
    /// Knows nothing yet.
    pub fn new(system_namespace: &str) -> Self {
        Self {
            services: Store::new(|_| Vec::new()),
            configurations: Store::new(notes),
            revisions: Store::new(|revision| [owner_uid(revision), notes(revision)].concat()),
            routes: Store::new(|_| Vec::new()),
            autoscalers: Store::new(|_| Vec::new()),
            serverless_services: Store::new(|_| Vec::new()),
            ingresses: Store::new(|_| Vec::new()),
            deployments: Store::new(|_| Vec::new()),
            pods: Store::new(pod_index),
            core_services: Store::new(owner_uid),
            endpoints: Store::new(|_| Vec::new()),
            domain_mappings: Store::new(mapping_index),
            certificates: Store::new(certificate_index),
            namespaces: Store::new(|_| Vec::new()),
            domain_claims: Store::new(|_| Vec::new()),
            tracker: Tracker::default(),
            work: Work::default(),
            system_namespace: system_namespace.to_owned(),
        }
    }

    /// An object was read or written: remember it and wake who cares.
    pub fn observe<K: Known>(&self, mut object: K) {
        object.prune();
        if let Some(change) = K::store(self).apply(object) {
            K::wake(self, &change);
        }
    }

    /// An object was deleted.
    pub fn forget<K: Known>(&self, object: &K) {
        if let Some(change) = K::store(self).remove(object) {
            K::wake(self, &change);
        }
    }

    /// A whole new list was read.
    pub fn relist<K: Known>(&self, mut objects: Vec<K>) {
        objects.iter_mut().for_each(K::prune);
        for change in K::store(self).replace(objects) {
            K::wake(self, &change);
        }
    }

    /// Settings changed: look at everything that depends on them.
    pub fn wake_all(&self) {
        self.wake_each(Kind::Revision, &self.revisions.names());
        self.wake_each(Kind::Gc, &self.configurations.names());
        self.wake_each(Kind::Route, &self.routes.names());
        self.wake_each(Kind::Ingress, &self.ingresses.names());
        self.wake_each(Kind::DomainMapping, &self.domain_mappings.names());
        self.wake_each(Kind::Certificate, &self.certificates.names());
        self.wake_each(Kind::Namespace, &self.namespaces.names());
    }

    fn wake_each(&self, kind: Kind, names: &[(Box<str>, Box<str>)]) {
        for (namespace, name) in names {
            self.wake_name(kind, namespace, name);
        }
    }

    fn wake<K: ResourceExt>(&self, kind: Kind, object: &K) {
        self.wake_name(kind, &object.namespace().unwrap_or_default(), &object.name_any());
    }

    fn wake_name(&self, kind: Kind, namespace: &str, name: &str) {
        self.work.add(Key { kind, namespace: namespace.to_owned(), name: name.to_owned() });
    }

    /// Wakes the reconciler of the controlling owner, where that is of this kind.
    fn wake_owner<K: ResourceExt>(&self, kind: Kind, owner_kind: &str, object: &K) {
        if let Some(owner) = controller_of(object).filter(|owner| owner.kind == owner_kind) {
            self.wake_name(kind, &object.namespace().unwrap_or_default(), &owner.name);
        }
    }

    /// Wakes the DomainMappings that are indexed so.
    fn wake_mappings(&self, index: &str) {
        for mapping in self.domain_mappings.indexed(index) {
            self.wake(Kind::DomainMapping, mapping.as_ref());
        }
    }

    /// Wakes the DomainMappings that lead to an object.
    fn wake_mappings_of<K: Resource<DynamicType = ()>>(&self, object: &K) {
        let namespace = object.namespace().unwrap_or_default();
        self.wake_mappings(&target_index(&K::api_version(&()), &K::kind(&()), &namespace, &object.name_any()));
    }

    fn wake_routes_of<K: ResourceExt>(&self, referred: Referred, object: &K) {
        let namespace = object.namespace().unwrap_or_default();
        for route in self.tracker.routes_of(referred, &namespace, &object.name_any()) {
            self.wake_name(Kind::Route, &namespace, &route);
            self.wake_name(Kind::Labeler, &namespace, &route);
        }
    }
}

/// The owner reference with `controller: true`.
pub fn controller_of<K: ResourceExt>(
    object: &K,
) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference> {
    object.owner_references().iter().find(|owner| owner.controller == Some(true))
}

/// Whether `owner` controls `object`.
pub fn is_controlled_by<K: ResourceExt, O: ResourceExt>(object: &K, owner: &O) -> bool {
    controller_of(object).is_some_and(|reference| Some(&reference.uid) == owner.uid().as_ref())
}

fn owner_uid<K: ResourceExt>(object: &K) -> Vec<String> {
    controller_of(object).map(|owner| owner.uid.clone()).into_iter().collect()
}

fn pod_index(pod: &Pod) -> Vec<String> {
    let revision = pod.labels().get(labels::serving::REVISION);
    revision.map(|revision| revision_index(&pod.namespace().unwrap_or_default(), revision)).into_iter().collect()
}

fn notes<K: ResourceExt>(object: &K) -> Vec<String> {
    let namespace = object.namespace().unwrap_or_default();
    let routes = owner::list_value(object.annotations(), labels::serving::ROUTES);
    routes.into_iter().map(|route| note_index(&namespace, route)).collect()
}

fn mapping_index(mapping: &DomainMapping) -> Vec<String> {
    let (target, name) = (&mapping.spec.target, mapping.name_any());
    let namespace = mapping.namespace().unwrap_or_default();
    vec![target_index(&target.api_version, &target.kind, &namespace, &target.name), domain_index(&name)]
}

fn certificate_index(certificate: &Certificate) -> Vec<String> {
    let namespace = certificate.namespace().unwrap_or_default();
    let domain = certificate.labels().get(labels::networking::WILDCARD_DOMAIN);
    owner_uid(certificate).into_iter().chain(domain.map(|domain| wildcard_index(&namespace, domain))).collect()
}

/// Index key of the Certificates that are good for all hosts of a domain in a namespace.
pub fn wildcard_index(namespace: &str, domain: &str) -> String {
    format!("wildcard {namespace}/{domain}")
}

/// Index key of the DomainMappings that lead to an object.
fn target_index(api_version: &str, kind: &str, namespace: &str, name: &str) -> String {
    format!("{api_version} {kind} {namespace}/{name}")
}

/// Index key of the DomainMappings of a host, one in each namespace that would like to have it.
fn domain_index(host: &str) -> String {
    format!("domain {host}")
}

/// Index key of the objects on which a Route is noted.
pub fn note_index(namespace: &str, route: &str) -> String {
    format!("route {namespace}/{route}")
}

/// Index key of the pods of a revision.
pub fn revision_index(namespace: &str, revision: &str) -> String {
    format!("{namespace}/{revision}")
}

/// Whether a pod has something to say: it finds no node, a container ended, or waits for more than its turn.
fn in_trouble(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let unscheduled = status.conditions.iter().flatten().any(|c| c.type_ == "PodScheduled" && c.status == "False");
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    unscheduled
        || containers.into_iter().any(|container| {
            let states = [&container.state, &container.last_state];
            states.into_iter().flatten().any(|state| {
                let waiting = state.waiting.as_ref().and_then(|w| w.reason.as_deref()).unwrap_or_default();
                state.terminated.is_some() || !["", "ContainerCreating", "PodInitializing"].contains(&waiting)
            })
        })
}

/// A kind that the world knows.
pub trait Known:
    Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Label selector of the watch.
    const SELECTOR: Option<&'static str> = None;
    /// Where it is kept.
    fn store(world: &World) -> &Store<Self>;
    /// Where it is written.
    fn api(client: Client, namespace: &str) -> Api<Self>;
    /// Who looks again.
    fn wake(world: &World, change: &Change<Self>);
    /// Drops what no reconciler reads, so that thousands of objects stay small.
    fn prune(&mut self) {
        self.meta_mut().managed_fields = None;
    }
}

/// `Known` for a kind, with the reconcilers that its changes wake.
macro_rules! known {
    ($type:ty, $store:ident, |$world:ident, $change:ident, $object:ident| $wake:block $($rest:tt)*) => {
        impl Known for $type {
            $($rest)*
            fn store(world: &World) -> &Store<Self> {
                &world.$store
            }
            fn api(client: Client, namespace: &str) -> Api<Self> {
                Api::namespaced(client, namespace)
            }
            fn wake($world: &World, $change: &Change<Self>) {
                let Some($object) = $change.either() else { return };
                let $object: &Arc<Self> = $object;
                $wake
            }
        }
    };
}

known!(Service, services, |world, _change, object| {
    world.wake(Kind::Service, object.as_ref());
    world.wake_mappings_of(object.as_ref());
});
known!(DomainMapping, domain_mappings, |world, _change, object| {
    world.wake(Kind::DomainMapping, object.as_ref());
});
known!(Configuration, configurations, |world, _change, object| {
    world.wake(Kind::Configuration, object.as_ref());
    world.wake(Kind::Gc, object.as_ref());
    world.wake_owner(Kind::Service, "Service", object.as_ref());
    world.wake_routes_of(Referred::Configuration, object.as_ref());
});
known!(Revision, revisions, |world, _change, object| {
    world.wake(Kind::Revision, object.as_ref());
    world.wake_owner(Kind::Configuration, "Configuration", object.as_ref());
    world.wake_owner(Kind::Gc, "Configuration", object.as_ref());
    world.wake_routes_of(Referred::Revision, object.as_ref());
});
known!(Route, routes, |world, _change, object| {
    world.wake(Kind::Route, object.as_ref());
    world.wake(Kind::Labeler, object.as_ref());
    world.wake_owner(Kind::Service, "Service", object.as_ref());
    world.wake_mappings_of(object.as_ref());
});
known!(PodAutoscaler, autoscalers, |world, _change, object| {
    world.wake_owner(Kind::Revision, "Revision", object.as_ref());
});
known!(ServerlessService, serverless_services, |world, _change, object| {
    world.wake(Kind::ServerlessService, object.as_ref());
});
known!(Ingress, ingresses, |world, _change, object| {
    world.wake(Kind::Ingress, object.as_ref());
    world.wake_owner(Kind::Route, "Route", object.as_ref());
    world.wake_owner(Kind::DomainMapping, "DomainMapping", object.as_ref());
});
known!(Certificate, certificates, |world, _change, object| {
    world.wake(Kind::Certificate, object.as_ref());
    world.wake_owner(Kind::Route, "Route", object.as_ref());
    world.wake_owner(Kind::DomainMapping, "DomainMapping", object.as_ref());
    if object.labels().contains_key(labels::networking::WILDCARD_DOMAIN) {
        let namespace = object.namespace().unwrap_or_default();
        world.wake_name(Kind::Namespace, "", &namespace);
        // Any Route of the namespace may have a host that it is good for.
        for (_, route) in world.routes.names().iter().filter(|(of, _)| **of == *namespace) {
            world.wake_name(Kind::Route, &namespace, route);
        }
    }
});
known!(Deployment, deployments, |world, _change, object| {
    world.wake_owner(Kind::Revision, "Revision", object.as_ref());
    if let Some(revision) = object.labels().get(labels::serving::REVISION) {
        let namespace = object.namespace().unwrap_or_default();
        // Its selector is what the private Service selects by; that never changes, so only its coming counts.
        if _change.old.is_none() && world.serverless_services.has(&namespace, revision) {
            world.wake_name(Kind::ServerlessService, &namespace, revision);
        }
    }
} const SELECTOR: Option<&'static str> = Some(labels::serving::REVISION););
known!(Pod, pods, |world, change, object| {
    // A pod that comes up well is told by its Deployment; here only trouble counts. Every other event would put work
    // beside the start of a pod that somebody waits for.
    let troubled = [&change.old, &change.new].into_iter().flatten().any(|pod| in_trouble(pod));
    if let Some(revision) = object.labels().get(labels::serving::REVISION).filter(|_| troubled) {
        world.wake_name(Kind::Revision, &object.namespace().unwrap_or_default(), revision);
    }
}
    const SELECTOR: Option<&'static str> = Some(labels::serving::REVISION);
    fn prune(&mut self) {
        self.metadata.managed_fields = None;
        self.metadata.annotations = None;
        self.spec = None;
    }
);
known!(CoreService, core_services, |world, _change, object| {
    world.wake_owner(Kind::ServerlessService, "ServerlessService", object.as_ref());
    world.wake_owner(Kind::Route, "Route", object.as_ref());
    world.wake_mappings_of(object.as_ref());
});
known!(Endpoints, endpoints, |world, _change, object| {
    let namespace = object.namespace().unwrap_or_default();
    if namespace == world.system_namespace && object.name_any() == ACTIVATOR_SERVICE {
        world.wake_each(Kind::ServerlessService, &world.serverless_services.names());
    } else if let Some(name) = object.labels().get(labels::networking::SKS) {
        world.wake_name(Kind::ServerlessService, &namespace, name);
    } else if let Some(revision) = object.labels().get(labels::serving::REVISION) {
        world.wake_name(Kind::ServerlessService, &namespace, revision);
    }
});

impl Known for Namespace {
    fn store(world: &World) -> &Store<Self> {
        &world.namespaces
    }
    fn api(client: Client, _namespace: &str) -> Api<Self> {
        Api::all(client)
    }
    fn wake(world: &World, change: &Change<Self>) {
        if let Some(namespace) = change.either() {
            world.wake(Kind::Namespace, namespace.as_ref());
        }
    }
}

impl Known for ClusterDomainClaim {
    fn store(world: &World) -> &Store<Self> {
        &world.domain_claims
    }
    fn api(client: Client, _namespace: &str) -> Api<Self> {
        Api::all(client)
    }
    fn wake(world: &World, change: &Change<Self>) {
        if let Some(claim) = change.either() {
            world.wake_mappings(&domain_index(&claim.name_any()));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(version: u32, state: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": "p", "namespace": "ns", "uid": "1", "resourceVersion": version.to_string(),
                "labels": {"serving.knative.dev/revision": "rev"},
            },
            "status": {"containerStatuses": [
                {"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state}
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_wakes_its_revision_only_with_trouble() {
        let world = World::new("knative-serving");
        let steps = [
            (json!({"waiting": {"reason": "ContainerCreating"}}), false),
            (json!({"running": {}}), false),
            (json!({"terminated": {"exitCode": 1}}), true),
            (json!({"running": {}}), true),
            (json!({"waiting": {"reason": "ErrImagePull"}}), true),
        ];
        for (version, (state, wakes)) in (1..).zip(steps) {
            world.observe(pod(version, &state));
            let key = world.work.try_next();
            assert_eq!(key.as_ref().map(|k| k.kind), wakes.then_some(Kind::Revision), "{state}");
            if let Some(key) = key {
                world.work.done(key, crate::engine::queue::Outcome::Settled);
            }
        }
    }

    #[test]
    fn the_activators_coming_wakes_every_serverless_service() {
        let world = World::new("knative-serving");
        for name in ["a", "b"] {
            world.observe(
                serde_json::from_value::<ServerlessService>(json!({
                    "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "ServerlessService",
                    "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "1"},
                    "spec": {"objectRef": {}, "protocolType": "http1"},
                }))
                .unwrap(),
            );
        }
        while let Some(key) = world.work.try_next() {
            world.work.done(key, crate::engine::queue::Outcome::Settled);
        }
        world.observe(
            serde_json::from_value::<Endpoints>(json!({
                "metadata": {
                    "name": ACTIVATOR_SERVICE, "namespace": "knative-serving", "uid": "e", "resourceVersion": "2"
                },
            }))
            .unwrap(),
        );
        assert_eq!(world.work.depth(), 2);
    }
}
