//! What the engine remembers of one revision: little while it sleeps ([`Revision`]), more while something happens
//! ([`Live`]).

use std::{hash::Hasher, sync::Arc, time::Duration};

use super::{
    listen::Listening,
    record::{MetricRecord, PaRecord, SksRecord},
};
use crate::{
    algorithm::{
        Decision, Inputs, RevisionScaling, State,
        decide::{self, Before, initial_excess_burst_capacity},
        keep_warm::IdleTimes,
        zero::Activity,
    },
    collect::Load,
    ledger::{Ledger, Outcome},
    metrics::RevisionMetrics,
    moment::Moment,
};

/// Work under way; one of a sort at a time, so that they cannot overtake each other.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    pub(super) scale: bool,
    pub(super) sks: bool,
    pub(super) metric: bool,
    pub(super) status: bool,
    pub(super) scrape: bool,
    pub(super) probe: bool,
    pub(super) fetch: bool,
}

impl InFlight {
    fn any(&self) -> bool {
        let Self { scale, sks, metric, status, scrape, probe, fetch } = *self;
        scale || sks || metric || status || scrape || probe || fetch
    }
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

    fn is_recent(&self, now: Moment) -> bool {
        self.0.is_some_and(|(_, at)| now.since(at) < Self::GAP)
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
    /// Its bucket: who holds that decides.
    pub(super) bucket: u8,
    pub(super) pa: PaRecord,
    pub(super) sks: Option<SksRecord>,
    pub(super) metric: Option<MetricRecord>,
    /// Replicas of the scale target, and its resource version.
    pub(super) replicas: Option<(i32, u64)>,
    pub(super) scaling: Arc<RevisionScaling>,
    /// Last decision's pods; -1 before the first.
    pub(super) desired: i32,
    pub(super) excess_burst_capacity: i32,
    /// Outcome of the last look.
    pub(super) outcome: Outcome,
    pub(super) ledger: Option<Box<Ledger>>,
    /// Only where idle times are learned.
    pub(super) idle_times: Option<Box<IdleTimes>>,
    pub(super) live: Option<Box<Live>>,
}

/// What is remembered only while something happens to a revision.
pub(super) struct Live {
    pub(super) load: Option<Box<Load>>,
    pub(super) state: State,
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
    /// Until when a status of no more than details is held back.
    pub(super) status_due: Option<Moment>,
    pub(super) warned_of_bad_stats: bool,
    pub(super) metrics: RevisionMetrics,
    /// Pods that tell by themselves, where they do.
    pub(super) listening: Option<Box<Listening>>,
    /// Pods could not, and are not tried again before this.
    pub(super) unable_until: Option<Moment>,
    /// When an activator reported last.
    pub(super) reported_at: Option<Moment>,
    /// Rounds of scraping in a row in which pods had nothing that activators had not reported.
    pub(super) quiet_rounds: u8,
    /// Up to when a measured value was recorded.
    pub(super) measured_at: Option<Moment>,
    /// The moment of this revision's valid entry in the schedule.
    pub(super) due: Option<Moment>,
    pub(super) tick_at: Option<Moment>,
    pub(super) scrape_at: Option<Moment>,
    pub(super) look_at: Option<Moment>,
}

impl Live {
    pub(super) fn new(metrics: RevisionMetrics) -> Self {
        Self {
            load: None,
            state: State::default(),
            decided_at: None,
            probe: None,
            in_flight: InFlight::default(),
            scale_backoff: Backoff::default(),
            backoff: Backoff::default(),
            echoes: Default::default(),
            status_due: None,
            warned_of_bad_stats: false,
            metrics,
            listening: None,
            unable_until: None,
            reported_at: None,
            quiet_rounds: 0,
            measured_at: None,
            due: None,
            tick_at: None,
            scrape_at: None,
            look_at: None,
        }
    }

    /// The earliest of its wishes.
    pub(super) fn next(&self) -> Option<Moment> {
        [self.tick_at, self.scrape_at, self.look_at].into_iter().flatten().min()
    }

    /// Whether a probe answered lately, and how.
    pub(super) fn fresh_probe(&self, now: Moment) -> Option<bool> {
        self.probe.filter(|(at, _)| now.since(*at) < PROBE_FRESH).map(|(_, in_path)| in_path)
    }

