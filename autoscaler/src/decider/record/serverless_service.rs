//! A ServerlessService, as it is kept.

use std::sync::Arc;

use api::networking::{ObjectRef, ServerlessService, ServerlessServiceSpec, ServerlessServiceStatus};

use super::{
    PaRecord, Shared,
    conditions::Conditions,
    metadata::{Controller, Generation, controller, metadata, uid_hash, version},
    name::Name,
};
use crate::key::Key;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct SksSpec {
    mode: Option<String>,
    target_api_version: Option<String>,
    target_kind: Option<String>,
    protocol_type: String,
}

#[derive(Debug)]
struct Status {
    observed_generation: Generation,
    conditions: Conditions,
    service_name: Name,
    private_service_name: Name,
}

/// A ServerlessService.
#[derive(Debug)]
pub(in crate::decider) struct SksRecord {
    version: u64,
    uid: u64,
    controller: Option<Controller>,
    generation: Generation,
    spec: Arc<SksSpec>,
    target: Name,
    num_activators: Option<i32>,
    status: Option<Status>,
}

impl SksRecord {
    pub(in crate::decider) fn of(key: &Key, sks: ServerlessService, shared: &mut Shared) -> Self {
        let ServerlessService { metadata, spec, status } = sks;
        Self {
            version: version(&metadata),
            uid: uid_hash(&metadata),
            controller: controller(&metadata),
            generation: Generation::of(metadata.generation),
            target: Name::of(spec.object_ref.name.as_deref(), key),
            num_activators: spec.num_activators,
            spec: shared.sks_specs.share(SksSpec {
                mode: spec.mode,
                target_api_version: spec.object_ref.api_version,
                target_kind: spec.object_ref.kind,
                protocol_type: spec.protocol_type,
            }),
            status: status.map(|status| Status {
                observed_generation: Generation::of(status.observed_generation),
                conditions: Conditions::of(status.conditions, shared),
                service_name: Name::of(status.service_name.as_deref(), key),
                private_service_name: Name::of(status.private_service_name.as_deref(), key),
            }),
        }
    }

    /// The object, as far as it is kept.
    pub(in crate::decider) fn object(&self, key: &Key, pa: &PaRecord) -> ServerlessService {
        ServerlessService {
            metadata: metadata(key, self.version, self.controller, pa, self.generation),
            spec: ServerlessServiceSpec {
                mode: self.spec.mode.clone(),
                object_ref: ObjectRef {
                    api_version: self.spec.target_api_version.clone(),
                    kind: self.spec.target_kind.clone(),
                    name: self.target.text(key),
                },
                protocol_type: self.spec.protocol_type.clone(),
                num_activators: self.num_activators,
            },
            status: self.status.as_ref().map(|status| ServerlessServiceStatus {
                observed_generation: status.observed_generation.number(),
                conditions: status.conditions.list(),
                service_name: status.service_name.text(key),
                private_service_name: status.private_service_name.text(key),
            }),
        }
    }

    /// Whether activators carry the revision, as far as the spec says.
    pub(in crate::decider) fn is_proxy(&self) -> bool {
        self.spec.mode.as_deref() == Some(api::networking::MODE_PROXY)
    }

    /// Whether this is an older state of the same object than `known`.
    pub(in crate::decider) fn is_older_than(&self, known: &Self) -> bool {
        self.uid == known.uid && self.version < known.version
    }
}
