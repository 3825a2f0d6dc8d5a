//! Says to the API that this node exists: the Node object, and a Lease as its heartbeat.
//!
//! Nothing here decides on that heartbeat (there is one node and it is this process); it is there for `kubectl get nodes`
//! and for programs that look at it. Failing to write it is logged, never fatal.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Namespace, Node},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

/// Rare enough that an idle `up` does not write to disk all the time.
const HEARTBEAT: Duration = Duration::from_mins(1);
const LEASES: &str = "kube-node-lease";

/// Registers the node and keeps its Lease fresh; runs until dropped.
pub(super) async fn heartbeat(client: Client, name: String) {
    if let Err(error) = node(&client, &name).await {
        tracing::warn!(%error, "node not registered");
    }
    // Written once; that it exists already is the usual case.
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(LEASES.to_owned()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    let _ = Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await;
    let leases: Api<Lease> = Api::namespaced(client, LEASES);
    loop {
        if let Err(error) = renew(&leases, &name).await {
            tracing::debug!(%error, "lease not renewed");
        }
        tokio::time::sleep(HEARTBEAT).await;
    }
}

async fn node(client: &Client, name: &str) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let object: Node = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "spec": {},
    }))
    .map_err(kube::Error::SerdeError)?;
    match nodes.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(answer)) if answer.code == 409 => {}
        other => drop(other?),
    }
    let patch = json!({"status": status(name)});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop)
}

fn status(name: &str) -> Value {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let memory = memory.and_then(|rest| rest.trim().strip_suffix(" kB")).unwrap_or("0");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let capacity = json!({"cpu": cpus.to_string(), "memory": format!("{memory}Ki"), "pods": "1000"});
    json!({
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "dormouse runs pods as processes",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }],
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": name}],
        "nodeInfo": {
            "kubeletVersion": "v1.34.0-dormouse", "kubeProxyVersion": "", "containerRuntimeVersion": "process://1",
            "operatingSystem": "linux", "osImage": "Linux", "kernelVersion": kernel.trim(),
            "architecture": std::env::consts::ARCH, "machineID": "", "systemUUID": "", "bootID": "",
        },
    })
}

async fn renew(leases: &Api<Lease>, name: &str) -> Result<(), kube::Error> {
    let spec = json!({
        "holderIdentity": name, "leaseDurationSeconds": 3 * HEARTBEAT.as_secs(),
        "renewTime": format!("{:.6}", Timestamp::now()),
    });
    let patch = json!({"spec": spec});
    match leases.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(answer)) if answer.code == 404 => {
            let lease = json!({"metadata": {"name": name, "namespace": LEASES}, "spec": spec});
            let lease: Lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
            leases.create(&PostParams::default(), &lease).await.map(drop)
        }
        other => other.map(drop),
    }
}
