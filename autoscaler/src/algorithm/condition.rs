//! What a PodAutoscaler's status says (upstream `pkg/reconciler/autoscaling/kpa/kpa.go`, `pa_lifecycle.go`).

use api::{
    autoscaling::PodAutoscalerStatus,
    conditions::{self, Condition, ConditionSet, Editor},
};

use super::{RevisionScaling, zero::Activity};
use crate::moment::Moment;

/// The revision gets requests and can answer them.
pub const ACTIVE: &str = "Active";
/// The revision has had its initial scale once; never taken back.
pub const SCALE_TARGET_INITIALIZED: &str = "ScaleTargetInitialized";
/// The ServerlessService is ready.
pub const SKS_READY: &str = "SKSReady";

/// A PodAutoscaler's conditions.
pub const SET: ConditionSet = ConditionSet { dependents: &[ACTIVE, SCALE_TARGET_INITIALIZED, SKS_READY] };

/// What the reconcile saw.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// Generation of the PodAutoscaler.
    pub generation: Option<i64>,
    /// Wanted scale, -1 = unknown.
    pub want: i32,
    /// Ready pods.
    pub ready: i32,
    /// No route leads to the revision.
    pub unreachable: bool,
    /// The ServerlessService, if it has a private Service already.
    pub sks: Option<Sks<'a>>,
}

/// State of the ServerlessService.
#[derive(Debug, Clone, Copy)]
pub struct Sks<'a> {
    /// Public Service.
    pub service_name: Option<&'a str>,
    /// Private Service.
    pub private_service_name: &'a str,
    /// Ready for its current generation; else its message.
    pub ready: Result<(), &'a str>,
}

/// State of `Active`, and since when.
pub fn activity(conditions: &[Condition]) -> (Activity, Option<Moment>) {
    match conditions::get(conditions, ACTIVE) {
        None => (Activity::Activating, None),
        Some(c) => {
            let since = c.last_transition_time.as_ref().map(|t| Moment::from_timestamp(t.0));
            let activity = if c.is_true() {
                Activity::Active
            } else if c.is_false() {
                Activity::Inactive
            } else {
                Activity::Activating
            };
            (activity, since)
        }
    }
}

/// Whether the initial scale was reached once.
pub fn initialized(status: &PodAutoscalerStatus) -> bool {
    conditions::is_true(&status.conditions, SCALE_TARGET_INITIALIZED)
}

/// The status after a reconcile.
pub fn status(
    before: &PodAutoscalerStatus,
    scaling: &RevisionScaling,
    seen: &Observed<'_>,
    now: Moment,
) -> PodAutoscalerStatus {
    let mut status = before.clone();
    let mut conditions = std::mem::take(&mut status.conditions);
    let mut editor = SET.manage(&mut conditions, now.timestamp());
    editor.initialize();
    match &seen.sks {
        None => {
            editor.mark_unknown(SKS_READY, "NotReady", "No Private Service Name");
        }
        Some(sks) => {
            status.metrics_service_name = Some(sks.private_service_name.to_owned());
            status.service_name = sks.service_name.map(str::to_owned);
            match sks.ready {
                Ok(()) => editor.mark_true(SKS_READY),
                Err(message) => editor.mark_unknown(SKS_READY, "NotReady", message),
            };
        }
    }
    status.actual_scale = Some(seen.ready);
    // After a restart nothing is known for a moment; that does not unmake what was wanted.
    if seen.want != -1 || status.desired_scale.is_none_or(|desired| desired < 0) {
        status.desired_scale = Some(seen.want);
    }
    let was = before_activity(before);
    let min = if seen.unreachable { 0 } else { scaling.min_scale };
    let was_initialized = initialized(before);
    let threshold = if was_initialized { min.max(1) } else { min.max(scaling.initial_scale) };
    if seen.ready >= threshold
        && status.service_name.as_deref().is_some_and(|name| !name.is_empty())
        && !was_initialized
    {
        editor.mark_true(SCALE_TARGET_INITIALIZED);
    }
    mark_active(&mut editor, was, seen, threshold);
    status.conditions = conditions;
    status.observed_generation = seen.generation;
    status
}

/// The status when an object of that kind and name is in the way.
pub fn not_owned(
    before: &PodAutoscalerStatus,
    generation: Option<i64>,
    kind: &str,
    name: &str,
    now: Moment,
) -> PodAutoscalerStatus {
    let mut status = before.clone();
    let message = format!("There is an existing {kind} \"{name}\" that we do not own.");
    SET.manage(&mut status.conditions, now.timestamp()).initialize().mark_false(ACTIVE, "NotOwned", &message);
    status.observed_generation = generation;
    status
}

fn before_activity(before: &PodAutoscalerStatus) -> Activity {
    activity(&before.conditions).0
}