    /// Whether nothing here would be missed.
    fn is_at_rest(&self, now: Moment) -> bool {
        self.next().is_none()
            && !self.in_flight.any()
            && self.load.is_none()
            && !self.state.holds_back(0)
            && self.scale_backoff.pause(now).is_none()
            && self.backoff.pause(now).is_none()
            && !self.echoes.iter().any(|echo| echo.is_recent(now))
    }
}

/// A probe's answer is believed for this long; the last pod goes only on a fresh one.
const PROBE_FRESH: Duration = Duration::from_secs(1);

impl Revision {
    /// A revision about which nothing is decided yet.
    pub(super) fn new(pa: PaRecord, scaling: Arc<RevisionScaling>, bucket: u8) -> Self {
        Self {
            bucket,
            excess_burst_capacity: initial_excess_burst_capacity(&scaling),
            pa,
            sks: None,
            metric: None,
            replicas: None,
            scaling,
            desired: -1,
            outcome: Outcome::default(),
            ledger: None,
            idle_times: None,
            live: None,
        }
    }

    /// Begins to decide about it. The state to begin with goes into its [`Live`], if it needs one.
    pub(super) fn begin(&mut self, ready: i32, now: Moment) -> Option<State> {
        let wanted = self.pa.wanted();
        let activity = self.pa.activity().map(|(activity, _)| activity);
        self.live = None;
        self.excess_burst_capacity = initial_excess_burst_capacity(&self.scaling);
        // What an earlier process decided is still in the status; only a revision never seen starts from its pods.
        let (state, desired) = match wanted {
            1.. => (Some(State::resumed(wanted, now.plus(self.scaling.stable_window))), -1),
            0 if activity == Some(Activity::Inactive) => (None, 0),
            _ => (Some(State::started(ready, now)), -1),
        };
        self.desired = desired;
        state
    }

    /// Averages over both windows; `None` while there is nothing to decide on.
    fn averages(&self, now: Moment) -> Option<(f64, f64)> {
        match self.live.as_ref().and_then(|live| live.load.as_ref()) {
            Some(load) if !load.is_empty(now) => Some(load.averages(self.scaling.metric, now)),
            // All traffic comes through activators, and they say nothing: there is none.
            _ => self.scaling.activator_always_in_path().then_some((0.0, 0.0)),
        }
    }

    /// Decides; `None` while there is nothing to decide on.
    pub(super) fn decide(&mut self, ready: i32, now: Moment) -> Option<(Before, Inputs, Decision)> {
        let (stable, panic) = self.averages(now)?;
        let inputs = Inputs { stable, panic, ready, reachable: self.pa.reachable() };
        let live = self.live.as_mut()?;
        let before = live.state.before(&self.scaling, now);
        let decision = decide::decide(&self.scaling, &mut live.state, inputs, now)?;
        live.decided_at = Some(now);
        Some((before, inputs, decision))
    }

    /// Whether a later look at the same load could decide otherwise.
    pub(super) fn needs_tick(&self, now: Moment) -> bool {
        let Some(live) = &self.live else { return false };
        let remembers = live.load.as_ref().is_some_and(|load| !load.is_empty(now));
        remembers || self.scaling.activator_always_in_path() && (self.desired != 0 || live.state.holds_back(0))
    }

    /// Lets go of what a revision at rest does not need.
    pub(super) fn rest(&mut self, now: Moment) {
        if self.desired == 0 && self.live.as_ref().is_some_and(|live| live.is_at_rest(now)) {
            self.live = None;
            if let Some(ledger) = &mut self.ledger {
                ledger.shrink();
            }
        }
    }

    /// Whether activators see all of its requests, as far as anybody knows: they carry it, or they report load for it
    /// right now. Then pods that had nothing to add need not be asked every second.
    pub(super) fn is_reported_by_activators(&self, now: Moment) -> bool {
        /// Activators report once a second.
        const LATELY: Duration = Duration::from_secs(3);
        let reported = self.live.as_ref().and_then(|live| live.reported_at);
        self.sks.as_ref().is_some_and(SksRecord::is_proxy) || reported.is_some_and(|at| now.since(at) < LATELY)
    }
}
