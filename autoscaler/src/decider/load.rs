//! How the engine learns the load: reports of activators, rounds of asking pods that do not tell by themselves
//! ([`super::listen`]), other sources.
//!
//! A pod that has nothing to add to what activators report need not be asked every second: after a few such rounds
//! while activators report, one pod is asked every fifteen seconds, and the seconds between count as the zeros they would
//! have been. The first answer that is not zero brings back the full round at once.

use std::time::Duration;

use api::stat::{Stat, WireStatMessage};

use super::{
    Engine,
    engine::{TICK, wake},
    event::Effect,
    listen::CHECK,
    revision::{Live, Revision},
};
use crate::{
    algorithm::sampling,
    collect::{Counts, Load, is_plausible, scrape::Round},
    key::Key,
    metrics::{Metrics, Number},
    moment::Moment,
};

/// Rhythm of scraping.
const SCRAPE: Duration = Duration::from_secs(1);
/// Rhythm of scraping pods that have nothing to add.
const SPARSE: Duration = Duration::from_secs(15);
/// Rounds with nothing to add after which that is believed.
const QUIET_ROUNDS: u8 = 3;
/// Rhythm of asking another source.
const MEASURE: Duration = Duration::from_secs(5);
/// Least time between two decisions that a burst asks for.
pub(super) const BURST_GAP: Duration = Duration::from_millis(20);
/// Load below which a pod has nothing to add: rounding of averages.
const NOTHING: f64 = 1e-6;

impl Engine {
    /// One report of a frame: ours, or another holder's. One that was handed on already and is not ours either goes no
    /// further: two processes that take each other for the holder must not play ball.
    pub(super) fn message(&mut self, mut message: WireStatMessage, now: Moment, out: &mut Vec<Effect>) {
        let key = Key::new(&message.namespace, &message.name);
        let Some(stat) = &mut message.stat else { return };
        if self.is_mine(&key) {
            self.report(&key, stat, now, out);
            return;
        }
        let known = self.revisions.get(&key).map(|revision| revision.bucket);
        let bucket = known.unwrap_or_else(|| self.ownership.bucket(key.as_str()));
        if self.held.has(bucket) || stat.timestamp > 0 {
            self.metrics.unknown_stats.inc();
            return;
        }
        stat.timestamp = now.seconds();
        out.push(Effect::Forward(bucket, message));
    }

    /// A report of an activator. Wakes a revision at zero at once; a burst beyond what is wanted is decided at once.
    pub(super) fn report(&mut self, key: &Key, stat: &Stat, now: Moment, out: &mut Vec<Effect>) {
        let Some(revision) = self.revisions.get_mut(key) else { return };
        let load = stat.average_concurrent_requests;
        let nothing = load == 0.0 && stat.request_count == 0.0;
        if nothing && revision.desired == 0 && revision.live.is_none() {
            return;
        }
        let ready = self.pods.counts(key).ready;
        let measured = revision.scaling.extras.prometheus.is_some() && ready > 0;
        wake(revision, key, &self.metrics).reported_at = Some(now);
        if measured {
            // Another source says how much; activators only say that a sleeping revision is wanted.
            return;
        }
        let at = if stat.timestamp > 0 { Moment::from_seconds(stat.timestamp) } else { now };
        if !record(revision, key, stat, at, now, &self.metrics) {
            return;
        }
        if !nothing && revision.scaling.extras.learned_keep_warm {
            revision.idle_times.get_or_insert_default().active(now);
        }
        let asleep = revision.desired <= 0 && load != 0.0;
        let burst = load > f64::from(revision.desired.max(1)) * revision.scaling.target;
        let Some(live) = &mut revision.live else { return };
        if asleep {
            live.tick_at = Some(now);
        } else if burst {
            let earliest = live.decided_at.map_or(now, |at| at.plus(BURST_GAP));
            live.tick_at = Some(live.tick_at.map_or(earliest, |tick| tick.min(earliest)));
        } else if live.tick_at.is_none() {
            live.tick_at = Some(now.plus(TICK));
        }
        self.tick_and_look(key, now, out);
        self.reschedule(key, now);
    }

    /// A round of asking pods ended.
    pub(super) fn scraped(&mut self, key: &Key, stat: Option<&Stat>, now: Moment) {
        let Some(revision) = self.revisions.get_mut(key) else { return };
        let reported = revision.is_reported_by_activators(now);
        let Some(live) = &mut revision.live else { return };
        live.in_flight.scrape = false;
        if let Some(stat) = stat {
            let nothing = adds_nothing(stat);
            let was_quiet = is_quiet(live);
            live.quiet_rounds = if nothing && reported { live.quiet_rounds.saturating_add(1) } else { 0 };
            if was_quiet && !nothing {
                // One pod spoke for all as long as there was nothing to say.
                live.scrape_at = Some(now);
            } else if record(revision, key, stat, now, now, &self.metrics)
                && let Some(live) = &mut revision.live
                && live.tick_at.is_none()
            {
                live.tick_at = Some(now.plus(TICK));
            }
        }
        self.reschedule(key, now);
    }

    /// Another source answered, or not. Until it does again, this is the load.
    pub(super) fn measured(&mut self, key: &Key, value: Option<f64>, now: Moment) {
        let Some(revision) = self.revisions.get_mut(key) else { return };
        let Some(live) = &mut revision.live else { return };
        live.in_flight.scrape = false;
        if let Some(value) = value {
            let stat = Stat { average_concurrent_requests: value, request_count: value, ..Stat::default() };
            let since = live.measured_at.filter(|at| now.since(*at) <= 2 * MEASURE);
            live.measured_at = Some(now);
            let first = since.map_or(now.seconds(), |at| at.seconds() + 1);
            for second in first..=now.seconds() {
                if !record(revision, key, &stat, Moment::from_seconds(second), now, &self.metrics) {
                    break;
                }
            }
            if let Some(live) = &mut revision.live
                && live.load.is_some()
                && live.tick_at.is_none()
            {
                live.tick_at = Some(now.plus(TICK));
            }
        }
        self.reschedule(key, now);
    }

