//! `delete` and `deletecollection`: what goes at once, what is only marked, what waits for others.
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Call, Reply, reply};
use crate::apiserver::admission::{AdmissionRequest, Operation};
use crate::apiserver::convert;
use crate::apiserver::errors::{ApiError, Cause, GroupResource};
use crate::apiserver::gc::Notice;
use crate::apiserver::registry::Resource;
use crate::apiserver::selector::Filter;
use crate::apiserver::server::{Server, USER, now, seconds_from_now};
use crate::apiserver::store::{Change, CommitError, Expect, ObjectKey, Stored};

const ATTEMPTS: usize = 32;
/// Finalizers by which the garbage collector holds an owner.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// See [`FOREGROUND`].
pub(crate) const ORPHAN: &str = "orphan";

/// How to delete; from the query and the body.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    /// Seconds a pod may take to stop.
    pub(crate) grace: Option<i64>,
    /// `Foreground`, `Background`, `Orphan`.
    pub(crate) propagation: Option<String>,
    /// Only this very object.
    pub(crate) uid: Option<String>,
    /// Only this very version.
    pub(crate) resource_version: Option<String>,
    /// Only say what would happen.
    pub(crate) dry_run: bool,
}

/// What became of it.
pub(crate) enum Deleted {
    /// It is gone.
    Gone(Arc<Stored>),
    /// It is marked and goes later.
    Marked(Arc<Stored>),
}

impl DeleteOptions {
    fn of(call: &Call) -> Result<Self, ApiError> {
        let body = if call.body.is_empty() { Value::Null } else { call.json()? };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let orphan = call.options.orphan.or(body["orphanDependents"].as_bool());
        let options = Self {
            grace: body["gracePeriodSeconds"].as_i64().or(call.options.grace_period),
            propagation: text(&body["propagationPolicy"])
                .or_else(|| call.options.propagation.clone())
                .or_else(|| orphan.map(|orphan| if orphan { "Orphan" } else { "Background" }.to_owned())),
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
            dry_run: call.options.dry_run || body["dryRun"][0] == "All",
        };
        match options.propagation.as_deref() {
            None | Some("Foreground" | "Background" | "Orphan") => Ok(options),
            Some(other) => {
                let cause = Cause {
                    reason: "FieldValueNotSupported",
                    field: "propagationPolicy".to_owned(),
                    message: format!(
                        "Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \
                         \"nil\""
                    ),
                };
                Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", &[cause]))
            }
        }
    }
}

/// Deletes the object of the path.
pub(crate) fn delete(server: &Arc<Server>, call: &Call) -> Result<Reply, ApiError> {
    let options = DeleteOptions::of(call)?;
    let resource = &call.resource;
    match remove(server, resource, &call.key(), &options)? {
        Deleted::Marked(stored) => Ok(reply(200, &convert::value(resource, &stored))),
        // Graceful kinds answer with the object even when it went at once.
        Deleted::Gone(stored) if resource.is("", "pods") => Ok(reply(200, &convert::value(resource, &stored))),
        Deleted::Gone(stored) => {
            let mut details = json!({ "name": call.name(), "kind": resource.plural, "uid": &*stored.meta.uid });
            if !resource.group.is_empty() {
                details["group"] = resource.group.clone().into();
            }
            Ok(reply(
                200,
                &json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details }),
            ))
        }
    }
}

/// Deletes all objects a selector names.
pub(crate) fn delete_collection(server: &Arc<Server>, call: &Call) -> Result<Reply, ApiError> {
    let options = DeleteOptions::of(call)?;
    let resource = &call.resource;
    let filter = Filter::parse(
        call.path.namespace.clone(),
        &call.options.label_selector,
        &call.options.field_selector,
        &resource.selectable,
    )?;
    let page = server.store.list(&resource.collection, &filter, None, 0);
    let mut items = Vec::new();
    for stored in &page.items {
        match remove(server, resource, &stored.meta.key, &options) {
            Ok(_) => items.push(convert::value(resource, stored)),
            Err(error) if error.reason == "NotFound" => {}
            Err(error) => return Err(error),
        }
    }
    Ok(reply(
        200,
        &json!({
            "kind": resource.list_kind, "apiVersion": resource.api_version(),
            "metadata": { "resourceVersion": server.store.resource_version().to_string() }, "items": items,
        }),
    ))
}

