//! The decision: from load to a wanted number of pods, with the reasons (upstream
//! `pkg/autoscaler/scaling/autoscaler.go`). Bounds and scale-to-zero come later, in [`super::bounds`] and
//! [`super::zero`].

use std::time::Duration;

use super::scaling::RevisionScaling;
use crate::{moment::Moment, window::MaxWindow};

/// What is known when a decision is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Inputs {
    /// Average over the stable window of the revision's metric.
    pub stable: f64,
    /// Average over the panic window.
    pub panic: f64,
    /// Pods that are ready.
    pub ready: i32,
    /// Whether some route leads to the revision (or nobody knows).
    pub reachable: bool,
}

/// Why a decision is what it is. The numbers are bits in [`Reasons`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Growth was cut to the max scale-up rate.
    ScaleUpRate,
    /// Shrinking was cut to the max scale-down rate.
    ScaleDownRate,
    /// Raised to the activation scale.
    ActivationScale,
    /// Panic began with this decision.
    PanicBegan,
    /// In panic: the larger of both windows counts.
    Panic,
    /// In panic pods are not taken away.
    PanicHold,
    /// Panic ended with this decision.
    PanicEnded,
    /// A higher count within the scale-down delay counts.
    ScaleDownDelay,
    /// Restarted less than a stable window ago: pods are not taken away yet.
    RestartHold,
}

/// A set of [`Reason`]s in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reasons(u16);

impl Reasons {
    const ALL: [Reason; 9] = [
        Reason::ScaleUpRate,
        Reason::ScaleDownRate,
        Reason::ActivationScale,
        Reason::PanicBegan,
        Reason::Panic,
        Reason::PanicHold,
        Reason::PanicEnded,
        Reason::ScaleDownDelay,
        Reason::RestartHold,
    ];

    /// Adds one if `holds`.
    pub fn add_if(&mut self, holds: bool, reason: Reason) {
        if holds {
            self.0 |= 1 << reason as u16;
        }
    }

    /// Whether it is there.
    pub fn has(self, reason: Reason) -> bool {
        self.0 & (1 << reason as u16) != 0
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = Reason> {
        Self::ALL.into_iter().filter(move |reason| self.has(*reason))
    }
}

impl serde::Serialize for Reasons {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    /// Wanted pods, before bounds.
    pub desired: i32,
    /// Spare capacity beyond the target burst; negative = the activator should be in the path.
    pub excess_burst_capacity: i32,
    /// Why.
    pub reasons: Reasons,
}

/// What earlier decisions have left for one decision.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Before {
    /// When panic began or was confirmed last.
    pub panic_since: Option<Moment>,
    /// Pods that panic holds.
    pub max_panic_pods: i32,
    /// Pods that the scale-down delay holds.
    pub delayed: Option<i32>,
    /// Pods that a restart holds, and until when.
    pub hold: Option<(i32, Moment)>,
}

/// What one decision leaves for the next.
#[derive(Debug, Clone, Default)]
pub struct State {
    panic_since: Option<Moment>,
    max_panic_pods: i32,
    /// The scale-down delay and the window made for it.
    delay: Option<(Duration, MaxWindow)>,
    hold: Option<(i32, Moment)>,
}

impl State {
    /// Upstream's start: a revision that already has several pods starts in panic, so that missing history takes none
    /// of them away.
    pub fn started(ready: i32, now: Moment) -> Self {
        Self { panic_since: (ready > 1).then_some(now), max_panic_pods: ready, ..Self::default() }
    }

    /// Our start after a restart, when the PodAutoscaler's status still says what was wanted: at least that many until
    /// one stable window of load is known. Not a panic, so that a restart does not look like a burst.
    pub fn resumed(desired: i32, until: Moment) -> Self {
        Self { hold: (desired > 0).then_some((desired, until)), ..Self::default() }
    }

    /// Whether the revision is in panic.
    pub fn in_panic(&self) -> bool {
        self.panic_since.is_some()
    }

    /// Whether the state holds more pods than `desired` back, so that time alone will change the answer.
    pub fn holds_back(&self, desired: i32) -> bool {
        self.in_panic()
            || self.hold.is_some_and(|(pods, _)| pods > desired)
            || self.delay.as_ref().is_some_and(|(_, window)| window.holds_above(desired))
    }

    /// What the next decision, at `now`, will find.
    pub fn before(&self, scaling: &RevisionScaling, now: Moment) -> Before {
        let delay = self.delay.as_ref().filter(|(made_for, _)| *made_for == scaling.scale_down_delay);
        Before {
            panic_since: self.panic_since,
            max_panic_pods: self.max_panic_pods,
            delayed: delay.and_then(|(_, window)| window.max_at(now)),
            hold: self.hold,
        }
    }

    /// A state that decides at `now` as the one did of which [`State::before`] spoke.
    pub fn after(before: &Before, scaling: &RevisionScaling, now: Moment) -> Self {
        let delay = before.delayed.map(|pods| {
            let mut window = MaxWindow::new(scaling.scale_down_delay);
            window.record(now, pods);
            (scaling.scale_down_delay, window)
        });
        Self { panic_since: before.panic_since, max_panic_pods: before.max_panic_pods, delay, hold: before.hold }
    }

