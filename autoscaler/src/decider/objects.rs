//! How the engine takes in objects, and how a plan becomes writes.
//!
//! Watches and the answers to our own writes overtake each other, so the newer version of an object wins.

use std::{collections::HashMap, sync::Arc};

use api::{
    autoscaling::{Metric, PROTOCOL_H2C, PodAutoscaler},
    labels::{
        autoscaling::{CLASS, KPA_CLASS},
        serving,
    },
    networking::ServerlessService,
};
use kube::Resource;

use super::{
    Engine,
    event::{Effect, ProbeTarget, Settings, Write, Written},
    revision::{Echo, Revision},
};
use crate::{
    algorithm::RevisionScaling,
    apply::plan::{Change, Plan},
    collect::Counts,
    key::Key,
    moment::Moment,
};

impl Engine {
    pub(super) fn pod_autoscaler(&mut self, mut pa: PodAutoscaler, now: Moment, out: &mut Vec<Effect>) {
        let key = Key::of(&pa);
        let class = pa.metadata.annotations.as_ref().and_then(|a| CLASS.value(a));
        if class != Some(KPA_CLASS) || pa.metadata.deletion_timestamp.is_some() || !self.ownership.owns(key.as_str()) {
            self.forget(&key);
            return;
        }
        pa.metadata.managed_fields = None;
        let pa = Arc::new(pa);
        if let Some(target) = target_key(&key, &pa) {
            self.owner_of.insert(target, key.clone());
        }
        let scaling = resolve(&pa, &self.settings);
        match self.revisions.get_mut(&key) {
            Some(revision) if revision.pa.metadata.uid == pa.metadata.uid => {
                // A watch event may be older than the answer to our own write.
                if version(&pa.metadata) < version(&revision.pa.metadata) {
                    return;
                }
                revision.pa = pa;
                set_scaling(revision, scaling, now);
            }
            _ => {
                self.forget(&key);
                let label = |name: &str| pa.metadata.labels.as_ref().and_then(|l| l.get(name)).cloned();
                let metrics = self.metrics.revision([
                    key.namespace().to_owned(),
                    label(serving::SERVICE).unwrap_or_default(),
                    label(serving::CONFIGURATION).unwrap_or_default(),
                    key.name().to_owned(),
                ]);
                let ready = self.pods.counts(&key).ready;
                let mut revision = Revision::new(pa, Arc::new(scaling), ready, metrics, now);
                revision.sks = self.orphan_sks.remove(&key);
                revision.metric = self.orphan_metrics.remove(&key);
                self.revisions.insert(key.clone(), revision);
                self.metrics.revisions.set(self.revisions.len() as f64);
            }
        }
        self.pods_changed(&key, now, out);
    }

    pub(super) fn set_sks(
        &mut self,
        key: &Key,
        sks: Option<Arc<ServerlessService>>,
        now: Moment,
        out: &mut Vec<Effect>,
    ) {
        let slot = match self.revisions.get_mut(key) {
            Some(revision) => &mut revision.sks,
            None => return adopt_later(&mut self.orphan_sks, key, sks),
        };
        set(slot, sks);
        self.look_now(key, now, out);
    }

    pub(super) fn set_metric(&mut self, key: &Key, metric: Option<Arc<Metric>>, now: Moment, out: &mut Vec<Effect>) {
        let slot = match self.revisions.get_mut(key) {
            Some(revision) => &mut revision.metric,
            None => return adopt_later(&mut self.orphan_metrics, key, metric),
        };
        set(slot, metric);
        self.look_now(key, now, out);
    }

    pub(super) fn target(&mut self, key: Key, replicas: i32, version: u64, now: Moment, out: &mut Vec<Effect>) {
        if self.targets.get(&key).is_some_and(|(_, known)| version < *known) {
            return;
        }
        let owner = self.owner_of.get(&key).cloned();
        self.targets.insert(key, (replicas, version));
        if let Some(owner) = owner {
            self.look_now(&owner, now, out);
        }
    }

    /// Drops all that is remembered of a revision.
    pub(super) fn forget(&mut self, key: &Key) {
        if let Some(revision) = self.revisions.remove(key) {
            if let Some(target) = target_key(key, &revision.pa) {
                self.owner_of.remove(&target);
            }
            // A PodAutoscaler that comes back finds them here.
            adopt_later(&mut self.orphan_sks, key, revision.sks);
            adopt_later(&mut self.orphan_metrics, key, revision.metric);
            self.metrics.revisions.set(self.revisions.len() as f64);
        }
    }

    pub(super) fn wrote(&mut self, key: &Key, written: Written, now: Moment, out: &mut Vec<Effect>) {
        let Some(revision) = self.revisions.get_mut(key) else { return };
        let is_scale = matches!(written, Written::Scale(_));
        let result = match written {
            Written::Scale(result) => {
                revision.in_flight.scale = false;
                result.map(|(replicas, version)| {
                    if let Some(target) = target_key(key, &revision.pa) {
                        let known = self.targets.entry(target).or_insert((replicas, version));
                        if version >= known.1 {
                            *known = (replicas, version);
                        }
                    }
                })
            }
            Written::Sks(result) => {
                revision.in_flight.sks = false;
                result.map(|sks| set(&mut revision.sks, Some(slim(*sks))))
            }
            Written::Metric(result) => {
                revision.in_flight.metric = false;
                result.map(|metric| set(&mut revision.metric, Some(slim(*metric))))
            }
            Written::Status(result) => {
                revision.in_flight.status = false;
                result.map(|mut pa| {
                    if version(&pa.metadata) >= version(&revision.pa.metadata) {
                        pa.metadata.managed_fields = None;
                        revision.pa = Arc::new(*pa);
                    }
                })
            }
        };
        self.metrics.writes.inc();
        let backoff = if is_scale { &mut revision.scale_backoff } else { &mut revision.backoff };
        let pause = backoff.ended(result.is_ok(), now);
        if let Err(error) = result {
            self.metrics.write_errors.inc();
            tracing::warn!(revision = %key, error, retry_in = ?pause, "write failed");
        }
        self.look_now(key, now, out);
    }
}