fn mark_active(editor: &mut Editor<'_>, was: Activity, seen: &Observed<'_>, threshold: i32) {
    let no_traffic = |editor: &mut Editor<'_>| {
        editor.mark_false(ACTIVE, "NoTraffic", "The target is not receiving traffic.");
    };
    let wanted = seen.want > 0 || was != Activity::Inactive;
    if seen.want == 0 || threshold == 0 {
        if was == Activity::Activating && threshold > 0 {
            editor.mark_false(ACTIVE, "TimedOut", "The target could not be activated.");
        } else {
            no_traffic(editor);
        }
    } else if seen.ready >= threshold {
        if wanted {
            editor.mark_true(ACTIVE);
        }
    } else if wanted {
        let message = "Requests to the target are being buffered as resources are provisioned.";
        editor.mark_unknown(ACTIVE, "Queued", message);
    } else {
        no_traffic(editor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Moment {
        Moment::from_seconds(second)
    }

    const SKS: Sks<'static> = Sks { service_name: Some("rev"), private_service_name: "rev-private", ready: Ok(()) };

    fn seen(want: i32, ready: i32) -> Observed<'static> {
        Observed { generation: Some(1), want, ready, unreachable: false, sks: Some(SKS) }
    }

    fn active_of(status: &PodAutoscalerStatus) -> (&str, &str) {
        let c = conditions::get(&status.conditions, ACTIVE).unwrap();
        (c.status.as_str(), c.reason.as_deref().unwrap_or(""))
    }

    fn with(active: &str, initialized: bool) -> PodAutoscalerStatus {
        let mut status = PodAutoscalerStatus::default();
        let mut editor = SET.manage(&mut status.conditions, at(1).timestamp());
        editor.initialize();
        match active {
            "True" => editor.mark_true(ACTIVE),
            "False" => editor.mark_false(ACTIVE, "NoTraffic", "x"),
            _ => editor.mark_unknown(ACTIVE, "Queued", "x"),
        };
        if initialized {
            editor.mark_true(SCALE_TARGET_INITIALIZED);
        }
        status
    }

    #[test]
    fn s66_active_follows_want_and_ready() {
        // active before, initialised, min, initial, want, ready → active after
        let table = [
            ("Unknown", false, 0, 1, -1, 0, ("Unknown", "Queued")),
            ("Unknown", false, 0, 1, 1, 1, ("True", "")),
            ("True", true, 0, 1, 0, 1, ("False", "NoTraffic")),
            ("Unknown", true, 0, 1, 0, 0, ("False", "TimedOut")),
            ("False", true, 0, 1, 1, 0, ("Unknown", "Queued")),
            ("False", true, 0, 1, -1, 0, ("False", "NoTraffic")),
            ("False", true, 0, 1, -1, 1, ("False", "NoTraffic")),
            ("True", true, 0, 1, -1, 1, ("True", "")),
            ("True", true, 0, 1, -1, 0, ("Unknown", "Queued")),
            ("Unknown", true, 2, 1, 2, 1, ("Unknown", "Queued")),
            ("Unknown", false, 0, 20, 20, 11, ("Unknown", "Queued")),
            ("Unknown", false, 0, 20, 20, 20, ("True", "")),
            ("Unknown", false, 0, 0, -1, 0, ("False", "NoTraffic")),
        ];
        for (before, initialized, min, initial, want, ready, active) in table {
            let scaling = RevisionScaling { min_scale: min, initial_scale: initial, ..RevisionScaling::default() };
            let got = status(&with(before, initialized), &scaling, &seen(want, ready), at(9));
            assert_eq!(active_of(&got), active, "{before} min {min} initial {initial} want {want} ready {ready}");
        }
    }

    #[test]
    fn s66_unreachable_ignores_min() {
        let scaling = RevisionScaling { min_scale: 2, ..RevisionScaling::default() };
        let unreachable = Observed { unreachable: true, ..seen(1, 1) };
        assert_eq!(active_of(&status(&with("Unknown", true), &scaling, &unreachable, at(9))).0, "True");
    }

    #[test]
    fn s66_without_a_private_service() {
        let none = Observed { sks: None, ..seen(-1, 0) };
        let got = status(&PodAutoscalerStatus::default(), &RevisionScaling::default(), &none, at(9));
        let c = conditions::get(&got.conditions, SKS_READY).unwrap();
        assert_eq!((c.status.as_str(), c.message.as_deref()), ("Unknown", Some("No Private Service Name")));
        assert_eq!(got.desired_scale, Some(-1));
    }

    #[test]
    fn s67_unknown_does_not_unmake_what_was_wanted() {
        let before = PodAutoscalerStatus { desired_scale: Some(2), ..with("True", true) };
        let got = status(&before, &RevisionScaling::default(), &seen(-1, 2), at(9));
        assert_eq!((got.desired_scale, got.actual_scale), (Some(2), Some(2)));
        assert_eq!(active_of(&got).0, "True");
    }

    #[test]
    fn an_unchanged_status_is_equal_and_keeps_its_times() {
        let first = status(&with("True", true), &RevisionScaling::default(), &seen(1, 1), at(9));
        assert_eq!(status(&first, &RevisionScaling::default(), &seen(1, 1), at(99)), first);
    }

    #[test]
    fn initialisation_is_for_good() {
        let first = status(&with("Unknown", false), &RevisionScaling::default(), &seen(1, 1), at(9));
        assert!(initialized(&first) && conditions::is_true(&first.conditions, "Ready"));
        let later = status(&first, &RevisionScaling::default(), &seen(0, 0), at(10));
        assert!(initialized(&later));
        assert!(!conditions::is_true(&later.conditions, "Ready"));
    }
}
