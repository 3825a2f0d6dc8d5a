//! Gradual rollout: when a Configuration that a Route follows has a new Revision, its share of the traffic moves there
//! step by step, and this says how it lies at any moment (upstream `pkg/reconciler/route/traffic/rollout.go`).
//!
//! Pure. The state is an annotation of the Ingress, in upstream's JSON, so that either controller can go on where the
//! other stopped. A rollout begins with one percent; how long the Ingress then took to become ready is how long a step
//! takes at least, and the steps fill the wanted duration. A Revision that comes meanwhile is rolled out on top.

use api::labels::networking;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::traffic::Traffic;

/// Annotation on the Ingress that carries it.
pub const ANNOTATION: &str = networking::ROLLOUT;

const SECOND: i64 = 1_000_000_000;

/// State of all rollouts of a Route, by tag and Configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// One for each followed Configuration, sorted by tag and name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub configurations: Vec<ConfigurationRollout>,
}

/// State of one rollout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationRollout {
    /// The Configuration.
    pub configuration_name: String,
    /// Tag; empty for the Route itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tag: String,
    /// Share of the Route's traffic.
    pub percent: i64,
    /// Oldest first; the last one gets all in the end. Their shares sum to `percent`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<RevisionRollout>,
    /// Rhythm; empty when none is under way.
    #[serde(default)]
    pub step_params: StepParams,
}

/// Share of one Revision.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionRollout {
    /// The Revision.
    pub revision_name: String,
    /// Share of the Route's traffic.
    pub percent: i64,
}

/// Rhythm of a rollout; moments and durations in nanoseconds, 0 where not known yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepParams {
    /// When its first percent was moved.
    #[serde(rename = "starttime", default, skip_serializing_if = "is_zero")]
    pub start: i64,
    /// When the next step is due.
    #[serde(rename = "nextStepTime", default, skip_serializing_if = "is_zero")]
    pub next: i64,
    /// Time between steps.
    #[serde(rename = "stepDuration", default, skip_serializing_if = "is_zero")]
    pub every: i64,
    /// Percent moved in one step.
    #[serde(rename = "stepSize", default, skip_serializing_if = "is_zero")]
    pub size: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// The state without any rollout under way: all of a Configuration's share is on its latest Revision.
pub fn steady(traffic: &Traffic) -> Rollout {
    let mut configurations: Vec<ConfigurationRollout> = traffic
        .by_tag
        .iter()
        .flat_map(|(tag, targets)| targets.iter().map(move |t| (tag, t)))
        .filter(|(_, t)| t.latest && t.percent != 0)
        .map(|(tag, t)| ConfigurationRollout {
            configuration_name: t.configuration.clone(),
            tag: tag.clone(),
            percent: t.percent,
            revisions: vec![RevisionRollout { revision_name: t.revision.clone(), percent: t.percent }],
            step_params: StepParams::default(),
        })
        .collect();
    configurations.sort_by(|a, b| (&a.tag, &a.configuration_name).cmp(&(&b.tag, &b.configuration_name)));
    Rollout { configurations }
}

/// What an Ingress says of its rollouts; none where that makes no sense (somebody wrote it by hand).
pub fn read(annotation: Option<&String>) -> Option<Rollout> {
    let rollout: Rollout = serde_json::from_str(annotation?).ok()?;
    let makes_sense = rollout.configurations.iter().all(|c| {
        let sum = c.revisions.iter().try_fold(0_i64, |sum, r| sum.checked_add(r.percent));
        let sane = c.revisions.iter().all(|r| r.percent >= 0);
        c.percent <= 100 && (0..=c.percent).contains(&c.step_params.size) && sane && sum == Some(c.percent)
    });
    makes_sense.then_some(rollout)
}

/// A moment as the state has it.
pub fn nanoseconds(now: Timestamp) -> i64 {
    i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX)
}

impl Rollout {
    /// Whether none is under way.
    pub fn is_done(&self) -> bool {
        self.configurations.iter().all(|c| c.revisions.len() < 2)
    }

