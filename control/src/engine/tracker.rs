//! Who wants to hear of whom: a Route names Configurations and Revisions that need not exist yet.
//!
//! Each reconcile of a Route states anew what it refers to; the inverse is asked on every change of a Configuration
//! or Revision.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

/// A kind that can be referred to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Referred {
    /// `traffic[].configurationName`.
    Configuration,
    /// `traffic[].revisionName`, or the latest of a Configuration.
    Revision,
}

type Name = (String, String);

#[derive(Default)]
struct Inner {
    refers_to: HashMap<Name, BTreeSet<(Referred, String)>>,
    referred_by: HashMap<(Referred, Name), BTreeSet<String>>,
}

/// See the module.
#[derive(Default)]
pub struct Tracker {
    inner: Mutex<Inner>,
}

impl Tracker {
    /// The Route refers to exactly these objects of its namespace from now on; none = forget the Route.
    pub fn set(&self, namespace: &str, route: &str, targets: &BTreeSet<(Referred, String)>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (namespace.to_owned(), route.to_owned());
        let before = if targets.is_empty() {
            inner.refers_to.remove(&name).unwrap_or_default()
        } else {
            inner.refers_to.insert(name, targets.clone()).unwrap_or_default()
        };
        for (kind, target) in before.difference(targets) {
            let key = (*kind, (namespace.to_owned(), target.clone()));
            if let Some(routes) = inner.referred_by.get_mut(&key) {
                routes.remove(route);
                if routes.is_empty() {
                    inner.referred_by.remove(&key);
                }
            }
        }
        for (kind, target) in targets.difference(&before) {
            let key = (*kind, (namespace.to_owned(), target.clone()));
            inner.referred_by.entry(key).or_default().insert(route.to_owned());
        }
    }

    /// Routes that refer to this object.
    pub fn routes_of(&self, kind: Referred, namespace: &str, name: &str) -> Vec<String> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (kind, (namespace.to_owned(), name.to_owned()));
        inner.referred_by.get(&key).map(|routes| routes.iter().cloned().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_follow_the_last_statement() {
        let tracker = Tracker::default();
        let targets = |names: &[&str]| names.iter().map(|n| (Referred::Revision, (*n).to_owned())).collect();
        tracker.set("ns", "r1", &targets(&["a", "b"]));
        tracker.set("ns", "r2", &targets(&["b"]));
        assert_eq!(tracker.routes_of(Referred::Revision, "ns", "b"), ["r1", "r2"]);
        tracker.set("ns", "r1", &targets(&["a"]));
        assert_eq!(tracker.routes_of(Referred::Revision, "ns", "b"), ["r2"]);
        assert!(tracker.routes_of(Referred::Configuration, "ns", "a").is_empty());
        tracker.set("ns", "r1", &BTreeSet::new());
        tracker.set("ns", "r2", &BTreeSet::new());
        let inner = tracker.inner.lock().unwrap();
        assert!(inner.refers_to.is_empty() && inner.referred_by.is_empty(), "nothing is kept for gone Routes");
    }
}
