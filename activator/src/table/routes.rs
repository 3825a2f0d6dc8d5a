//! The writer's side of the table: which Ingress has which host, kept up to date one object at a time.
//!
//! Of two Ingresses that want a host the older one has it ([`Source`]); the other one waits and takes over when it
//! goes. The outcome depends on the objects alone, not on the order in which they came. A table that was replaced is
//! kept until nobody looks at it any more, so that a request never has to free one.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use api::labels::networking::INGRESS_CLASS;
use api::networking::Ingress;
use arc_swap::ArcSwap;
use hashbrown::HashTable;
use kube::ResourceExt;

use super::compile::{self, Skipped};
use super::{Entry, Names, Pattern, Source, Table};
use crate::feed::{Change, One, own_name};

/// See the module. Owned by the control thread.
#[derive(Debug)]
pub struct Routes {
    class: String,
    /// By namespace and name, which are the source's.
    known: HashTable<Known>,
    hasher: RandomState,
    /// Entries that an older Ingress keeps out, per host.
    waiting: HashMap<Pattern, Vec<Entry>>,
    draft: Table,
    changed: bool,
    retired: Vec<Arc<Table>>,
}

/// What is kept of an Ingress.
#[derive(Debug)]
struct Known {
    source: Arc<Source>,
    /// A hash of the resource version, if there is one; an object that comes again with the same one is not looked at.
    version: Option<u64>,
    entries: Box<[Entry]>,
}

impl Routes {
    /// No routes yet; Ingresses of this class will count.
    pub fn new(class: &str) -> Self {
        Self {
            class: class.to_owned(),
            known: HashTable::new(),
            hasher: RandomState::new(),
            waiting: HashMap::new(),
            draft: Table::default(),
            changed: false,
            retired: Vec::new(),
        }
    }

    /// Takes a change in; requests see it after [`Routes::publish`]. Returns what is not served, and why.
    pub fn change(&mut self, change: Change<Ingress>, names: Names<'_>) -> Vec<Skipped> {
        change.one_by_one(own_name).into_iter().flat_map(|one| self.take(one, names)).collect()
    }

    /// The same for one object.
    pub fn take(&mut self, change: One<Ingress>, names: Names<'_>) -> Vec<Skipped> {
        let mut skipped = Vec::new();
        match change {
            One::Applied(ingress) => self.apply(&ingress, names, &mut skipped),
            One::Deleted(ingress) => self.remove(name(&ingress), names, &mut skipped),
            One::Complete(seen) => {
                let gone = self.known.iter().filter(|known| !seen.has(known.name().0, known.name().1));
                let gone: Vec<Arc<Source>> = gone.map(|known| Arc::clone(&known.source)).collect();
                for source in &gone {
                    self.remove((&source.namespace, &source.name), names, &mut skipped);
                }
            }
        }
        skipped
    }

    fn apply(&mut self, ingress: &Ingress, names: Names<'_>, skipped: &mut Vec<Skipped>) {
        let name = name(ingress);
        if ingress.annotations().get(INGRESS_CLASS) != Some(&self.class) {
            self.remove(name, names, skipped);
            return;
        }
        let hash = self.hasher.hash_one(name);
        let version = ingress.metadata.resource_version.as_ref().map(|version| self.hasher.hash_one(version));
        let known = self.known.find(hash, |known| known.name() == name);
        if version.is_some() && known.is_some_and(|known| known.version == version) {
            return;
        }
        // The new one's revisions are named before the old one's are given up, so that slots in both stay.
        let (source, entries) = compile::ingress(ingress, names, skipped);
        self.remove(name, names, skipped);
        for entry in &entries {
            self.claim(entry.clone(), skipped);
        }
        let (hasher, known) = (&self.hasher, Known { source, version, entries: entries.into() });
        self.known.insert_unique(hash, known, |known| hasher.hash_one(known.name()));
    }

    fn remove(&mut self, name: Name<'_>, names: Names<'_>, skipped: &mut Vec<Skipped>) {
        let hash = self.hasher.hash_one(name);
        let Ok(found) = self.known.find_entry(hash, |known| known.name() == name) else { return };
        let (known, _) = found.remove();
        for entry in &known.entries {
            self.release(entry, skipped);
        }
        // The hosts of a rule share one route, one after the other.
        for hosts in known.entries.chunk_by(|a, b| Arc::ptr_eq(&a.route, &b.route)) {
            for slot in hosts.iter().take(1).flat_map(|entry| entry.route.slots()) {
                names.revisions.unname(slot);
            }
        }
        for slot in known.entries.iter().filter_map(|entry| entry.certificate.as_ref()) {
            names.certificates.unname(slot);
        }
    }

    fn claim(&mut self, entry: Entry, skipped: &mut Vec<Skipped>) {
        let loser = match self.draft.get(&entry.pattern) {
            Some(held) if held.route.source < entry.route.source => entry,
            _ => {
                self.changed = true;
                let Some(displaced) = self.draft.insert(entry) else { return };
                displaced
            }
        };
        skipped.push(Skipped::HostTaken { ingress: loser.route.source.to_string(), host: loser.pattern.to_string() });
        self.waiting.entry(loser.pattern.clone()).or_default().push(loser);
    }

    fn release(&mut self, entry: &Entry, skipped: &mut Vec<Skipped>) {
        let held = self.draft.get(&entry.pattern).is_some_and(|held| Arc::ptr_eq(&held.route, &entry.route));
        if held {
            self.changed = true;
            self.draft.remove(&entry.pattern);
        }
        let Slot::Occupied(mut waiting) = self.waiting.entry(entry.pattern.clone()) else { return };
        let list = waiting.get_mut();
        if !held {
            list.retain(|other| !Arc::ptr_eq(&other.route, &entry.route));
        }
        let oldest = (0..list.len()).min_by_key(|n| list.get(*n).map(|other| &other.route.source));
        let next = oldest.filter(|_| held).map(|oldest| list.swap_remove(oldest));
        if list.is_empty() {
            waiting.remove();
        }
        if let Some(next) = next {
            self.claim(next, skipped);
        }
    }

    /// Lets requests see all changes since the last time, at once. Whether there were any.
    pub fn publish(&mut self, table: &ArcSwap<Table>) -> bool {
        if !std::mem::take(&mut self.changed) {
            return false;
        }
        self.draft.next_generation();
        let old = table.swap(Arc::new(self.draft.clone()));
        self.retired.push(old);
        self.reclaim();
        true
    }

    /// Frees tables that nobody looks at any more; whether some are left, so that it must be tried again.
    pub fn reclaim(&mut self) -> bool {
        // Once replaced nobody can come to look at it, so a count of one stays one.
        self.retired.retain(|table| Arc::strong_count(table) > 1);
        !self.retired.is_empty()
    }

    /// Hosts that have a route.
    pub fn hosts(&self) -> usize {
        self.draft.len()
    }
}

type Name<'a> = (&'a str, &'a str);

fn name(ingress: &Ingress) -> Name<'_> {
    let metadata = &ingress.metadata;
    (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

impl Known {
    fn name(&self) -> Name<'_> {
        (&self.source.namespace, &self.source.name)
    }
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
