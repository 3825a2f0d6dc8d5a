//! What we know of one kind: filled by one watch, read by every reconciler, and told at once of our own writes.
//!
//! Telling the store of a write when the answer arrives (and not when the watch repeats it) is what lets one change
//! run through the whole chain of reconcilers without waiting for echoes, and without writing anything twice. Every
//! entry carries its `resourceVersion`; an older one never replaces a newer one, and an object that was seen deleted
//! does not come back by a late answer.
//!
//! Objects are kept packed ([`super::packing`]) and read anew each time: a typed pod template takes ten times the room of
//! its text, and the text many times that of its difference from others; there may be a hundred thousand objects, of
//! which a handful are looked at in a second.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use kube::{Resource, ResourceExt};
use serde::{Serialize, de::DeserializeOwned};

use super::packing::{Packed, Packer};

/// How many deletions are remembered; only those younger than an answer under way matter.
const REMEMBERED_DELETIONS: usize = 1024;

/// Before and after of one object.
#[derive(Debug)]
pub struct Change<K> {
    /// Absent: it is new.
    pub old: Option<Arc<K>>,
    /// Absent: it is gone.
    pub new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The object, as it is or as it last was.
    pub fn either(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

#[derive(Default)]
struct Inner {
    namespaces: HashMap<Box<str>, HashMap<Box<str>, Entry>>,
    index: HashMap<Box<str>, Vec<Name>>,
    deleted: Deleted,
    packer: Packer,
}

/// Namespace and name.
type Name = (Box<str>, Box<str>);

/// One object.
struct Entry {
    uid: Box<str>,
    version: Box<str>,
    packed: Packed,
}

impl Entry {
    fn read<K: DeserializeOwned>(&self) -> Option<Arc<K>> {
        match self.packed.unpack() {
            Ok(object) => Some(Arc::new(object)),
            Err(error) => {
                tracing::error!(%error, "an object cannot be read back; it counts as not there");
                None
            }
        }
    }

    /// Versions are comparable numbers (declared so by Kubernetes since 1.35, true before); where one is not, the later
    /// message wins. A different UID is a different object: it is newer.
    fn is_older_than(&self, version: &str) -> bool {
        match (self.version.parse::<u64>(), version.parse::<u64>()) {
            (Ok(own), Ok(other)) => own < other,
            _ => *self.version != *version,
        }
    }
}

/// UIDs of the last deletions.
#[derive(Default)]
struct Deleted {
    order: VecDeque<String>,
    uids: HashSet<String>,
}

impl Deleted {
    fn remember(&mut self, uid: String) {
        if self.order.len() == REMEMBERED_DELETIONS
            && let Some(oldest) = self.order.pop_front()
        {
            self.uids.remove(&oldest);
        }
        if self.uids.insert(uid.clone()) {
            self.order.push_back(uid);
        }
    }
}

/// See the module.
pub struct Store<K> {
    inner: RwLock<Inner>,
    index_of: fn(&K) -> Vec<String>,
}

impl<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned> Store<K> {
    /// An empty store. `index_of` names the groups an object is found by in [`Self::indexed`].
    pub fn new(index_of: fn(&K) -> Vec<String>) -> Self {
        Self { inner: RwLock::default(), index_of }
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read().namespaces.get(namespace)?.get(name)?.read()
    }

    /// Whether there is such an object.
    pub fn has(&self, namespace: &str, name: &str) -> bool {
        self.read().namespaces.get(namespace).is_some_and(|names| names.contains_key(name))
    }

    /// The objects whose index is `key`, in no order.
    pub fn indexed(&self, key: &str) -> Vec<Arc<K>> {
        let inner = self.read();
        let Some(names) = inner.index.get(key) else { return Vec::new() };
        names.iter().filter_map(|(namespace, name)| inner.namespaces.get(namespace)?.get(name)?.read()).collect()
    }

    /// Namespace and name of each object, in no order.
    pub fn names(&self) -> Vec<Name> {
        let inner = self.read();
        let mut all = Vec::new();
        for (namespace, names) in &inner.namespaces {
            all.extend(names.keys().map(|name| (namespace.clone(), name.clone())));
        }
        all
    }

    /// An object was read or written. Absent: we already knew this or something newer.
    pub fn apply(&self, object: K) -> Option<Change<K>> {
        let (namespace, name) = name_of(&object);
        let (uid, version) = (object.uid().unwrap_or_default(), object.resource_version().unwrap_or_default());
        let mut guard = self.write();
        let inner = &mut *guard;
        if inner.deleted.uids.contains(&uid) {
            return None;
        }
        let known = inner.namespaces.get(&namespace).and_then(|names| names.get(&name));
        if known.is_some_and(|known| !known.is_older_than(&version)) {
            return None;
        }
        // Only now: half of what comes is the echo of our own writes. It never fails, as such objects are all text.
        let packed = inner.packer.pack(&object).ok()?;
        let old = known.and_then(Entry::read);
        if let Some(old) = &old {
            self.unindex(inner, old, &namespace, &name);
        }
        for key in (self.index_of)(&object) {
            inner.index.entry(key.into()).or_default().push((namespace.clone(), name.clone()));
        }
        inner
            .namespaces
            .entry(namespace)
            .or_default()
            .insert(name, Entry { uid: uid.into(), version: version.into(), packed });
        Some(Change { old, new: Some(Arc::new(object)) })
    }

    /// An object was deleted. Absent: we knew nothing of it, or a namesake took its place.
    pub fn remove(&self, object: &K) -> Option<Change<K>> {
        let mut inner = self.write();
        let uid = object.uid().unwrap_or_default();
        if !uid.is_empty() {
            inner.deleted.remember(uid.clone());
        }
        self.take_out(&mut inner, &uid, &name_of(object))
    }

    fn take_out(&self, inner: &mut Inner, uid: &str, (namespace, name): &Name) -> Option<Change<K>> {
        let names = inner.namespaces.get_mut(namespace)?;
        if *names.get(name)?.uid != *uid {
            return None;
        }
        let old: Arc<K> = names.remove(name)?.read()?;
        if names.is_empty() {
            inner.namespaces.remove(namespace);
        }
        self.unindex(inner, &old, namespace, name);
        Some(Change { old: Some(old), new: None })
    }

    /// A new list of everything came: what is not in it is gone. Should it be younger than the list, the watch that
    /// follows brings it back; it does not count as deleted.
    pub fn replace(&self, objects: Vec<K>) -> Vec<Change<K>> {
        let listed: HashSet<Name> = objects.iter().map(name_of).collect();
        let mut changes = Vec::new();
        for one in self.names().into_iter().filter(|one| !listed.contains(one)) {
            let mut inner = self.write();
            let uid = inner.namespaces.get(&one.0).and_then(|names| names.get(&one.1)).map(|entry| entry.uid.clone());
            changes.extend(uid.and_then(|uid| self.take_out(&mut inner, &uid, &one)));
        }
        changes.extend(objects.into_iter().filter_map(|object| self.apply(object)));
        changes
    }

    fn unindex(&self, inner: &mut Inner, old: &K, namespace: &str, name: &str) {
        for key in (self.index_of)(old) {
            let Some(names) = inner.index.get_mut(&*key) else { continue };
            names.retain(|(other_namespace, other)| (&**other_namespace, &**other) != (namespace, name));
            if names.is_empty() {
                inner.index.remove(&*key);
            }
        }
    }

    // A poisoned lock means that a reader or writer panicked between two whole operations; the maps are consistent.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name_of<K: Resource>(object: &K) -> Name {
    (object.namespace().unwrap_or_default().into(), object.name_any().into())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(name: &str, uid: &str, version: u64) -> ConfigMap {
        let mut o = ConfigMap::default();
        o.metadata.name = Some(name.into());
        o.metadata.namespace = Some("ns".into());
        o.metadata.uid = Some(uid.into());
        o.metadata.resource_version = Some(version.to_string());
        o
    }

    fn store() -> Store<ConfigMap> {
        Store::new(|o| o.metadata.uid.clone().into_iter().collect())
    }

    #[test]
    fn an_older_version_never_replaces_a_newer_one() {
        let store = store();
        assert!(store.apply(object("a", "1", 10)).is_some());
        assert!(store.apply(object("a", "1", 10)).is_none(), "the echo of our own write");
        assert!(store.apply(object("a", "1", 9)).is_none());
        assert!(store.apply(object("a", "1", 11)).is_some());
        assert_eq!(store.get("ns", "a").unwrap().resource_version().as_deref(), Some("11"));
    }

    #[test]
    fn a_deleted_object_does_not_come_back_but_its_namesake_may() {
        let store = store();
        store.apply(object("a", "1", 10));
        assert!(store.remove(&object("a", "1", 12)).is_some());
        assert!(store.apply(object("a", "1", 11)).is_none());
        assert!(store.apply(object("a", "2", 13)).is_some());
        assert!(store.remove(&object("a", "1", 12)).is_none(), "the namesake stays");
        assert!(store.get("ns", "a").is_some());
        assert!(store.indexed("1").is_empty());
        assert_eq!(store.indexed("2").len(), 1);
    }

    #[test]
    fn a_new_list_drops_what_it_lacks_and_the_watch_may_bring_it_back() {
        let store = store();
        store.apply(object("old", "1", 3));
        store.apply(object("kept", "2", 4));
        store.apply(object("young", "3", 9));
        let changes = store.replace(vec![object("kept", "2", 6)]);
        assert_eq!(changes.len(), 3);
        assert!(store.apply(object("young", "3", 9)).is_some());
        let mut names: Vec<String> = store.names().into_iter().map(|(_, name)| name.into()).collect();
        names.sort();
        assert_eq!(names, ["kept", "young"]);
    }

    #[test]
    fn remembered_deletions_are_bounded() {
        let store = store();
        for i in 0..(REMEMBERED_DELETIONS + 10) {
            store.remove(&object("x", &i.to_string(), 1));
        }
        let inner = store.read();
        assert_eq!((inner.deleted.order.len(), inner.deleted.uids.len()), (REMEMBERED_DELETIONS, REMEMBERED_DELETIONS));
    }
}
