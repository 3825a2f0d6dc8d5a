//! Pods without a node get the one there is.

use std::pin::pin;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};

use crate::node;

/// Runs until dropped.
pub(super) async fn run(client: Client) {
    let events = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()).default_backoff();
    let mut pods = pin!(events.applied_objects());
    while let Some(pod) = pods.next().await {
        let Ok(pod) = pod else { continue };
        let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        if bound || pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let patch = serde_json::json!({"spec": {"nodeName": node::NAME}});
        if let Err(error) = api.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await {
            tracing::warn!(pod = pod.name_any(), %error, "pod not bound");
        }
    }
}
