//! What `up` knows to show: services, revisions and wake-ups, for the screen and for the console.
//!
//! [`Board`] is fed by [`crate::observe`] (the API's watches) and by marks of the processes; it decides what is news
//! and says it on the [`Screen`]. Nothing in the system reads it back.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use api::{autoscaling::PodAutoscaler, conditions, serving::Service, timeline::Mark};
use kube::ResourceExt;
use serde::Serialize;
use tokio::sync::watch;

use crate::{
    screen::Screen,
    timeline::{Timelines, WakeUp},
};

/// A service as shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ServiceRow {
    /// Address.
    pub url: String,
    /// `True`, `False` or `Unknown`.
    pub ready: String,
    /// Why not, in one word.
    pub reason: String,
    /// Why not, in a sentence.
    pub message: String,
    /// Its newest ready revision.
    pub revision: String,
}

/// A revision as shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RevisionRow {
    /// Service it belongs to, if any.
    pub service: String,
    /// Ready pods.
    pub actual: i32,
    /// Wanted pods.
    pub desired: i32,
    /// Whether it has ever been seen with pods: before that, zero pods is not sleep.
    #[serde(skip)]
    pub has_run: bool,
}

/// Everything at one moment.
#[derive(Debug, Default, Serialize)]
pub struct Snapshot<'a> {
    services: Vec<Named<'a, ServiceRow>>,
    revisions: Vec<Named<'a, RevisionRow>>,
    wakes: Vec<&'a WakeUp>,
}

#[derive(Debug, Serialize)]
struct Named<'a, T> {
    name: &'a str,
    #[serde(flatten)]
    row: &'a T,
}

#[derive(Default)]
struct State {
    services: BTreeMap<String, ServiceRow>,
    revisions: BTreeMap<String, RevisionRow>,
    timelines: Timelines,
}

/// Shared by the observers and the console.
pub struct Board {
    screen: Screen,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Board {
    /// An empty board that speaks on `screen`.
    pub fn new(screen: Screen) -> Self {
        Self { screen, state: Mutex::default(), changed: watch::Sender::new(0) }
    }

    /// The screen, for what is not on the board.
    pub fn screen(&self) -> &Screen {
        &self.screen
    }

    /// Counts up with each change; the console waits on it.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A service appeared or changed.
    pub fn service(&self, service: &Service) {
        let key = key(service);
        let row = ServiceRow::of(service);
        let news = self.update(|s| {
            let news = service_news(s.services.get(&key), &row).map(|text| format!("{key} {text}"));
            s.services.insert(key, row);
            news
        });
        if let Some(text) = news {
            self.screen.line(&text);
        }
    }

    /// A service is gone.
    pub fn service_gone(&self, service: &Service) {
        let key = key(service);
        if self.update(|s| s.services.remove(&key)).is_some() {
            self.screen.line(&format!("{key} is deleted"));
        }
    }

    /// A revision's scale appeared or changed.
    pub fn revision(&self, autoscaler: &PodAutoscaler) {
        let key = key(autoscaler);
        let news = self.update(|s| {
            let old = s.revisions.get(&key);
            let row = RevisionRow::of(autoscaler, old);
            let news = revision_news(old, &row).map(|text| format!("{key} {text}"));
            s.revisions.insert(key, row);
            news
        });
        if let Some(text) = news {
            self.screen.line(&text);
        }
    }

    /// A revision is gone.
    pub fn revision_gone(&self, autoscaler: &PodAutoscaler) {
        self.update(|s| s.revisions.remove(&key(autoscaler)));
    }

    /// A process marked a phase of a wake-up: its line grows.
    pub fn mark(&self, mark: Mark) {
        let line = self.update(|s| {
            s.timelines.record(mark).map(|w| (format!("{}/{}", w.namespace, w.revision), describe(w), w.finished()))
        });
        match line {
            Some((key, text, true)) => self.screen.finish(&key, &text),
            Some((key, text, false)) => self.screen.grow(&key, &text),
            None => {}
        }
    }

    /// The whole board as JSON.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::to_vec(&Snapshot {
            services: state.services.iter().map(|(name, row)| Named { name, row }).collect(),
            revisions: state.revisions.iter().map(|(name, row)| Named { name, row }).collect(),
            wakes: state.timelines.finished().rev().take(100).collect(),
        })
    }

    /// All wake-ups that are remembered, oldest first, as JSON.
    pub fn wakes_json(&self) -> serde_json::Result<Vec<u8>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::to_vec(&state.timelines.finished().collect::<Vec<_>>())
    }

    fn update<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let result = f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_modify(|n| *n += 1);
        result
    }
}

fn key(object: &impl ResourceExt) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

