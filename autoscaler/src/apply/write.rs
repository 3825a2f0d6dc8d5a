//! Writes to the API server. Scale writes never wait behind others.

use std::{sync::Arc, time::Duration};

use api::{
    autoscaling::{Metric, PodAutoscaler, PodAutoscalerStatus},
    networking::ServerlessService,
};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::{
    decider::{Write, Written},
    key::Key,
};

/// Scale writes under way at once.
const SCALES: usize = 256;
/// Other writes under way at once.
const OTHERS: usize = 32;

/// One write may take this long, waiting included.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Writes what the engine asks for.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    scales: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

impl Writer {
    /// Writes through `client`.
    pub fn new(client: Client) -> Self {
        Self { client, scales: Arc::new(Semaphore::new(SCALES)), others: Arc::new(Semaphore::new(OTHERS)) }
    }

    /// Writes, and says how it ended; in any case after a while.
    pub async fn write(&self, key: &Key, write: Write) -> Written {
        let late = late(&write);
        tokio::time::timeout(TIMEOUT, self.attempt(key, write)).await.unwrap_or(late)
    }

    async fn attempt(&self, key: &Key, write: Write) -> Written {
        let lane = if matches!(write, Write::Scale { .. }) { &self.scales } else { &self.others };
        // Never closed; without a permit the write would only be early.
        let _permit = lane.acquire().await;
        let text = |error: kube::Error| error.to_string();
        let merge = PatchParams::default();
        let create = PostParams::default();
        let (namespace, name) = (key.namespace(), key.name());
        match write {
            Write::Scale { target, replicas } => Written::Scale(self.scale(namespace, &target, replicas).await),
            Write::CreateSks(sks) => {
                let api: Api<ServerlessService> = Api::namespaced(self.client.clone(), namespace);
                Written::Sks(api.create(&create, &sks).await.map(Box::new).map_err(text))
            }
            Write::PatchSks(spec) => {
                let api: Api<ServerlessService> = Api::namespaced(self.client.clone(), namespace);
                let patch = Patch::Merge(json!({ "spec": spec }));
                Written::Sks(api.patch(name, &merge, &patch).await.map(Box::new).map_err(text))
            }
            Write::CreateMetric(metric) => {
                let api: Api<Metric> = Api::namespaced(self.client.clone(), namespace);
                Written::Metric(api.create(&create, &metric).await.map(Box::new).map_err(text))
            }
            Write::PatchMetric(spec) => {
                let api: Api<Metric> = Api::namespaced(self.client.clone(), namespace);
                let patch = Patch::Merge(json!({ "spec": spec }));
                Written::Metric(api.patch(name, &merge, &patch).await.map(Box::new).map_err(text))
            }
            Write::Status(status) => {
                let api: Api<PodAutoscaler> = Api::namespaced(self.client.clone(), namespace);
                let patch = Patch::Merge(status_patch(&status));
                Written::Status(api.patch_status(name, &merge, &patch).await.map(Box::new).map_err(text))
            }
        }
    }

    /// Upstream's very patch: other tools (admission rules, audits) know it.
    async fn scale(&self, namespace: &str, target: &str, replicas: i32) -> Result<(i32, u64), String> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
        let patch: json_patch::Patch =
            serde_json::from_value(json!([{ "op": "add", "path": "/spec/replicas", "value": replicas }]))
                .map_err(|error| error.to_string())?;
        let scale = api
            .patch_scale(target, &PatchParams::default(), &Patch::<()>::Json(patch))
            .await
            .map_err(|error| error.to_string())?;
        let written = scale.spec.and_then(|spec| spec.replicas).unwrap_or(replicas);
        let version = scale.metadata.resource_version.and_then(|v| v.parse().ok()).unwrap_or(0);
        Ok((written, version))
    }
}

/// Fields that are absent are removed: a merge would keep them.
fn status_patch(status: &PodAutoscalerStatus) -> Value {
    let mut patch = json!({
        "observedGeneration": null, "conditions": [], "serviceName": null, "metricsServiceName": null,
        "desiredScale": null, "actualScale": null,
    });
    // A struct of plain fields always becomes an object.
    if let (Some(patch), Ok(Value::Object(fields))) = (patch.as_object_mut(), serde_json::to_value(status)) {
        patch.extend(fields);
    }
    json!({ "status": patch })
}

fn late(write: &Write) -> Written {
    let error = "no answer in time".to_owned();
    match write {
        Write::Scale { .. } => Written::Scale(Err(error)),
        Write::CreateSks(_) | Write::PatchSks(_) => Written::Sks(Err(error)),
        Write::CreateMetric(_) | Write::PatchMetric(_) => Written::Metric(Err(error)),
        Write::Status(_) => Written::Status(Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_fields_are_removed_by_the_patch() {
        let status = PodAutoscalerStatus { desired_scale: Some(2), ..PodAutoscalerStatus::default() };
        let patch = status_patch(&status);
        assert_eq!(patch["status"]["desiredScale"], 2);
        assert!(patch["status"].as_object().is_some_and(|s| s["serviceName"].is_null() && s.len() == 6));
    }
}
