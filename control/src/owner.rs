//! How an object says whose it is, and what it inherits.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};

use crate::v1alpha1;

/// What kubectl remembers of an apply; belongs to the object it was applied to alone.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Whether an annotation is about the object that it is on, and not about what is made of it.
pub fn is_its_own(annotation: &str) -> bool {
    annotation == LAST_APPLIED || annotation == v1alpha1::FORM
}

/// Labels or annotations.
pub type Map = BTreeMap<String, String>;

/// The reference that makes `owner` the controller: deleting it deletes the child.
pub fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Metadata of a child in the owner's namespace.
pub fn child_metadata<K: Resource<DynamicType = ()>>(
    owner: &K,
    name: String,
    labels: Map,
    annotations: Map,
) -> ObjectMeta {
    let some = |map: Map| (!map.is_empty()).then_some(map);
    ObjectMeta {
        name: Some(name),
        namespace: owner.namespace(),
        labels: some(labels),
        annotations: some(annotations),
        owner_references: Some(vec![controller_reference(owner)]),
        ..ObjectMeta::default()
    }
}

/// `map` without the keys that `drop` names.
pub fn without(map: &Map, drop: impl Fn(&str) -> bool) -> Map {
    map.iter().filter(|(key, _)| !drop(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// `map` with one more entry.
pub fn with(mut map: Map, key: &str, value: impl Into<String>) -> Map {
    map.insert(key.to_owned(), value.into());
    map
}

/// `There is an existing KIND "NAME" that we do not own.`
pub fn not_owned_message(kind: &str, name: &str) -> String {
    format!("There is an existing {kind} {name:?} that we do not own.")
}

/// Members of a comma separated annotation.
pub fn list_value<'a>(annotations: &'a Map, key: &str) -> std::collections::BTreeSet<&'a str> {
    annotations.get(key).map(|v| v.split(',').filter(|s| !s.is_empty()).collect()).unwrap_or_default()
}
