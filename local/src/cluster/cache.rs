//! The objects of one kind as a watch tells them. What changed comes out of [`Cache::take`], also over a re-list.

use std::{collections::HashMap, sync::Arc};

use kube::{ResourceExt, runtime::watcher::Event};

/// `namespace/name`.
pub(super) type Key = String;

/// The key of an object.
pub(super) fn key(object: &impl ResourceExt) -> Key {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

/// A watch event whose object can be handed on without copying it.
pub(super) fn shared<K>(event: Event<K>) -> Event<Arc<K>> {
    match event {
        Event::Apply(object) => Event::Apply(Arc::new(object)),
        Event::Delete(object) => Event::Delete(Arc::new(object)),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(Arc::new(object)),
        Event::InitDone => Event::InitDone,
    }
}

/// An object before and after a change.
pub(super) type Change<K> = (Option<Arc<K>>, Option<Arc<K>>);

/// All objects of a kind.
#[derive(Debug)]
pub(super) struct Cache<K> {
    objects: HashMap<Key, Arc<K>>,
    /// What a list under way has told so far.
    incoming: HashMap<Key, Arc<K>>,
    synced: bool,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self { objects: HashMap::new(), incoming: HashMap::new(), synced: false }
    }
}

impl<K: ResourceExt> Cache<K> {
    /// Whether the first list is complete: before, nothing can be concluded from what is missing.
    pub(super) fn synced(&self) -> bool {
        self.synced
    }

    /// One object.
    pub(super) fn get(&self, key: &str) -> Option<&Arc<K>> {
        self.objects.get(key)
    }

    /// All objects.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }

    /// Takes a watch event; says what is different now.
    pub(super) fn take(&mut self, event: Event<Arc<K>>) -> Vec<Change<K>> {
        match event {
            Event::Apply(object) => {
                let old = self.objects.insert(key(&*object), Arc::clone(&object));
                vec![(old, Some(object))]
            }
            Event::Delete(object) => {
                let old = self.objects.remove(&key(&*object)).or(Some(object));
                vec![(old, None)]
            }
            Event::Init => {
                self.incoming.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.incoming.insert(key(&*object), object);
                Vec::new()
            }
            Event::InitDone => {
                self.synced = true;
                let mut old = std::mem::replace(&mut self.objects, std::mem::take(&mut self.incoming));
                let mut changes: Vec<Change<K>> =
                    self.objects.iter().map(|(key, new)| (old.remove(key), Some(Arc::clone(new)))).collect();
                changes.extend(old.into_values().map(|gone| (Some(gone), None)));
                changes
            }
        }
    }

    /// Puts what an own write returned, unless the watch was faster.
    pub(super) fn put(&mut self, object: K) {
        self.objects.entry(key(&object)).or_insert_with(|| Arc::new(object));
    }

    /// Changes an object as an own write will have.
    pub(super) fn touch(&mut self, key: &str, change: impl FnOnce(&mut K))
    where
        K: Clone,
    {
        if let Some(object) = self.objects.get_mut(key) {
            change(Arc::make_mut(object));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn object(name: &str) -> Arc<ConfigMap> {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.into());
        Arc::new(object)
    }

    #[test]
    fn a_relist_tells_what_went_away_in_between() {
        let mut cache = Cache::default();
        cache.take(Event::Init);
        cache.take(Event::InitApply(object("a")));
        cache.take(Event::InitApply(object("b")));
        assert!(!cache.synced());
        assert_eq!(cache.take(Event::InitDone).len(), 2);
        assert!(cache.synced());
        cache.take(Event::Init);
        cache.take(Event::InitApply(object("b")));
        assert!(cache.get("/a").is_some(), "old objects stay until the list is complete");
        let gone: Vec<_> = cache.take(Event::InitDone).into_iter().filter(|(_, new)| new.is_none()).collect();
        assert_eq!(gone.len(), 1);
        assert!(cache.get("/a").is_none());
    }
}
