//! The state machine over all revisions.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{
    event::{Change, Effect, Event, Kind, Settings},
    record::{Annotations, MetricRecord, Shared, SksRecord},
    revision::{Live, Revision},
    schedule::Schedule,
    send::send,
};
use crate::{
    algorithm::{RevisionScaling, decide::differs, keep_warm},
    apply::plan::{self, View, plan},
    collect::{Counts, Pods},
    key::Key,
    ledger::{Account, Outcome},
    metrics::{Metrics, Number},
    moment::Moment,
    ownership::{Held, Ownership},
};

/// Rhythm of decisions while load is remembered.
pub(super) const TICK: Duration = Duration::from_secs(2);

/// All revisions.
pub struct Engine {
    pub(super) ownership: Ownership,
    pub(super) held: Held,
    pub(super) settings: Arc<Settings>,
    pub(super) metrics: Metrics,
    pub(super) revisions: HashMap<Key, Box<Revision>>,
    pub(super) pods: Pods,
    pub(super) schedule: Schedule,
    /// Pods can be listened to.
    pub(super) listens: bool,
    /// Revisions to look at when there is time: settings changed, or everything was listed.
    sweep: Vec<Key>,
    /// Kinds that are not listed yet.
    pub(super) unsynced: Vec<Kind>,
    pub(super) shared: Shared,
    /// Annotations and `containerConcurrency` resolved with the present settings.
    pub(super) resolved: HashMap<(Arc<Annotations>, i64), Arc<RevisionScaling>>,
    /// Revisions of the HPA class.
    pub(super) horizontal: HashSet<Key>,
    /// The revision that scales a Deployment, where its name does not tell.
    pub(super) owner_of: HashMap<Key, Key>,
    /// Objects that came before their PodAutoscaler.
    pub(super) orphan_sks: HashMap<Key, SksRecord>,
    pub(super) orphan_metrics: HashMap<Key, MetricRecord>,
    /// Replicas and resource version of Deployments that came before.
    pub(super) orphan_targets: HashMap<Key, (i32, u64)>,
}

impl Engine {
    /// Knows nothing yet and decides nothing before every [`Kind`] was [`Event::Synced`].
    pub fn new(ownership: Ownership, metrics: Metrics) -> Self {
        Self {
            held: ownership.held(),
            ownership,
            settings: Arc::default(),
            metrics,
            revisions: HashMap::new(),
            pods: Pods::default(),
            schedule: Schedule::default(),
            listens: false,
            sweep: Vec::new(),
            unsynced: vec![
                Kind::PodAutoscaler,
                Kind::ServerlessService,
                Kind::Metric,
                Kind::Pod,
                Kind::Target,
                Kind::Settings,
            ],
            shared: Shared::default(),
            resolved: HashMap::new(),
            horizontal: HashSet::new(),
            owner_of: HashMap::new(),
            orphan_sks: HashMap::new(),
            orphan_metrics: HashMap::new(),
            orphan_targets: HashMap::new(),
        }
    }

    /// When [`Engine::run_due`] wants to be called next.
    pub fn next_due(&self) -> Option<Moment> {
        if self.sweep.is_empty() { self.schedule.next() } else { Some(Moment::MIN) }
    }

    /// Does what time alone makes due, for at most `limit` revisions so that events are not kept waiting.
    pub fn run_due(&mut self, now: Moment, limit: usize, out: &mut Vec<Effect>) {
        for _ in 0..limit {
            let Some((due, key)) = self.schedule.pop(now) else { break };
            let Some(live) = self.revisions.get_mut(&key).and_then(|r| r.live.as_mut()) else { continue };
            if live.due != Some(due) {
                continue;
            }
            live.due = None;
            if live.scrape_at.is_some_and(|at| at <= now) {
                self.scrape(&key, now, out);
            }
            self.tick_and_look(&key, now, out);
            self.reschedule(&key, now);
        }
        for _ in 0..limit {
            let Some(key) = self.sweep.pop() else { break };
            self.pods_changed(&key, now, out);
        }
        if self.sweep.is_empty() {
            self.sweep = Vec::new();
        }
    }

