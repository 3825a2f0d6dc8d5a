//! What every status of ours has in common: conditions and the generation they speak of (upstream
//! `knative.dev/pkg/reconciler`: PreProcessReconcile, PostProcessReconcile).

use api::{
    autoscaling::PodAutoscalerStatus,
    conditions::{self, Condition, ConditionSet, READY},
    networking::{CertificateStatus, IngressStatus, ServerlessServiceStatus},
    serving::{ConfigurationStatus, DomainMappingStatus, RevisionStatus, RouteStatus, ServiceStatus},
};
use jiff::Timestamp;

/// Reason of Ready while a new generation was seen but not worked through.
const NEW_GENERATION: &str = "NewObservedGenFailure";

/// A status with conditions.
pub trait Status {
    /// The conditions.
    fn conditions(&self) -> &[Condition];
    /// The conditions, to change.
    fn conditions_mut(&mut self) -> &mut Vec<Condition>;
    /// Generation that the status speaks of.
    fn generation(&self) -> Option<i64>;
    /// The same, to change.
    fn observed_generation(&mut self) -> &mut Option<i64>;
}

macro_rules! status {
    ($($type:ty),*) => {$(
        impl Status for $type {
            fn conditions(&self) -> &[Condition] {
                &self.conditions
            }
            fn conditions_mut(&mut self) -> &mut Vec<Condition> {
                &mut self.conditions
            }
            fn generation(&self) -> Option<i64> {
                self.observed_generation
            }
            fn observed_generation(&mut self) -> &mut Option<i64> {
                &mut self.observed_generation
            }
        }
    )*};
}
status!(
    ServiceStatus,
    ConfigurationStatus,
    RevisionStatus,
    RouteStatus,
    CertificateStatus,
    DomainMappingStatus,
    PodAutoscalerStatus,
    ServerlessServiceStatus,
    IngressStatus
);

/// Before a reconcile: conditions exist, and a generation not seen before is not ready.
pub fn begin<S: Status>(status: &mut S, set: ConditionSet, generation: Option<i64>, now: Timestamp) {
    let seen = *status.observed_generation() == generation;
    let mut editor = set.manage(status.conditions_mut(), now);
    editor.initialize();
    if !seen {
        editor.mark_unknown(READY, NEW_GENERATION, "unsuccessfully observed a new generation");
    }
}

/// After a reconcile: the generation is seen, and a condition that ended where it began kept its time.
pub fn finish<S: Status>(status: &mut S, before: &[Condition], generation: Option<i64>) {
    *status.observed_generation() = generation;
    for condition in status.conditions_mut() {
        let Some(old) = conditions::get(before, &condition.type_) else { continue };
        let now = std::mem::replace(&mut condition.last_transition_time, old.last_transition_time.clone());
        if condition != old {
            condition.last_transition_time = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: ConditionSet = ConditionSet { dependents: &["A"] };

    #[test]
    fn a_reconcile_that_ends_where_it_began_changes_nothing() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let mut status = ServiceStatus::default();
        begin(&mut status, SET, Some(1), at(1));
        SET.manage(&mut status.conditions, at(1)).mark_true("A");
        finish(&mut status, &[], Some(1));
        let before = status.clone();
        begin(&mut status, SET, Some(1), at(9));
        SET.manage(&mut status.conditions, at(9)).mark_unknown("A", "Look", "").mark_true("A");
        finish(&mut status, &before.conditions, Some(1));
        assert_eq!(status, before);
    }

    #[test]
    fn a_new_generation_is_not_ready_until_worked_through() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let mut status = ServiceStatus::default();
        begin(&mut status, SET, Some(1), at(1));
        SET.manage(&mut status.conditions, at(1)).mark_true("A");
        finish(&mut status, &[], Some(1));
        begin(&mut status, SET, Some(2), at(2));
        let ready = conditions::get(&status.conditions, READY).unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("Unknown", Some(NEW_GENERATION)));
    }
}
