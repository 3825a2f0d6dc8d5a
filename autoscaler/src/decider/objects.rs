//! How the engine takes in objects.
//!
//! Watches and the answers to our own writes overtake each other, so the newer version of an object wins.

use std::{collections::HashMap, sync::Arc};

use api::{
    autoscaling::{Metric, PodAutoscaler},
    labels::autoscaling::{CLASS, HPA_CLASS, KPA_CLASS},
    networking::ServerlessService,
};

use super::{
    Engine,
    engine::wake,
    event::{Effect, Written},
    record::{Annotations, MetricRecord, PaRecord, SksRecord, USUAL_TARGET},
    revision::Revision,
};
use crate::{algorithm::RevisionScaling, key::Key, moment::Moment};

/// Settings that are remembered as resolved; where annotations are all different, they are resolved again.
const MOST_RESOLVED: usize = 4096;

impl Engine {
    pub(super) fn pod_autoscaler(&mut self, pa: PodAutoscaler, now: Moment, out: &mut Vec<Effect>) {
        let key = Key::of(&pa);
        let class = pa.metadata.annotations.as_ref().and_then(|a| CLASS.value(a));
        let goes = pa.metadata.deletion_timestamp.is_some();
        if class == Some(HPA_CLASS) && !goes {
            self.horizontal.insert(key.clone());
            self.look_at_horizontal(&key, out);
        } else {
            self.horizontal.remove(&key);
        }
        if class != Some(KPA_CLASS) || goes {
            self.forget(&key);
            return;
        }
        let mut pa = PaRecord::of(&key, pa, &mut self.shared);
        if !self.unsynced.is_empty() {
            // What exists already mostly has its objects; where not, it is read once more.
            pa.drop_metadata();
        }
        if !pa.target_is_usual()
            && let Some(target) = pa.target(&key)
        {
            self.owner_of.insert(Key::new(key.namespace(), &target), key.clone());
        }
        match self.revisions.get_mut(&key) {
            Some(revision) if revision.pa.is(&pa) => {
                // A watch event may be older than the answer to our own write.
                if pa.version() < revision.pa.version() {
                    return;
                }
                revision.pa = pa;
                self.resolve(&key, now);
            }
            _ => self.adopt(&key, pa, now),
        }
        self.pods_changed(&key, now, out);
    }

    /// Has a revision of the HPA class looked after, if it is ours.
    fn look_at_horizontal(&self, key: &Key, out: &mut Vec<Effect>) {
        if self.held.has(self.ownership.bucket(key.as_str())) {
            out.push(Effect::Horizontal(key.clone(), Arc::clone(&self.settings)));
        }
    }

    /// Settings or buckets changed.
    pub(super) fn all_horizontal(&self, out: &mut Vec<Effect>) {
        self.horizontal.iter().for_each(|key| self.look_at_horizontal(key, out));
    }

    /// A revision that was not known, with what came before it.
    fn adopt(&mut self, key: &Key, pa: PaRecord, now: Moment) {
        self.forget(key);
        let (annotations, concurrency) = pa.settings();
        let scaling = self.resolved(&Arc::clone(annotations), concurrency);
        let target = pa.target(key).map(|name| Key::new(key.namespace(), &name));
        let mut revision = Revision::new(pa, scaling, self.ownership.bucket(key.as_str()));
        revision.sks = self.orphan_sks.remove(key);
        revision.metric = self.orphan_metrics.remove(key);
        revision.replicas = target.and_then(|target| self.orphan_targets.remove(&target));
        if self.held.has(revision.bucket)
            && let Some(state) = revision.begin(self.pods.counts(key).ready, now)
        {
            wake(&mut revision, key, &self.metrics).state = state;
        }
        self.revisions.insert(key.clone(), Box::new(revision));
        self.metrics.revisions.set(self.revisions.len() as f64);
    }

    /// Annotations over the present settings.
    fn resolved(&mut self, annotations: &Arc<Annotations>, concurrency: i64) -> Arc<RevisionScaling> {
        let key = (Arc::clone(annotations), concurrency);
        if let Some(known) = self.resolved.get(&key) {
            return Arc::clone(known);
        }
        if self.resolved.len() >= MOST_RESOLVED {
            self.resolved.clear();
        }
        let settings = &self.settings;
        let scaling = RevisionScaling::resolve(annotations, concurrency, &settings.autoscaler, &settings.deployment);
        let scaling = Arc::new(scaling);
        self.resolved.insert(key, Arc::clone(&scaling));
        scaling
    }

    /// Lets a revision follow its annotations and the settings.
    pub(super) fn resolve(&mut self, key: &Key, now: Moment) {
        let Some(revision) = self.revisions.get(key) else { return };
        let (annotations, concurrency) = revision.pa.settings();
        let scaling = self.resolved(&Arc::clone(annotations), concurrency);
        let Some(revision) = self.revisions.get_mut(key) else { return };
        if *revision.scaling == *scaling {
            return;
        }
        if let Some(live) = &mut revision.live {
            // The weighting is chosen with the windows; new ones start empty.
            if revision.scaling.weighting == scaling.weighting {
                if let Some(load) = &mut live.load {
                    load.resize(&scaling, now);
                }
            } else {
                live.load = None;
            }
        }
        if !scaling.extras.learned_keep_warm {
            revision.idle_times = None;
        }
        revision.scaling = scaling;
    }