impl ServiceRow {
    fn of(service: &Service) -> Self {
        let status = service.status.clone().unwrap_or_default();
        let ready = conditions::get(&status.conditions, conditions::READY);
        // A Route without a ready revision is the consequence; what is wrong with the revision is the cause.
        let cause = conditions::get(&status.conditions, "ConfigurationsReady").filter(|c| c.is_false()).or(ready);
        // A status that speaks of an older spec says nothing about this one.
        let current = status.observed_generation == service.metadata.generation;
        Self {
            url: status.url.unwrap_or_default(),
            ready: ready.filter(|_| current).map_or_else(|| "Unknown".to_owned(), |c| c.status.clone()),
            reason: cause.and_then(|c| c.reason.clone()).unwrap_or_default(),
            message: cause.and_then(|c| c.message.clone()).unwrap_or_default(),
            revision: status.latest_ready_revision_name.unwrap_or_default(),
        }
    }
}

impl RevisionRow {
    fn of(autoscaler: &PodAutoscaler, old: Option<&Self>) -> Self {
        let status = autoscaler.status.clone().unwrap_or_default();
        let actual = status.actual_scale.unwrap_or(0);
        Self {
            service: autoscaler.labels().get(api::labels::serving::SERVICE).cloned().unwrap_or_default(),
            actual,
            desired: status.desired_scale.unwrap_or(0).max(0),
            has_run: actual > 0 || old.is_some_and(|o| o.has_run),
        }
    }
}

/// What to say about a service that changed.
fn service_news(old: Option<&ServiceRow>, new: &ServiceRow) -> Option<String> {
    let was = old.map(|o| (o.ready.as_str(), o.revision.as_str(), o.message.as_str()));
    match new.ready.as_str() {
        "True" if was.is_none_or(|(ready, revision, _)| ready != "True" || revision != new.revision) => {
            Some(format!("is ready at {} ({})", new.url, new.revision))
        }
        "False" if was.is_none_or(|(ready, _, message)| ready != "False" || message != new.message) => {
            Some(format!("is not ready: {}: {}", new.reason, new.message))
        }
        _ => None,
    }
}

/// What to say about a revision whose scale changed.
fn revision_news(old: Option<&RevisionRow>, new: &RevisionRow) -> Option<String> {
    let was = old.map_or(0, |o| o.actual);
    match new.actual {
        0 if was > 0 && new.desired == 0 => Some("sleeps: no pods; the next request wakes it".to_owned()),
        0 if new.desired == 0 && old.is_some_and(|o| o.has_run && o.desired > 0) => {
            Some("sleeps: no pods; the next request wakes it".to_owned())
        }
        n if n > 1 && n != was => Some(format!("runs in {n} pods")),
        1 if was > 1 => Some("runs in 1 pod".to_owned()),
        _ => None,
    }
}

/// `default/hello-00001 wakes: decided 0.4 · … · first byte 7.6 ms`
fn describe(wake: &WakeUp) -> String {
    use std::fmt::Write;
    let mut text = format!("{}/{} wakes:", wake.namespace, wake.revision);
    for (i, step) in wake.phases.iter().enumerate() {
        let separator = if i == 0 { "" } else { " ·" };
        let name = step.phase.name().replace('_', " ");
        // Writing into a String cannot fail.
        let _ = write!(text, "{separator} {name} {:.1}", step.at_us as f64 / 1000.0);
    }
    if wake.finished() {
        text.push_str(" ms");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(ready: &str, revision: &str, message: &str) -> ServiceRow {
        ServiceRow {
            url: "http://hello".into(),
            ready: ready.into(),
            reason: "R".into(),
            message: message.into(),
            revision: revision.into(),
        }
    }

    #[test]
    fn a_service_is_news_when_its_answer_changes() {
        let ready = service("True", "a-1", "");
        let cases = [
            (None, service("Unknown", "", ""), None),
            (Some(service("Unknown", "", "")), ready.clone(), Some("is ready at http://hello (a-1)")),
            (Some(ready.clone()), ready.clone(), None),
            (Some(ready.clone()), service("True", "a-2", ""), Some("is ready at http://hello (a-2)")),
            (Some(ready), service("False", "a-1", "no image"), Some("is not ready: R: no image")),
            (Some(service("False", "", "x")), service("False", "", "x"), None),
        ];
        for (old, new, want) in cases {
            assert_eq!(service_news(old.as_ref(), &new).as_deref(), want, "{old:?} -> {new:?}");
        }
    }

    #[test]
    fn sleep_is_said_once_and_only_of_what_ran() {
        let row = |actual, desired, has_run| RevisionRow { service: String::new(), actual, desired, has_run };
        assert_eq!(revision_news(None, &row(0, 0, false)), None, "never ran");
        assert!(revision_news(Some(&row(1, 0, true)), &row(0, 0, true)).unwrap().starts_with("sleeps"));
        assert_eq!(revision_news(Some(&row(0, 0, true)), &row(0, 0, true)), None);
        assert!(revision_news(Some(&row(0, 1, true)), &row(0, 0, true)).unwrap().starts_with("sleeps"));
        assert_eq!(revision_news(Some(&row(1, 3, true)), &row(3, 3, true)).unwrap(), "runs in 3 pods");
    }
}
