//! What is known of the cluster, and what follows for the request path. The only writer of table, revisions and pods.
//!
//! Runs on the control thread. It takes [`Event`]s one by one, in order, and never waits inside: probes are tasks of
//! their own, one per pod, that come back as events. With the API server away no events come, and everything stays as
//! last known.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use api::networking::Ingress;
use api::serving::Revision as RevisionObject;
use k8s_openapi::api::core::v1::Endpoints;
use kube::ResourceExt;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::endpoints::parse::{self, Addresses};
use crate::endpoints::pods::{Orders, Pods, Trust};
use crate::endpoints::probe::{self, Rhythm};
use crate::feed::{Change, Event, Feed};
use crate::revision::{Protocol, Revision, RevisionKey, Settings};
use crate::shared::Shared;
use crate::table::build;
use crate::throttle::Lines;
use crate::throttle::subset::Share;
use crate::throttle::target::Target;

/// Which kinds have been listed at least once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Synced {
    ingresses: bool,
    revisions: bool,
    endpoints: bool,
}

impl Synced {
    /// Whether a request can be judged: before that, "unknown host" could be wrong.
    pub fn complete(self, needs_ingresses: bool) -> bool {
        (self.ingresses || !needs_ingresses) && self.revisions && self.endpoints
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
    /// Whether pods that Kubernetes calls ready are used without a probe.
    pub trust_kubernetes: bool,
    /// Our address among the activators; empty = not shared.
    pub own_ip: String,
}

/// One revision with its pods.
#[derive(Debug)]
struct Tracked {
    pods: Pods,
    revision: Option<Arc<Revision>>,
    /// By protocol, because Endpoints may come before the Revision that says which one counts.
    http1: Addresses,
    h2c: Addresses,
    share: Option<(Option<Share>, Option<Share>)>,
    probes: HashMap<SocketAddr, AbortHandle>,
}

/// See the module.
#[derive(Debug)]
pub struct World {
    rules: Rules,
    shared: Arc<Shared>,
    feed: Feed,
    ingresses: BTreeMap<(String, String), Ingress>,
    tracked: HashMap<RevisionKey, Tracked>,
    synced: watch::Sender<Synced>,
}

impl World {
    /// An empty world.
    pub fn new(rules: Rules, shared: Arc<Shared>, feed: Feed) -> (Self, watch::Receiver<Synced>) {
        let (synced, seen) = watch::channel(Synced::default());
        let this = Self { rules, shared, feed, ingresses: BTreeMap::new(), tracked: HashMap::new(), synced };
        (this, seen)
    }

    /// Takes events until the feed closes.
    pub async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) {
        let mut batch = Vec::new();
        while events.recv_many(&mut batch, 1024).await > 0 {
            let mut routes_changed = false;
            for event in batch.drain(..) {
                routes_changed |= self.take(event);
            }
            // Once per batch: the table is built from all Ingresses.
            if routes_changed {
                self.rebuild_table();
            }
            // Announced after their effects are in place.
            self.synced.send_if_modified(|_| true);
        }
    }