    /// Starts or stops asking pods, as there are some or not.
    pub(super) fn set_scraping(&mut self, key: &Key, counts: Counts, now: Moment) {
        let Some(revision) = self.revisions.get_mut(key) else { return };
        let elsewhere = revision.scaling.extras.prometheus.is_some();
        let scrapes = counts.ready > 0 && (elsewhere || !revision.scaling.activator_always_in_path());
        let ticks = revision.needs_tick(now);
        let Some(live) = &mut revision.live else { return };
        if !scrapes {
            live.scrape_at = None;
            live.listening = None;
        } else if live.scrape_at.is_none() {
            // A report lets the averages start as soon as a pod can take load.
            live.scrape_at = Some(now.plus(phase(key)));
        }
        if live.tick_at.is_none() && ticks {
            live.tick_at = Some(now.plus(TICK));
        }
        for (number, pods) in [
            (Number::Ready, counts.ready),
            (Number::NotReady, counts.not_ready),
            (Number::Pending, counts.pending),
            (Number::Terminating, counts.terminating),
        ] {
            live.metrics.set(number, pods);
        }
    }

    /// Starts a round of asking, unless the last is still under way or pods tell by themselves.
    pub(super) fn scrape(&mut self, key: &Key, now: Moment, out: &mut Vec<Effect>) {
        if self.listen(key, now, out) {
            if let Some(live) = self.revisions.get_mut(key).and_then(|revision| revision.live.as_mut()) {
                live.scrape_at = Some(now.plus(CHECK));
            }
            return;
        }
        let Some(revision) = self.revisions.get_mut(key) else { return };
        let sparse = revision.is_reported_by_activators(now);
        let Revision { live: Some(live), scaling, pa, metric, .. } = &mut **revision else { return };
        let sparse = sparse && is_quiet(live);
        let period = match (&scaling.extras.prometheus, sparse) {
            (Some(_), _) => MEASURE,
            (None, true) => SPARSE,
            (None, false) => SCRAPE,
        };
        // Late or not, the rhythm stays; rounds that were missed altogether are left out.
        let next = live.scrape_at.unwrap_or(now).plus(period);
        live.scrape_at = Some(if next > now { next } else { now.plus(period) });
        if live.in_flight.scrape {
            return;
        }
        if let Some(source) = &scaling.extras.prometheus {
            live.in_flight.scrape = true;
            let query = source.query_for(key.namespace(), &pa.service(key), &pa.configuration(key), key.name());
            out.push(Effect::Measure { key: key.clone(), address: source.address.clone(), query });
            return;
        }
        let pods = self.pods.ready(key);
        let (order, wanted) = if sparse {
            // Any of them, each time another.
            let nth = fastrand::usize(..pods.len().max(1));
            (pods.into_iter().skip(nth).take(1).map(|(_, pod)| pod).collect(), 1)
        } else {
            sampling::order(pods, now.minus(scaling.stable_window), |pods| fastrand::shuffle(pods))
        };
        if order.is_empty() || wanted == 0 {
            return;
        }
        live.in_flight.scrape = true;
        let service = metric.as_ref().map(|metric| metric.scrape_target(key)).unwrap_or_default();
        let round = Round { order, wanted, service, old_enough: scaling.stable_window };
        out.push(Effect::Scrape { key: key.clone(), round });
    }
}

fn is_quiet(live: &Live) -> bool {
    live.quiet_rounds >= QUIET_ROUNDS
}

fn adds_nothing(stat: &Stat) -> bool {
    let (in_flight, rate) = stat.direct();
    in_flight.abs() < NOTHING && rate.abs() < NOTHING
}

/// Pods that are not asked because they have nothing to add add a zero, as if they had been asked.
pub(super) fn assume_quiet(live: &mut Live, now: Moment) {
    if live.scrape_at.is_some()
        && is_quiet(live)
        && let Some(load) = &mut live.load
    {
        load.record(now, &Stat::default());
    }
}

/// Adds a report to a revision's load; refuses implausible ones and says so once.
fn record(revision: &mut Revision, key: &Key, stat: &Stat, at: Moment, now: Moment, metrics: &Metrics) -> bool {
    let Revision { live: Some(live), scaling, .. } = revision else { return false };
    if !is_good(live, key, stat, metrics) {
        return false;
    }
    // A reporter's clock may run ahead; its future must not push the past out of the windows.
    let at = at.min(now);
    live.load.get_or_insert_with(|| Box::new(Load::new(scaling))).record(at, stat);
    true
}

/// Whether a report can be believed; says so once where not.
pub(super) fn is_good(live: &mut Live, key: &Key, stat: &Stat, metrics: &Metrics) -> bool {
    let good = is_plausible(stat);
    if !good {
        metrics.bad_stats.inc();
        if !live.warned_of_bad_stats {
            live.warned_of_bad_stats = true;
            tracing::warn!(revision = %key, ?stat, "implausible report refused; further ones are only counted");
        }
    }
    good
}

/// Spreads revisions over the second, so that scrapes do not come in bursts.
fn phase(key: &Key) -> Duration {
    Duration::from_millis(key.hashed() % 1000)
}
