//! Writes to the API server. Scale writes never wait behind others.

use std::{sync::Arc, time::Duration};

use api::{
    autoscaling::{Metric, PodAutoscaler, PodAutoscalerStatus},
    networking::ServerlessService,
};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::{
    collect::{Candidate, DELETION_COST, scrape::Scraper},
    decider::{Write, Written},
    key::Key,
};

/// Scale writes under way at once.
const SCALES: usize = 256;
/// Other writes under way at once.
const OTHERS: usize = 32;

/// One write may take this long, waiting included.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Finding and marking the least busy pods may take this long; the scale is written then, marks or not.
const MARKING: Duration = Duration::from_millis(500);

/// Why an object was not read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// What the API server or the connection said.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// An object that does not read as one of its kind.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Writes what the engine asks for.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    scraper: Scraper,
    scales: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

impl Writer {
    /// Writes through `client`; asks pods how busy they are through `scraper`.
    pub fn new(client: Client, scraper: Scraper) -> Self {
        Self { client, scraper, scales: Arc::new(Semaphore::new(SCALES)), others: Arc::new(Semaphore::new(OTHERS)) }
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
            Write::Scale { target, replicas, candidates } => {
                self.mark_idlest(namespace, &candidates, replicas).await;
                Written::Scale(self.scale(namespace, &target, replicas).await)
            }
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

    /// Marks the pods that have least to do as those to take away first.
    async fn mark_idlest(&self, namespace: &str, candidates: &[Candidate], keep: i32) {
        if candidates.is_empty() {
            return;
        }
        let work = async {
            let busy = self.scraper.each(candidates.iter().map(|pod| pod.address)).await;
            let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let marks = marks(candidates, &busy, usize::try_from(keep).unwrap_or(0));
            let patches = marks.into_iter().map(|(name, cost)| {
                let patch =
                    Patch::Merge(json!({ "metadata": { "annotations": { (DELETION_COST): cost.to_string() } } }));
                let api = api.clone();
                async move { api.patch_metadata(name, &PatchParams::default(), &patch).await }
            });
            for failed in futures::future::join_all(patches).await.into_iter().filter_map(Result::err) {
                tracing::debug!(namespace, error = %failed, "pod not marked");
            }
        };
        if tokio::time::timeout(MARKING, work).await.is_err() {
            tracing::debug!(namespace, "the least busy pods were not found in time");
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

/// Most pods marked for one scale.
const MOST_MARKS: usize = 32;
/// The mark of a pod that is to go before others.
const IDLE: i32 = -100;

/// Which pods get another mark, so that the `keep` busiest stay. Nothing where all are equally busy, where one did not
/// answer, or where too many would have to be marked: then the cluster's own order is as good.
fn marks<'a>(candidates: &'a [Candidate], busy: &[Option<f64>], keep: usize) -> Vec<(&'a str, i32)> {
    let mut by_load: Vec<(f64, &Candidate)> =
        busy.iter().zip(candidates).filter_map(|(busy, pod)| Some(((*busy)?, pod))).collect();
    let go = candidates.len().saturating_sub(keep);
    let equal = by_load.windows(2).all(|pair| (pair[0].0 - pair[1].0).abs() < f64::EPSILON);
    if by_load.len() < candidates.len() || equal || go > MOST_MARKS {
        return Vec::new();
    }
    by_load.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.name.cmp(&b.1.name)));
    by_load
        .into_iter()
        .enumerate()
        .map(|(nth, (_, pod))| (pod, if nth < go { IDLE } else { 0 }))
        .filter(|(pod, cost)| pod.deletion_cost != *cost)
        .map(|(pod, cost)| (pod.name.as_str(), cost))
        .take(2 * MOST_MARKS)
        .collect()
}

/// Fields that are absent are removed: a merge would keep them.
pub fn status_patch(status: &PodAutoscalerStatus) -> Value {
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
    fn the_least_busy_go_first() {
        let pod =
            |name: &str, deletion_cost| Candidate { name: name.into(), address: [127, 0, 0, 1].into(), deletion_cost };
        let pods = [pod("a", 0), pod("b", IDLE), pod("c", 0), pod("d", IDLE)];
        let busy = |loads: [f64; 4]| loads.map(Some);
        assert_eq!(marks(&pods, &busy([0.0, 9.0, 5.0, 1.0]), 2), [("a", IDLE), ("b", 0)], "d has its mark already");
        assert_eq!(marks(&pods, &busy([2.0; 4]), 2), []);
        assert_eq!(marks(&pods, &[Some(1.0), None, Some(0.0), Some(2.0)], 2), [], "one did not answer");
    }

    #[test]
    fn absent_fields_are_removed_by_the_patch() {
        let status = PodAutoscalerStatus { desired_scale: Some(2), ..PodAutoscalerStatus::default() };
        let patch = status_patch(&status);
        assert_eq!(patch["status"]["desiredScale"], 2);
        assert!(patch["status"].as_object().is_some_and(|s| s["serviceName"].is_null() && s.len() == 6));
    }
}
