//! When the last pod may go (upstream `pkg/reconciler/autoscaling/kpa/scaler.go`).
//!
//! The rule in words: after a stable window without load the PodAutoscaler becomes inactive, which brings the
//! activator into the path; the last pod goes only when a probe has come back from an activator and the grace and
//! retention periods are over, so that no request meets a closed door.

use std::time::Duration;

use super::scaling::RevisionScaling;

/// State of the PodAutoscaler's `Active` condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// `True`.
    Active,
    /// `False`.
    Inactive,
    /// `Unknown`.
    Activating,
}

/// What is known when the wanted scale is zero.
#[derive(Debug, Clone, Copy)]
pub struct Zero<'a> {
    /// The revision's settings.
    pub scaling: &'a RevisionScaling,
    /// `Active` condition.
    pub activity: Activity,
    /// How long it has been so.
    pub activity_for: Duration,
    /// No route leads to the revision: its last pod is not retained.
    pub unreachable: bool,
    /// Whether a fresh probe reached an activator; `None`: nobody has asked yet.
    pub activator_in_path: Option<bool>,
    /// The ServerlessService's wanted mode is Proxy.
    pub proxy_wanted: bool,
    /// How long the activator has been the revision's backend.
    pub proxy_for: Duration,
    /// The scale target is at zero already.
    pub no_pods: bool,
}

/// Why the scale is or is not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZeroStep {
    /// `enable-scale-to-zero` is off.
    Disabled,
    /// The revision did not get ready within its deadline.
    ActivationTimedOut,
    /// The revision is still getting ready.
    Activating,
    /// Load ended less than a stable window after activation.
    ActiveTooShort,
    /// The revision becomes inactive; its last pod stays for now.
    Deactivating,
    /// No activator has answered a probe through the revision's Service yet.
    ActivatorNotInPath,
    /// The last pod is retained.
    Retained,
    /// The activator is in the path, for less than the grace period.
    Grace,
    /// The last pod goes.
    Zero,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Wanted scale, -1 = unknown.
    pub scale: i32,
    /// Whether to write it to the scale target.
    pub apply: bool,
    /// When to look again, if nothing happens before.
    pub again_in: Option<Duration>,
    /// Why.
    pub step: ZeroStep,
}

/// Time on top of the progress deadline before an activation counts as failed.
const ACTIVATION_SLACK: Duration = Duration::from_secs(30);
/// Time for a status write to come back, when nothing else will trigger the next look.
const SETTLE: Duration = Duration::from_secs(3);

/// Decides about the last pod; the wanted scale is zero.
pub fn to_zero(z: &Zero<'_>) -> Outcome {
    let outcome = |scale, apply, again_in, step| Outcome { scale, apply, again_in, step };
    if !z.scaling.scale_to_zero {
        return outcome(1, true, None, ZeroStep::Disabled);
    }
    match z.activity {
        Activity::Activating => {
            let deadline = z.scaling.progress_deadline + ACTIVATION_SLACK;
            if z.activity_for > deadline {
                outcome(0, true, None, ZeroStep::ActivationTimedOut)
            } else {
                // One nanosecond more, so that the next look is past the deadline and not on it.
                let rest = deadline.saturating_sub(z.activity_for) + Duration::from_nanos(1);
                outcome(-1, false, Some(rest), ZeroStep::Activating)
            }
        }
        Activity::Active => {
            let rest = z.scaling.stable_window.saturating_sub(z.activity_for);
            if rest.is_zero() {
                outcome(0, false, z.proxy_wanted.then_some(SETTLE), ZeroStep::Deactivating)
            } else {
                outcome(1, true, Some(rest), ZeroStep::ActiveTooShort)
            }
        }
        Activity::Inactive => inactive(z),
    }
}

