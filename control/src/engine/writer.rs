//! Writing to the API: the one place where requests are made, counted, and their answers told to the world.

use std::{fmt::Debug, sync::Arc};

use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::{NamespaceResourceScope, object::HasSpec},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::world::{Known, World};
use crate::metrics::Metrics;

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {kind} {namespace}/{name}: {source}")]
pub struct WriteError {
    /// `create`, `update`, …
    pub verb: &'static str,
    /// Kind of the object.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What the API server or the connection said.
    #[source]
    pub source: Box<kube::Error>,
}

impl WriteError {
    /// Someone else wrote in between, or made it first: the next look will know better.
    pub fn is_conflict(&self) -> bool {
        self.has_code(409)
    }

    /// The namespace or the object is gone.
    pub fn is_gone(&self) -> bool {
        self.has_code(404)
    }

    fn has_code(&self, code: u16) -> bool {
        matches!(&*self.source, kube::Error::Api(status) if status.code == code)
    }
}

/// See the module.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    world: Arc<World>,
    metrics: Metrics,
}

impl Writer {
    /// Writes with this client, tells this world.
    pub fn new(client: Client, world: Arc<World>, metrics: Metrics) -> Self {
        Self { client, world, metrics }
    }

    /// Makes an object.
    pub async fn create<K: Known>(&self, object: &K) -> Result<K, WriteError> {
        let answer = self.api::<K>(object).create(&PostParams::default(), object).await;
        self.told("create", object, answer)
    }

    /// Makes an object that nobody here watches; one that is there already is left as it is.
    pub async fn make<K>(&self, object: &K) -> Result<(), WriteError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
    {
        self.metrics.writes.with_label_values(&["create", K::kind(&()).as_ref()]).inc();
        let api: Api<K> = Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default());
        match api.create(&PostParams::default(), object).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(source) => Err(error("create", object, source)),
        }
    }

    /// Writes an object as a whole; refused when someone wrote in between.
    pub async fn replace<K: Known>(&self, object: &K) -> Result<K, WriteError> {
        let answer = self.api::<K>(object).replace(&object.name_any(), &PostParams::default(), object).await;
        self.told("update", object, answer)
    }

    /// Takes over what is wanted of an object: spec, labels and annotations. Nothing is written where they are so.
    pub async fn take_over<K>(&self, existing: Arc<K>, want: K) -> Result<Arc<K>, WriteError>
    where
        K: Known + HasSpec,
        K::Spec: PartialEq + Clone,
    {
        let same = existing.spec() == want.spec();
        if same && existing.labels() == want.labels() && existing.annotations() == want.annotations() {
            return Ok(existing);
        }
        let mut changed = existing.as_ref().clone();
        changed.spec_mut().clone_from(want.spec());
        let metadata = changed.meta_mut();
        metadata.labels.clone_from(&want.meta().labels);
        metadata.annotations.clone_from(&want.meta().annotations);
        Ok(Arc::new(self.replace(&changed).await?))
    }

    /// Writes an object's status; refused when someone wrote in between.
    pub async fn replace_status<K: Known>(&self, object: &K) -> Result<K, WriteError> {
        let answer = self.api::<K>(object).replace_status(&object.name_any(), &PostParams::default(), object).await;
        self.told("update-status", object, answer)
    }

    /// Changes some fields of an object.
    pub async fn merge<K: Known>(&self, object: &K, patch: &Value) -> Result<K, WriteError> {
        let params = PatchParams::default();
        let answer = self.api::<K>(object).patch(&object.name_any(), &params, &Patch::Merge(patch)).await;
        self.told("patch", object, answer)
    }

    /// Deletes exactly this object (not a namesake).
    pub async fn delete<K: Known>(&self, object: &K) -> Result<(), WriteError> {
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: object.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        self.metrics.writes.with_label_values(&["delete", K::kind(&()).as_ref()]).inc();
        match self.api::<K>(object).delete(&object.name_any(), &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(error("delete", object, source)),
        }
    }

    fn api<K: Known>(&self, object: &K) -> Api<K> {
        K::api(self.client.clone(), &object.namespace().unwrap_or_default())
    }

    fn told<K: Known>(&self, verb: &'static str, object: &K, answer: kube::Result<K>) -> Result<K, WriteError> {
        self.metrics.writes.with_label_values(&[verb, K::kind(&()).as_ref()]).inc();
        match answer {
            Ok(written) => {
                tracing::debug!(verb, kind = %K::kind(&()), namespace = ?object.namespace(), name = %object.name_any(), "written");
                self.world.observe(written.clone());
                Ok(written)
            }
            Err(source) => Err(error(verb, object, source)),
        }
    }
}

fn error<K: Resource<DynamicType = ()>>(verb: &'static str, object: &K, source: kube::Error) -> WriteError {
    WriteError {
        verb,
        kind: K::kind(&()).into_owned(),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        source: Box::new(source),
    }
}
