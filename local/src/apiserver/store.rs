//! The objects: what is true now, what has just changed, who is watching.
//!
//! State in memory is the truth; [`super::persist`] writes it behind. One `Mutex` guards all of it: every critical
//! section is a few look-ups and one serialisation (microseconds), nothing blocks and no `await` happens inside, and
//! it gives the total order that `resourceVersion` promises.
//!
//! An object is kept as the bytes that go on the wire plus the little a selector needs ([`Meta`]); it is parsed only
//! when somebody changes it. The bytes are a slice of the watch line `{"type":"MODIFIED","object":…}`, so an event is
//! serialised once, shared by every watcher, the history and the store.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;

use super::history::History;
use super::persist::{Persist, Record};
use super::registry::Resource;
use super::selector::Filter;

/// How many events may wait for one watcher before it is cut off (it resumes from its last resourceVersion).
const WATCH_BUFFER: usize = 4096;
/// How many watches may be open at once.
const MAX_WATCHES: usize = 4096;

/// Where an object lives in its collection; the namespace is empty for cluster-scoped kinds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectKey {
    /// Namespace or empty.
    pub(crate) namespace: Box<str>,
    /// Name.
    pub(crate) name: Box<str>,
}

impl ObjectKey {
    /// A key from its parts.
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// What selectors and garbage collection ask of an object.
#[derive(Debug)]
pub(crate) struct Meta {
    /// Namespace and name.
    pub(crate) key: ObjectKey,
    /// `metadata.uid`.
    pub(crate) uid: Box<str>,
    /// `metadata.labels`.
    pub(crate) labels: Box<[(Box<str>, Box<str>)]>,
    /// Values of the resource's selectable fields, in its order.
    pub(crate) fields: Box<[Box<str>]>,
    /// Uids of `metadata.ownerReferences`.
    pub(crate) owners: Box<[Box<str>]>,
}

impl Meta {
    /// The value of a label.
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(name, _)| &**name == key).map(|(_, value)| &**value)
    }

    fn of(resource: &Resource, key: ObjectKey, object: &Value) -> Self {
        let metadata = &object["metadata"];
        let text = |value: &Value| -> Box<str> {
            match value {
                Value::String(text) => text.as_str().into(),
                Value::Null => "".into(),
                other => other.to_string().into(),
            }
        };
        Self {
            key,
            uid: text(&metadata["uid"]),
            labels: metadata["labels"]
                .as_object()
                .map(|labels| labels.iter().map(|(k, v)| (k.as_str().into(), text(v))).collect())
                .unwrap_or_default(),
            fields: resource
                .selectable
                .iter()
                .map(|path| text(path.split('.').fold(object, |at, part| &at[part])))
                .collect(),
            owners: metadata["ownerReferences"]
                .as_array()
                .map(|owners| owners.iter().map(|owner| text(&owner["uid"])).collect())
                .unwrap_or_default(),
        }
    }
}

/// One version of one object.
#[derive(Debug)]
pub(crate) struct Stored {
    /// The whole object as JSON, in its storage version.
    pub(crate) json: Bytes,
    /// `metadata.resourceVersion`.
    pub(crate) resource_version: u64,
    /// What selectors look at.
    pub(crate) meta: Arc<Meta>,
}

impl Stored {
    /// The object parsed, for whoever is going to change it.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }
}

/// What happened to an object, as a watch names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happened {
    /// It came to be (or came into the selection).
    Added,
    /// It changed.
    Modified,
    /// It went (or left the selection).
    Deleted,
}

