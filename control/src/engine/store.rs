//! What we know of one kind: filled by one watch, read by every reconciler, and told at once of our own writes.
//!
//! Telling the store of a write when the answer arrives (and not when the watch repeats it) is what lets one change
//! run through the whole chain of reconcilers without waiting for echoes, and without writing anything twice. Every
//! entry carries its `resourceVersion`; an older one never replaces a newer one, and an object that was seen deleted
//! does not come back by a late answer.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use kube::{Resource, ResourceExt};

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

struct Inner<K> {
    namespaces: HashMap<String, HashMap<String, Arc<K>>>,
    index: HashMap<String, HashSet<(String, String)>>,
    deleted: Deleted,
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
    inner: RwLock<Inner<K>>,
    index_of: fn(&K) -> Option<String>,
}

impl<K: Resource<DynamicType = ()>> Store<K> {
    /// An empty store. `index_of` names the group an object is found by in [`Self::indexed`].
    pub fn new(index_of: fn(&K) -> Option<String>) -> Self {
        let inner = Inner { namespaces: HashMap::new(), index: HashMap::new(), deleted: Deleted::default() };
        Self { inner: RwLock::new(inner), index_of }
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read().namespaces.get(namespace)?.get(name).cloned()
    }

    /// The objects whose index is `key`, in no order.
    pub fn indexed(&self, key: &str) -> Vec<Arc<K>> {
        let inner = self.read();
        let Some(names) = inner.index.get(key) else { return Vec::new() };
        names.iter().filter_map(|(ns, name)| inner.namespaces.get(ns)?.get(name).cloned()).collect()
    }

    /// The objects of a namespace, in no order.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.read().namespaces.get(namespace).map(|names| names.values().cloned().collect()).unwrap_or_default()
    }

    /// All objects, in no order.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.read().namespaces.values().flat_map(HashMap::values).cloned().collect()
    }

    /// An object was read or written. Absent: we already knew this or something newer.
    pub fn apply(&self, object: K) -> Option<Change<K>> {
        let mut inner = self.write();
        if object.uid().is_some_and(|uid| inner.deleted.uids.contains(&uid)) {
            return None;
        }
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let old = inner.namespaces.get(&namespace).and_then(|names| names.get(&name)).cloned();
        if old.as_ref().is_some_and(|old| !is_newer(&object, old.as_ref())) {
            return None;
        }
        let new = Arc::new(object);
        if let Some(old) = &old {
            self.unindex(&mut inner, old, &namespace, &name);
        }
        if let Some(key) = (self.index_of)(&new) {
            inner.index.entry(key).or_default().insert((namespace.clone(), name.clone()));
        }
        inner.namespaces.entry(namespace).or_default().insert(name, Arc::clone(&new));
        Some(Change { old, new: Some(new) })
    }

    /// An object was deleted. Absent: we knew nothing of it, or a namesake took its place.
    pub fn remove(&self, object: &K) -> Option<Change<K>> {
        let mut inner = self.write();
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        if let Some(uid) = object.uid() {
            inner.deleted.remember(uid);
        }
        self.take_out(&mut inner, object, &namespace, &name)
    }

    fn take_out(&self, inner: &mut Inner<K>, object: &K, namespace: &str, name: &str) -> Option<Change<K>> {
        let names = inner.namespaces.get_mut(namespace)?;
        if names.get(name)?.uid() != object.uid() {
            return None;
        }
        let old = names.remove(name)?;
        if names.is_empty() {
            inner.namespaces.remove(namespace);
        }
        self.unindex(inner, &old, namespace, name);
        Some(Change { old: Some(old), new: None })
    }

    /// A new list of everything came: what is not in it is gone. Should it be younger than the list, the watch that
    /// follows brings it back; it does not count as deleted.
    pub fn replace(&self, objects: Vec<K>) -> Vec<Change<K>> {
        let listed: HashSet<(String, String)> =
            objects.iter().map(|o| (o.namespace().unwrap_or_default(), o.name_any())).collect();
        let mut changes = Vec::new();
        for object in self.all() {
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            if !listed.contains(&(namespace.clone(), name.clone())) {
                changes.extend(self.take_out(&mut self.write(), &object, &namespace, &name));
            }
        }
        changes.extend(objects.into_iter().filter_map(|o| self.apply(o)));
        changes
    }

    fn unindex(&self, inner: &mut Inner<K>, old: &K, namespace: &str, name: &str) {
        let Some(key) = (self.index_of)(old) else { return };
        if let Some(names) = inner.index.get_mut(&key) {
            names.remove(&(namespace.to_owned(), name.to_owned()));
            if names.is_empty() {
                inner.index.remove(&key);
            }
        }
    }

    // A poisoned lock means that a reader or writer panicked between two whole operations; the maps are consistent.
    fn read(&self) -> RwLockReadGuard<'_, Inner<K>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<K>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn version<K: Resource>(object: &K) -> Option<u64> {
    object.meta().resource_version.as_deref()?.parse().ok()
}

/// Versions are comparable numbers (declared so by Kubernetes since 1.35, true before); where one is not, the later
/// message wins. A different UID is a different object: it is newer.
fn is_newer<K: Resource>(object: &K, than: &K) -> bool {
    match (version(object), version(than)) {
        (Some(a), Some(b)) => a > b,
        _ => object.meta().resource_version != than.meta().resource_version,
    }
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
        Store::new(|o| o.metadata.uid.clone())
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
        let mut names: Vec<String> = store.all().iter().map(|o| o.name_any()).collect();
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