    /// Takes what happened.
    pub fn handle(&mut self, event: Event, now: Moment, out: &mut Vec<Effect>) {
        match event {
            Event::Frame(frame) => {
                for message in frame.messages {
                    self.message(message, now, out);
                }
            }
            Event::Scraped(key, stat) => self.scraped(&key, stat.as_ref(), now),
            Event::Heard(key, pod, heard) => self.heard(&key, pod, heard, now, out),
            Event::Measured(key, value) => self.measured(&key, value, now),
            Event::PodAutoscaler(Change::Applied(pa)) => self.pod_autoscaler(*pa, now, out),
            Event::PodAutoscaler(Change::Deleted(key)) => {
                self.horizontal.remove(&key);
                self.forget(&key);
            }
            Event::Fetched(key, pa) => {
                if let Some(live) = self.revisions.get_mut(&key).and_then(|r| r.live.as_mut()) {
                    live.in_flight.fetch = false;
                }
                if let Some(pa) = pa {
                    self.pod_autoscaler(*pa, now, out);
                }
            }
            Event::Sks(Change::Applied(sks)) => self.set_sks(*sks, now, out),
            Event::Sks(Change::Deleted(key)) => self.lose_sks(&key, now, out),
            Event::Metric(Change::Applied(metric)) => self.set_metric(*metric, now, out),
            Event::Metric(Change::Deleted(key)) => self.lose_metric(&key, now, out),
            Event::Pod(change) => {
                let revision = match change {
                    Change::Applied(view) => self.pods.apply(&view),
                    Change::Deleted(pod) => self.pods.remove(&pod),
                };
                if let Some(key) = revision {
                    self.pods_changed(&key, now, out);
                }
            }
            Event::Target(Change::Applied((key, replicas, version))) => self.target(&key, replicas, version, now, out),
            Event::Target(Change::Deleted(key)) => self.lose_target(&key),
            Event::Listed(kind, listed) => self.listed(kind, &listed, now, out),
            Event::Synced(kind) => {
                let before = self.unsynced.len();
                self.unsynced.retain(|k| *k != kind);
                if before > 0 && self.unsynced.is_empty() {
                    self.orphan_sks.shrink_to_fit();
                    self.orphan_metrics.shrink_to_fit();
                    self.orphan_targets.shrink_to_fit();
                    for live in self.revisions.values_mut().filter_map(|r| r.live.as_mut()) {
                        if live.load.is_some() {
                            live.tick_at = Some(now);
                        }
                    }
                    self.all(now, out);
                }
            }
            Event::Settings(settings) => {
                self.settings = settings;
                self.resolved.clear();
                let keys: Vec<Key> = self.revisions.keys().cloned().collect();
                for key in keys {
                    self.resolve(&key, now);
                }
                self.all(now, out);
                self.all_horizontal(out);
            }
            Event::Wrote(key, written) => self.wrote(&key, written, now, out),
            Event::Probed(key, in_path) => {
                if let Some(live) = self.revisions.get_mut(&key).and_then(|r| r.live.as_mut()) {
                    live.in_flight.probe = false;
                    live.probe = Some((now, in_path));
                    if in_path {
                        self.look(&key, now, out);
                    } else {
                        live.look_at = Some(now.plus(Duration::from_secs(1)));
                    }
                    self.reschedule(&key, now);
                }
            }
            Event::Held(held) => {
                self.hold(held, now);
                self.all_horizontal(out);
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
            panicking: revision.live.as_ref().is_some_and(|live| live.state.in_panic()),
            decisions: revision.ledger.as_ref().map(|l| l.entries(&revision.scaling)).unwrap_or_default(),
        })
    }

    /// Other buckets are held than before. What another process decided is in the status of each PodAutoscaler, and is
    /// held for as long as it takes to know the load.
    fn hold(&mut self, held: Held, now: Moment) {
        let before = std::mem::replace(&mut self.held, held);
        for (key, revision) in &mut self.revisions {
            match (before.has(revision.bucket), held.has(revision.bucket)) {
                (false, true) => {
                    if let Some(state) = revision.begin(self.pods.counts(key).ready, now) {
                        wake(revision, key, &self.metrics).state = state;
                    }
                    self.sweep.push(key.clone());
                }
                (true, false) => revision.live = None,
                _ => {}
            }
        }
    }

    /// Whether a revision is decided here.
    pub(super) fn is_mine(&self, key: &Key) -> bool {
        self.revisions.get(key).is_some_and(|revision| self.held.has(revision.bucket))
    }

