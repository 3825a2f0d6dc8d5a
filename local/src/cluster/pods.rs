//! One watch of pods for all of `cluster`: each event is read once and handed on, and a pod without a node gets the one
//! there is.

use std::{pin::pin, sync::Arc};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use tokio::{sync::mpsc::UnboundedSender, task::JoinSet};

use super::cache::shared;
use crate::node;

/// A watch event whose object is not copied when it is handed on.
pub(super) type PodEvent = Event<Arc<Pod>>;

/// Runs until dropped. The receivers are tasks of this process that only decide; they do not fall behind.
pub(super) async fn run(client: Client, receivers: [UnboundedSender<PodEvent>; 2]) {
    let mut events = pin!(watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()).default_backoff());
    let mut bindings = JoinSet::new();
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => shared(event),
            Err(error) => {
                tracing::warn!(%error, "watch of pods failed");
                continue;
            }
        };
        if let Event::Apply(pod) | Event::InitApply(pod) = &event
            && pod.metadata.deletion_timestamp.is_none()
            && pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none())
        {
            bindings.spawn(bind(client.clone(), Arc::clone(pod)));
        }
        for receiver in &receivers {
            let _ = receiver.send(event.clone());
        }
        while bindings.try_join_next().is_some() {}
    }
}

/// A scheduler for one node.
async fn bind(client: Client, pod: Arc<Pod>) {
    let api: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    let patch = serde_json::json!({"metadata": {"uid": pod.uid()}, "spec": {"nodeName": node::NAME}});
    if let Err(error) = api.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await {
        tracing::warn!(pod = pod.name_any(), %error, "pod not bound");
    }
}
