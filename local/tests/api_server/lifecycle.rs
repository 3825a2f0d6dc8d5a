//! Owners, finalizers, namespaces, restarts, broken data.
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
use local::apiserver::ApiServer;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::harness::{Running, config, until};

async fn make(maps: &Api<ConfigMap>, name: &str, owner: Option<&ConfigMap>, finalizers: &[&str]) -> ConfigMap {
    let owners: Vec<Value> = owner
        .iter()
        .map(|owner| {
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": owner.name_any(), "uid": owner.uid().unwrap(), "blockOwnerDeletion": true })
        })
        .collect();
    let object = json!({ "metadata": { "name": name, "ownerReferences": owners, "finalizers": finalizers } });
    maps.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

async fn gone(maps: &Api<ConfigMap>, name: &str) {
    until(&format!("{name} goes"), || async { maps.get_opt(name).await.unwrap().is_none() }).await;
}

#[tokio::test]
async fn dependents_go_with_their_owner() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(running.client());
    let owner = make(&maps, "owner", None, &[]).await;
    let child = make(&maps, "child", Some(&owner), &[]).await;
    make(&maps, "grandchild", Some(&child), &[]).await;
    maps.delete("owner", &DeleteParams::default()).await.unwrap();
    gone(&maps, "child").await;
    gone(&maps, "grandchild").await;
    running.stop().await;
}

#[tokio::test]
async fn foreground_waits_for_dependents_and_orphan_leaves_them() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(running.client());
    let with = |policy| DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };

    let owner = make(&maps, "owner", None, &[]).await;
    make(&maps, "child", Some(&owner), &["example.com/hold"]).await;
    maps.delete("owner", &with(PropagationPolicy::Foreground)).await.unwrap();
    until("the child is marked", || async { maps.get("child").await.unwrap().metadata.deletion_timestamp.is_some() })
        .await;
    assert!(maps.get_opt("owner").await.unwrap().is_some(), "waits");
    let free = json!({ "metadata": { "finalizers": null } });
    maps.patch("child", &PatchParams::default(), &Patch::Merge(&free)).await.unwrap();
    gone(&maps, "child").await;
    gone(&maps, "owner").await;

    let owner = make(&maps, "owner", None, &[]).await;
    make(&maps, "child", Some(&owner), &[]).await;
    maps.delete("owner", &with(PropagationPolicy::Orphan)).await.unwrap();
    gone(&maps, "owner").await;
    assert!(maps.get("child").await.unwrap().owner_references().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn an_object_whose_owner_is_gone_already_goes() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(running.client());
    let owner = make(&maps, "owner", None, &[]).await;
    maps.delete("owner", &DeleteParams::default()).await.unwrap();
    make(&maps, "late", Some(&owner), &[]).await;
    gone(&maps, "late").await;
    running.stop().await;
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(running.client());
    make(&maps, "a", None, &["example.com/hold"]).await;
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let held = maps.get("a").await.unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    let mut free = held.clone();
    free.metadata.finalizers = None;
    maps.replace("a", &PostParams::default(), &free).await.unwrap();
    gone(&maps, "a").await;
    running.stop().await;
}

#[tokio::test]
async fn a_namespace_takes_everything_with_it() {
    let running = Running::start().await;
    let namespaces: Api<Namespace> = Api::all(running.client());
    let object = serde_json::from_value(json!({ "metadata": { "name": "team" } })).unwrap();
    namespaces.create(&PostParams::default(), &object).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(running.client(), "team");
    make(&maps, "free", None, &[]).await;
    make(&maps, "held", None, &["example.com/hold"]).await;
    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    gone(&maps, "free").await;
    let phase = namespaces.get("team").await.unwrap().status.unwrap().phase;
    assert_eq!(phase.as_deref(), Some("Terminating"));
    let late = serde_json::from_value(json!({ "metadata": { "name": "late" } })).unwrap();
    let error = maps.create(&PostParams::default(), &late).await.unwrap_err();
    assert!(error.to_string().contains("because it is being terminated"), "{error}");
    let free = json!({ "metadata": { "finalizers": null } });
    maps.patch("held", &PatchParams::default(), &Patch::Merge(&free)).await.unwrap();
    until("the namespace goes", || async { namespaces.get_opt("team").await.unwrap().is_none() }).await;
    running.stop().await;
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(running.client());
    make(&maps, "removed", None, &[]).await;
    let kept = make(&maps, "kept", None, &["example.com/hold"]).await;
    maps.delete("removed", &DeleteParams::default()).await.unwrap();
    let dir = running.stop().await;

    let running = Running::on(dir).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(running.client());
    assert_eq!(maps.get("kept").await.unwrap(), kept);
    assert!(maps.get_opt("removed").await.unwrap().is_none());
    let version = |map: &ConfigMap| map.resource_version().unwrap().parse::<u64>().unwrap();
    let next = make(&maps, "next", None, &[]).await;
    assert!(version(&next) > version(&kept));
    running.stop().await;
}

#[tokio::test]
async fn a_broken_file_is_named_and_left_alone() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("data/objects.redb");
    std::fs::create_dir_all(dir.path().join("data")).unwrap();
    let junk = vec![7_u8; 8192];
    std::fs::write(&file, &junk).unwrap();
    let error = ApiServer::bind(config(dir.path())).await.err().expect("refused").to_string();
    assert!(error.contains("objects.redb") && error.contains("move the file away"), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), junk);

    let running = Running::start().await;
    let second = ApiServer::bind(config(running.dir.path())).await.err().expect("refused").to_string();
    assert!(second.contains("in use by another process"), "{second}");
    running.stop().await;
}

#[tokio::test]
async fn a_damaged_file_is_not_trusted() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(running.client());
    make(&maps, "a", None, &[]).await;
    let dir = running.stop().await;
    let file = dir.path().join("data/objects.redb");
    let whole = std::fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    for byte in damaged.iter_mut().skip(4096) {
        *byte ^= 0x5a;
    }
    std::fs::write(&file, &damaged).unwrap();
    let error = ApiServer::bind(config(dir.path())).await.err().expect("refused").to_string();
    assert!(error.contains("objects.redb"), "{error}");
}

#[tokio::test]
async fn only_loopback_is_listened_on() {
    let dir = TempDir::new().unwrap();
    let mut config = config(dir.path());
    config.listen = "0.0.0.0:0".parse().unwrap();
    let error = ApiServer::bind(config).await.err().expect("refused").to_string();
    assert!(error.contains("refusing to listen on 0.0.0.0:0"), "{error}");
}