    fn update_panic(&mut self, over: bool, stable_window: Duration, now: Moment, reasons: &mut Reasons) {
        match self.panic_since {
            None if over => {
                self.panic_since = Some(now);
                reasons.add_if(true, Reason::PanicBegan);
            }
            Some(_) if over => self.panic_since = Some(now),
            Some(since) if since.plus(stable_window) < now => {
                self.panic_since = None;
                self.max_panic_pods = 0;
                reasons.add_if(true, Reason::PanicEnded);
            }
            _ => {}
        }
    }

    /// The delay window for the current setting; made anew when the setting changes.
    fn delay_window(&mut self, delay: Duration) -> Option<&mut MaxWindow> {
        if delay.is_zero() {
            self.delay = None;
        } else if self.delay.as_ref().is_none_or(|(made_for, _)| *made_for != delay) {
            self.delay = Some((delay, MaxWindow::new(delay)));
        }
        self.delay.as_mut().map(|(_, window)| window)
    }
}

/// Decides. `None` where the inputs are no numbers: then nothing changes.
pub fn decide(scaling: &RevisionScaling, state: &mut State, inputs: Inputs, now: Moment) -> Option<Decision> {
    if !(inputs.stable.is_finite() && inputs.panic.is_finite()) {
        return None;
    }
    let mut reasons = Reasons::default();
    // From zero, rates are relative to one pod.
    let ready = f64::from(inputs.ready.max(1));
    // Ceil, so that a rate near 1 still lets the revision grow by one pod; floor for the same reason downwards.
    let up = (scaling.max_scale_up_rate * ready).ceil();
    let down = if inputs.reachable { (ready / scaling.max_scale_down_rate).floor() } else { 0.0 };

    let wanted_stable = (inputs.stable / scaling.target).ceil();
    let wanted_panic = (inputs.panic / scaling.target).ceil();
    // `as` saturates, so an absurd load asks for i32::MAX pods at most.
    let limit = |wanted: f64| wanted.max(down).min(up) as i32;
    let mut stable = limit(wanted_stable);
    let mut panic = limit(wanted_panic);
    if scaling.activation_scale > 1 {
        if wanted_stable > 0.0 && scaling.activation_scale > stable {
            stable = scaling.activation_scale;
            reasons.add_if(true, Reason::ActivationScale);
        }
        if wanted_panic > 0.0 && scaling.activation_scale > panic {
            panic = scaling.activation_scale;
        }
    }

    let over = wanted_panic / ready >= scaling.panic_threshold;
    state.update_panic(over, scaling.stable_window, now, &mut reasons);

    let mut desired = stable;
    let mut wanted = wanted_stable;
    if state.in_panic() {
        reasons.add_if(true, Reason::Panic);
        if panic > desired {
            (desired, wanted) = (panic, wanted_panic);
        }
        reasons.add_if(desired < state.max_panic_pods, Reason::PanicHold);
        state.max_panic_pods = state.max_panic_pods.max(desired);
        desired = state.max_panic_pods;
    }
    reasons.add_if(wanted > up, Reason::ScaleUpRate);
    reasons.add_if(wanted < down, Reason::ScaleDownRate);

    match state.hold {
        Some((pods, until)) if inputs.reachable && now < until => {
            reasons.add_if(desired < pods, Reason::RestartHold);
            desired = desired.max(pods);
        }
        _ => state.hold = None,
    }
    if inputs.reachable
        && let Some(window) = state.delay_window(scaling.scale_down_delay)
    {
        let delayed = window.record(now, desired);
        reasons.add_if(delayed > desired, Reason::ScaleDownDelay);
        desired = delayed;
    }
    let excess_burst_capacity = excess_burst_capacity(scaling, inputs.ready, inputs.panic);
    Some(Decision { desired, excess_burst_capacity, reasons })
}

/// Whether a decision differs from the last one in what anybody acts on: the pods, and on which side of zero the excess
/// burst capacity is.
pub fn differs(before: (i32, i32), after: &Decision) -> bool {
    let (desired, excess_burst_capacity) = before;
    desired != after.desired || (excess_burst_capacity < 0) != (after.excess_burst_capacity < 0)
}

/// Capacity of the ready pods less the load and the burst to keep room for.
fn excess_burst_capacity(scaling: &RevisionScaling, ready: i32, load: f64) -> i32 {
    let burst = scaling.target_burst_capacity;
    if burst == 0.0 {
        0
    } else if burst > 0.0 {
        (f64::from(ready) * scaling.total - burst - load).floor() as i32
    } else {
        -1
    }
}

/// Excess burst capacity before the first decision: what the initial scale would leave.
pub fn initial_excess_burst_capacity(scaling: &RevisionScaling) -> i32 {
    let burst = scaling.target_burst_capacity;
    if burst <= 0.0 { burst as i32 } else { (f64::from(scaling.initial_scale) * scaling.total - burst) as i32 }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