/// Keeps an object whose PodAutoscaler is not known; its own deletion removes it again.
fn adopt_later<T>(orphans: &mut HashMap<Key, Arc<T>>, key: &Key, object: Option<Arc<T>>) {
    match object {
        Some(object) => orphans.insert(key.clone(), object),
        None => orphans.remove(key),
    };
}

/// An object without the metadata that nobody here looks at; it is most of its size.
pub(super) fn slim<T: Resource>(mut object: T) -> Arc<T> {
    let metadata = object.meta_mut();
    metadata.managed_fields = None;
    metadata.labels = None;
    metadata.annotations = None;
    Arc::new(object)
}

/// Takes an object unless a newer version of it is known.
fn set<T: Resource>(slot: &mut Option<Arc<T>>, object: Option<Arc<T>>) {
    let older = match (&*slot, &object) {
        (Some(known), Some(new)) => known.meta().uid == new.meta().uid && version(new.meta()) < version(known.meta()),
        _ => false,
    };
    if !older {
        *slot = object;
    }
}

/// Turns a plan into effects. The scale goes first: somebody may wait for it.
pub(super) fn send(
    revision: &mut Revision,
    key: &Key,
    target: Option<Key>,
    counts: Counts,
    plan: Plan,
    now: Moment,
    out: &mut Vec<Effect>,
) {
    let scale_paused = revision.scale_backoff.pause(now).is_some();
    let paused = revision.backoff.pause(now).is_some();
    let in_flight = &mut revision.in_flight;
    let mut write = |write, wakes| out.push(Effect::Write { key: key.clone(), write, wakes });
    if let (Some(replicas), Some(target), false) = (plan.scale, target, in_flight.scale || scale_paused) {
        in_flight.scale = true;
        tracing::info!(revision = %key, replicas, clamp = ?plan.clamp, zero = ?plan.zero, "scaling");
        write(Write::Scale { target: target.name().to_owned(), replicas }, replicas > 0 && counts.ready == 0);
    }
    let mut echoed = false;
    let [sks_echo, metric_echo, status_echo] = &mut revision.echoes;
    if let (Some(change), false) = (plan.sks, in_flight.sks || paused) {
        let change = match change {
            Change::Create(sks) => Write::CreateSks(sks),
            Change::Spec(spec) => Write::PatchSks(spec),
        };
        in_flight.sks = sks_echo.may_write(&change, now);
        if in_flight.sks { write(change, false) } else { echoed = true }
    }
    if let (Some(change), false) = (plan.metric, in_flight.metric || paused) {
        let change = match change {
            Change::Create(metric) => Write::CreateMetric(metric),
            Change::Spec(spec) => Write::PatchMetric(spec),
        };
        in_flight.metric = metric_echo.may_write(&change, now);
        if in_flight.metric { write(change, false) } else { echoed = true }
    }
    if let (Some(status), false) = (plan.status, in_flight.status || paused) {
        let change = Write::Status(status);
        in_flight.status = status_echo.may_write(&change, now);
        if in_flight.status { write(change, false) } else { echoed = true }
    }
    if echoed {
        let again = now.plus(Echo::GAP);
        revision.look_at = Some(revision.look_at.map_or(again, |at| at.min(again)));
    }
    if plan.probe && !in_flight.probe {
        let service = revision.pa.status.as_ref().and_then(|s| s.service_name.clone()).unwrap_or_default();
        if !service.is_empty() {
            in_flight.probe = true;
            let target = ProbeTarget { service, h2c: revision.pa.spec.protocol_type == PROTOCOL_H2C };
            out.push(Effect::Probe { key: key.clone(), target });
        }
    }
}

pub(super) fn resolve(pa: &PodAutoscaler, settings: &Settings) -> RevisionScaling {
    let none = std::collections::BTreeMap::new();
    let annotations = pa.metadata.annotations.as_ref().unwrap_or(&none);
    let concurrency = pa.spec.container_concurrency.unwrap_or(0);
    RevisionScaling::resolve(annotations, concurrency, &settings.autoscaler, &settings.deployment)
}

pub(super) fn set_scaling(revision: &mut Revision, scaling: RevisionScaling, now: Moment) {
    if *revision.scaling == scaling {
        return;
    }
    // The weighting is chosen with the windows; new ones start empty.
    if revision.scaling.weighting == scaling.weighting {
        if let Some(load) = &mut revision.load {
            load.resize(&scaling, now);
        }
    } else {
        revision.load = None;
    }
    revision.scaling = Arc::new(scaling);
}

pub(super) fn target_key(key: &Key, pa: &PodAutoscaler) -> Option<Key> {
    pa.spec.scale_target_ref.name.as_deref().map(|name| Key::new(key.namespace(), name))
}

/// The resource version as a number. Opaque by contract, but a counter in every API server there is; where it is not,
/// all versions are equal and the newest event wins.
fn version(metadata: &kube::api::ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}
