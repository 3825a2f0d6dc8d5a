//! What follows from a deletion: dependents go with their owners, namespaces are emptied.
//!
//! One task, told of every removal by a [`Notice`]; it does to others what a client could do, by the same functions.
use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;

use super::handlers::delete::{DeleteOptions, FOREGROUND, ORPHAN, remove};
use super::registry::Resource;
use super::server::Server;
use super::store::{Change, CommitError, Expect, ObjectKey};

/// Something the collector may have to act on.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    /// An object is gone: its uid, its namespace.
    Gone(Box<str>, Box<str>),
    /// An object is marked for deletion and waits.
    Marked(Arc<str>, ObjectKey),
    /// An object was created whose owner may not live.
    Created(Arc<str>, ObjectKey),
}

/// Runs until the server stops.
pub(crate) async fn run(server: Arc<Server>, mut notices: mpsc::UnboundedReceiver<Notice>) {
    let mut waiting: HashSet<(Arc<str>, ObjectKey)> = HashSet::new();
    loop {
        let notice = tokio::select! {
            notice = notices.recv() => notice,
            () = server.stopping.cancelled() => return,
        };
        match notice {
            None => return,
            Some(Notice::Gone(uid, namespace)) => {
                for (collection, key) in server.store.dependents(&uid) {
                    release(&server, &collection, &key);
                }
                // Owners that wait for their dependents, and the namespace if it is going.
                for (collection, key) in waiting.clone() {
                    let concerned = &*collection != "/namespaces" || *key.name == *namespace;
                    if concerned && advance(&server, &collection, &key) {
                        waiting.remove(&(collection, key));
                    }
                }
            }
            Some(Notice::Marked(collection, key)) => {
                if !advance(&server, &collection, &key) {
                    waiting.insert((collection, key));
                }
            }
            Some(Notice::Created(collection, key)) => release(&server, &collection, &key),
        }
        // One deletion can set off many; others get a turn in between.
        tokio::task::yield_now().await;
    }
}

/// Everything that waits on disk at the start.
pub(crate) fn resume(server: &Server) {
    let table = server.registry.table();
    for resource in table.iter().filter(|resource| resource.api_version() == resource.storage_api_version) {
        let page = server.store.list(&resource.collection, &super::selector::Filter::default(), None, 0);
        for stored in page.items {
            // A look at the text is enough to leave most objects unparsed.
            if memchr(&stored.json, b"\"deletionTimestamp\"") {
                server.tell(Notice::Marked(resource.collection.clone(), stored.meta.key.clone()));
            }
            if stored.meta.owners.iter().any(|owner| server.store.find_uid(owner).is_none()) {
                server.tell(Notice::Created(resource.collection.clone(), stored.meta.key.clone()));
            }
        }
    }
}

