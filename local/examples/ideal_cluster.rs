//! A cluster for the bench of the control plane: the embedded API server with admission, deployments and endpoints, and
//! an ideal node, on which each pod is ready as soon as it is seen. No controller and no autoscaler: those are measured.
//!
//! `ideal_cluster DATA_DIR [CONFIGMAP.KEY=VALUE ...]`: prints the API server's address and runs until it is killed.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use arc_swap::ArcSwap;
use control::settings::Settings;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use local::{
    admission::ControlPlane,
    apiserver::{self, ApiServer},
    cli::{Setting, parse_setting},
    cluster, system,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let data_dir = arguments.next().context("want a folder for its data")?.into();
    let sets: Vec<Setting> = arguments
        .map(|set| parse_setting(&set).map_err(|wrong| anyhow!("{set}: {wrong}")))
        .collect::<Result<_, _>>()?;
    // The controller that keeps these up to date in `up` is not here.
    let mut settings = Settings::new(system::CLUSTER_DOMAIN);
    for set in &sets {
        settings.apply(&set.config_map, &sets_of(&sets, &set.config_map))?;
    }
    let admission = ControlPlane { settings: Arc::new(ArcSwap::from_pointee(settings)) };
    let server = ApiServer::bind(apiserver::Config::new(data_dir, Arc::new(admission))).await?;
    let address = server.local_addr();
    let serving = tokio::spawn(server.run(CancellationToken::new()));
    let client = Client::try_from(kube::Config::new(format!("http://{address}").parse()?))?;
    // Nobody sends requests: where the gateway is does not matter.
    system::prepare(&client, "127.0.0.1:9".parse()?, &sets).await?;
    tokio::spawn(cluster::run(client.clone(), CancellationToken::new()));
    tokio::spawn(node(client));
    println!("{address}");
    Ok(serving.await??)
}

fn sets_of(sets: &[Setting], config_map: &str) -> api::settings::Data {
    sets.iter().filter(|set| set.config_map == config_map).map(|set| (set.key.clone(), set.value.clone())).collect()
}

/// Makes each pod ready as soon as it is seen.
async fn node(client: Client) {
    let mut events = std::pin::pin!(
        watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()).default_backoff().applied_objects()
    );
    let mut next = 0_u32;
    while let Some(Ok(pod)) = events.next().await {
        let fresh = pod.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Running");
        if !fresh || pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        next += 1;
        let [_, a, b, c] = next.to_be_bytes();
        let now = "2026-01-01T00:00:00Z";
        let names = pod.spec.iter().flat_map(|spec| &spec.containers).map(|container| container.name.clone());
        let containers: Vec<Value> = names
            .map(|name| {
                json!({ "name": name, "ready": true, "restartCount": 0, "image": "", "imageID": "",
                "state": { "running": { "startedAt": now } } })
            })
            .collect();
        let status = json!({ "status": {
            "phase": "Running", "podIP": format!("127.{a}.{b}.{c}"), "startTime": now, "containerStatuses": containers,
            "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": now }] } });
        let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        let _ = pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status)).await;
    }
}