    /// The state of a Configuration that is followed under a tag.
    pub fn of(&self, tag: &str, configuration: &str) -> Option<&ConfigurationRollout> {
        self.configurations.iter().find(|c| c.tag == tag && c.configuration_name == configuration)
    }

    /// The Ingress has become ready at `now`: rollouts that have begun learn their rhythm. `duration`: what a rollout may
    /// take, in seconds.
    pub fn ingress_is_ready(&mut self, now: i64, duration: u32) {
        for configuration in &mut self.configurations {
            let params = configuration.step_params;
            if params.every == 0 && params.start > 0 {
                configuration.step_params = rhythm(configuration.percent, params.start, now, duration);
            }
        }
    }

    /// From what is wanted (this, [`steady`]) and what was, to what is at `now`; with the moment of the next step, if there
    /// is one.
    #[must_use]
    pub fn step(self, before: Option<&Self>, now: i64) -> (Self, Option<i64>) {
        let Some(before) = before.filter(|before| !before.configurations.is_empty()) else { return (self, None) };
        let mut next = None;
        let configurations = self.configurations.into_iter().map(|wanted| {
            // One percent cannot be rolled out in parts.
            let was = before.of(&wanted.tag, &wanted.configuration_name).filter(|_| wanted.percent > 1);
            let Some(was) = was else { return wanted };
            let stepped = wanted.after(was.clone(), now);
            let due = Some(stepped.step_params.next).filter(|due| *due > 0);
            next = next.into_iter().chain(due).min();
            stepped
        });
        (Self { configurations: configurations.collect() }, next)
    }
}

/// How often and how much, after the first percent took from `start` to `now`.
fn rhythm(percent: i64, start: i64, now: i64, duration: u32) -> StepParams {
    // At least a second: the clocks of two processes may differ.
    let least = ((now - start) as f64 / SECOND as f64).ceil().max(1.0);
    let left = (f64::from(duration) - least).max(1.0);
    let to_move = (percent - 1) as f64;
    let steps = (left / least).max(1.0).min(to_move);
    let every = (left / steps * SECOND as f64) as i64;
    StepParams { start, next: now + every, every, size: (to_move / steps).round() as i64 }
}

impl ConfigurationRollout {
    /// The wanted state (one Revision), coming from what was.
    fn after(mut self, mut was: Self, now: i64) -> Self {
        was.give(self.percent);
        let Some(wanted) = self.revisions.pop() else { return self };
        match was.revisions.last() {
            Some(last) if last.revision_name != wanted.revision_name => {
                self.step_params = StepParams { start: now, ..StepParams::default() };
                self.revisions = begun(was.revisions, wanted.revision_name);
            }
            Some(_) if was.revisions.len() > 1 => {
                self.revisions = was.revisions;
                // No step is larger than all of it, which may have become less.
                self.step_params = StepParams { size: was.step_params.size.min(self.percent), ..was.step_params };
                // Until the Ingress was ready once there is no rhythm.
                if self.step_params.size > 0 {
                    self.move_on(now);
                }
            }
            _ => self.revisions.push(wanted),
        }
        self
    }

    /// Another share of the Route's traffic than before: more goes to the newest Revision, less is taken from the oldest.
    fn give(&mut self, percent: i64) {
        let mut less = self.percent - percent;
        if let (Some(last), ..0) = (self.revisions.last_mut(), less) {
            last.percent -= less;
        }
        while less > 0 && !self.revisions.is_empty() {
            let taken = self.revisions[0].percent.min(less);
            self.revisions[0].percent -= taken;
            less -= taken;
            if self.revisions[0].percent == 0 {
                self.revisions.remove(0);
            }
        }
        self.percent = percent;
    }

