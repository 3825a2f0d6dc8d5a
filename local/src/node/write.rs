//! Writes one pod's status to the API: at once when it changes, one request at a time, only the newest.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use tokio::sync::watch;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Writes every new status until the sender is dropped or the pod is gone.
pub(super) async fn statuses(api: Api<Pod>, name: String, uid: String, mut status: watch::Receiver<Option<PodStatus>>) {
    let mut written: Option<PodStatus> = None;
    let mut retry = FIRST_RETRY;
    loop {
        let newest = status.borrow_and_update().clone();
        if newest.is_some() && newest != written {
            let patch = serde_json::json!({"metadata": {"uid": uid}, "status": newest});
            match api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => {
                    written = newest;
                    retry = FIRST_RETRY;
                }
                Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => return,
                Err(error) => {
                    tracing::warn!(pod = name, %error, "pod status not written");
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(LAST_RETRY);
                    continue;
                }
            }
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// Removes a pod whose processes are gone (or never were).
pub(super) async fn remove(api: &Api<Pod>, name: &str, uid: &str) {
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default().grace_period(0) };
    let mut retry = FIRST_RETRY;
    loop {
        match api.delete(name, &params).await {
            Ok(_) => return,
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => return,
            Err(error) => {
                tracing::warn!(pod = name, %error, "pod not removed");
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(LAST_RETRY);
            }
        }
    }
}