/// Deletes one object: at once, or marks it when finalizers, grace or the garbage collector hold it.
pub(crate) fn remove(
    server: &Arc<Server>,
    resource: &Arc<Resource>,
    key: &ObjectKey,
    options: &DeleteOptions,
) -> Result<Deleted, ApiError> {
    let named = resource.group_resource();
    // Preconditions are told by the kind, all else by the resource.
    let by_kind = GroupResource { group: &resource.group, plural: &resource.kind };
    for _ in 0..ATTEMPTS {
        let stored =
            server.store.get(&resource.collection, key).ok_or_else(|| ApiError::not_found(&named, &key.name))?;
        if let Some(uid) = options.uid.as_deref().filter(|uid| **uid != *stored.meta.uid) {
            let why = format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been \
                 deleted and then recreated",
                stored.meta.uid
            );
            return Err(ApiError::conflict_because(&by_kind, &key.name, &why));
        }
        if let Some(version) = &options.resource_version
            && *version != stored.resource_version.to_string()
        {
            let why = format!(
                "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). \
                 The object might have been modified",
                stored.resource_version
            );
            return Err(ApiError::conflict_because(&by_kind, &key.name, &why));
        }
        let mut object = stored.value();
        admit(server, resource, key, &object, options.dry_run)?;
        let gone = mark(server, resource, &mut object, options, &stored);
        if options.dry_run {
            return Ok(Deleted::Gone(stored));
        }
        if !gone && object == stored.value() {
            return Ok(Deleted::Marked(stored));
        }
        let change = if gone { Change::Remove(object) } else { Change::Put(object) };
        match server.store.commit(resource, key, Expect::Version(stored.resource_version), change) {
            Ok(stored) if gone => {
                server.after_removal(resource, &stored);
                return Ok(Deleted::Gone(stored));
            }
            Ok(stored) => {
                server.tell(Notice::Marked(resource.collection.clone(), key.clone()));
                return Ok(Deleted::Marked(stored));
            }
            Err(CommitError::Changed) => {}
            Err(CommitError::Missing) => return Err(ApiError::not_found(&named, &key.name)),
            Err(other) => return Err(ApiError::internal(other)),
        }
    }
    Err(ApiError::conflict(&named, &key.name))
}

/// Writes into the object what its deletion means; whether it goes at once.
fn mark(server: &Server, resource: &Resource, object: &mut Value, options: &DeleteOptions, stored: &Stored) -> bool {
    let grace = grace_of(resource, object, options.grace);
    let namespace = resource.is("", "namespaces");
    let metadata = &mut object["metadata"];
    let mut finalizers: Vec<Value> = metadata["finalizers"].as_array().cloned().unwrap_or_default();
    let has_dependents = !server.store.dependents(&stored.meta.uid).is_empty();
    for (policy, finalizer) in [("Foreground", FOREGROUND), ("Orphan", ORPHAN)] {
        let wanted = options.propagation.as_deref() == Some(policy) && has_dependents;
        if wanted && !finalizers.iter().any(|f| f == finalizer) {
            finalizers.push(finalizer.into());
        }
    }
    let held = !finalizers.is_empty();
    if held {
        metadata["finalizers"] = finalizers.into();
    }
    let marked = metadata["deletionTimestamp"].is_string();
    // Pods go by way of a node, so even what goes at once is shown marked.
    if !(marked || held || namespace || grace > 0 || resource.is("", "pods")) {
        return true;
    }
    let shorter = metadata["deletionGracePeriodSeconds"].as_i64().is_none_or(|now| grace < now);
    if !marked {
        metadata["deletionTimestamp"] = if grace > 0 { seconds_from_now(grace) } else { now() }.into();
        metadata["deletionGracePeriodSeconds"] = grace.into();
        if resource.generation
            && let Some(generation) = metadata["generation"].as_i64()
        {
            metadata["generation"] = (generation + 1).into();
        }
    } else if shorter {
        metadata["deletionGracePeriodSeconds"] = grace.into();
    }
    let waits = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0;
    if namespace {
        object["status"]["phase"] = "Terminating".into();
        // The namespace goes when it is empty: see `gc`.
        return false;
    }
    !held && !waits
}

/// Only pods take time to stop, and only those a node runs.
fn grace_of(resource: &Resource, object: &Value, asked: Option<i64>) -> i64 {
    if !resource.is("", "pods") {
        return 0;
    }
    let finished = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if object["spec"]["nodeName"].as_str().unwrap_or_default().is_empty() || finished {
        return 0;
    }
    asked.or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30).max(0)
}

fn admit(server: &Server, resource: &Resource, key: &ObjectKey, old: &Value, dry_run: bool) -> Result<(), ApiError> {
    if !server.admission.handles(&resource.group, &resource.kind) {
        return Ok(());
    }
    let request = AdmissionRequest {
        group: resource.group.clone(),
        version: resource.version.clone(),
        kind: resource.kind.clone(),
        resource: resource.plural.clone(),
        subresource: String::new(),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        operation: Operation::Delete,
        old: Some(old.clone()),
        new: None,
        user: USER.to_owned(),
        dry_run,
    };
    server.admission.admit(request).map(drop).map_err(|denied| {
        let reason = if denied.code == 403 { "Forbidden" } else { "BadRequest" };
        ApiError::new(denied.code, reason, denied.to_string())
    })
}
