//! What the API server says, as changes: the way into the [`crate::world::World`] for watches and for tests.

use k8s_openapi::api::core::v1::{Endpoints, Secret, Service};
use tokio::sync::mpsc;

use api::networking::Ingress;
use api::serving::Revision;
use std::net::SocketAddr;

use crate::certificates::SecretName;
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

/// Something that may change where requests go.
#[derive(Debug)]
// Events pass through a channel once and are few; boxing the objects would only add an allocation to each.
#[allow(clippy::large_enum_variant)]
pub enum Event {
    /// Ingress objects.
    Ingress(Change<Ingress>),
    /// Revisions.
    Revision(Change<Revision>),
    /// Endpoints, private and public ones.
    Endpoints(Change<Endpoints>),
    /// Private Services.
    Service(Change<Service>),
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
        self.send(Event::Ingress(change));
    }

    /// Revisions changed.
    pub fn revision(&self, change: Change<Revision>) {
        self.send(Event::Revision(change));
    }

    /// A Secret is seen, or seen no more.
    pub fn secret(&self, name: SecretName, secret: Option<Secret>) {
        self.send(Event::Secret(name, secret));
    }

    /// Endpoints changed.
    pub fn endpoints(&self, change: Change<Endpoints>) {
        self.send(Event::Endpoints(change));
    }

    /// Private Services changed.
    pub fn service(&self, change: Change<Service>) {
        self.send(Event::Service(change));
    }
}
