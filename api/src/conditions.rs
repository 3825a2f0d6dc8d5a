//! How a resource says how it is: Knative's condition type and its roll-up rule (upstream `knative.dev/pkg/apis`).
//!
//! A resource has one happy condition (`Ready`) and some that it depends on. Marking a dependent carries over to the
//! happy one: any `False` makes it `False`, else any `Unknown` makes it `Unknown`, else it is `True`. Conditions that
//! are not dependents are informational (`severity: Info`) and never touch it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The happy condition of all our resources.
pub const READY: &str = "Ready";

/// One statement about a resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Empty = error, else `Warning` or `Info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// When the condition last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    /// One word for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Condition {
    /// Whether the status is `True`.
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }
    /// Whether the status is `False`.
    pub fn is_false(&self) -> bool {
        self.status == "False"
    }
    /// Whether it is neither.
    pub fn is_unknown(&self) -> bool {
        !self.is_true() && !self.is_false()
    }
}

/// Looks a condition up.
pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether the condition exists and is `True`.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(Condition::is_true)
}

/// The conditions that a kind of resource has. Editing goes through [`ConditionSet::manage`].
#[derive(Debug, Clone, Copy)]
pub struct ConditionSet {
    /// Conditions that [`READY`] depends on, in order of importance.
    pub dependents: &'static [&'static str],
}

impl ConditionSet {
    /// Starts editing `conditions` at `now`. Times change only on conditions that change.
    pub fn manage(self, conditions: &mut Vec<Condition>, now: Timestamp) -> Editor<'_> {
        Editor { set: self, conditions, now }
    }
}

/// Edits one resource's conditions and keeps `Ready` true to them. The list stays sorted by type.
pub struct Editor<'a> {
    set: ConditionSet,
    conditions: &'a mut Vec<Condition>,
    now: Timestamp,
}

