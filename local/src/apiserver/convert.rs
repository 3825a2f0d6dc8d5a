//! Between the version a client speaks and the version that is stored.
//!
//! Pure. CRDs convert by renaming (`conversion: None`) or by a function where a cluster would ask a webhook; Events of
//! the two groups have different field names.
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::errors::ApiError;
use super::registry::{Conversion, Convert, Resource};
use super::store::Stored;

/// Field names of `events.k8s.io/v1` and of core `v1`.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Whether stored objects go out as they are.
pub(crate) fn is_identity(resource: &Resource) -> bool {
    resource.storage_api_version == resource.api_version()
}

/// From what the client speaks to what is stored.
pub(crate) fn to_storage(resource: &Resource, object: &mut Value) -> Result<(), ApiError> {
    if is_identity(resource) {
        return Ok(());
    }
    match resource.conversion {
        Conversion::Rename => {}
        Conversion::Events => {
            for (theirs, stored) in EVENT_FIELDS {
                rename(object, theirs, stored);
            }
            if object["reportingInstance"].is_null() {
                object["reportingInstance"] = json!("");
            }
        }
        Conversion::Hook(convert) => *object = hooked(resource, convert, object.take(), &resource.storage_api_version)?,
    }
    object["apiVersion"] = resource.storage_api_version.clone().into();
    Ok(())
}

/// What the hook makes of an object; its refusal in the real server's words, said twice included.
fn hooked(resource: &Resource, convert: Convert, object: Value, to: &str) -> Result<Value, ApiError> {
    convert(object, to).map_err(|why| {
        let (version, kind) = (resource.api_version(), &resource.kind);
        ApiError::internal(format!(
            "Internal error occurred: conversion webhook for {version}, Kind={kind} failed: {why}"
        ))
    })
}

/// From what is stored to what the client speaks.
pub(crate) fn to_requested(resource: &Resource, object: &mut Value) {
    if is_identity(resource) {
        return;
    }
    let version = resource.api_version();
    match resource.conversion {
        Conversion::Rename => {}
        Conversion::Events => {
            for (theirs, stored) in EVENT_FIELDS {
                rename(object, stored, theirs);
            }
            // Events written by the core API have no eventTime; the newer type requires the field.
            if object.get("eventTime").is_none() {
                object["eventTime"] = Value::Null;
            }
        }
        // What is stored always has a counterpart; were it not so, it is better shown as it is than not at all.
        Conversion::Hook(convert) => *object = convert(object.clone(), &version).unwrap_or_else(|_| object.take()),
    }
    object["apiVersion"] = version.into();
}

fn rename(object: &mut Value, from: &str, to: &str) {
    if let Some(map) = object.as_object_mut()
        && let Some(value) = map.remove(from)
    {
        map.insert(to.to_owned(), value);
    }
}

/// A stored object parsed, in the client's version.
pub(crate) fn value(resource: &Resource, stored: &Stored) -> Value {
    let mut object = stored.value();
    to_requested(resource, &mut object);
    object
}

/// A stored object's JSON, in the client's version; shared, not copied, when that is the stored one.
pub(crate) fn json(resource: &Resource, stored: &Stored) -> Bytes {
    if is_identity(resource) {
        return stored.json.clone();
    }
    serde_json::to_vec(&value(resource, stored)).map_or_else(|_| stored.json.clone(), Bytes::from)
}

/// Only type and metadata, as `PartialObjectMetadata`.
pub(crate) fn metadata_only(mut object: Value) -> Value {
    let metadata = object.get_mut("metadata").map_or_else(|| Value::Object(Map::new()), Value::take);
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata })
}
