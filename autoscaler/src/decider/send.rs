//! How a plan becomes effects: one write of a sort at a time, none while a pause lasts, none that was just made.

use std::time::Duration;

use super::{
    event::{Effect, ProbeTarget, Write},
    revision::{Echo, Revision},
};
use crate::{
    apply::plan::{Change, Plan},
    collect::Pods,
    key::Key,
    moment::Moment,
};

/// Most pods among which the least busy are looked for before some of them go.
const MOST_CANDIDATES: usize = 256;

/// How long a status that shows the same where anybody looks (Ready and Active) may wait for the next change. A revision
/// that comes up passes through several such states within milliseconds, and so does one that many pods join.
const DETAIL_DELAY: Duration = Duration::from_millis(100);

/// Turns a plan into effects. The scale goes first: somebody may wait for it.
pub(super) fn send(revision: &mut Revision, key: &Key, pods: &Pods, plan: Plan, now: Moment, out: &mut Vec<Effect>) {
    let target = revision.pa.target(key);
    let Revision { live: Some(live), pa, .. } = revision else { return };
    let ready = pods.counts(key).ready;
    let scale_paused = live.scale_backoff.pause(now).is_some();
    let paused = live.backoff.pause(now).is_some();
    let in_flight = &mut live.in_flight;
    let mut write = |write, wakes| out.push(Effect::Write { key: key.clone(), write, wakes });
    if let (Some(replicas), Some(target), false) = (plan.scale, target, in_flight.scale || scale_paused) {
        in_flight.scale = true;
        tracing::info!(revision = %key, replicas, clamp = ?plan.clamp, zero = ?plan.zero, "scaling");
        // To zero all of them go, and there is nothing to choose.
        let some_go = replicas > 0 && replicas < ready;
        let candidates = if some_go { pods.candidates(key, MOST_CANDIDATES) } else { Vec::new() };
        write(Write::Scale { target, replicas, candidates }, replicas > 0 && ready == 0);
    }
    let mut echoed = false;
    let [sks_echo, metric_echo, status_echo] = &mut live.echoes;
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
    let mut held = None;
    match plan.status {
        None => live.status_due = None,
        Some(_) if in_flight.status || paused => {}
        Some(status) => {
            held = if pa.shows_the_same(&status) {
                Some(*live.status_due.get_or_insert(now.plus(DETAIL_DELAY))).filter(|due| *due > now)
            } else {
                None
            };
            if held.is_none() {
                live.status_due = None;
                let change = Write::Status(status);
                in_flight.status = status_echo.may_write(&change, now);
                if in_flight.status { write(change, false) } else { echoed = true }
            }
        }
    }
    if let Some(due) = held {
        live.look_at = Some(live.look_at.map_or(due, |at| at.min(due)));
    }
    if echoed {
        let again = now.plus(Echo::GAP);
        live.look_at = Some(live.look_at.map_or(again, |at| at.min(again)));
    }
    if plan.probe
        && !in_flight.probe
        && let Some(service) = pa.service_name(key)
    {
        in_flight.probe = true;
        out.push(Effect::Probe { key: key.clone(), target: ProbeTarget { service, h2c: pa.is_h2c() } });
    }
}
