//! The state machine over all revisions.

use std::{collections::HashMap, sync::Arc, time::Duration};

use api::{autoscaling::UNREACHABLE, stat::Stat};

use super::{
    event::{Change, Effect, Event, Kind, Settings},
    objects::{resolve, send, set_scaling, slim, target_key},
    revision::Revision,
    schedule::Schedule,
};
use crate::{
    algorithm::{decide::differs, sampling},
    apply::plan::{View, plan},
    collect::{Counts, Load, Pods, is_plausible},
    key::Key,
    ledger::{Account, Outcome},
    metrics::{Metrics, Number},
    moment::Moment,
    ownership::Ownership,
};

/// Rhythm of decisions while load is remembered.
const TICK: Duration = Duration::from_secs(2);
/// Rhythm of scraping.
const SCRAPE: Duration = Duration::from_secs(1);
/// Least time between two decisions that a burst asks for.
const BURST_GAP: Duration = Duration::from_millis(20);

/// All revisions.
pub struct Engine {
    pub(super) ownership: Ownership,
    pub(super) settings: Arc<Settings>,
    pub(super) metrics: Metrics,
    pub(super) revisions: HashMap<Key, Revision>,
    pub(super) pods: Pods,
    /// Replicas and resource version of each Deployment.
    pub(super) targets: HashMap<Key, (i32, u64)>,
    schedule: Schedule,
    /// Kinds that are not listed yet.
    unsynced: Vec<Kind>,
    /// The revision that scales a Deployment.
    pub(super) owner_of: HashMap<Key, Key>,
    /// Objects that came before their PodAutoscaler.
    pub(super) orphan_sks: HashMap<Key, Arc<api::networking::ServerlessService>>,
    pub(super) orphan_metrics: HashMap<Key, Arc<api::autoscaling::Metric>>,
}

impl Engine {
    /// Knows nothing yet and decides nothing before every [`Kind`] was [`Event::Synced`].
    pub fn new(ownership: Ownership, metrics: Metrics) -> Self {
        Self {
            ownership,
            settings: Arc::default(),
            metrics,
            revisions: HashMap::new(),
            pods: Pods::default(),
            targets: HashMap::new(),
            owner_of: HashMap::new(),
            schedule: Schedule::default(),
            unsynced: vec![
                Kind::PodAutoscaler,
                Kind::ServerlessService,
                Kind::Metric,
                Kind::Pod,
                Kind::Target,
                Kind::Settings,
            ],
            orphan_sks: HashMap::new(),
            orphan_metrics: HashMap::new(),
        }
    }

    /// When [`Engine::run_due`] wants to be called next.
    pub fn next_due(&self) -> Option<Moment> {
        self.schedule.next()
    }

    /// Does what time alone makes due, for at most `limit` revisions so that events are not kept waiting.
    pub fn run_due(&mut self, now: Moment, limit: usize, out: &mut Vec<Effect>) {
        for _ in 0..limit {
            let Some((due, key)) = self.schedule.pop(now) else { return };
            let Some(revision) = self.revisions.get_mut(&key) else { continue };
            if revision.due != Some(due) {
                continue;
            }
            revision.due = None;
            if revision.scrape_at.is_some_and(|at| at <= now) {
                self.scrape(&key, now, out);
            }
            self.tick_and_look(&key, now, out);
            self.reschedule(&key);
        }
    }

