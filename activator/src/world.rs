//! What is known of the cluster, and what follows for the request path. The only writer of table, revisions and pods.
//!
//! Runs on the control thread. It takes [`Event`]s one by one, in order, and never waits inside: probes are tasks of
//! their own, one per pod, that come back as events. With the API server away no events come, and everything stays as
//! last known.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::networking::Ingress;
use api::ports;
use api::serving::Revision as RevisionObject;
use api::settings::MeshCompatibility;
use http::HeaderValue;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::ResourceExt;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::endpoints::backends::{Backends, Usable};
use crate::endpoints::parse::{self, Addresses, ByProtocol, ClusterIp};
use crate::endpoints::pods::{Orders, Trust};
use crate::endpoints::probe::{self, Rhythm, Turns};
use crate::feed::{Event, Feed, One, Seen};
use crate::internal_tls::InternalTls;
use crate::revision::{Protocol, Revision, RevisionKey, Settings};
use crate::shared::Shared;
use crate::table::{Names, Routes};
use crate::throttle::Lines;
use crate::throttle::subset::Share;
use crate::throttle::target::Target;

/// The private Service's port for TLS.
const SERVICE_HTTPS: u16 = 443;
/// How soon to look again whether a replaced routing table can be freed. A request looks at one for microseconds.
const RECLAIM: Duration = Duration::from_millis(10);

/// Which kinds have been listed at least once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Synced {
    ingresses: bool,
    revisions: bool,
    endpoints: bool,
    services: bool,
}

impl Synced {
    /// Whether a request can be judged: before that, "unknown host" could be wrong.
    pub fn complete(self, needs_ingresses: bool) -> bool {
        (self.ingresses || !needs_ingresses) && self.revisions && self.endpoints && self.services
    }
}

/// How the world works.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Ingresses of this class are served.
    pub ingress_class: String,
    /// How long lines may get.
    pub lines: Lines,
    /// How pods are probed.
    pub rhythm: Rhythm,
    /// How revisions behind a mesh are reached.
    pub mesh: MeshCompatibility,
    /// Whether a mesh lets requests through to pods if asked.
    pub passthrough: bool,
    /// Whether Services are watched.
    pub services: bool,
    /// Whose certificates pods must have; `None` = requests go in clear text.
    pub tls: Option<Arc<InternalTls>>,
    /// Our address among the activators; empty = not shared.
    pub own_ip: String,
}

/// One revision with its pods.
#[derive(Debug)]
struct Tracked {
    backends: Backends,
    revision: Option<Arc<Revision>>,
    /// These three in boxes: most revisions sleep, behind no mesh and on one activator, and there may be 100,000 of them.
    pods: Option<Box<ByProtocol>>,
    cluster_ip: Option<Box<ClusterIp>>,
    share: Option<Box<(Option<Share>, Option<Share>)>>,
    probes: HashMap<SocketAddr, AbortHandle>,
}

/// See the module.
#[derive(Debug)]
pub struct World {
    rules: Rules,
    shared: Arc<Shared>,
    feed: Feed,
    turns: Arc<Turns>,
    routes: Routes,
    /// In boxes, because a map keeps up to half of its room for entries to come.
    tracked: HashMap<RevisionKey, Box<Tracked>>,
    synced: watch::Sender<Synced>,
}

impl World {
    /// An empty world.
    pub fn new(rules: Rules, shared: Arc<Shared>, feed: Feed) -> (Self, watch::Receiver<Synced>) {
        // What is not watched need not be waited for.
        let (synced, seen) = watch::channel(Synced { services: !rules.services, ..Synced::default() });
        let routes = Routes::new(&rules.ingress_class);
        let turns = Arc::default();
        let this = Self { rules, shared, feed, turns, routes, tracked: HashMap::new(), synced };
        (this, seen)
    }

