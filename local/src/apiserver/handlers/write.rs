//! `create`, `update` and `patch`: from a body to a stored object.
//!
//! All changes of an existing object go through [`modify`]: read, compute without a lock, commit if nobody was faster,
//! else again.
use std::sync::Arc;

use serde_json::{Value, json};

use super::check::{admitted, check_namespace, check_type, checked, valid};
use super::{Call, Reply, Shape, keep, reply_bytes, shaped, warn};
use crate::apiserver::admission::Operation;
use crate::apiserver::convert;
use crate::apiserver::errors::{ApiError, Cause};
use crate::apiserver::patch::{self, Kind, apply::Applier};
use crate::apiserver::registry::Resource;
use crate::apiserver::server::{Server, now};
use crate::apiserver::store::{Change, CommitError, Expect, ObjectKey, Stored};
use crate::apiserver::{names, strategy, validate};

/// How often a patch is tried again when others change the object at the same time.
const ATTEMPTS: usize = 32;
/// Letters of generated names, as in the real server: no vowels, nothing that looks like another.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Creates an object from the body.
pub(crate) fn create(server: &Arc<Server>, call: &Call) -> Result<Reply, ApiError> {
    let mut object = call.json()?;
    check_type(call, &mut object)?;
    let mut warnings = Vec::new();
    let object = create_object(server, call, object, &mut warnings)?;
    Ok(finish(call, 201, object, &warnings))
}

/// What a write leaves: the stored object, or with dry run the one that would be.
pub(crate) enum Outcome {
    /// Stored.
    Stored(Arc<Stored>),
    /// Not stored.
    Dry(Value),
}

