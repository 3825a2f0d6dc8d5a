//! What the API server says, as changes: the way into the [`crate::world::World`] for watches and for tests.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use k8s_openapi::api::core::v1::{Endpoints, Secret, Service};
use kube::ResourceExt;
use tokio::sync::mpsc;

use api::networking::Ingress;
use api::serving::Revision;
use std::net::SocketAddr;

use crate::certificates::SecretName;
use crate::endpoints::parse;
use crate::endpoints::pods::Look;
use crate::revision::RevisionKey;

/// A change of objects of one kind.
#[derive(Debug)]
pub enum Change<K> {
    /// All there are; whatever is not among them is gone.
    Listed(Vec<K>),
    /// New or changed.
    Applied(K),
    /// Gone.
    Deleted(K),
}

/// The same, object by object: of a hundred thousand that are listed none has to be kept until the last has come.
#[derive(Debug)]
pub enum One<K> {
    /// New or changed, or listed.
    Applied(K),
    /// Gone.
    Deleted(K),
    /// All there are have been applied; whatever is not among these is gone.
    Complete(Seen),
}

impl<K> Change<K> {
    /// One after the other. `name`: what an object is known by; one without a name is not ours.
    pub fn one_by_one(self, name: NameOf<K>) -> Vec<One<K>> {
        match self {
            Self::Applied(object) => vec![One::Applied(object)],
            Self::Deleted(object) => vec![One::Deleted(object)],
            Self::Listed(all) => {
                let mut seen = Seen::default();
                for object in &all {
                    seen.add(name(object));
                }
                all.into_iter().map(One::Applied).chain([One::Complete(seen)]).collect()
            }
        }
    }
}

/// Namespace and name by which the world knows what an object is about.
pub type NameOf<K> = fn(&K) -> Option<(String, String)>;

/// Names, for the question whether one was among them. Only their hashes are kept, with a key that nobody can know: two of
/// a hundred thousand names are taken for one another once in billions of lists, and then only a name that is gone stays.
#[derive(Debug, Default)]
pub struct Seen {
    hasher: RandomState,
    names: HashSet<u64>,
}

impl Seen {
    /// One more, if it has a name.
    pub fn add(&mut self, name: Option<(String, String)>) {
        if let Some((namespace, name)) = name {
            self.names.insert(self.hasher.hash_one((namespace.as_str(), name.as_str())));
        }
    }

    /// Whether it was among them.
    pub fn has(&self, namespace: &str, name: &str) -> bool {
        self.names.contains(&self.hasher.hash_one((namespace, name)))
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// What an object is called itself.
pub fn own_name<K: ResourceExt>(object: &K) -> Option<(String, String)> {
    Some((object.namespace().unwrap_or_default(), object.name_any()))
}

/// The revision whose private Endpoints these are.
pub fn endpoints_of(endpoints: &Endpoints) -> Option<(String, String)> {
    let (key, private) = parse::owner(endpoints)?;
    private.then(|| (key.namespace.to_string(), key.name.to_string()))
}

/// The revision whose private Service this is.
pub fn service_of(service: &Service) -> Option<(String, String)> {
    parse::private_service_of(service).map(|key| (key.namespace.to_string(), key.name.to_string()))
}

/// Something that may change where requests go.
#[derive(Debug)]
// Events pass through a channel once and are few; boxing the objects would only add an allocation to each.
#[allow(clippy::large_enum_variant)]
pub enum Event {
    /// Ingress objects.
    Ingress(One<Ingress>),
    /// Revisions.
    Revision(One<Revision>),
    /// Endpoints, private and public ones.
    Endpoints(One<Endpoints>),
    /// Private Services.
    Service(One<Service>),
    /// What a Secret with a certificate holds now; `None` = it is gone.
    Secret(SecretName, Option<Secret>),
    /// A pod, or a cluster IP, answered its probe.
    Probed(RevisionKey, SocketAddr),
    /// Its probe met something else; said when it is something else than before.
    Asked(RevisionKey, SocketAddr, Look),
    /// A request found nobody at a pod.
    SetAside(RevisionKey, SocketAddr),
}

/// The sending end; clones feed the same world.
///
/// The channel has no bound of its own: watches send one event per object the API server sends, a probe one for each
/// change of what it meets (a rhythm apart), and requests at most one `SetAside` per pod until it has been handled (the
/// throttle takes a pod out once).
#[derive(Debug, Clone)]
pub struct Feed {
    events: mpsc::UnboundedSender<Event>,
}

impl Feed {
    /// A feed and where it leads.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (events, receiver) = mpsc::unbounded_channel();
        (Self { events }, receiver)
    }

    /// Hands an event over. After the end of the world nobody cares.
    pub fn send(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// Ingresses changed.
    pub fn ingress(&self, change: Change<Ingress>) {
        change.one_by_one(own_name).into_iter().for_each(|one| self.send(Event::Ingress(one)));
    }

    /// Revisions changed.
    pub fn revision(&self, change: Change<Revision>) {
        change.one_by_one(own_name).into_iter().for_each(|one| self.send(Event::Revision(one)));
    }

    /// A Secret is seen, or seen no more.
    pub fn secret(&self, name: SecretName, secret: Option<Secret>) {
        self.send(Event::Secret(name, secret));
    }

    /// Endpoints changed.
    pub fn endpoints(&self, change: Change<Endpoints>) {
        change.one_by_one(endpoints_of).into_iter().for_each(|one| self.send(Event::Endpoints(one)));
    }

    /// Private Services changed.
    pub fn service(&self, change: Change<Service>) {
        change.one_by_one(service_of).into_iter().for_each(|one| self.send(Event::Service(one)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_its_objects_and_then_their_names() {
        let service = |name: &str| {
            let mut service = Service::default();
            (service.metadata.namespace, service.metadata.name) = (Some("ns".into()), Some(name.into()));
            service
        };
        let mut all = Change::Listed(vec![service("a-private"), service("other")]).one_by_one(service_of).into_iter();
        for name in ["a-private", "other"] {
            assert!(matches!(all.next(), Some(One::Applied(one)) if one.metadata.name.as_deref() == Some(name)));
        }
        let Some(One::Complete(seen)) = all.next() else { panic!("the end of the list is not told") };
        assert!(seen.has("ns", "a") && !seen.has("ns", "other") && !seen.has("n", "sa") && seen.len() == 1);
        assert!(all.next().is_none());
    }
}