impl Happened {
    /// The event's `type`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change, shared by the history and all watchers.
#[derive(Debug)]
pub(crate) struct Event {
    /// What happened, seen without a selector.
    pub(crate) happened: Happened,
    /// The object after it (for a deletion: its last state with the deletion's resourceVersion).
    pub(crate) object: Arc<Stored>,
    /// What it looked like to selectors before.
    pub(crate) before: Option<Arc<Meta>>,
    /// The whole watch line, newline included.
    pub(crate) line: Bytes,
}

impl Event {
    /// What this change means to a watcher with a filter; `None`: nothing.
    pub(crate) fn seen_by(&self, filter: &Filter) -> Option<Happened> {
        let now = self.happened != Happened::Deleted && filter.matches(&self.object.meta);
        let before = self.before.as_ref().is_some_and(|meta| filter.matches(meta));
        match (before, now) {
            (false, true) => Some(Happened::Added),
            (true, true) => Some(Happened::Modified),
            (true, false) => Some(Happened::Deleted),
            (false, false) => None,
        }
    }
}

/// A watcher's end: events in order; closed by the store when the watcher is too slow.
pub(crate) type Events = mpsc::Receiver<(Happened, Arc<Event>)>;

struct Watcher {
    filter: Filter,
    sender: mpsc::Sender<(Happened, Arc<Event>)>,
}

#[derive(Default)]
struct Collection {
    objects: BTreeMap<ObjectKey, Arc<Stored>>,
    history: History,
    watchers: Vec<Watcher>,
}

struct State {
    resource_version: u64,
    collections: HashMap<Arc<str>, Collection>,
    /// Owner uid → objects that name it.
    dependents: HashMap<Box<str>, HashSet<(Arc<str>, ObjectKey)>>,
    /// Uid → where that object lives.
    living: HashMap<Box<str>, (Arc<str>, ObjectKey)>,
}

/// What must hold for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The object does not exist.
    Absent,
    /// The object is still at this resourceVersion.
    Version(u64),
}

/// What a write does.
#[derive(Debug)]
pub(crate) enum Change {
    /// The object becomes this.
    Put(Value),
    /// The object goes; this is its last state.
    Remove(Value),
}

/// Why a write did not happen.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum CommitError {
    /// Expected absent, but it is there.
    #[error("exists already")]
    Exists,
    /// Somebody else was faster.
    #[error("changed meanwhile")]
    Changed,
    /// It is gone.
    #[error("does not exist")]
    Missing,
    /// The disk refused earlier writes; taking more would be a lie.
    #[error("storage failed: {0}")]
    Storage(String),
}

/// One page of a collection.
#[derive(Debug)]
pub(crate) struct Page {
    /// The objects, in key order.
    pub(crate) items: Vec<Arc<Stored>>,
    /// The resourceVersion the page was read at.
    pub(crate) resource_version: u64,
    /// How many more would follow, when the page was cut.
    pub(crate) remaining: usize,
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// With everything there is, as `ADDED`.
    Everything,
    /// After this resourceVersion.
    After(u64),
    /// Now.
    Now,
}

/// Why a watch could not start.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum WatchError {
    /// The history does not reach back that far.
    #[error("too old resource version")]
    Expired {
        /// Oldest version a watch can resume from.
        oldest: u64,
    },
    /// Too many watches.
    #[error("too many watches")]
    TooMany,
}

/// The store.
pub(crate) struct Store {
    state: Mutex<State>,
    persist: Persist,
    born_at: u64,
}

impl Store {
    /// A store over what was read from disk.
    pub(crate) fn new(
        persist: Persist,
        records: Vec<Record>,
        resource_version: u64,
        find: impl Fn(&str) -> Option<Arc<Resource>>,
    ) -> Self {
        let mut state =
            State { resource_version, collections: HashMap::new(), dependents: HashMap::new(), living: HashMap::new() };
        let fallback = Resource::unknown();
        for record in records {
            let Ok(object) = serde_json::from_slice::<Value>(&record.json) else { continue };
            let resource = find(&record.collection);
            let resource = resource.as_deref().unwrap_or(&fallback);
            let collection: Arc<str> = record.collection.as_str().into();
            let meta = Arc::new(Meta::of(resource, record.key.clone(), &object));
            let version =
                object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok()).unwrap_or(resource_version);
            state.index(&collection, &meta);
            let stored = Arc::new(Stored { json: record.json, resource_version: version, meta });
            state.collections.entry(collection).or_default().objects.insert(record.key, stored);
        }
        Self { state: Mutex::new(state), persist, born_at: resource_version }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest resourceVersion.
    pub(crate) fn resource_version(&self) -> u64 {
        self.lock().resource_version
    }

    /// Whether writes reach the disk; the error when they do not.
    pub(crate) fn health(&self) -> Result<(), String> {
        self.persist.health()
    }

