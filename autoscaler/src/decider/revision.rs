//! What the engine remembers of one revision.

use std::{hash::Hasher, sync::Arc, time::Duration};

use api::{
    autoscaling::{Metric, PodAutoscaler},
    networking::ServerlessService,
};

use crate::{
    algorithm::{
        Decision, Inputs, RevisionScaling, State,
        condition::{self},
        decide,
        decide::initial_excess_burst_capacity,
        zero::Activity,
    },
    collect::Load,
    ledger::{Ledger, Outcome},
    metrics::RevisionMetrics,
    moment::Moment,
};

/// Writes under way; one of a sort at a time, so that they cannot overtake each other.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    pub(super) scale: bool,
    pub(super) sks: bool,
    pub(super) metric: bool,
    pub(super) status: bool,
    pub(super) scrape: bool,
    pub(super) probe: bool,
}

/// What was written last, to notice a server that does not take it: writing the same again and again would spin.
#[derive(Debug, Default)]
pub(super) struct Echo(Option<(u64, Moment)>);

impl Echo {
    /// Least time between two equal writes.
    pub(super) const GAP: Duration = Duration::from_secs(1);

    /// Whether `content` may be written now; remembers it if so.
    pub(super) fn may_write(&mut self, content: &impl serde::Serialize, now: Moment) -> bool {
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write(&serde_json::to_vec(content).unwrap_or_default());
        let hash = hasher.finish();
        if self.0.is_some_and(|(last, at)| last == hash && now.since(at) < Self::GAP) {
            return false;
        }
        self.0 = Some((hash, now));
        true
    }
}

/// Longer and longer pauses after failures in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Option<Moment>,
}

impl Backoff {
    /// First and longest pause.
    const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

    /// Takes how an attempt ended; after a failure, says how long to pause.
    pub(super) fn ended(&mut self, good: bool, now: Moment) -> Option<Duration> {
        if good {
            *self = Self::default();
            return None;
        }
        let pause = Self::PAUSE.0.saturating_mul(1 << self.failures.min(12)).min(Self::PAUSE.1);
        self.failures += 1;
        self.until = Some(now.plus(pause));
        Some(pause)
    }

    /// Until when to wait, if it is to wait.
    pub(super) fn pause(&self, now: Moment) -> Option<Moment> {
        self.until.filter(|until| now < *until)
    }
}

/// One revision.
pub(super) struct Revision {
    pub(super) pa: Arc<PodAutoscaler>,
    pub(super) sks: Option<Arc<ServerlessService>>,
    pub(super) metric: Option<Arc<Metric>>,
    pub(super) scaling: Arc<RevisionScaling>,
    pub(super) load: Option<Box<Load>>,
    pub(super) state: State,
    /// Last decision's pods; -1 before the first.
    pub(super) desired: i32,
    pub(super) excess_burst_capacity: i32,
    pub(super) decided_at: Option<Moment>,
    /// Last probe's end and answer.
    pub(super) probe: Option<(Moment, bool)>,
    pub(super) in_flight: InFlight,
    /// Pauses scale writes after failures.
    pub(super) scale_backoff: Backoff,
    /// Pauses all other writes after failures: those must not keep a scale from being written.
    pub(super) backoff: Backoff,
    /// Last writes of ServerlessService, Metric and status.
    pub(super) echoes: [Echo; 3],
    /// Outcome of the last look.
    pub(super) outcome: Outcome,
    pub(super) warned_of_bad_stats: bool,
    pub(super) ledger: Ledger,
    pub(super) metrics: RevisionMetrics,
    /// The moment of this revision's valid entry in the schedule.
    pub(super) due: Option<Moment>,
    pub(super) tick_at: Option<Moment>,
    pub(super) scrape_at: Option<Moment>,
    pub(super) look_at: Option<Moment>,
}

/// A probe's answer is believed for this long; the last pod goes only on a fresh one.
const PROBE_FRESH: Duration = Duration::from_secs(1);

impl Revision {
    pub(super) fn new(
        pa: Arc<PodAutoscaler>,
        scaling: Arc<RevisionScaling>,
        ready: i32,
        metrics: RevisionMetrics,
        now: Moment,
    ) -> Self {
        let status = pa.status.as_ref();
        let wanted = status.and_then(|s| s.desired_scale).unwrap_or(-1);
        let activity = status.map(|s| condition::activity(&s.conditions).0);
        // What an earlier process decided is still in the status; only a revision never seen starts from its pods.
        let (state, desired) = match wanted {
            1.. => (State::resumed(wanted, now.plus(scaling.stable_window)), -1),
            0 if activity == Some(Activity::Inactive) => (State::default(), 0),
            _ => (State::started(ready, now), -1),
        };
        Self {
            excess_burst_capacity: initial_excess_burst_capacity(&scaling),
            pa,
            sks: None,
            metric: None,
            scaling,
            load: None,
            state,
            desired,
            decided_at: None,
            probe: None,
            in_flight: InFlight::default(),
            scale_backoff: Backoff::default(),
            backoff: Backoff::default(),
            echoes: Default::default(),
            outcome: Outcome::default(),
            warned_of_bad_stats: false,
            ledger: Ledger::default(),
            metrics,
            due: None,
            tick_at: None,
            scrape_at: None,
            look_at: None,
        }
    }

    /// Whether a probe answered lately, and how.
    pub(super) fn fresh_probe(&self, now: Moment) -> Option<bool> {
        self.probe.filter(|(at, _)| now.since(*at) < PROBE_FRESH).map(|(_, in_path)| in_path)
    }

    /// Averages over both windows; `None` while there is nothing to decide on.
    pub(super) fn averages(&self, now: Moment) -> Option<(f64, f64)> {
        match &self.load {
            Some(load) if !load.is_empty(now) => Some(load.averages(self.scaling.metric, now)),
            // All traffic comes through activators, and they say nothing: there is none.
            _ => self.scaling.activator_always_in_path().then_some((0.0, 0.0)),
        }
    }

    /// Decides; `None` while there is nothing to decide on.
    pub(super) fn decide(&mut self, ready: i32, reachable: bool, now: Moment) -> Option<(Inputs, Decision)> {
        let (stable, panic) = self.averages(now)?;
        let inputs = Inputs { stable, panic, ready, reachable };
        let decision = decide(&self.scaling, &mut self.state, inputs, now)?;
        self.decided_at = Some(now);
        Some((inputs, decision))
    }

    /// Whether a later look at the same load could decide otherwise.
    pub(super) fn needs_tick(&self, now: Moment) -> bool {
        let remembers = self.load.as_ref().is_some_and(|load| !load.is_empty(now));
        remembers || self.scaling.activator_always_in_path() && (self.desired != 0 || self.state.holds_back(0))
    }
}