impl Editor<'_> {
    /// Makes sure that `Ready` and its dependents exist; new ones are `Unknown`. When `Ready` is already `True`, a
    /// dependent added by a newer version starts as `True` too.
    pub fn initialize(&mut self) -> &mut Self {
        let happy = is_true(self.conditions, READY);
        for type_ in self.set.dependents {
            if get(self.conditions, type_).is_none() {
                self.set(type_, if happy { "True" } else { "Unknown" }, "", "");
            }
        }
        if get(self.conditions, READY).is_none() {
            self.set(READY, "Unknown", "", "");
        }
        self
    }

    /// `True`; `Ready` follows if nothing else is in its way.
    pub fn mark_true(&mut self, type_: &str) -> &mut Self {
        self.mark_true_with_reason(type_, "", "")
    }

    /// `True` with a reason (for instance `TLSNotEnabled`).
    pub fn mark_true_with_reason(&mut self, type_: &str, reason: &str, message: &str) -> &mut Self {
        self.set(type_, "True", reason, message);
        self.roll_up();
        self
    }

    /// `False`, and with it `Ready` if it depends on this.
    pub fn mark_false(&mut self, type_: &str, reason: &str, message: &str) -> &mut Self {
        self.set(type_, "False", reason, message);
        if self.is_dependent(type_) {
            self.set(READY, "False", reason, message);
        }
        self
    }

    /// `Unknown`; `Ready` becomes `Unknown` too unless some dependent is `False`.
    pub fn mark_unknown(&mut self, type_: &str, reason: &str, message: &str) -> &mut Self {
        self.set(type_, "Unknown", reason, message);
        let any_false = self.set.dependents.iter().filter_map(|t| get(self.conditions, t)).any(Condition::is_false);
        if any_false {
            self.roll_up();
        } else if self.is_dependent(type_) {
            self.set(READY, "Unknown", reason, message);
        }
        self
    }

    /// Says what another resource's condition says.
    pub fn follow(&mut self, type_: &str, other: &Condition) -> &mut Self {
        let (reason, message) = (other.reason.as_deref().unwrap_or(""), other.message.as_deref().unwrap_or(""));
        if other.is_true() {
            self.mark_true(type_)
        } else if other.is_false() {
            self.mark_false(type_, reason, message)
        } else {
            self.mark_unknown(type_, reason, message)
        }
    }

    /// Removes a condition that does not apply; `Ready` and its dependents stay.
    pub fn clear(&mut self, type_: &str) -> &mut Self {
        if type_ != READY && !self.is_dependent(type_) {
            self.conditions.retain(|c| c.type_ != type_);
        }
        self
    }

    fn is_dependent(&self, type_: &str) -> bool {
        self.set.dependents.contains(&type_)
    }

    /// `Ready` copies the worst dependent: the latest `False`, else the latest `Unknown`, else all is well.
    fn roll_up(&mut self) {
        let mut dependents: Vec<&Condition> =
            self.set.dependents.iter().filter_map(|t| get(self.conditions, t)).collect();
        dependents.sort_by_key(|c| std::cmp::Reverse(c.last_transition_time.as_ref().map(|t| t.0)));
        let unhappy = dependents
            .iter()
            .find(|c| c.is_false())
            .or_else(|| dependents.iter().find(|c| c.is_unknown()))
            .map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()));
        let missing = self.set.dependents.iter().any(|t| get(self.conditions, t).is_none());
        match unhappy {
            Some((status, reason, message)) => {
                self.set(READY, &status, &reason.unwrap_or_default(), &message.unwrap_or_default());
            }
            None if missing => self.set(READY, "Unknown", "", ""),
            None => self.set(READY, "True", "", ""),
        }
    }

    fn set(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        let severity = (type_ != READY && !self.is_dependent(type_)).then(|| "Info".to_owned());
        let mut next = Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            severity,
            last_transition_time: None,
            reason: some(reason),
            message: some(message),
        };
        if let Ok(i) = self.conditions.binary_search_by(|c| c.type_.as_str().cmp(type_)) {
            let old = &mut self.conditions[i];
            next.last_transition_time.clone_from(&old.last_transition_time);
            if next != *old || next.last_transition_time.is_none() {
                next.last_transition_time = Some(Time(self.now));
                *old = next;
            }
        } else {
            // Not found, or a list somebody else wrote unsorted: look again the slow way before adding a twin.
            self.conditions.retain(|c| c.type_ != type_);
            next.last_transition_time = Some(Time(self.now));
            self.conditions.push(next);
            self.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: ConditionSet = ConditionSet { dependents: &["A", "B"] };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ready(conditions: &[Condition]) -> (&str, Option<&str>) {
        let c = get(conditions, READY).unwrap();
        (c.status.as_str(), c.reason.as_deref())
    }

    #[test]
    fn ready_follows_its_dependents() {
        let mut c = Vec::new();
        SET.manage(&mut c, at(1)).initialize();
        assert_eq!(ready(&c), ("Unknown", None));
        SET.manage(&mut c, at(2)).mark_true("A");
        assert_eq!(ready(&c), ("Unknown", None));
        SET.manage(&mut c, at(3)).mark_true("B");
        assert_eq!(ready(&c), ("True", None));
        SET.manage(&mut c, at(4)).mark_false("A", "Broken", "x");
        assert_eq!(ready(&c), ("False", Some("Broken")));
        SET.manage(&mut c, at(5)).mark_unknown("B", "Waiting", "y");
        assert_eq!(ready(&c), ("False", Some("Broken")), "a False dependent wins over Unknown");
        SET.manage(&mut c, at(6)).mark_true("A");
        assert_eq!(ready(&c), ("Unknown", Some("Waiting")));
    }

    #[test]
    fn informational_conditions_do_not_touch_ready() {
        let mut c = Vec::new();
        SET.manage(&mut c, at(1)).initialize().mark_true("A").mark_true("B");
        SET.manage(&mut c, at(2)).mark_false("Active", "NoTraffic", "z");
        assert_eq!(ready(&c), ("True", None));
        assert_eq!(get(&c, "Active").unwrap().severity.as_deref(), Some("Info"));
    }

    #[test]
    fn times_change_only_with_the_condition() {
        let mut c = Vec::new();
        SET.manage(&mut c, at(1)).initialize().mark_true("A");
        SET.manage(&mut c, at(9)).mark_true("A");
        assert_eq!(get(&c, "A").unwrap().last_transition_time, Some(Time(at(1))));
    }
}