fn create_object(
    server: &Arc<Server>,
    call: &Call,
    mut object: Value,
    warnings: &mut Vec<String>,
) -> Result<Outcome, ApiError> {
    let resource = &call.resource;
    let named = resource.group_resource();
    if object["metadata"].is_null() {
        object["metadata"] = json!({});
    }
    let metadata = object["metadata"].as_object_mut().ok_or_else(|| ApiError::bad_request("metadata must be a map"))?;
    if metadata.get("resourceVersion").and_then(Value::as_str).is_some_and(|version| !version.is_empty()) {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    if resource.namespaced {
        let theirs = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
        if !theirs.is_empty() && theirs != call.namespace() {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        metadata.insert("namespace".to_owned(), call.namespace().into());
    } else {
        metadata.remove("namespace");
    }
    for written_by_us in [
        "resourceVersion",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "selfLink",
    ] {
        metadata.remove(written_by_us);
    }
    if metadata.get("managedFields").is_some_and(|fields| !fields.is_array() || call.path.name.is_none()) {
        metadata.remove("managedFields");
    }
    let mut name = metadata.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let generate = metadata.get("generateName").and_then(Value::as_str).unwrap_or_default().to_owned();
    let generated = name.is_empty() && !generate.is_empty();
    if generated {
        let random: String = (0..5).map(|_| char::from(ALPHABET[fastrand::usize(..ALPHABET.len())])).collect();
        let base: String = generate.chars().take(58).collect();
        name = format!("{base}{random}");
        metadata.insert("name".to_owned(), name.clone().into());
    }
    if name.is_empty() {
        let cause = Cause {
            reason: "FieldValueRequired",
            field: "metadata.name".to_owned(),
            message: "Required value: name or generateName is required".to_owned(),
        };
        return Err(ApiError::invalid(&resource.group, &resource.kind, "", &[cause]));
    }
    if call.path.name.as_ref().is_some_and(|path| *path != name) {
        return Err(name_mismatch(&name, call.name()));
    }
    let asked_for = resource;
    let resource = &*server.stored(asked_for);
    into_stored(server, &mut object, &name, call, resource, warnings)?;
    if resource.status {
        object.as_object_mut().map(|map| map.remove("status"));
    }
    strategy::prepare(resource, &mut object, true);
    valid(resource, &object, &name)?;
    check_namespace(server, call, &name)?;
    object = admitted(server, call, resource, &name, Operation::Create, None, object)?;
    let stamp = now();
    let metadata = &mut object["metadata"];
    metadata["uid"] = uuid::Uuid::new_v4().to_string().into();
    metadata["creationTimestamp"] = stamp.clone().into();
    if resource.generation {
        metadata["generation"] = 1.into();
    }
    if resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
        object["status"] = crate::apiserver::crd::established(&object, &stamp);
    }
    if call.options.dry_run {
        if server.store.get(&resource.collection, &ObjectKey::new(call.namespace(), &name)).is_some() {
            return Err(ApiError::already_exists(&named, &name));
        }
        convert::to_requested(asked_for, &mut object);
        return Ok(Outcome::Dry(object));
    }
    let key = ObjectKey::new(call.namespace(), &name);
    let stored =
        server.store.commit(resource, &key, Expect::Absent, Change::Put(object)).map_err(|error| match error {
            CommitError::Exists => ApiError::already_exists(&named, &name),
            other => ApiError::internal(other),
        })?;
    server.after_write(resource, &stored);
    Ok(Outcome::Stored(stored))
}

/// Checks an object in the client's version and makes it what is stored, in the version `stored`.
fn into_stored(
    server: &Server,
    object: &mut Value,
    name: &str,
    call: &Call,
    stored: &Resource,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    checked(server, object, name, call, &call.resource, warnings)?;
    if convert::is_identity(&call.resource) {
        return Ok(());
    }
    convert::to_storage(&call.resource, object)?;
    // An older version may be described in less detail.
    checked(server, object, name, call, stored, warnings)
}

fn name_mismatch(object: &str, path: &str) -> ApiError {
    ApiError::bad_request(format!("the name of the object ({object}) does not match the name on the URL ({path})"))
}

/// Replaces an object (or its status) by the body.
pub(crate) fn update(server: &Arc<Server>, call: &Call) -> Result<Reply, ApiError> {
    let mut body = call.json()?;
    check_type(call, &mut body)?;
    let name = body["metadata"]["name"].as_str().unwrap_or_default();
    if name != call.name() {
        return Err(name_mismatch(name, call.name()));
    }
    let mut warnings = Vec::new();
    let outcome = modify(server, call, &mut warnings, |_, _| Ok(body.clone()))?;
    Ok(finish(call, 200, outcome, &warnings))
}

/// Changes an object (or its status) as the body says; applying creates what is not there.
pub(crate) fn patch(server: &Arc<Server>, call: &Call) -> Result<Reply, ApiError> {
    let kind = patch_kind(call)?;
    let body = call.json()?;
    let resource = &call.resource;
    let mut warnings = Vec::new();
    if kind == Kind::Apply {
        if call.options.field_manager.is_empty() {
            let cause = Cause {
                reason: "FieldValueRequired",
                field: "fieldManager".to_owned(),
                message: "Required value: is required for apply patch".to_owned(),
            };
            return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", &[cause]));
        }
        return apply(server, call, body);
    }
    let outcome = modify(server, call, &mut warnings, |current, _| patched(kind, current, &body, resource))?;
    Ok(finish(call, 200, outcome, &warnings))
}

/// The kind of patch the content type names, if the resource takes it.
pub(crate) fn patch_kind(call: &Call) -> Result<Kind, ApiError> {
    let accepted = if call.resource.custom {
        "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
    } else {
        "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, \
         application/apply-patch+yaml"
    };
    Kind::of(&call.content_type).filter(|kind| !(call.resource.custom && *kind == Kind::Strategic)).ok_or_else(|| {
        ApiError::unsupported_media(format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        ))
    })
}

/// Applies one of the three patches that say what to change.
pub(crate) fn patched(kind: Kind, current: &Value, body: &Value, resource: &Resource) -> Result<Value, ApiError> {
    match kind {
        Kind::Json => patch::json::apply(current.clone(), body),
        Kind::Merge | Kind::Strategic | Kind::Apply => {
            if !body.is_object() {
                return Err(ApiError::bad_request("error decoding patch: the patch must be a map"));
            }
            let mut next = current.clone();
            if kind == Kind::Strategic {
                patch::strategic::apply(&mut next, body, &resource.schema);
            } else {
                patch::merge::apply(&mut next, body);
            }
            Ok(next)
        }
    }
}

