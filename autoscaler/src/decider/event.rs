//! What goes into the engine and what comes out of it.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use api::{
    autoscaling::{Metric, MetricSpec, PodAutoscaler, PodAutoscalerStatus},
    networking::{ServerlessService, ServerlessServiceSpec},
    settings,
    stat::{Stat, WireStatMessage, WireStatMessages},
};
use tokio::sync::oneshot;

use crate::{
    collect::{Candidate, Heard, PodView, scrape::Round},
    key::Key,
    ledger::Account,
    ownership::Held,
};

/// A watched object came, changed or went.
#[derive(Debug)]
pub enum Change<T> {
    /// It is now so.
    Applied(T),
    /// It is gone.
    Deleted(Key),
}

/// Kinds that must be listed once before anything is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// PodAutoscalers.
    PodAutoscaler,
    /// ServerlessServices.
    ServerlessService,
    /// Metrics.
    Metric,
    /// Pods.
    Pod,
    /// Scale targets.
    Target,
    /// ConfigMaps.
    Settings,
}

impl Kind {
    /// How many there are.
    pub const COUNT: usize = 6;
}

/// The ConfigMaps that matter here.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// `config-autoscaler`.
    pub autoscaler: settings::Autoscaler,
    /// `config-deployment`.
    pub deployment: settings::Deployment,
}

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// A frame from an activator.
    Frame(WireStatMessages),
    /// A round of scraping ended; `None` where there was nothing to record.
    Scraped(Key, Option<Stat>),
    /// Something came of listening to a pod of a revision.
    Heard(Key, IpAddr, Heard),
    /// A PodAutoscaler.
    PodAutoscaler(Change<Box<PodAutoscaler>>),
    /// A ServerlessService.
    Sks(Change<Box<ServerlessService>>),
    /// A Metric.
    Metric(Change<Box<Metric>>),
    /// A pod.
    Pod(Change<PodView>),
    /// A Deployment: its key, its replicas and its resource version.
    Target(Change<(Key, i32, u64)>),
    /// Every object of a kind was listed once.
    Synced(Kind),
    /// These buckets are held here from now on.
    Held(Held),
    /// A kind was listed anew and these exist, by [`Key::hashed`]: whatever else is known of it went unseen.
    Listed(Kind, HashSet<u64>),
    /// A PodAutoscaler that was asked for with all its labels and annotations; `None` where it is gone.
    Fetched(Key, Option<Box<PodAutoscaler>>),
    /// A number from another source of load; `None` where there was no answer.
    Measured(Key, Option<f64>),
    /// Settings changed.
    Settings(Arc<Settings>),
    /// A write ended.
    Wrote(Key, Written),
    /// A probe for an activator in the path ended.
    Probed(Key, bool),
    /// Somebody asks what was decided and why.
    Explain(Key, oneshot::Sender<Option<Account>>),
}

/// How a write ended.
#[derive(Debug)]
pub enum Written {
    /// The scale target has so many replicas as of that resource version.
    Scale(Result<(i32, u64), String>),
    /// The ServerlessService, as the API server returned it.
    Sks(Result<Box<ServerlessService>, String>),
    /// The Metric.
    Metric(Result<Box<Metric>, String>),
    /// The PodAutoscaler, with its status.
    Status(Result<Box<PodAutoscaler>, String>),
}

/// An object to create or change.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub enum Write {
    /// Replicas of a Deployment.
    Scale {
        /// Name of the Deployment.
        target: String,
        /// Wanted replicas.
        replicas: i32,
        /// Where pods are to go: those there are, of which the least busy are to be marked first.
        candidates: Vec<Candidate>,
    },
    /// Create the ServerlessService.
    CreateSks(Box<ServerlessService>),
    /// Change the ServerlessService's spec.
    PatchSks(Box<ServerlessServiceSpec>),
    /// Create the Metric.
    CreateMetric(Box<Metric>),
    /// Change the Metric's spec.
    PatchMetric(Box<MetricSpec>),
    /// Change the PodAutoscaler's status.
    Status(Box<PodAutoscalerStatus>),
}

/// Where to probe for an activator in the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Public Service.
    pub service: String,
    /// Whether the revision speaks h2c.
    pub h2c: bool,
}

/// Something to do.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// A sleeping revision is to wake: for the timeline.
    Decided(Key),
    /// Write to the API server; answered with [`Event::Wrote`]. `wakes`: a request waits for this one.
    Write {
        /// Revision.
        key: Key,
        /// What.
        write: Write,
        /// Whether a revision at zero waits for it.
        wakes: bool,
    },
    /// Ask some of these pods for their load; answered with [`Event::Scraped`].
    Scrape {
        /// Revision.
        key: Key,
        /// Whom, and how.
        round: Round,
    },
    /// Listen to a pod; answered with [`Event::Heard`], as often as there is something.
    Listen {
        /// Revision.
        key: Key,
        /// Its address.
        pod: IpAddr,
        /// The revision's private Service.
        service: String,
    },
    /// Listen to this pod of the revision no longer.
    Hush(Key, IpAddr),
    /// Hand a report on to the holder of its bucket.
    Forward(u8, WireStatMessage),
    /// Look after a revision that a HorizontalPodAutoscaler scales.
    Horizontal(Key, Arc<Settings>),
    /// Read a PodAutoscaler whole; answered with [`Event::Fetched`].
    Fetch(Key),
    /// Ask another source for the load; answered with [`Event::Measured`].
    Measure {
        /// Revision.
        key: Key,
        /// Where.
        address: String,
        /// What, in the source's language.
        query: String,
    },
    /// Look for an activator in the path; answered with [`Event::Probed`].
    Probe {
        /// Revision.
        key: Key,
        /// Where.
        target: ProbeTarget,
    },
}