    /// Writes everything still queued and stops the writer. Further writes are refused.
    pub(crate) fn close(&self) {
        let version = self.lock().resource_version;
        self.persist.close(version);
    }

    /// One object.
    pub(crate) fn get(&self, collection: &str, key: &ObjectKey) -> Option<Arc<Stored>> {
        self.lock().collections.get(collection)?.objects.get(key).cloned()
    }

    /// Where the object with a uid lives, if it lives.
    pub(crate) fn find_uid(&self, uid: &str) -> Option<(Arc<str>, ObjectKey)> {
        self.lock().living.get(uid).cloned()
    }

    /// The objects that name a uid among their owners.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<(Arc<str>, ObjectKey)> {
        self.lock().dependents.get(uid).map(|set| set.iter().cloned().collect()).unwrap_or_default()
    }

    /// Every object that lives in a namespace.
    pub(crate) fn in_namespace(&self, namespace: &str) -> Vec<(Arc<str>, ObjectKey)> {
        let state = self.lock();
        let mut found = Vec::new();
        for (name, collection) in &state.collections {
            found.extend(range(&collection.objects, Some(namespace)).map(|(key, _)| (name.clone(), key.clone())));
        }
        found
    }

    /// A page of a collection: what passes the filter, after a key, at most `limit` (0: all).
    pub(crate) fn list(&self, collection: &str, filter: &Filter, after: Option<&ObjectKey>, limit: usize) -> Page {
        let state = self.lock();
        let mut page = Page { items: Vec::new(), resource_version: state.resource_version, remaining: 0 };
        let Some(collection) = state.collections.get(collection) else { return page };
        for (key, stored) in range(&collection.objects, filter.namespace.as_deref()) {
            if after.is_some_and(|after| key <= after) || !filter.matches(&stored.meta) {
                continue;
            }
            if limit > 0 && page.items.len() == limit {
                page.remaining += 1;
            } else {
                page.items.push(stored.clone());
            }
        }
        page
    }

    /// Changes one object if `expect` holds; stamps the new resourceVersion, tells watchers, queues the disk write.
    pub(crate) fn commit(
        &self,
        resource: &Resource,
        key: &ObjectKey,
        expect: Expect,
        change: Change,
    ) -> Result<Arc<Stored>, CommitError> {
        self.persist.health().map_err(CommitError::Storage)?;
        let mut state = self.lock();
        let collection = resource.collection.clone();
        let before = state.collections.get(&collection).and_then(|c| c.objects.get(key)).cloned();
        match (expect, &before) {
            (Expect::Absent, Some(_)) => return Err(CommitError::Exists),
            (Expect::Version(_), None) => return Err(CommitError::Missing),
            (Expect::Version(version), Some(stored)) if stored.resource_version != version => {
                return Err(CommitError::Changed);
            }
            _ => {}
        }
        let (happened, mut object) = match change {
            Change::Remove(object) => (Happened::Deleted, object),
            Change::Put(object) if before.is_some() => (Happened::Modified, object),
            Change::Put(object) => (Happened::Added, object),
        };
        let version = state.resource_version + 1;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let (line, json) =
            watch_line(happened, &object).ok_or_else(|| CommitError::Storage("object is not JSON".to_owned()))?;
        let stored = Arc::new(Stored {
            json,
            resource_version: version,
            meta: Arc::new(Meta::of(resource, key.clone(), &object)),
        });
        state.resource_version = version;
        if let Some(before) = &before {
            state.forget(&collection, &before.meta);
        }
        if happened == Happened::Deleted {
            self.persist.remove(&collection, key, version);
        } else {
            self.persist.put(&collection, key, stored.json.clone(), version);
            state.index(&collection, &stored.meta);
        }
        let event = Arc::new(Event {
            happened,
            object: stored.clone(),
            before: before.map(|before| before.meta.clone()),
            line,
        });
        let entry = state.collections.entry(collection).or_default();
        if happened == Happened::Deleted {
            entry.objects.remove(key);
        } else {
            entry.objects.insert(key.clone(), stored.clone());
        }
        entry.watchers.retain(|watcher| match event.seen_by(&watcher.filter) {
            Some(seen) => watcher.sender.try_send((seen, event.clone())).is_ok(),
            None => !watcher.sender.is_closed(),
        });
        entry.history.push(event);
        Ok(stored)
    }

    /// Starts a watch: the objects to show first (for [`Start::Everything`]), the version they are at, and the
    /// events that follow. Nothing between the two is lost: both happen under the lock.
    pub(crate) fn watch(
        &self,
        collection: &Arc<str>,
        filter: Filter,
        start: Start,
    ) -> Result<(Vec<Arc<Stored>>, u64, Events), WatchError> {
        let mut state = self.lock();
        let version = state.resource_version;
        let open: usize = state.collections.values().map(|collection| collection.watchers.len()).sum();
        if open >= MAX_WATCHES {
            return Err(WatchError::TooMany);
        }
        let born_at = self.born_at;
        let entry = state.collections.entry(collection.clone()).or_default();
        let mut first = Vec::new();
        let mut missed = Vec::new();
        match start {
            Start::Now => {}
            Start::Everything => first.extend(
                range(&entry.objects, filter.namespace.as_deref())
                    .filter(|(_, stored)| filter.matches(&stored.meta))
                    .map(|(_, stored)| stored.clone()),
            ),
            Start::After(after) => {
                let oldest = entry.history.oldest().max(born_at);
                if after < oldest || after > version {
                    return Err(WatchError::Expired { oldest });
                }
                missed.extend(
                    entry.history.after(after).filter_map(|e| e.seen_by(&filter).map(|seen| (seen, e.clone()))),
                );
            }
        }
        let (sender, events) = mpsc::channel(WATCH_BUFFER);
        for item in missed {
            // The history is shorter than the buffer, so this always fits.
            let _ = sender.try_send(item);
        }
        entry.watchers.retain(|watcher| !watcher.sender.is_closed());
        entry.watchers.push(Watcher { filter, sender });
        Ok((first, version, events))
    }

    /// Forgets a whole collection's watchers (its CRD changed or went): they are closed and will list again.
    pub(crate) fn close_watchers(&self, collection: &str) {
        if let Some(entry) = self.lock().collections.get_mut(collection) {
            entry.watchers.clear();
        }
    }
}