    /// Looks at all: at those that are awake now, at those that sleep when there is time.
    fn all(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let (awake, asleep): (Vec<_>, Vec<_>) =
            self.revisions.iter().partition(|(_, revision)| revision.live.is_some() || revision.desired != 0);
        let awake: Vec<Key> = awake.into_iter().map(|(key, _)| key.clone()).collect();
        self.sweep = asleep.into_iter().map(|(key, _)| key.clone()).collect();
        for key in awake {
            self.pods_changed(&key, now, out);
        }
    }

    /// Forgets what is not listed any more.
    fn listed(&mut self, kind: Kind, listed: &HashSet<u64>, now: Moment, out: &mut Vec<Effect>) {
        let gone = |key: &Key| !listed.contains(&key.hashed());
        let keys: Vec<Key> = match kind {
            Kind::Pod => {
                for pod in self.pods.others(listed) {
                    if let Some(key) = self.pods.remove(&pod) {
                        self.pods_changed(&key, now, out);
                    }
                }
                return;
            }
            Kind::Settings => return,
            Kind::Target => {
                self.orphan_targets.retain(|key, _| !gone(key));
                let mine = self.revisions.iter().filter_map(|(key, revision)| {
                    revision.replicas.and(revision.pa.target(key)).map(|name| Key::new(key.namespace(), &name))
                });
                mine.filter(gone).collect()
            }
            _ => self.revisions.keys().filter(|key| gone(key)).cloned().collect(),
        };
        if kind == Kind::PodAutoscaler {
            self.horizontal.retain(|key| !gone(key));
        }
        self.orphan_sks.retain(|key, _| kind != Kind::ServerlessService || !gone(key));
        self.orphan_metrics.retain(|key, _| kind != Kind::Metric || !gone(key));
        for key in keys {
            match kind {
                Kind::PodAutoscaler => self.forget(&key),
                Kind::ServerlessService => self.lose_sks(&key, now, out),
                Kind::Metric => self.lose_metric(&key, now, out),
                _ => self.lose_target(&key),
            }
        }
    }

    /// Pods came or went: start or stop scraping, look again.
    pub(super) fn pods_changed(&mut self, key: &Key, now: Moment, out: &mut Vec<Effect>) {
        let counts = self.pods.counts(key);
        if !self.is_mine(key) {
            return;
        }
        if let Some(revision) = self.revisions.get_mut(key) {
            if revision.live.is_some() || counts != Counts::default() {
                wake(revision, key, &self.metrics);
                self.set_scraping(key, counts, now);
                self.follow_pods(key, now, out);
            }
            // A reported load may have waited for the last list.
            self.tick_and_look(key, now, out);
            self.look_now(key, now, out);
        }
    }

    pub(super) fn look_now(&mut self, key: &Key, now: Moment, out: &mut Vec<Effect>) {
        self.look(key, now, out);
        self.reschedule(key, now);
    }

    /// Decides if it is time to, and looks if the decision changed or it is time to.
    pub(super) fn tick_and_look(&mut self, key: &Key, now: Moment, out: &mut Vec<Effect>) {
        let Some(live) = self.revisions.get_mut(key).and_then(|r| r.live.as_mut()) else { return };
        let ticks = live.tick_at.is_some_and(|at| at <= now);
        let looks = live.look_at.is_some_and(|at| at <= now);
        let changed = ticks && self.tick(key, now, out);
        if changed || looks {
            self.look(key, now, out);
        }
    }