    /// Takes what happened.
    pub fn handle(&mut self, event: Event, now: Moment, out: &mut Vec<Effect>) {
        match event {
            Event::Frame(frame) => {
                for message in frame.messages {
                    let Some(stat) = message.stat else { continue };
                    let key = Key::new(&message.namespace, &message.name);
                    self.report(&key, &stat, now, out);
                }
            }
            Event::Scraped(key, stat) => self.scraped(&key, stat.as_ref(), now),
            Event::PodAutoscaler(Change::Applied(pa)) => self.pod_autoscaler(*pa, now, out),
            Event::PodAutoscaler(Change::Deleted(key)) => self.forget(&key),
            Event::Sks(Change::Applied(sks)) => {
                let key = Key::of(&*sks);
                self.set_sks(&key, Some(slim(*sks)), now, out);
            }
            Event::Sks(Change::Deleted(key)) => self.set_sks(&key, None, now, out),
            Event::Metric(Change::Applied(metric)) => {
                let key = Key::of(&*metric);
                self.set_metric(&key, Some(slim(*metric)), now, out);
            }
            Event::Metric(Change::Deleted(key)) => self.set_metric(&key, None, now, out),
            Event::Pod(change) => {
                let revision = match change {
                    Change::Applied(view) => self.pods.apply(&view),
                    Change::Deleted(pod) => self.pods.remove(&pod),
                };
                if let Some(key) = revision {
                    self.pods_changed(&key, now, out);
                }
            }
            Event::Target(Change::Applied((key, replicas, version))) => self.target(key, replicas, version, now, out),
            Event::Target(Change::Deleted(key)) => {
                self.targets.remove(&key);
            }
            Event::Synced(kind) => {
                let before = self.unsynced.len();
                self.unsynced.retain(|k| *k != kind);
                if before > 0 && self.unsynced.is_empty() {
                    for revision in self.revisions.values_mut().filter(|r| r.load.is_some()) {
                        revision.tick_at = Some(now);
                    }
                    self.all(now, out);
                }
            }
            Event::Settings(settings) => {
                self.settings = settings;
                for revision in self.revisions.values_mut() {
                    let scaling = resolve(&revision.pa, &self.settings);
                    set_scaling(revision, scaling, now);
                }
                self.all(now, out);
            }
            Event::Wrote(key, written) => self.wrote(&key, written, now, out),
            Event::Probed(key, in_path) => {
                if let Some(revision) = self.revisions.get_mut(&key) {
                    revision.in_flight.probe = false;
                    revision.probe = Some((now, in_path));
                    if in_path {
                        self.look(&key, now, out);
                    } else {
                        revision.look_at = Some(now.plus(Duration::from_secs(1)));
                    }
                    self.reschedule(&key);
                }
            }
            Event::Explain(key, reply) => {
                // Whoever asked may have gone; that is theirs to know.
                drop(reply.send(self.explain(&key)));
            }
        }
    }

    /// What was decided about a revision.
    pub fn explain(&self, key: &Key) -> Option<Account> {
        let revision = self.revisions.get(key)?;
        Some(Account {
            revision: key.to_string(),
            settings: (*revision.scaling).clone(),
            desired: revision.desired,
            ready: self.pods.counts(key).ready,
            outcome: revision.outcome,
            panicking: revision.state.in_panic(),
            decisions: revision.ledger.entries(),
        })
    }

    fn all(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let keys: Vec<Key> = self.revisions.keys().cloned().collect();
        for key in keys {
            self.pods_changed(&key, now, out);
        }
    }

    /// Pods came or went: start or stop scraping, look again.
    pub(super) fn pods_changed(&mut self, key: &Key, now: Moment, out: &mut Vec<Effect>) {
        let counts = self.pods.counts(key);
        if let Some(revision) = self.revisions.get_mut(key) {
            let scrapes = counts.ready > 0 && !revision.scaling.activator_always_in_path();
            if !scrapes {
                revision.scrape_at = None;
            } else if revision.scrape_at.is_none() {
                // A report lets the averages start as soon as a pod can take load.
                revision.scrape_at = Some(now.plus(phase(key)));
            }
            if revision.tick_at.is_none() && revision.needs_tick(now) {
                revision.tick_at = Some(now.plus(TICK));
            }
            set_pod_metrics(revision, counts);
            // A reported load may have waited for the last list.
            self.tick_and_look(key, now, out);
            self.look_now(key, now, out);
        }
    }

    pub(super) fn look_now(&mut self, key: &Key, now: Moment, out: &mut Vec<Effect>) {
        self.look(key, now, out);
        self.reschedule(key);
    }