impl State {
    fn index(&mut self, collection: &Arc<str>, meta: &Meta) {
        self.living.insert(meta.uid.clone(), (collection.clone(), meta.key.clone()));
        for owner in &meta.owners {
            self.dependents.entry(owner.clone()).or_default().insert((collection.clone(), meta.key.clone()));
        }
    }

    fn forget(&mut self, collection: &Arc<str>, meta: &Meta) {
        self.living.remove(&meta.uid);
        for owner in &meta.owners {
            if let Some(set) = self.dependents.get_mut(owner) {
                set.remove(&(collection.clone(), meta.key.clone()));
                if set.is_empty() {
                    self.dependents.remove(owner);
                }
            }
        }
    }
}

fn range<'a>(
    objects: &'a BTreeMap<ObjectKey, Arc<Stored>>,
    namespace: Option<&'a str>,
) -> impl Iterator<Item = (&'a ObjectKey, &'a Arc<Stored>)> {
    let from = namespace.map_or(Bound::Unbounded, |namespace| Bound::Included(ObjectKey::new(namespace, "")));
    objects
        .range((from, Bound::Unbounded))
        .take_while(move |(key, _)| namespace.is_none_or(|namespace| &*key.namespace == namespace))
}

/// Serialises the watch line; the second part is the object within it.
fn watch_line(happened: Happened, object: &Value) -> Option<(Bytes, Bytes)> {
    let mut line = Vec::with_capacity(1024);
    line.extend_from_slice(br#"{"type":""#);
    line.extend_from_slice(happened.word().as_bytes());
    line.extend_from_slice(br#"","object":"#);
    let from = line.len();
    serde_json::to_writer(&mut line, object).ok()?;
    let to = line.len();
    line.extend_from_slice(b"}\n");
    line.shrink_to_fit();
    let line = Bytes::from(line);
    let json = line.slice(from..to);
    Some((line, json))
}
