//! One look at a revision: from what is wanted and what exists to what should be written (upstream
//! `pkg/reconciler/autoscaling/kpa/kpa.go`). Pure; writing is [`super::write`]'s business.

use std::time::Duration;

use api::{
    autoscaling::{Metric, PodAutoscaler, PodAutoscalerStatus, UNREACHABLE},
    conditions,
    networking::{MODE_PROXY, MODE_SERVE, ServerlessService},
};

use super::desired;
use crate::{
    algorithm::{
        RevisionScaling, activators,
        bounds::{self, Clamp},
        condition::{self, Observed, Sks},
        zero::{self, Activity, Zero, ZeroStep},
    },
    moment::Moment,
};

/// Everything known about a revision at this moment.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The PodAutoscaler.
    pub pa: &'a PodAutoscaler,
    /// Its ServerlessService, if it exists.
    pub sks: Option<&'a ServerlessService>,
    /// Its Metric, if it exists.
    pub metric: Option<&'a Metric>,
    /// Its settings.
    pub scaling: &'a RevisionScaling,
    /// The decision's pods, -1 before the first.
    pub desired: i32,
    /// The decision's excess burst capacity.
    pub excess_burst_capacity: i32,
    /// Ready pods.
    pub ready: i32,
    /// Replicas of the scale target; `None` if it does not exist (yet).
    pub replicas: Option<i32>,
    /// Whether a fresh probe reached an activator.
    pub activator_in_path: Option<bool>,
    /// Pods kept warm now.
    pub warm: i32,
}

/// An owned object that is not as it should be.
#[derive(Debug, Clone, PartialEq)]
pub enum Change<T, S> {
    /// It does not exist.
    Create(Box<T>),
    /// Its spec differs.
    Spec(Box<S>),
}

/// What should be written, and when to look again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Wanted scale after bounds and scale-to-zero, -1 = unknown.
    pub want: i32,
    /// Which bound moved it.
    pub clamp: Option<Clamp>,
    /// At zero: which step of scale-to-zero applies.
    pub zero: Option<ZeroStep>,
    /// Replicas to write to the scale target.
    pub scale: Option<i32>,
    /// The ServerlessService.
    pub sks: Option<Change<ServerlessService, api::networking::ServerlessServiceSpec>>,
    /// The Metric.
    pub metric: Option<Change<Metric, api::autoscaling::MetricSpec>>,
    /// The PodAutoscaler's status.
    pub status: Option<Box<PodAutoscalerStatus>>,
    /// When to look again if nothing happens before.
    pub again_in: Option<Duration>,
    /// Whether to probe for an activator in the path.
    pub probe: bool,
}

impl Plan {
    /// Whether everything is as it should be.
    pub fn writes_nothing(&self) -> bool {
        self.scale.is_none() && self.sks.is_none() && self.metric.is_none() && self.status.is_none() && !self.probe
    }
}

/// Condition of a ServerlessService: activators are its backends.
const ACTIVATOR_ENDPOINTS_POPULATED: &str = "ActivatorEndpointsPopulated";
const UNKNOWN: i32 = -1;

/// Plans.
pub fn plan(view: &View<'_>, now: Moment) -> Plan {
    let pa = view.pa;
    let status = pa.status.clone().unwrap_or_default();
    let unreachable = pa.spec.reachability.as_deref() == Some(UNREACHABLE);
    let not_ours = view
        .sks
        .filter(|sks| !desired::is_controlled_by(*sks, pa))
        .map(|_| "ServerlessService")
        .or_else(|| view.metric.filter(|metric| !desired::is_controlled_by(*metric, pa)).map(|_| "Metric"));
    if let Some(kind) = not_ours {
        return not_owned(view, kind, &status, now);
    }
    let seen =
        Observed { generation: pa.metadata.generation, want: UNKNOWN, ready: view.ready, unreachable, sks: None };
    let private = view.sks.and_then(|sks| Some((sks, sks.status.as_ref()?.private_service_name.as_deref()?)));
    let Some((sks, private)) = private.filter(|(_, name)| !name.is_empty()) else {
        // Nothing can be reached before the private Service exists; the pods that the revision begins with count already.
        return Plan {
            want: UNKNOWN,
            sks: sks_change(view, MODE_PROXY, activators(view, view.ready.max(view.scaling.initial_scale))),
            status: status_change(&status, condition::status(&status, view.scaling, &seen, now)),
            ..Plan::default()
        };
    };
    let mut plan = scale(view, sks, &status, unreachable, now);
    let mode = if plan.want > 0 && view.excess_burst_capacity >= 0 {
        MODE_SERVE
    } else if plan.want == UNKNOWN && view.desired == UNKNOWN {
        // After a restart nothing is decided yet: leave the path as it is.
        sks.spec.mode.as_deref().unwrap_or(MODE_PROXY)
    } else {
        MODE_PROXY
    };
    plan.sks = sks_change(view, mode, activators(view, view.ready));
    plan.metric = metric_change(view, private);
    let sks_seen = Sks {
        service_name: sks.status.as_ref().and_then(|s| s.service_name.as_deref()),
        private_service_name: private,
        ready: sks_ready(sks),
    };
    let seen = Observed { want: plan.want, sks: Some(sks_seen), ..seen };
    plan.status = status_change(&status, condition::status(&status, view.scaling, &seen, now));
    plan
}