    pub(super) fn set_sks(&mut self, sks: ServerlessService, now: Moment, out: &mut Vec<Effect>) {
        let key = Key::of(&sks);
        let sks = SksRecord::of(&key, sks, &mut self.shared);
        match self.revisions.get_mut(&key) {
            Some(revision) if revision.sks.as_ref().is_some_and(|known| sks.is_older_than(known)) => {}
            Some(revision) => revision.sks = Some(sks),
            None if self.horizontal.contains(&key) => {
                self.look_at_horizontal(&key, out);
                return;
            }
            None => {
                self.orphan_sks.insert(key, sks);
                return;
            }
        }
        self.look_now(&key, now, out);
    }

    pub(super) fn lose_sks(&mut self, key: &Key, now: Moment, out: &mut Vec<Effect>) {
        self.orphan_sks.remove(key);
        if let Some(revision) = self.revisions.get_mut(key) {
            revision.sks = None;
            self.look_now(key, now, out);
        }
    }

    pub(super) fn set_metric(&mut self, metric: Metric, now: Moment, out: &mut Vec<Effect>) {
        let key = Key::of(&metric);
        let metric = MetricRecord::of(&key, metric);
        match self.revisions.get_mut(&key) {
            Some(revision) if revision.metric.as_ref().is_some_and(|known| metric.is_older_than(known)) => {}
            Some(revision) => revision.metric = Some(metric),
            None => {
                self.orphan_metrics.insert(key, metric);
                return;
            }
        }
        self.look_now(&key, now, out);
    }

    pub(super) fn lose_metric(&mut self, key: &Key, now: Moment, out: &mut Vec<Effect>) {
        self.orphan_metrics.remove(key);
        if let Some(revision) = self.revisions.get_mut(key) {
            revision.metric = None;
            self.look_now(key, now, out);
        }
    }

    pub(super) fn target(&mut self, target: &Key, replicas: i32, version: u64, now: Moment, out: &mut Vec<Effect>) {
        match self.owner(target) {
            Some(owner) => {
                if let Some(revision) = self.revisions.get_mut(&owner) {
                    take_replicas(revision, (replicas, version));
                }
                self.look_now(&owner, now, out);
            }
            None => {
                self.orphan_targets.insert(target.clone(), (replicas, version));
            }
        }
    }

    pub(super) fn lose_target(&mut self, target: &Key) {
        self.orphan_targets.remove(target);
        if let Some(revision) = self.owner(target).and_then(|owner| self.revisions.get_mut(&owner)) {
            revision.replicas = None;
        }
    }

    /// The revision that scales a Deployment: mostly its name tells.
    fn owner(&self, target: &Key) -> Option<Key> {
        let usual = target.name().strip_suffix(USUAL_TARGET).map(|name| Key::new(target.namespace(), name));
        let scales = |key: &Key| self.revisions.get(key).is_some_and(|revision| revision.pa.target_is_usual());
        usual.filter(scales).or_else(|| self.owner_of.get(target).cloned())
    }

    /// Drops all that is remembered of a revision.
    pub(super) fn forget(&mut self, key: &Key) {
        if let Some(revision) = self.revisions.remove(key) {
            let target = revision.pa.target(key).map(|name| Key::new(key.namespace(), &name));
            if let Some(target) = target {
                self.owner_of.remove(&target);
                keep(&mut self.orphan_targets, target, revision.replicas);
            }
            // A PodAutoscaler that comes back finds them here; their own deletion removes them.
            keep(&mut self.orphan_sks, key.clone(), revision.sks);
            keep(&mut self.orphan_metrics, key.clone(), revision.metric);
            self.metrics.revisions.set(self.revisions.len() as f64);
        }
    }

    pub(super) fn wrote(&mut self, key: &Key, written: Written, now: Moment, out: &mut Vec<Effect>) {
        let Some(revision) = self.revisions.get_mut(key) else { return };
        let Revision { live: Some(live), .. } = &mut **revision else { return };
        let is_scale = matches!(written, Written::Scale(_));
        let result = match written {
            Written::Scale(result) => {
                live.in_flight.scale = false;
                result.map(|replicas| take_replicas(revision, replicas))
            }
            Written::Sks(result) => {
                live.in_flight.sks = false;
                result.map(|sks| {
                    let sks = SksRecord::of(key, *sks, &mut self.shared);
                    if !revision.sks.as_ref().is_some_and(|known| sks.is_older_than(known)) {
                        revision.sks = Some(sks);
                    }
                })
            }
            Written::Metric(result) => {
                live.in_flight.metric = false;
                result.map(|metric| {
                    let metric = MetricRecord::of(key, *metric);
                    if !revision.metric.as_ref().is_some_and(|known| metric.is_older_than(known)) {
                        revision.metric = Some(metric);
                    }
                })
            }
            Written::Status(result) => {
                live.in_flight.status = false;
                result.map(|pa| {
                    let pa = PaRecord::of(key, *pa, &mut self.shared);
                    if pa.version() >= revision.pa.version() {
                        revision.pa = pa;
                    }
                })
            }
        };
        self.metrics.writes.inc();
        let Some(live) = &mut revision.live else { return };
        let backoff = if is_scale { &mut live.scale_backoff } else { &mut live.backoff };
        let pause = backoff.ended(result.is_ok(), now);
        if let Err(error) = result {
            self.metrics.write_errors.inc();
            tracing::warn!(revision = %key, error, retry_in = ?pause, "write failed");
        }
        self.look_now(key, now, out);
    }
}

fn keep<T>(orphans: &mut HashMap<Key, T>, key: Key, object: Option<T>) {
    if let Some(object) = object {
        orphans.insert(key, object);
    }
}

fn take_replicas(revision: &mut Revision, new: (i32, u64)) {
    if revision.replicas.is_none_or(|(_, version)| new.1 >= version) {
        revision.replicas = Some(new);
    }
}