    /// Decides; tells whether the answer is another than before.
    fn tick(&mut self, key: &Key, now: Moment, out: &mut Vec<Effect>) -> bool {
        let ready = self.pods.counts(key).ready;
        let Some(revision) = self.revisions.get_mut(key) else { return false };
        let Some(live) = &mut revision.live else { return false };
        live.tick_at = None;
        if !self.unsynced.is_empty() {
            // Pods that are not listed yet would look like none. The last list brings everybody back here.
            return false;
        }
        super::load::assume_quiet(live, now);
        super::listen::fill(live, &revision.scaling, now);
        let decided = revision.decide(ready, now);
        let ticks = revision.needs_tick(now);
        let Some(live) = &mut revision.live else { return false };
        if live.load.as_ref().is_some_and(|load| load.is_empty(now)) {
            live.load = None;
        }
        let Some((left, inputs, decision)) = decided else { return false };
        let before = (revision.desired, revision.excess_burst_capacity);
        revision.desired = decision.desired;
        revision.excess_burst_capacity = decision.excess_burst_capacity;
        revision.ledger.get_or_insert_default().record(now, &revision.scaling, left, inputs, decision);
        let metrics = &live.metrics;
        metrics.set_kind(revision.scaling.metric);
        metrics.set(Number::Desired, decision.desired);
        metrics.set(Number::Excess, decision.excess_burst_capacity);
        metrics.set(Number::PanicMode, u8::from(live.state.in_panic()));
        metrics.set(Number::Stable, inputs.stable);
        metrics.set(Number::Panic, inputs.panic);
        metrics.set(Number::Target, revision.scaling.target);
        if ticks {
            live.tick_at = Some(now.plus(TICK));
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
    pub(super) fn look(&mut self, key: &Key, now: Moment, out: &mut Vec<Effect>) {
        if !self.unsynced.is_empty() || !self.is_mine(key) {
            return;
        }
        let ready = self.pods.counts(key).ready;
        let Some(revision) = self.revisions.get_mut(key) else { return };
        let (warm, warm_until) = kept_warm(revision, now);
        let (pa, sks) = (revision.pa.object(key), revision.sks.as_ref().map(|sks| sks.object(key, &revision.pa)));
        let metric = revision.metric.as_ref().map(|metric| metric.object(key, &revision.pa));
        let plan = plan(
            &View {
                pa: &pa,
                sks: sks.as_ref(),
                metric: metric.as_ref(),
                scaling: &revision.scaling,
                desired: revision.desired,
                excess_burst_capacity: revision.excess_burst_capacity,
                ready,
                replicas: revision.replicas.map(|(replicas, _)| replicas),
                activator_in_path: revision.live.as_ref().and_then(|live| live.fresh_probe(now)),
                warm,
            },
            now,
        );
        revision.outcome = Outcome { want: plan.want, bound: plan.clamp, scale_to_zero: plan.zero };
        let creates =
            matches!(plan.sks, Some(plan::Change::Create(_))) || matches!(plan.metric, Some(plan::Change::Create(_)));
        if !creates && sks.is_some() && metric.is_some() {
            revision.pa.drop_metadata();
        }
        if plan.writes_nothing() && plan.again_in.is_none() && warm_until.is_none() && revision.live.is_none() {
            return;
        }
        let live = wake(revision, key, &self.metrics);
        let pauses = [live.scale_backoff.pause(now), live.backoff.pause(now), warm_until];
        live.look_at = plan.again_in.map(|again| now.plus(again)).into_iter().chain(pauses.into_iter().flatten()).min();
        if plan.want >= 0 {
            live.metrics.set(Number::Requested, plan.want);
        }
        if creates && !revision.pa.is_whole() {
            // An owned object went: it is made again from labels and annotations that are not kept.
            if let Some(live) = revision.live.as_mut().filter(|live| !live.in_flight.fetch) {
                live.in_flight.fetch = true;
                out.push(Effect::Fetch(key.clone()));
            }
            return;
        }
        send(revision, key, &self.pods, plan, now, out);
    }

    /// Puts the earliest of a revision's wishes into the schedule, or puts it to rest if it has none.
    pub(super) fn reschedule(&mut self, key: &Key, now: Moment) {
        let Some(revision) = self.revisions.get_mut(key) else { return };
        let Some(live) = &mut revision.live else { return };
        match live.next() {
            Some(next) => self.schedule.at(key, &mut live.due, next),
            None => revision.rest(now),
        }
    }
}

/// A revision's live part, made if it has none.
pub(super) fn wake<'a>(revision: &'a mut Revision, key: &Key, metrics: &Metrics) -> &'a mut Live {
    let Revision { live, pa, .. } = revision;
    live.get_or_insert_with(|| {
        Box::new(Live::new(metrics.revision([
            key.namespace().to_owned(),
            pa.service(key),
            pa.configuration(key),
            key.name().to_owned(),
        ])))
    })
}

/// Pods kept warm now, and when that changes next.
fn kept_warm(revision: &Revision, now: Moment) -> (i32, Option<Moment>) {
    let (pods, change) = keep_warm::scheduled(&revision.scaling.extras.keep_warm, now);
    let (due, until) = revision.idle_times.as_ref().map_or((false, None), |idle| idle.due(now));
    (pods.max(i32::from(due)), change.into_iter().chain(until).min())
}