fn apply(server: &Arc<Server>, call: &Call, mut body: Value) -> Result<Reply, ApiError> {
    let resource = &call.resource;
    if body["apiVersion"].is_null() || body["kind"].is_null() {
        return Err(ApiError::bad_request(format!(
            "invalid object type: {}, Kind={}",
            body["apiVersion"].as_str().unwrap_or("/"),
            body["kind"].as_str().unwrap_or_default()
        )));
    }
    check_type(call, &mut body)?;
    if let Some(name) = body["metadata"]["name"].as_str().filter(|name| *name != call.name()) {
        return Err(name_mismatch(name, call.name()));
    }
    if !body["metadata"]["managedFields"].is_null() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let api_version = resource.api_version();
    let mut probe = body.clone();
    let findings = validate::check(&mut probe, &resource.schema);
    if let Some(field) = findings.unknown.first() {
        return Err(ApiError::new(
            500,
            "",
            format!(
                "failed to create typed patch object ({}{}; {api_version}, Kind={}): .{field}: field not declared in schema",
                if resource.namespaced { format!("{}/", call.namespace()) } else { String::new() },
                call.name(),
                resource.kind
            ),
        ));
    }
    let subresource = call.path.subresource.clone().unwrap_or_default();
    let mut warnings = Vec::new();
    for _ in 0..ATTEMPTS {
        let stamp = now();
        let who = Applier {
            manager: call.manager(),
            subresource: &subresource,
            api_version: &api_version,
            now: &stamp,
            force: call.options.force,
        };
        if server.store.get(&resource.collection, &call.key()).is_some() {
            let outcome = modify(server, call, &mut warnings, |current, _| {
                patch::apply::apply(current, &body, &resource.schema, who)
            });
            match outcome {
                Err(error) if error.reason == "NotFound" => continue,
                other => return Ok(finish(call, 200, other?, &warnings)),
            }
        }
        if !subresource.is_empty() {
            return Err(call.not_found());
        }
        let mut fresh = patch::apply::apply(&Value::Null, &body, &resource.schema, who)?;
        for field in ["apiVersion", "kind"] {
            fresh[field] = body[field].clone();
        }
        for field in ["name", "namespace"] {
            if !body["metadata"][field].is_null() {
                fresh["metadata"][field] = body["metadata"][field].clone();
            }
        }
        fresh["metadata"]["name"] = call.name().into();
        match create_object(server, call, fresh, &mut warnings) {
            Err(error) if error.reason == "AlreadyExists" => {}
            other => return Ok(finish(call, 201, other?, &warnings)),
        }
    }
    Err(ApiError::conflict(&resource.group_resource(), call.name()))
}

