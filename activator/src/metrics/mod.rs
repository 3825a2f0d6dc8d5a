//! Every metric of the activator, declared once: [`Metrics`] for the process, [`RevisionMetrics`] for one revision.
//!
//! Requests are counted in [`cells`], one set per data thread, by [`requests`]; what happens seldom (wake-ups, the
//! connection to the autoscaler) is in a registry. `page` adds all of it up and names it when somebody looks: names,
//! kinds, labels and bounds of the `kn_` and `http_` ones are upstream's, and the names that upstream had before July
//! 2025 are there as well. `catalog` has the names for the push.
//!
//! Labels are bounded: methods and versions are closed lists, and what is left (statuses of apps) shares one series per
//! revision beyond [`cells::MOST_KEYS`]. No label comes from a Host header or names a pod's address: upstream's
//! `server.address` and `server.port` are left out.

mod catalog;
pub mod cells;
mod page;
pub mod requests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntGauge, Opts, Registry};
use telemetry::Identity;
use telemetry::process::Process;

use crate::revision::{RevisionKey, Settings};
use crate::wake::Phases;
pub use catalog::CATALOG;
use cells::{Count, Level, List, PerShard, Shard};
use requests::{Measure, PodRequests, Requests};

const WAKE_SECONDS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

/// What of it all is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Data threads.
    pub threads: usize,
    /// Whether requests are measured: not if nobody can read it.
    pub requests: bool,
    /// Whether the page has the names of old dashboards too.
    pub old_names: bool,
    /// Who we are, for the old names.
    pub pod: String,
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    wanted: Wanted,
    registry: Registry,
    wake: HistogramVec,
    /// Whether the autoscaler's websocket is up.
    pub autoscaler_reachable: IntGauge,
    /// How often it was lost.
    pub autoscaler_errors: IntCounter,
    /// Hosts in the routing table.
    pub hosts: IntGauge,
    /// Revisions known.
    pub revisions: IntGauge,
    threads: PerShard<ThreadCells>,
    /// Written when a revision has its first request, read by whoever looks. Never in the way of a second request.
    alive: Mutex<Alive>,
}

#[derive(Debug, Default)]
struct Alive {
    revisions: Vec<Weak<RevisionMetrics>>,
    /// Swept when there are so many.
    sweep_at: usize,
}

/// What one thread counts, whatever the revision. Cache lines are not shared with another thread's.
#[derive(Debug, Default)]
#[repr(align(128))]
struct ThreadCells {
    /// Requests for no revision.
    lost: Requests,
    pods: PodRequests,
    faults: List<&'static str, Count>,
    retries: List<&'static str, Count>,
}

/// The metrics of one revision; its series vanish with it.
#[derive(Debug)]
pub struct RevisionMetrics {
    identity: Arc<Identity>,
    /// Bits of an `f64`, set each second from the report.
    concurrency: AtomicU64,
    threads: PerShard<RevisionCells>,
}

/// What one thread counts for one revision.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct RevisionCells {
    /// Requests that wait for a slot.
    pub queued: Level,
    /// Requests that have one.
    pub active: Level,
    /// Pods taken out because they did not answer.
    pub set_aside: Count,
    /// Requests refused because a bound of the line was reached.
    pub queue_full: Count,
    requests: Requests,
}

impl RevisionMetrics {
    /// Whose they are, for the request log and for traces.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// A thread's counts.
    pub fn at(&self, shard: Shard) -> &RevisionCells {
        self.threads.get(shard)
    }

    /// Concurrent requests as just reported to the autoscaler.
    pub fn concurrency(&self, reported: f64) {
        self.concurrency.store(reported.to_bits(), Ordering::Relaxed);
    }
}

impl Metrics {
    /// Declares everything.
    pub fn new(wanted: Wanted) -> Result<Self, prometheus::Error> {
        let this = Self {
            registry: Registry::new(),
            wake: HistogramVec::new(
                HistogramOpts::new("dormouse_activator_wake_seconds", "Wake-ups by phase: to_ready, to_first_byte")
                    .buckets(WAKE_SECONDS.to_vec()),
                &["phase"],
            )?,
            autoscaler_reachable: IntGauge::with_opts(
                Opts::new("kn_activator_stats_conn_reachable", "Whether the autoscaler is connected (1) or not (0)")
                    .const_label("peer", "autoscaler"),
            )?,
            autoscaler_errors: IntCounter::with_opts(
                Opts::new("kn_activator_stats_conn_errors_total", "Connections to the autoscaler that were lost")
                    .const_label("peer", "autoscaler"),
            )?,
            hosts: IntGauge::new("dormouse_activator_hosts", "Hosts in the routing table")?,
            revisions: IntGauge::new("dormouse_activator_revisions", "Revisions known")?,
            threads: PerShard::new(wanted.threads),
            alive: Mutex::default(),
            wanted,
        };
        let all: [Box<dyn prometheus::core::Collector>; 6] = [
            Box::new(this.wake.clone()),
            Box::new(this.autoscaler_reachable.clone()),
            Box::new(this.autoscaler_errors.clone()),
            Box::new(this.hosts.clone()),
            Box::new(this.revisions.clone()),
            Box::new(Process::new()?),
        ];
        for collector in all {
            this.registry.register(collector)?;
        }
        Ok(this)
    }

    /// The metrics of one revision, there as long as somebody holds them.
    pub fn revision(&self, key: &RevisionKey, settings: &Settings) -> Arc<RevisionMetrics> {
        let metrics = Arc::new(RevisionMetrics {
            // The pod stays unknown, as upstream has it: it is not the activator's to tell.
            identity: Arc::new(Identity {
                namespace: key.namespace.to_string(),
                service: settings.service.to_string(),
                configuration: settings.configuration.to_string(),
                revision: key.name.to_string(),
                ..Identity::default()
            }),
            concurrency: AtomicU64::default(),
            threads: PerShard::new(self.wanted.threads),
        });
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        if alive.revisions.len() >= alive.sweep_at {
            alive.revisions.retain(|revision| revision.strong_count() > 0);
            alive.sweep_at = (alive.revisions.len() * 2).max(64);
        }
        alive.revisions.push(Arc::downgrade(&metrics));
        drop(alive);
        metrics
    }

    /// Records a request that is over.
    pub fn record(&self, shard: Shard, revision: Option<&RevisionMetrics>, measure: &Measure, now: Instant) {
        if !self.wanted.requests {
            return;
        }
        let cells = self.threads.get(shard);
        match revision {
            Some(revision) => revision.at(shard).requests.record(measure, now),
            None => cells.lost.record(measure, now),
        }
        cells.pods.record(measure);
    }

    /// A wake-up is over.
    pub fn woken(&self, phases: Phases) {
        self.wake.with_label_values(&["to_ready"]).observe(phases.to_ready.as_secs_f64());
        self.wake.with_label_values(&["to_first_byte"]).observe(phases.to_first_byte.as_secs_f64());
    }

    /// The activator answered itself; reasons are a fixed set of words.
    pub fn fault(&self, shard: Shard, reason: &'static str) {
        if let Some(count) = self.threads.get(shard).faults.get(reason) {
            count.add(1);
        }
    }

    /// A request is sent to another pod, because the last one did not take it or did not answer; reasons are a fixed set
    /// of words.
    pub fn retry(&self, shard: Shard, reason: &'static str) {
        if let Some(count) = self.threads.get(shard).retries.get(reason) {
            count.add(1);
        }
    }

    fn alive(&self) -> Vec<Arc<RevisionMetrics>> {
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive.revisions.iter().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
mod tests;