    /// A report of an activator. Wakes a revision at zero at once; a burst beyond what is wanted is decided at once.
    fn report(&mut self, key: &Key, stat: &Stat, now: Moment, out: &mut Vec<Effect>) {
        let Some(revision) = self.revisions.get_mut(key) else {
            self.metrics.unknown_stats.inc();
            return;
        };
        let at = if stat.timestamp > 0 { Moment::from_seconds(stat.timestamp) } else { now };
        if !record(revision, key, stat, at, now, &self.metrics) {
            return;
        }
        let load = stat.average_concurrent_requests;
        let asleep = revision.desired <= 0 && load != 0.0;
        let burst = load > f64::from(revision.desired.max(1)) * revision.scaling.target;
        if asleep {
            revision.tick_at = Some(now);
        } else if burst {
            let earliest = revision.decided_at.map_or(now, |at| at.plus(BURST_GAP));
            revision.tick_at = Some(revision.tick_at.map_or(earliest, |tick| tick.min(earliest)));
        } else if revision.tick_at.is_none() {
            revision.tick_at = Some(now.plus(TICK));
        }
        self.tick_and_look(key, now, out);
        self.reschedule(key);
    }

    fn scraped(&mut self, key: &Key, stat: Option<&Stat>, now: Moment) {
        let Some(revision) = self.revisions.get_mut(key) else { return };
        revision.in_flight.scrape = false;
        let Some(stat) = stat else { return };
        if record(revision, key, stat, now, now, &self.metrics) && revision.tick_at.is_none() {
            revision.tick_at = Some(now.plus(TICK));
            self.reschedule(key);
        }
    }

    /// Starts a round of scraping, unless the last is still under way.
    fn scrape(&mut self, key: &Key, now: Moment, out: &mut Vec<Effect>) {
        let Some(revision) = self.revisions.get_mut(key) else { return };
        let planned = revision.scrape_at.unwrap_or(now);
        // Late or not, the rhythm stays; rounds that were missed altogether are left out.
        let next = planned.plus(SCRAPE);
        revision.scrape_at = Some(if next > now { next } else { now.plus(SCRAPE) });
        if revision.in_flight.scrape {
            return;
        }
        let window = revision.scaling.stable_window;
        let old_since = now.minus(window);
        let (order, wanted) = sampling::order(self.pods.ready(key), old_since, |pods| fastrand::shuffle(pods));
        if wanted == 0 {
            return;
        }
        revision.in_flight.scrape = true;
        out.push(Effect::Scrape { key: key.clone(), order, wanted });
    }

    /// Decides if it is time to, and looks if the decision changed or it is time to.
    fn tick_and_look(&mut self, key: &Key, now: Moment, out: &mut Vec<Effect>) {
        let Some(revision) = self.revisions.get_mut(key) else { return };
        let ticks = revision.tick_at.is_some_and(|at| at <= now);
        let looks = revision.look_at.is_some_and(|at| at <= now);
        let changed = ticks && self.tick(key, now, out);
        if changed || looks {
            self.look(key, now, out);
        }
    }

    /// Decides; tells whether the answer is another than before.
    fn tick(&mut self, key: &Key, now: Moment, out: &mut Vec<Effect>) -> bool {
        let ready = self.pods.counts(key).ready;
        let Some(revision) = self.revisions.get_mut(key) else { return false };
        if !self.unsynced.is_empty() {
            // Pods that are not listed yet would look like none. The last list brings everybody back here.
            revision.tick_at = None;
            return false;
        }
        let reachable = revision.pa.spec.reachability.as_deref() != Some(UNREACHABLE);
        let decided = revision.decide(ready, reachable, now);
        if revision.load.as_ref().is_some_and(|load| load.is_empty(now)) {
            revision.load = None;
        }
        revision.tick_at = None;
        let Some((inputs, decision)) = decided else { return false };
        let before = (revision.desired, revision.excess_burst_capacity);
        revision.desired = decision.desired;
        revision.excess_burst_capacity = decision.excess_burst_capacity;
        revision.ledger.record(now, inputs, decision);
        let metrics = &revision.metrics;
        metrics.set_kind(revision.scaling.metric);
        metrics.set(Number::Desired, decision.desired);
        metrics.set(Number::Excess, decision.excess_burst_capacity);
        metrics.set(Number::PanicMode, u8::from(revision.state.in_panic()));
        metrics.set(Number::Stable, inputs.stable);
        metrics.set(Number::Panic, inputs.panic);
        metrics.set(Number::Target, revision.scaling.target);
        if revision.needs_tick(now) {
            revision.tick_at = Some(now.plus(TICK));
        }
        let changed = differs(before, &decision);
        if changed && before.0 != decision.desired {
            if before.0 <= 0 && decision.desired > 0 && ready == 0 {
                out.push(Effect::Decided(key.clone()));
            }
            tracing::info!(
                revision = %key, from = before.0, to = decision.desired, stable = inputs.stable, panic = inputs.panic,
                ready, ebc = decision.excess_burst_capacity,
                reasons = ?decision.reasons.iter().collect::<Vec<_>>(), "decided"
            );
        }
        changed
    }