    /// Takes events until the feed closes.
    pub async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) {
        let mut batch = Vec::new();
        loop {
            let received = events.recv_many(&mut batch, 1024);
            let received = if self.routes.reclaim() {
                match tokio::time::timeout(RECLAIM, received).await {
                    Ok(received) => received,
                    Err(_) => continue,
                }
            } else {
                received.await
            };
            if received == 0 {
                return;
            }
            for event in batch.drain(..) {
                self.take(event);
            }
            // Once per batch, so that what changed together is seen together.
            self.publish_routes();
            // Announced after their effects are in place.
            self.synced.send_if_modified(|_| true);
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Ingress(change) => self.ingresses(change),
            Event::Revision(change) => self.revisions(change),
            Event::Endpoints(change) => self.endpoints(change),
            Event::Service(change) => self.services(change),
            Event::Secret(name, secret) => match self.shared.certificates.apply(&name, secret.as_ref()) {
                Ok(()) => tracing::info!(secret = %name, present = secret.is_some(), "certificate changed"),
                Err(error) => tracing::warn!("secret {name}: {error}; the certificate stays as it was"),
            },
            Event::Probed(key, address) => self.change_backends(&key, |backends| backends.probed(address)),
            Event::Asked(key, address, look) => self.change_backends(&key, |backends| backends.asked(address, look)),
            Event::SetAside(key, address) => {
                tracing::info!(revision = %key, pod = %address, "pod does not answer; out until it passes a probe");
                self.change_backends(&key, |backends| backends.set_aside(address));
            }
        }
    }

    fn ingresses(&mut self, change: One<Ingress>) {
        let all = matches!(change, One::Complete(_));
        let names = Names { revisions: &self.shared.revisions, certificates: &self.shared.certificates };
        for skipped in self.routes.take(change, names) {
            tracing::warn!("{skipped}");
        }
        if all {
            self.mark_synced(|synced| synced.ingresses = true);
        }
    }

    fn publish_routes(&mut self) {
        if self.routes.publish(&self.shared.table) {
            tracing::debug!(hosts = self.routes.hosts(), "routing table replaced");
            self.shared.metrics.hosts.set(i64::try_from(self.routes.hosts()).unwrap_or(i64::MAX));
        }
    }

    fn revisions(&mut self, change: One<RevisionObject>) {
        match change {
            One::Applied(object) => self.revision_applied(&object),
            One::Deleted(object) => self.revision_gone(&key_of(&object)),
            One::Complete(seen) => {
                for key in self.not_among(&seen, |tracked| tracked.revision.is_some()) {
                    self.revision_gone(&key);
                }
                self.mark_synced(|synced| synced.revisions = true);
            }
        }
        self.shared.metrics.revisions.set(i64::try_from(self.shared.revisions.len()).unwrap_or(i64::MAX));
    }

    fn revision_applied(&mut self, object: &RevisionObject) {
        let key = key_of(object);
        let settings = Settings::of(object);
        let backends = self.rules.backends(settings.trust_early_probe);
        let revision = self.shared.revisions.apply(&key, settings, &self.rules.lines);
        // Its strings are shared with those who name it.
        let key = revision.key.clone();
        let tracked =
            self.tracked.entry(key.clone()).or_insert_with(|| Box::new(Tracked::new(self.rules.backends(true))));
        let same = tracked.revision.as_ref().is_some_and(|known| Arc::ptr_eq(known, &revision));
        if same {
            return;
        }
        // Admission refuses these; an object that came around it is served as if they were not there.
        for problem in api::activation::read(object.annotations()).1 {
            tracing::warn!(revision = %key, "{problem}; the default is used");
        }
        // The Endpoints may have come first; now it is known which of their ports counts.
        tracked.stop_all();
        tracked.backends = backends;
        tracked.revision = Some(revision);
        self.apply_share(&key);
        self.apply_cluster_ip(&key);
        self.apply_addresses(&key);
    }

    fn revision_gone(&mut self, key: &RevisionKey) {
        self.shared.revisions.remove(key);
        if let Some(tracked) = self.tracked.get_mut(key) {
            tracked.stop_all();
            // Its requests in flight go on; those that wait will be told by their timeout or leave.
            if let Some(revision) = tracked.revision.take() {
                revision.throttle.set_pods(&[]);
            }
        }
        self.forget_if_nothing_left(key);
    }

    /// Revision and Endpoints come and go in any order; what is known of one waits for the other.
    fn forget_if_nothing_left(&mut self, key: &RevisionKey) {
        let left = |t: &Tracked| t.revision.is_some() || t.pods.is_some() || t.cluster_ip.is_some();
        if self.tracked.get(key).is_some_and(|tracked| !left(tracked)) {
            self.tracked.remove(key);
        }
    }

    fn endpoints(&mut self, change: One<Endpoints>) {
        match change {
            One::Applied(object) => self.endpoints_applied(&object),
            One::Deleted(object) => {
                if let Some((key, true)) = parse::owner(&object) {
                    self.pods_gone(&key);
                }
            }
            One::Complete(seen) => {
                for key in self.not_among(&seen, |tracked| tracked.pods.is_some()) {
                    self.pods_gone(&key);
                }
                self.mark_synced(|synced| synced.endpoints = true);
            }
        }
    }

    /// Those that something is known of which the last list does not have.
    fn not_among(&self, seen: &Seen, known: impl Fn(&Tracked) -> bool) -> Vec<RevisionKey> {
        let gone = self.tracked.iter().filter(|(key, one)| known(one) && !seen.has(&key.namespace, &key.name));
        gone.map(|(key, _)| key.clone()).collect()
    }

    fn endpoints_applied(&mut self, object: &Endpoints) {
        let Some((key, private)) = parse::owner(object) else { return };
        let tracked =
            self.tracked.entry(key.clone()).or_insert_with(|| Box::new(Tracked::new(self.rules.backends(true))));
        if private {
            tracked.pods = ByProtocol::of(object).map(Box::new);
            self.apply_addresses(&key);
        } else if !self.rules.own_ip.is_empty() {
            let of = |protocol| parse::share(object, protocol, &self.rules.own_ip);
            let (http1, h2c) = (of(Protocol::Http1), of(Protocol::H2c));
            // Not listed: the last known place stays.
            if http1.is_some() || h2c.is_some() {
                tracked.share = Some(Box::new((http1, h2c)));
                self.apply_share(&key);
            }
        }
    }

    fn pods_gone(&mut self, key: &RevisionKey) {
        if let Some(tracked) = self.tracked.get_mut(key) {
            tracked.pods = None;
            self.apply_addresses(key);
        }
        self.forget_if_nothing_left(key);
    }

    fn apply_addresses(&mut self, key: &RevisionKey) {
        let Some(tracked) = self.tracked.get(key) else { return };
        let Some(revision) = &tracked.revision else { return };
        let addresses = match (&tracked.pods, revision.settings.load().protocol) {
            (None, _) => Addresses::default(),
            (Some(pods), Protocol::Http1) => pods.http1.clone(),
            (Some(pods), Protocol::H2c) => pods.h2c.clone(),
        };
        self.change_backends(key, |backends| backends.update(&addresses));
    }

    fn services(&mut self, change: One<Service>) {
        match change {
            One::Applied(service) => self.service_applied(&service),
            One::Deleted(service) => {
                if let Some(key) = parse::private_service_of(&service) {
                    self.service_is(&key, None);
                }
            }
            One::Complete(seen) => {
                for key in self.not_among(&seen, |tracked| tracked.cluster_ip.is_some()) {
                    self.service_is(&key, None);
                }
                self.mark_synced(|synced| synced.services = true);
            }
        }
    }

    fn service_applied(&mut self, service: &Service) {
        if let Some(key) = parse::private_service_of(service) {
            self.service_is(&key, parse::cluster_ip(service));
        }
    }

    fn service_is(&mut self, key: &RevisionKey, cluster_ip: Option<ClusterIp>) {
        if cluster_ip.is_none() && !self.tracked.contains_key(key) {
            return;
        }
        let unknown = || Box::new(Tracked::new(self.rules.backends(true)));
        self.tracked.entry(key.clone()).or_insert_with(unknown).cluster_ip = cluster_ip.map(Box::new);
        self.apply_cluster_ip(key);
        self.forget_if_nothing_left(key);
    }

    fn apply_cluster_ip(&mut self, key: &RevisionKey) {
        let Some(tracked) = self.tracked.get(key) else { return };
        let Some(revision) = &tracked.revision else { return };
        let address = tracked.cluster_ip.as_ref().and_then(|ip| ip.at(revision.settings.load().protocol));
        self.change_backends(key, |backends| backends.located(address));
    }

    fn apply_share(&mut self, key: &RevisionKey) {
        let Some(tracked) = self.tracked.get(key) else { return };
        let (Some(revision), Some((http1, h2c))) = (&tracked.revision, tracked.share.as_deref().copied()) else {
            return;
        };
        let share = match revision.settings.load().protocol {
            Protocol::Http1 => http1,
            Protocol::H2c => h2c,
        };
        if let Some(share) = share {
            revision.throttle.set_share(share);
        }
    }

    /// Changes the backends of a revision and does what follows.
    fn change_backends(&mut self, key: &RevisionKey, change: impl FnOnce(&mut Backends) -> Orders) {
        let Some(tracked) = self.tracked.get_mut(key) else { return };
        let by_cluster_ip = tracked.backends.is_behind_mesh();
        let orders = change(&mut tracked.backends);
        for address in orders.gone.iter().flat_map(|address| self.rules.connections(*address)) {
            // Nobody listens before the data threads run.
            let _ = self.shared.gone.send(address);
        }
        for address in &orders.stop {
            if let Some(task) = tracked.probes.remove(address) {
                task.abort();
            }
        }
        let now_by_cluster_ip = tracked.backends.is_behind_mesh();
        if now_by_cluster_ip != by_cluster_ip {
            tracing::info!(revision = %key, cluster_ip = now_by_cluster_ip, "pods answer by themselves, or do not");
        }
        if orders.changed
            && let Some(revision) = &tracked.revision
        {
            let targets: Vec<Arc<Target>> = match tracked.backends.usable() {
                Usable::Pods(pods) => pods.iter().map(|pod| Arc::new(self.rules.target(key, *pod, false))).collect(),
                Usable::ClusterIp(address, pods) => {
                    vec![Arc::new(self.rules.target(key, address, true).standing_for(pods))]
                }
            };
            tracing::debug!(revision = %key, usable = targets.len(), "pods changed");
            if !targets.is_empty() {
                // Before anybody is let in, so that the phases keep their order.
                revision.wake.ready(key, &self.shared.observer, Instant::now());
            }
            let told = revision.throttle.set_pods_of(&targets, tracked.backends.pending(), Instant::now());
            if let Some(when) = told {
                // A herd is let in bit by bit while pods are pending, but no longer than this.
                let throttle = Arc::downgrade(&revision.throttle);
                tokio::task::spawn_local(async move {
                    tokio::time::sleep_until(when.into()).await;
                    if let Some(throttle) = throttle.upgrade() {
                        throttle.time(when);
                    }
                });
            }
        }
        let rhythm = if now_by_cluster_ip { self.rules.rhythm.while_behind_mesh() } else { self.rules.rhythm };
        for address in orders.probe {
            let (feed, key, turns) = (self.feed.clone(), key.clone(), Arc::clone(&self.turns));
            let target = self.rules.asked(&key, address);
            let task = tokio::task::spawn_local(async move {
                let tell = |look| feed.send(Event::Asked(key.clone(), address, look));
                probe::until_ready(&target, rhythm, &turns, tell).await;
                feed.send(Event::Probed(key, address));
            });
            if let Some(old) = tracked.probes.insert(address, task.abort_handle()) {
                old.abort();
            }
        }
        // A finished probe's handle is worth nothing; drop them before they add up.
        tracked.probes.retain(|_, task| !task.is_finished());
    }

    fn mark_synced(&self, mark: impl FnOnce(&mut Synced)) {
        // Announced at the end of the batch, when the effects are in place.
        self.synced.send_if_modified(|synced| {
            mark(synced);
            false
        });
    }
}