fn memchr(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn resource_of(server: &Server, collection: &str) -> Option<Arc<Resource>> {
    server.registry.table().by_collection(collection).cloned()
}

/// Deletes an object none of whose owners lives; drops the references to owners that do not live from others.
fn release(server: &Arc<Server>, collection: &Arc<str>, key: &ObjectKey) {
    let Some(resource) = resource_of(server, collection) else { return };
    let Some(stored) = server.store.get(collection, key) else { return };
    let living = |owner: &str| server.store.find_uid(owner).is_some();
    if stored.meta.owners.is_empty() || stored.meta.owners.iter().all(|owner| living(owner)) {
        return;
    }
    if stored.meta.owners.iter().any(|owner| living(owner)) {
        drop_references(server, &resource, key, &|uid| living(uid));
        return;
    }
    let options = DeleteOptions {
        propagation: Some("Background".to_owned()),
        uid: Some(stored.meta.uid.to_string()),
        ..DeleteOptions::default()
    };
    if let Err(error) = remove(server, &resource, key, &options)
        && error.reason != "NotFound"
    {
        tracing::warn!(resource = %resource.plural, name = %key.name, %error, "dependent could not be deleted");
    }
}

/// Takes a marked object a step on; whether nothing more is to be done here.
fn advance(server: &Arc<Server>, collection: &Arc<str>, key: &ObjectKey) -> bool {
    let Some(resource) = resource_of(server, collection) else { return true };
    let Some(stored) = server.store.get(collection, key) else { return true };
    let object = stored.value();
    if object["metadata"]["deletionTimestamp"].is_null() {
        return true;
    }
    if resource.is("", "namespaces") {
        return empty_namespace(server, &resource, key);
    }
    let has = |finalizer: &str| {
        object["metadata"]["finalizers"].as_array().is_some_and(|list| list.iter().any(|f| f == finalizer))
    };
    let uid = &*stored.meta.uid;
    if has(ORPHAN) {
        for (collection, dependent) in server.store.dependents(uid) {
            if let Some(resource) = resource_of(server, &collection) {
                drop_references(server, &resource, &dependent, &|owner| owner != uid);
            }
        }
        drop_finalizer(server, &resource, key, ORPHAN);
        return true;
    }
    if !has(FOREGROUND) {
        return true;
    }
    let dependents = server.store.dependents(uid);
    for (collection, dependent) in &dependents {
        let Some(resource) = resource_of(server, collection) else { continue };
        let options = DeleteOptions { propagation: Some("Foreground".to_owned()), ..DeleteOptions::default() };
        let already = server
            .store
            .get(collection, dependent)
            .is_some_and(|stored| stored.value()["metadata"]["deletionTimestamp"].is_string());
        if !already {
            let _ = remove(server, &resource, dependent, &options);
        }
    }
    let blocked = server.store.dependents(uid).iter().any(|(collection, dependent)| {
        server.store.get(collection, dependent).is_some_and(|stored| {
            let owners = &stored.value()["metadata"]["ownerReferences"];
            owners
                .as_array()
                .into_iter()
                .flatten()
                .any(|owner| owner["uid"] == uid && owner["blockOwnerDeletion"] == true)
        })
    });
    if blocked {
        return false;
    }
    drop_finalizer(server, &resource, key, FOREGROUND);
    true
}

/// Deletes what is in a namespace; the namespace itself once nothing is left.
fn empty_namespace(server: &Arc<Server>, resource: &Arc<Resource>, key: &ObjectKey) -> bool {
    for (collection, object) in server.store.in_namespace(&key.name) {
        let Some(resource) = resource_of(server, &collection) else { continue };
        let marked = server
            .store
            .get(&collection, &object)
            .is_some_and(|stored| stored.value()["metadata"]["deletionTimestamp"].is_string());
        if !marked {
            let _ = remove(server, &resource, &object, &DeleteOptions::default());
        }
    }
    if !server.store.in_namespace(&key.name).is_empty() {
        return false;
    }
    change(server, resource, key, |object| {
        if let Some(spec) = object["spec"].as_object_mut() {
            spec.remove("finalizers");
        }
        true
    });
    true
}

fn drop_finalizer(server: &Arc<Server>, resource: &Arc<Resource>, key: &ObjectKey, finalizer: &str) {
    change(server, resource, key, |object| {
        if let Some(list) = object["metadata"].get_mut("finalizers").and_then(Value::as_array_mut) {
            list.retain(|f| f != finalizer);
            return list.is_empty();
        }
        true
    });
}

fn drop_references(server: &Arc<Server>, resource: &Arc<Resource>, key: &ObjectKey, stays: &dyn Fn(&str) -> bool) {
    change(server, resource, key, |object| {
        if let Some(list) = object["metadata"].get_mut("ownerReferences").and_then(Value::as_array_mut) {
            list.retain(|owner| owner["uid"].as_str().is_some_and(stays));
        }
        false
    });
}

/// Changes an object; removes it when the function says that nothing holds it any more and it is marked.
fn change(server: &Arc<Server>, resource: &Arc<Resource>, key: &ObjectKey, edit: impl Fn(&mut Value) -> bool) {
    while let Some(stored) = server.store.get(&resource.collection, key) {
        let mut object = stored.value();
        let free = edit(&mut object);
        let grace = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        let gone = free && object["metadata"]["deletionTimestamp"].is_string() && grace == 0;
        let change = if gone { Change::Remove(object) } else { Change::Put(object) };
        match server.store.commit(resource, key, Expect::Version(stored.resource_version), change) {
            Ok(stored) => {
                if gone {
                    server.after_removal(resource, &stored);
                }
                return;
            }
            Err(CommitError::Changed) => {}
            Err(_) => return,
        }
    }
}