    /// Compares what is wanted with what exists and sends the difference off.
    fn look(&mut self, key: &Key, now: Moment, out: &mut Vec<Effect>) {
        if !self.unsynced.is_empty() {
            return;
        }
        let counts = self.pods.counts(key);
        let Some(revision) = self.revisions.get_mut(key) else { return };
        let target = target_key(key, &revision.pa);
        let plan = plan(
            &View {
                pa: &revision.pa,
                sks: revision.sks.as_deref(),
                metric: revision.metric.as_deref(),
                scaling: &revision.scaling,
                desired: revision.desired,
                excess_burst_capacity: revision.excess_burst_capacity,
                ready: counts.ready,
                replicas: target.as_ref().and_then(|target| self.targets.get(target)).map(|(replicas, _)| *replicas),
                activator_in_path: revision.fresh_probe(now),
            },
            now,
        );
        let pauses = [revision.scale_backoff.pause(now), revision.backoff.pause(now)];
        revision.look_at =
            plan.again_in.map(|again| now.plus(again)).into_iter().chain(pauses.into_iter().flatten()).min();
        if plan.want >= 0 {
            revision.metrics.set(Number::Requested, plan.want);
        }
        revision.outcome = Outcome { want: plan.want, bound: plan.clamp, scale_to_zero: plan.zero };
        send(revision, key, target, counts, plan, now, out);
    }

    /// Puts the earliest of a revision's wishes into the schedule.
    fn reschedule(&mut self, key: &Key) {
        let Some(revision) = self.revisions.get_mut(key) else { return };
        let next = [revision.tick_at, revision.scrape_at, revision.look_at].into_iter().flatten().min();
        if let Some(next) = next {
            self.schedule.at(key, &mut revision.due, next);
        }
    }
}

/// Adds a report to a revision's load; refuses implausible ones and says so once.
fn record(revision: &mut Revision, key: &Key, stat: &Stat, at: Moment, now: Moment, metrics: &Metrics) -> bool {
    if !is_plausible(stat) {
        metrics.bad_stats.inc();
        if !revision.warned_of_bad_stats {
            revision.warned_of_bad_stats = true;
            tracing::warn!(revision = %key, ?stat, "implausible report refused; further ones are only counted");
        }
        return false;
    }
    // A reporter's clock may run ahead; its future must not push the past out of the windows.
    let at = at.min(now);
    revision.load.get_or_insert_with(|| Box::new(Load::new(&revision.scaling))).record(at, stat);
    true
}

fn set_pod_metrics(revision: &Revision, counts: Counts) {
    revision.metrics.set(Number::Ready, counts.ready);
    revision.metrics.set(Number::NotReady, counts.not_ready);
    revision.metrics.set(Number::Pending, counts.pending);
    revision.metrics.set(Number::Terminating, counts.terminating);
}

/// Spreads revisions over the second, so that scrapes do not come in bursts.
fn phase(key: &Key) -> Duration {
    let hash = key.as_str().bytes().fold(0u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
    Duration::from_millis(hash % 1000)
}
