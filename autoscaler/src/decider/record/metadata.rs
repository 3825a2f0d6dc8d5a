//! Metadata of objects, as far as anybody here looks at it.

use std::num::{NonZeroI64, NonZeroU64};

use api::hash::fnv1a;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;

use super::{PaRecord, name::Uid};
use crate::key::Key;

/// A generation. They begin with one; a zero counts as none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Generation(Option<NonZeroI64>);

impl Generation {
    pub(super) fn of(number: Option<i64>) -> Self {
        Self(number.and_then(NonZeroI64::new))
    }

    pub(super) fn number(self) -> Option<i64> {
        self.0.map(NonZeroI64::get)
    }
}

/// Enough of an owner's uid to tell it from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Controller(NonZeroU64);

impl Controller {
    fn of(uid: &str) -> Self {
        Self(NonZeroU64::new(fnv1a(uid.as_bytes())).unwrap_or(NonZeroU64::MIN))
    }
}

/// Enough of a uid to tell two of them apart.
pub(super) fn uid_hash(metadata: &ObjectMeta) -> u64 {
    metadata.uid.as_deref().map_or(0, |uid| fnv1a(uid.as_bytes()))
}

/// Who controls an object.
pub(super) fn controller(metadata: &ObjectMeta) -> Option<Controller> {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true)).map(|owner| Controller::of(&owner.uid))
}

/// Metadata as far as anybody here looks at it; of a controller that is not the revision's it says just that.
pub(super) fn metadata(
    key: &Key,
    version: u64,
    controller: Option<Controller>,
    pa: &PaRecord,
    generation: Generation,
) -> ObjectMeta {
    let uid = pa.uid.as_ref().map(Uid::text).unwrap_or_default();
    let owner = controller.map(|controller| {
        let uid = if controller == Controller::of(&uid) { uid } else { "another".to_owned() };
        vec![OwnerReference { uid, controller: Some(true), ..OwnerReference::default() }]
    });
    ObjectMeta {
        name: Some(key.name().to_owned()),
        namespace: Some(key.namespace().to_owned()),
        resource_version: Some(version.to_string()),
        owner_references: owner,
        generation: generation.number(),
        ..ObjectMeta::default()
    }
}

/// The resource version as a number. Opaque by contract, but a counter in every API server there is; where it is not,
/// all versions are equal and the newest event wins.
pub(super) fn version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}