impl Rules {
    /// What is asked whether it can serve: in clear text, in a mesh under the private Service's name.
    fn asked(&self, key: &RevisionKey, address: SocketAddr) -> Target {
        let target = Target::new(address);
        if !self.passthrough {
            return target;
        }
        let name = format!("{}.{}", api::names::private_service(&key.name), key.namespace);
        // Names of objects always make a header value.
        HeaderValue::try_from(name).map_or_else(|_| Target::new(address), |name| target.passed_through(name))
    }

    /// What requests are sent to.
    fn target(&self, key: &RevisionKey, address: SocketAddr, cluster_ip: bool) -> Target {
        let target = self.asked(key, address);
        let Some(tls) = &self.tls else { return target };
        let port = if cluster_ip { SERVICE_HTTPS } else { ports::HTTPS };
        target.over_tls(port, tls.pods_of(&key.namespace))
    }

    /// Where connections to an address may be open.
    fn connections(&self, address: SocketAddr) -> Vec<SocketAddr> {
        if self.tls.is_none() {
            return vec![address];
        }
        [ports::HTTPS, SERVICE_HTTPS].map(|port| SocketAddr::new(address.ip(), port)).into()
    }

    fn backends(&self, early_probe: bool) -> Backends {
        Backends::new(Trust { early_probe, mesh: self.mesh }, self.passthrough)
    }
}

impl Tracked {
    fn new(backends: Backends) -> Self {
        Self { backends, revision: None, pods: None, cluster_ip: None, share: None, probes: HashMap::new() }
    }

    fn stop_all(&mut self) {
        for (_, task) in self.probes.drain() {
            task.abort();
        }
    }
}

fn key_of(object: &RevisionObject) -> RevisionKey {
    RevisionKey::new(&object.namespace().unwrap_or_default(), &object.name_any())
}