    /// A step, if it is due: from the Revision before the newest, and those before that, to the newest.
    fn move_on(&mut self, now: i64) {
        if now < self.step_params.next {
            return;
        }
        let Some(mut newest) = self.revisions.pop() else { return };
        let mut left = self.step_params.size;
        while let Some(older) = self.revisions.last_mut() {
            let taken = older.percent.min(left);
            older.percent -= taken;
            newest.percent += taken;
            left -= taken;
            if older.percent > 0 {
                break;
            }
            self.revisions.pop();
        }
        self.step_params = if self.revisions.is_empty() {
            StepParams::default()
        } else {
            StepParams { next: now.saturating_add(self.step_params.every), ..self.step_params }
        };
        self.revisions.push(newest);
    }
}

/// One percent goes to a new Revision, from the newest that has any.
fn begun(mut revisions: Vec<RevisionRollout>, new: String) -> Vec<RevisionRollout> {
    if let Some(newest) = revisions.iter_mut().rev().find(|r| r.percent > 0) {
        newest.percent -= 1;
    }
    revisions.retain(|r| r.percent > 0);
    revisions.push(RevisionRollout { revision_name: new, percent: 1 });
    revisions
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_000 * SECOND;

    fn revisions(all: &[(&str, i64)]) -> Vec<RevisionRollout> {
        all.iter()
            .map(|(name, percent)| RevisionRollout { revision_name: (*name).to_owned(), percent: *percent })
            .collect()
    }

    fn of(tag: &str, name: &str, all: &[(&str, i64)]) -> ConfigurationRollout {
        ConfigurationRollout {
            configuration_name: name.to_owned(),
            tag: tag.to_owned(),
            percent: all.iter().map(|(_, percent)| percent).sum(),
            revisions: revisions(all),
            step_params: StepParams::default(),
        }
    }

    fn one(all: &[(&str, i64)]) -> Rollout {
        Rollout { configurations: vec![of("", "c", all)] }
    }

    fn with(mut rollout: Rollout, params: StepParams) -> Rollout {
        rollout.configurations[0].step_params = params;
        rollout
    }

    fn shares(rollout: &Rollout) -> Vec<(&str, i64)> {
        rollout.configurations[0].revisions.iter().map(|r| (r.revision_name.as_str(), r.percent)).collect()
    }

    type Shares<'a> = &'a [(&'a str, i64)];

    /// Upstream's cases of one Configuration: wanted, before with its rhythm, after.
    #[test]
    fn steps_of_one_configuration() {
        let due = StepParams { start: 1, next: NOW, every: 5 * SECOND, size: 10 };
        let later = StepParams { next: NOW + 1, ..due };
        let none = StepParams::default();
        let begun = StepParams { start: NOW, ..none };
        let cases: &[(&str, Shares<'_>, Shares<'_>, StepParams, Shares<'_>, StepParams)] = &[
            ("the same", &[("a", 100)], &[("a", 100)], none, &[("a", 100)], none),
            ("a new revision", &[("b", 100)], &[("a", 100)], none, &[("a", 99), ("b", 1)], begun),
            ("one more on top", &[("c", 100)], &[("a", 60), ("b", 40)], due, &[("a", 60), ("b", 39), ("c", 1)], begun),
            ("two fast ones", &[("c", 100)], &[("a", 99), ("b", 1)], begun, &[("a", 99), ("c", 1)], begun),
            ("of two percent", &[("b", 2)], &[("a", 2)], none, &[("a", 1), ("b", 1)], begun),
            ("of one percent, at once", &[("b", 1)], &[("a", 1)], none, &[("b", 1)], none),
            ("not ready yet", &[("b", 100)], &[("a", 99), ("b", 1)], begun, &[("a", 99), ("b", 1)], begun),
            ("too soon", &[("b", 100)], &[("a", 99), ("b", 1)], later, &[("a", 99), ("b", 1)], later),
            (
                "a step",
                &[("b", 100)],
                &[("a", 99), ("b", 1)],
                due,
                &[("a", 89), ("b", 11)],
                StepParams { next: NOW + 5 * SECOND, ..due },
            ),
            (
                "a step that ends one",
                &[("c", 100)],
                &[("a", 50), ("b", 5), ("c", 45)],
                due,
                &[("a", 45), ("c", 55)],
                StepParams { next: NOW + 5 * SECOND, ..due },
            ),
            ("the last step", &[("b", 100)], &[("a", 7), ("b", 93)], due, &[("b", 100)], none),
            ("less, before a step", &[("b", 40)], &[("a", 60), ("b", 40)], later, &[("b", 40)], none),
            ("less than the newest had", &[("b", 30)], &[("a", 60), ("b", 40)], later, &[("b", 30)], none),
            ("less", &[("b", 75)], &[("a", 60), ("b", 40)], later, &[("a", 35), ("b", 40)], later),
            ("more", &[("b", 75)], &[("a", 40), ("b", 2)], later, &[("a", 40), ("b", 35)], later),
            ("more, and a new revision", &[("b", 75)], &[("a", 42)], none, &[("a", 74), ("b", 1)], begun),
            ("less, and a new revision", &[("b", 42)], &[("a", 75)], none, &[("a", 41), ("b", 1)], begun),
        ];
        for (name, wanted, before, params, after, then) in cases {
            let (got, next) = one(wanted).step(Some(&with(one(before), *params)), NOW);
            assert_eq!((shares(&got), got.configurations[0].step_params), (after.to_vec(), *then), "{name}");
            assert_eq!(next, Some(then.next).filter(|next| *next > 0), "{name}");
        }
        assert_eq!(one(&[("a", 100)]).step(None, NOW), (one(&[("a", 100)]), None));
        assert_eq!(one(&[("a", 100)]).step(Some(&Rollout::default()), NOW), (one(&[("a", 100)]), None));
    }

    #[test]
    fn each_configuration_and_tag_goes_its_own_way() {
        let all = |list: &[ConfigurationRollout]| Rollout { configurations: list.to_vec() };
        let before = all(&[of("", "a", &[("a1", 70)]), of("", "b", &[("b1", 30)]), of("t", "a", &[("a1", 100)])]);
        let wanted = all(&[
            of("", "a", &[("a2", 70)]),
            of("", "new", &[("n1", 30)]),
            of("t", "a", &[("a2", 100)]),
            of("u", "a", &[("a2", 100)]),
        ]);
        let (got, next) = wanted.step(Some(&before), NOW);
        let shares: Vec<_> = got.configurations.iter().map(|c| (c.tag.as_str(), c.revisions.clone())).collect();
        assert_eq!(
            shares,
            [
                ("", revisions(&[("a1", 69), ("a2", 1)])),
                ("", revisions(&[("n1", 30)])),
                ("t", revisions(&[("a1", 99), ("a2", 1)])),
                ("u", revisions(&[("a2", 100)])),
            ]
        );
        assert_eq!(next, None, "the rhythm is not known before the Ingress is ready");
    }

    /// Share, seconds until ready, seconds for all: size and seconds of a step.
    #[test]
    fn the_rhythm_follows_from_the_first_percent() {
        for (percent, took, duration, size, every) in [
            (100, 1.0, 120, 1, 119.0 / 99.0),
            (100, 20.0, 120, 20, 20.0),
            (100, 0.2, 50, 2, 1.0),
            (100, 200.0, 120, 99, 1.0),
            (100, 25.0, 101, 33, 76.0 / 3.04),
            (5, 1.0, 120, 1, 119.0 / 4.0),
            (2, 5.0, 60, 1, 55.0),
        ] {
            let mut rollout =
                with(one(&[("a", percent - 1), ("b", 1)]), StepParams { start: NOW, ..StepParams::default() });
            let now = NOW + (took * SECOND as f64) as i64;
            rollout.ingress_is_ready(now, duration);
            let params = rollout.configurations[0].step_params;
            assert_eq!(params.size, size, "{percent} {took} {duration}");
            assert!(
                (params.every as f64 / SECOND as f64 - every).abs() < 1e-6,
                "{percent} {took} {duration}: {params:?}"
            );
            assert_eq!(params.next, now + params.every);
            rollout.ingress_is_ready(now + SECOND, duration);
            assert_eq!(rollout.configurations[0].step_params, params, "known once");
        }
    }

    #[test]
    fn the_annotation_is_upstreams() {
        let text = r#"{"configurations":[{"configurationName":"c","percent":100,"revisions":[{"revisionName":"a","percent":99},{"revisionName":"b","percent":1}],"stepParams":{"starttime":5,"nextStepTime":7,"stepDuration":2,"stepSize":3}}]}"#;
        let rollout = read(Some(&text.to_owned())).unwrap();
        assert_eq!(rollout.configurations[0].step_params, StepParams { start: 5, next: 7, every: 2, size: 3 });
        assert_eq!(serde_json::to_string(&rollout).unwrap(), text);
        let steady = r#"{"configurations":[{"configurationName":"c","percent":100,"revisions":[{"revisionName":"a","percent":100}],"stepParams":{}}]}"#;
        assert_eq!(serde_json::to_string(&read(Some(&steady.to_owned())).unwrap()).unwrap(), steady);
        for bad in [
            "",
            "7",
            r#"{"configurations":[{"configurationName":"c","percent":101,"revisions":[{"revisionName":"a","percent":101}]}]}"#,
            r#"{"configurations":[{"configurationName":"c","percent":100,"revisions":[{"revisionName":"a","percent":99}]}]}"#,
            r#"{"configurations":[{"configurationName":"c","percent":10,"revisions":[{"revisionName":"a","percent":20},{"revisionName":"b","percent":-10}]}]}"#,
            r#"{"configurations":[{"configurationName":"c","percent":10,"revisions":[{"revisionName":"a","percent":10}],"stepParams":{"stepSize":11}}]}"#,
            r#"{"configurations":[{"configurationName":"c","percent":10,"revisions":[{"revisionName":"a","percent":10}],"stepParams":{"stepSize":-1}}]}"#,
        ] {
            assert_eq!(read(Some(&bad.to_owned())), None, "{bad}");
        }
        assert_eq!(read(None), None);
    }

    proptest! {
        /// Whatever is wanted when: shares are whole and sum up, and a rollout that is left alone ends, in about its time.
        #[test]
        fn shares_always_sum_up_and_every_rollout_ends(
            wanted in proptest::collection::vec((0..4_u8, 1..=100_i64, 0..300_i64, proptest::bool::ANY), 1..40),
            duration in 1..600_u32,
        ) {
            let (mut state, mut now) = (None::<Rollout>, NOW);
            for (revision, percent, pause, ready) in &wanted {
                now += pause * SECOND;
                if let Some(before) = state.as_mut().filter(|_| *ready) {
                    before.ingress_is_ready(now, duration);
                }
                let name = format!("r{revision}");
                let (next, _) = one(&[(&name, *percent)]).step(state.as_ref(), now);
                let c = &next.configurations[0];
                prop_assert_eq!(c.revisions.iter().map(|r| r.percent).sum::<i64>(), *percent);
                prop_assert!(c.revisions.iter().all(|r| r.percent > 0));
                prop_assert_eq!(&c.revisions.last().unwrap().revision_name, &name);
                let text = serde_json::to_string(&next).unwrap();
                prop_assert_eq!(read(Some(&text)), Some(next.clone()), "what was written is read");
                state = Some(next);
            }
            let (last, percent, ..) = wanted.last().unwrap();
            let mut state = state.unwrap();
            for _ in 0..200 {
                now += SECOND;
                state.ingress_is_ready(now, duration);
                let (next, due) = one(&[(&format!("r{last}"), *percent)]).step(Some(&state), now);
                state = next;
                now = due.unwrap_or(now);
            }
            prop_assert!(state.is_done(), "{state:?}");
        }
    }
}