/// Reads, computes, commits; again when somebody else was faster and the computed object names no version.
/// The function is given the object in the client's version.
pub(crate) fn modify(
    server: &Arc<Server>,
    call: &Call,
    warnings: &mut Vec<String>,
    compute: impl Fn(&Value, &Stored) -> Result<Value, ApiError>,
) -> Result<Outcome, ApiError> {
    let asked_for = &call.resource;
    let resource = &*server.stored(asked_for);
    let key = call.key();
    for _ in 0..ATTEMPTS {
        let stored = server.store.get(&resource.collection, &key).ok_or_else(|| call.not_found())?;
        let new = compute(&convert::value(asked_for, &stored), &stored)?;
        warnings.clear();
        let old = stored.value();
        let mut next = settle(server, call, resource, &old, new, warnings)?;
        let same = next["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"];
        if same && unchanged(&old, &next) {
            return Ok(Outcome::Stored(stored));
        }
        if call.options.dry_run {
            convert::to_requested(asked_for, &mut next);
            return Ok(Outcome::Dry(next));
        }
        // A namespace goes only when it is empty: see `gc`.
        let gone = !resource.is("", "namespaces")
            && next["metadata"]["deletionTimestamp"].is_string()
            && next["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)
            && next["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0;
        let change = if gone { Change::Remove(next) } else { Change::Put(next) };
        match server.store.commit(resource, &key, Expect::Version(stored.resource_version), change) {
            Ok(stored) => {
                if gone {
                    server.after_removal(resource, &stored);
                } else {
                    server.after_write(resource, &stored);
                }
                return Ok(Outcome::Stored(stored));
            }
            Err(CommitError::Changed) => {}
            Err(CommitError::Missing) => return Err(call.not_found()),
            Err(other) => return Err(ApiError::internal(other)),
        }
    }
    Err(ApiError::conflict(&resource.group_resource(), call.name()))
}

/// Whether two versions differ in nothing but who manages fields and when they said so.
fn unchanged(old: &Value, new: &Value) -> bool {
    let stripped = |object: &Value| {
        let mut object = object.clone();
        for entry in object["metadata"].get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
            entry.as_object_mut().map(|entry| entry.remove("time"));
        }
        object
    };
    old == new || (new["metadata"].get("managedFields").is_some() && stripped(old) == stripped(new))
}

/// What an update leaves of what was asked: identity is kept, the part that belongs to the other subresource is kept,
/// defaults are filled in, checks are made, the generation counts. `new` is in the client's version; `resource`, `old`
/// and what comes out are as stored.
fn settle(
    server: &Arc<Server>,
    call: &Call,
    resource: &Resource,
    old: &Value,
    mut new: Value,
    warnings: &mut Vec<String>,
) -> Result<Value, ApiError> {
    let named = resource.group_resource();
    if !new["metadata"].is_object() {
        return Err(ApiError::bad_request("metadata must be a map"));
    }
    let asked = &new["metadata"]["resourceVersion"];
    if asked.as_str().is_some_and(|version| !version.is_empty() && *asked != old["metadata"]["resourceVersion"]) {
        return Err(ApiError::conflict(&named, call.name()));
    }
    let uid = &new["metadata"]["uid"];
    if uid.as_str().is_some_and(|given| !given.is_empty() && *uid != old["metadata"]["uid"]) {
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            uid.as_str().unwrap_or_default(),
            old["metadata"]["uid"].as_str().unwrap_or_default()
        );
        return Err(ApiError::conflict_because(&named, call.name(), &why));
    }
    if new["metadata"]["name"].as_str().is_some_and(|name| name != call.name()) {
        return Err(name_mismatch(new["metadata"]["name"].as_str().unwrap_or_default(), call.name()));
    }
    if let Some(late) = names::late_finalizers(old, &new) {
        return Err(ApiError::invalid(&resource.group, &resource.kind, call.name(), &[late]));
    }
    let status_only = resource.status && call.path.subresource.as_deref() == Some("status");
    new["apiVersion"] = call.resource.api_version().into();
    new["kind"] = resource.kind.clone().into();
    for kept in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "resourceVersion",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        keep(&mut new["metadata"], &old["metadata"], kept);
    }
    into_stored(server, &mut new, call.name(), call, resource, warnings)?;
    if status_only {
        let managed = new["metadata"].get("managedFields").cloned();
        let mut next = old.clone();
        keep(&mut next, &new, "status");
        if let Some(managed) = managed {
            next["metadata"]["managedFields"] = managed;
        }
        new = next;
    } else {
        if resource.status {
            keep(&mut new, old, "status");
        }
        strategy::prepare(resource, &mut new, false);
        valid(resource, &new, call.name())?;
        new = admitted(server, call, resource, call.name(), Operation::Update, Some(old), new)?;
        if resource.generation && specification_differs(resource, old, &new) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            new["metadata"]["generation"] = generation.into();
        }
    }
    if Kind::of(&call.content_type) != Some(Kind::Apply) {
        let api_version = resource.api_version();
        let stamp = now();
        let who = Applier {
            manager: call.manager(),
            subresource: call.path.subresource.as_deref().unwrap_or_default(),
            api_version: &api_version,
            now: &stamp,
            force: false,
        };
        patch::apply::note_update(old, &mut new, &resource.schema, who);
    }
    Ok(new)
}

fn specification_differs(resource: &Resource, old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return false };
    let counts = |name: &str| name != "metadata" && name != "apiVersion" && !(resource.status && name == "status");
    old.iter().any(|(name, value)| counts(name) && new.get(name) != Some(value))
        || new.keys().any(|name| counts(name) && !old.contains_key(name))
}

/// The answer to a write.
pub(crate) fn finish(call: &Call, code: u16, outcome: Outcome, warnings: &[String]) -> Reply {
    let mut reply = match outcome {
        Outcome::Stored(stored) if call.shape == Shape::Object => {
            reply_bytes(code, convert::json(&call.resource, &stored))
        }
        Outcome::Stored(stored) => shaped(call, code, convert::value(&call.resource, &stored)),
        Outcome::Dry(object) => shaped(call, code, object),
    };
    warn(reply.headers_mut(), warnings);
    reply
}