    /// Applies one event; whether the table must be built anew.
    fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Ingress(change) => {
                self.ingress(change);
                return true;
            }
            Event::Revision(change) => self.revisions(change),
            Event::Endpoints(change) => self.endpoints(change),
            Event::Probed(key, address) => {
                self.change_pods(&key, |pods| pods.probed(address));
            }
            Event::SetAside(key, address) => {
                tracing::info!(revision = %key, pod = %address, "pod does not answer; out until it passes a probe");
                self.change_pods(&key, |pods| pods.set_aside(address));
            }
        }
        false
    }

    fn ingress(&mut self, change: Change<Ingress>) {
        let name = |ingress: &Ingress| (ingress.namespace().unwrap_or_default(), ingress.name_any());
        match change {
            Change::Listed(all) => {
                self.ingresses = all.into_iter().map(|ingress| (name(&ingress), ingress)).collect();
                self.mark_synced(|synced| synced.ingresses = true);
            }
            Change::Applied(ingress) => {
                self.ingresses.insert(name(&ingress), ingress);
            }
            Change::Deleted(ingress) => {
                self.ingresses.remove(&name(&ingress));
            }
        }
    }

    fn rebuild_table(&mut self) {
        let (table, skipped) = build::table(self.ingresses.values(), &self.rules.ingress_class);
        for skipped in &skipped {
            tracing::warn!("{skipped}");
        }
        tracing::debug!(hosts = table.len(), "routing table replaced");
        self.shared.metrics.hosts.set(i64::try_from(table.len()).unwrap_or(i64::MAX));
        self.shared.table.store(Arc::new(table));
    }

    fn revisions(&mut self, change: Change<RevisionObject>) {
        match change {
            Change::Listed(all) => {
                let names: HashSet<RevisionKey> = all.iter().map(key_of).collect();
                let gone: Vec<RevisionKey> = self
                    .tracked
                    .iter()
                    .filter(|(key, tracked)| tracked.revision.is_some() && !names.contains(*key))
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in &gone {
                    self.revision_gone(key);
                }
                for object in &all {
                    self.revision_applied(object);
                }
                self.mark_synced(|synced| synced.revisions = true);
            }
            Change::Applied(object) => self.revision_applied(&object),
            Change::Deleted(object) => self.revision_gone(&key_of(&object)),
        }
        self.shared.metrics.revisions.set(i64::try_from(self.shared.revisions.len()).unwrap_or(i64::MAX));
    }

    fn revision_applied(&mut self, object: &RevisionObject) {
        let key = key_of(object);
        let settings = Settings::of(object);
        let trust = Trust { early_probe: settings.trust_early_probe, kubernetes: self.rules.trust_kubernetes };
        let revision = self.shared.revisions.apply(&key, settings, &self.rules.lines);
        let tracked = self.tracked.entry(key.clone()).or_insert_with(|| Tracked::new(trust));
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
        tracked.pods = Pods::new(trust);
        tracked.revision = Some(revision);
        self.apply_share(&key);
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
        let nothing = Addresses::default();
        let left = |t: &Tracked| t.revision.is_some() || t.http1 != nothing || t.h2c != nothing;
        if self.tracked.get(key).is_some_and(|tracked| !left(tracked)) {
            self.tracked.remove(key);
        }
    }

    fn endpoints(&mut self, change: Change<Endpoints>) {
        match change {
            Change::Listed(all) => {
                let named: HashSet<RevisionKey> =
                    all.iter().filter_map(parse::owner).filter(|(_, private)| *private).map(|(key, _)| key).collect();
                let gone: Vec<RevisionKey> = self.tracked.keys().filter(|key| !named.contains(*key)).cloned().collect();
                for key in &gone {
                    self.pods_gone(key);
                }
                for object in &all {
                    self.endpoints_applied(object);
                }
                self.mark_synced(|synced| synced.endpoints = true);
            }
            Change::Applied(object) => self.endpoints_applied(&object),
            Change::Deleted(object) => {
                if let Some((key, true)) = parse::owner(&object) {
                    self.pods_gone(&key);
                }
            }
        }
    }

    fn endpoints_applied(&mut self, object: &Endpoints) {
        let Some((key, private)) = parse::owner(object) else { return };
        let trust = Trust { early_probe: true, kubernetes: self.rules.trust_kubernetes };
        let tracked = self.tracked.entry(key.clone()).or_insert_with(|| Tracked::new(trust));
        if private {
            tracked.http1 = parse::addresses(object, Protocol::Http1);
            tracked.h2c = parse::addresses(object, Protocol::H2c);
            self.apply_addresses(&key);
        } else if !self.rules.own_ip.is_empty() {
            let of = |protocol| parse::share(object, protocol, &self.rules.own_ip);
            let (http1, h2c) = (of(Protocol::Http1), of(Protocol::H2c));
            // Not listed: the last known place stays.
            if http1.is_some() || h2c.is_some() {
                tracked.share = Some((http1, h2c));
                self.apply_share(&key);
            }
        }
    }

    fn pods_gone(&mut self, key: &RevisionKey) {
        if let Some(tracked) = self.tracked.get_mut(key) {
            tracked.http1 = Addresses::default();
            tracked.h2c = Addresses::default();
            self.apply_addresses(key);
        }
        self.forget_if_nothing_left(key);
    }

    fn apply_addresses(&mut self, key: &RevisionKey) {
        let Some(tracked) = self.tracked.get(key) else { return };
        let Some(revision) = &tracked.revision else { return };
        let addresses = match revision.settings.load().protocol {
            Protocol::Http1 => tracked.http1.clone(),
            Protocol::H2c => tracked.h2c.clone(),
        };
        self.change_pods(key, |pods| pods.update(&addresses));
    }

    fn apply_share(&mut self, key: &RevisionKey) {
        let Some(tracked) = self.tracked.get(key) else { return };
        let (Some(revision), Some((http1, h2c))) = (&tracked.revision, tracked.share) else { return };
        let share = match revision.settings.load().protocol {
            Protocol::Http1 => http1,
            Protocol::H2c => h2c,
        };
        if let Some(share) = share {
            revision.throttle.set_share(share);
        }
    }

    /// Changes the pods of a revision and does what follows.
    fn change_pods(&mut self, key: &RevisionKey, change: impl FnOnce(&mut Pods) -> Orders) {
        let Some(tracked) = self.tracked.get_mut(key) else { return };
        let orders = change(&mut tracked.pods);
        for address in &orders.gone {
            // Nobody listens before the data threads run.
            let _ = self.shared.gone.send(*address);
        }
        for address in &orders.stop {
            if let Some(task) = tracked.probes.remove(address) {
                task.abort();
            }
        }
        if orders.changed
            && let Some(revision) = &tracked.revision
        {
            let targets: Vec<Arc<Target>> =
                tracked.pods.usable().map(|address| Arc::new(Target::new(address))).collect();
            tracing::debug!(revision = %key, usable = targets.len(), "pods changed");
            if !targets.is_empty() {
                // Before anybody is let in, so that the phases keep their order.
                revision.wake.ready(key, &self.shared.observer, Instant::now());
            }
            let told = revision.throttle.set_pods_of(&targets, tracked.pods.pending(), Instant::now());
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
        for address in orders.probe {
            let (feed, key, rhythm) = (self.feed.clone(), key.clone(), self.rules.rhythm);
            let task = tokio::task::spawn_local(async move {
                probe::until_ready(&Target::new(address), rhythm).await;
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

impl Tracked {
    fn new(trust: Trust) -> Self {
        Self {
            pods: Pods::new(trust),
            revision: None,
            http1: Addresses::default(),
            h2c: Addresses::default(),
            share: None,
            probes: HashMap::new(),
        }
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