/// Bounds and scale-to-zero.
fn scale(
    view: &View<'_>,
    sks: &ServerlessService,
    status: &PodAutoscalerStatus,
    unreachable: bool,
    now: Moment,
) -> Plan {
    let (activity, since) = condition::activity(&status.conditions);
    if view.desired < 0 && activity != Activity::Activating {
        return Plan { want: view.desired, ..Plan::default() };
    }
    let (want, clamp) =
        bounds::clamp(view.desired, view.scaling, unreachable, condition::initialized(status), view.warm);
    let mut plan = Plan { want, clamp, ..Plan::default() };
    let mut apply = true;
    // An unknown wish (-1) of a revision that is getting ready is treated as a wish for none.
    if want <= 0 {
        let outcome = zero::to_zero(&Zero {
            scaling: view.scaling,
            activity,
            activity_for: since.map_or(Duration::ZERO, |since| now.since(since)),
            unreachable,
            activator_in_path: view.activator_in_path,
            proxy_wanted: sks.spec.mode.as_deref() == Some(MODE_PROXY),
            proxy_for: proxy_for(sks, now),
            no_pods: view.replicas == Some(0),
        });
        plan.want = outcome.scale;
        plan.zero = Some(outcome.step);
        plan.again_in = outcome.again_in;
        plan.probe = outcome.step == ZeroStep::ActivatorNotInPath && view.activator_in_path.is_none();
        apply = outcome.apply;
    }
    plan.scale = view.replicas.filter(|replicas| apply && *replicas != plan.want).map(|_| plan.want);
    plan
}

/// How long activators have been the revision's backends.
fn proxy_for(sks: &ServerlessService, now: Moment) -> Duration {
    sks.status
        .as_ref()
        .and_then(|s| conditions::get(&s.conditions, ACTIVATOR_ENDPOINTS_POPULATED))
        .filter(|c| c.is_true())
        .and_then(|c| c.last_transition_time.as_ref())
        .map_or(Duration::ZERO, |t| now.since(Moment::from_timestamp(t.0)))
}

/// Whether the ServerlessService is ready for its present spec; else its message.
pub fn sks_ready(sks: &ServerlessService) -> Result<(), &str> {
    let Some(status) = &sks.status else { return Err("") };
    let ready = conditions::get(&status.conditions, conditions::READY);
    if status.observed_generation == sks.metadata.generation && ready.is_some_and(conditions::Condition::is_true) {
        Ok(())
    } else {
        Err(ready.and_then(|c| c.message.as_deref()).unwrap_or(""))
    }
}

/// Activators too many that stay where they are. Each change of the number makes everything between the ServerlessService
/// and the Route not ready for a moment, and a revision that sleeps and wakes would change it twice each time.
const SPARE_ACTIVATORS: i32 = 2;

fn activators(view: &View<'_>, pods: i32) -> i32 {
    let scaling = view.scaling;
    activators::count(pods, scaling.total, scaling.target_burst_capacity, scaling.activator_capacity)
}

fn sks_change(
    view: &View<'_>,
    mode: &str,
    activators: i32,
) -> Option<Change<ServerlessService, api::networking::ServerlessServiceSpec>> {
    let have = view.sks.and_then(|sks| sks.spec.num_activators);
    let activators =
        have.filter(|have| (activators..=activators + SPARE_ACTIVATORS).contains(have)).unwrap_or(activators);
    let spec = desired::sks_spec(view.pa, mode, activators);
    match view.sks {
        None => Some(Change::Create(Box::new(desired::sks(view.pa, spec)))),
        Some(sks) => (sks.spec != spec).then(|| Change::Spec(Box::new(spec))),
    }
}

fn metric_change(view: &View<'_>, private: &str) -> Option<Change<Metric, api::autoscaling::MetricSpec>> {
    let spec = desired::metric_spec(view.scaling, private);
    match view.metric {
        None => Some(Change::Create(Box::new(desired::metric(view.pa, spec)))),
        Some(metric) => (metric.spec != spec).then(|| Change::Spec(Box::new(spec))),
    }
}

fn not_owned(view: &View<'_>, kind: &str, status: &PodAutoscalerStatus, now: Moment) -> Plan {
    let name = view.pa.metadata.name.as_deref().unwrap_or_default();
    let next = condition::not_owned(status, view.pa.metadata.generation, kind, name, now);
    Plan { want: UNKNOWN, status: status_change(status, next), ..Plan::default() }
}

fn status_change(before: &PodAutoscalerStatus, after: PodAutoscalerStatus) -> Option<Box<PodAutoscalerStatus>> {
    (*before != after).then(|| Box::new(after))
}
