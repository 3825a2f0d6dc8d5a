//! Between the version a client speaks and the version that is stored.
//!
//! Pure. CRDs convert by renaming (`conversion: None`); Events of the two groups have different field names.
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::registry::{Conversion, Resource};
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
pub(crate) fn to_storage(resource: &Resource, object: &mut Value) {
    object["apiVersion"] = resource.storage_api_version.clone().into();
    if resource.conversion == Conversion::Events && !is_identity(resource) {
        for (theirs, stored) in EVENT_FIELDS {
            rename(object, theirs, stored);
        }
        if object["reportingInstance"].is_null() {
            object["reportingInstance"] = json!("");
        }
    }
}

/// From what is stored to what the client speaks.
pub(crate) fn to_requested(resource: &Resource, object: &mut Value) {
    object["apiVersion"] = resource.api_version().into();
    if resource.conversion == Conversion::Events && !is_identity(resource) {
        for (theirs, stored) in EVENT_FIELDS {
            rename(object, stored, theirs);
        }
        // Events written by the core API have no eventTime; the newer type requires the field.
        if object.get("eventTime").is_none() {
            object["eventTime"] = Value::Null;
        }
    }
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
    if !is_identity(resource) {
        to_requested(resource, &mut object);
    }
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