fn inactive(z: &Zero<'_>) -> Outcome {
    let outcome = |apply, again_in, step| Outcome { scale: 0, apply, again_in, step };
    if z.no_pods {
        // Nothing is left to take away, so nobody need be asked.
        return outcome(false, None, ZeroStep::Zero);
    }
    let in_path = z.scaling.activator_always_in_path() || z.activator_in_path == Some(true);
    if !in_path {
        return outcome(false, None, ZeroStep::ActivatorNotInPath);
    }
    let retention = if z.unreachable { Duration::ZERO } else { z.scaling.retention_period };
    if z.activity_for >= z.scaling.grace_period.max(retention) {
        return outcome(true, None, ZeroStep::Zero);
    }
    if z.activity_for < retention {
        return outcome(false, Some(retention.saturating_sub(z.activity_for)), ZeroStep::Retained);
    }
    let rest = z.scaling.grace_period.saturating_sub(z.proxy_for);
    if rest.is_zero() { outcome(true, None, ZeroStep::Zero) } else { outcome(false, Some(rest), ZeroStep::Grace) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Upstream's test settings: stable window 5 m, grace 60 s, progress deadline 121 s.
    fn scaling() -> RevisionScaling {
        RevisionScaling {
            stable_window: s(300),
            grace_period: s(60),
            progress_deadline: s(121),
            ..RevisionScaling::default()
        }
    }

    fn run(scaling: &RevisionScaling, edit: impl FnOnce(&mut Zero<'_>)) -> (i32, bool, Option<Duration>) {
        let mut z = Zero {
            scaling,
            activity: Activity::Inactive,
            activity_for: Duration::ZERO,
            unreachable: false,
            activator_in_path: Some(true),
            proxy_wanted: false,
            proxy_for: Duration::ZERO,
            no_pods: false,
        };
        edit(&mut z);
        let got = to_zero(&z);
        (got.scale, got.apply, got.again_in)
    }

    fn active(z: &mut Zero<'_>, seconds: u64) {
        z.activity = Activity::Active;
        z.activity_for = s(seconds);
    }

    #[test]
    fn s59_an_active_revision_is_deactivated_after_its_window() {
        assert_eq!(run(&scaling(), |z| active(z, 299)), (1, true, Some(s(1))));
        assert_eq!(run(&scaling(), |z| active(z, 300)), (0, false, None));
        let proxied = run(&scaling(), |z| {
            active(z, 300);
            z.proxy_wanted = true;
        });
        assert_eq!(proxied, (0, false, Some(s(3))));
        let own = RevisionScaling { stable_window: s(45), ..scaling() };
        assert_eq!(run(&own, |z| active(z, 45)), (0, false, None));
    }

    #[test]
    fn s60_grace() {
        assert_eq!(run(&scaling(), |z| z.activity_for = s(60)), (0, true, None));
        assert_eq!(run(&scaling(), |z| z.activity_for = s(59)), (0, false, Some(s(60))));
        let proxied = |seconds| {
            run(&scaling(), |z| {
                z.activity_for = s(59);
                z.proxy_for = s(seconds);
            })
        };
        assert_eq!(proxied(60), (0, true, None));
        assert_eq!(proxied(59), (0, false, Some(s(1))));
        let retained = RevisionScaling { retention_period: s(42), ..scaling() };
        let got = run(&retained, |z| {
            z.activity_for = s(59);
            z.proxy_for = s(60);
        });
        assert_eq!(got, (0, true, None));
    }

    #[test]
    fn s61_retention() {
        let retained = RevisionScaling { retention_period: s(120), ..scaling() };
        let got = run(&retained, |z| {
            z.activity_for = s(60);
            z.proxy_for = s(60);
        });
        assert_eq!(got, (0, false, Some(s(60))));
        let long = RevisionScaling { retention_period: s(600), ..scaling() };
        let got = run(&long, |z| {
            z.activity_for = s(60);
            z.unreachable = true;
        });
        assert_eq!(got, (0, true, None));
    }

    #[test]
    fn s62_the_activator_must_be_in_the_path() {
        for probe in [None, Some(false)] {
            let got = run(&scaling(), |z| {
                z.activity_for = s(1000);
                z.activator_in_path = probe;
            });
            assert_eq!(got, (0, false, None));
        }
        let always = RevisionScaling { target_burst_capacity: -1.0, ..scaling() };
        let got = run(&always, |z| {
            z.activity_for = s(1000);
            z.activator_in_path = None;
        });
        assert_eq!(got, (0, true, None));
    }

    #[test]
    fn s63_a_failing_activation_ends_after_its_deadline() {
        let activating = |scaling: &RevisionScaling, seconds| {
            run(scaling, |z| {
                z.activity = Activity::Activating;
                z.activity_for = s(seconds);
            })
        };
        let (scale, apply, again) = activating(&scaling(), 60);
        assert_eq!((scale, apply), (-1, false));
        assert!(again.is_some_and(|d| d > s(91) && d < s(92)));
        assert_eq!(activating(&scaling(), 152), (0, true, None));
        let (scale, apply, _) = activating(&scaling(), 151);
        assert_eq!((scale, apply), (-1, false), "strictly longer");
        let own = RevisionScaling { progress_deadline: s(5), ..scaling() };
        assert_eq!(activating(&own, 36), (0, true, None));
    }

    #[test]
    fn s64_scale_to_zero_off() {
        let off = RevisionScaling { scale_to_zero: false, ..scaling() };
        assert_eq!(run(&off, |_| {}), (1, true, None));
    }
}
