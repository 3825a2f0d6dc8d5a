//! What the controllers rely on, through `kube`.
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use super::harness::Running;

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name, "labels": { "app": name } }, "data": { "key": value } }))
        .unwrap()
}

fn deployment(name: &str) -> Deployment {
    serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "a", "image": "a:1", "env": [{ "name": "X", "value": "1" }] }] },
            },
        },
    }))
    .unwrap()
}

fn reason(error: &kube::Error) -> (u16, String, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason.clone(), status.message.clone()),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn objects_are_created_read_replaced_and_deleted() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(running.client());
    let made = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    let again = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap_err();
    assert_eq!(reason(&again), (409, "AlreadyExists".into(), "configmaps \"a\" already exists".into()));

    let mut next = made.clone();
    next.data = Some([("key".to_owned(), "2".to_owned())].into());
    let replaced = maps.replace("a", &PostParams::default(), &next).await.unwrap();
    assert!(replaced.metadata.resource_version > made.metadata.resource_version);
    let stale = maps.replace("a", &PostParams::default(), &next).await.unwrap_err();
    assert_eq!(reason(&stale).1, "Conflict");

    let same = maps.replace("a", &PostParams::default(), &replaced).await.unwrap();
    assert_eq!(same.metadata.resource_version, replaced.metadata.resource_version, "no change, no new version");

    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let gone = maps.get("a").await.unwrap_err();
    assert_eq!(reason(&gone), (404, "NotFound".into(), "configmaps \"a\" not found".into()));

    let generated: ConfigMap = serde_json::from_value(json!({ "metadata": { "generateName": "g-" } })).unwrap();
    let name = maps.create(&PostParams::default(), &generated).await.unwrap().metadata.name.unwrap();
    assert!(name.starts_with("g-") && name.len() == 7, "{name}");

    let elsewhere: Api<ConfigMap> = Api::namespaced(running.client(), "nowhere");
    let error = elsewhere.create(&PostParams::default(), &config_map("a", "1")).await.unwrap_err();
    assert_eq!(reason(&error).2, "namespaces \"nowhere\" not found");
    running.stop().await;
}

#[tokio::test]
async fn lists_select_and_page() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(running.client());
    for index in 0..7 {
        maps.create(&PostParams::default(), &config_map(&format!("m{index}"), "x")).await.unwrap();
    }
    let two = maps.list(&ListParams::default().labels("app in (m1, m2)")).await.unwrap();
    assert_eq!(two.items.len(), 2);
    let one = maps.list(&ListParams::default().fields("metadata.name=m3")).await.unwrap();
    assert_eq!(one.items.len(), 1);
    let mut names = Vec::new();
    let mut params = ListParams::default().limit(3);
    loop {
        let page = maps.list(&params).await.unwrap();
        assert!(page.items.len() <= 3);
        names.extend(page.items.into_iter().filter_map(|map| map.metadata.name));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4", "m5", "m6"]);
    let removed =
        maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("app!=m0")).await.unwrap();
    assert_eq!(removed.left().unwrap().items.len(), 6);
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn all_four_patches() {
    let running = Running::start().await;
    let deployments: Api<Deployment> = Api::default_namespaced(running.client());
    let made = deployments.create(&PostParams::default(), &deployment("d")).await.unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    assert_eq!(made.spec.as_ref().unwrap().replicas, Some(1), "default");

    let merge = json!({ "metadata": { "labels": { "m": "1" } } });
    let merged = deployments.patch("d", &PatchParams::default(), &Patch::Merge(&merge)).await.unwrap();
    assert_eq!(merged.metadata.generation, Some(1), "metadata does not count");

    let strategic = json!({ "spec": { "template": { "spec": { "containers": [{ "name": "a", "env": [{ "name": "Y", "value": "2" }] }] } } } });
    let merged = deployments.patch("d", &PatchParams::default(), &Patch::Strategic(&strategic)).await.unwrap();
    let container = &merged.spec.unwrap().template.spec.unwrap().containers[0];
    assert_eq!((container.image.as_deref(), container.env.as_ref().unwrap().len()), (Some("a:1"), 2));
    assert_eq!(merged.metadata.generation, Some(2));

    let operations: json_patch::Patch = serde_json::from_value(json!([
        { "op": "test", "path": "/spec/replicas", "value": 1 },
        { "op": "replace", "path": "/spec/replicas", "value": 4 },
    ]))
    .unwrap();
    let patched = deployments.patch("d", &PatchParams::default(), &Patch::Json::<()>(operations)).await.unwrap();
    assert_eq!(patched.spec.unwrap().replicas, Some(4));

    let applied = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d" }, "spec": { "replicas": 5 } });
    let conflict = deployments.patch("d", &PatchParams::apply("me"), &Patch::Apply(&applied)).await.unwrap_err();
    assert!(reason(&conflict).2.starts_with("Apply failed with 1 conflict"), "{conflict}");
    let forced = deployments.patch("d", &PatchParams::apply("me").force(), &Patch::Apply(&applied)).await.unwrap();
    assert_eq!(forced.spec.unwrap().replicas, Some(5));

    let fresh = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "new" }, "spec": deployment("new").spec,
    });
    let created = deployments.patch("new", &PatchParams::apply("me"), &Patch::Apply(&fresh)).await.unwrap();
    assert_eq!(created.metadata.managed_fields.unwrap()[0].manager.as_deref(), Some("me"));
    running.stop().await;
}

#[tokio::test]
async fn status_and_scale_touch_only_their_part() {
    let running = Running::start().await;
    let deployments: Api<Deployment> = Api::default_namespaced(running.client());
    deployments.create(&PostParams::default(), &deployment("d")).await.unwrap();
    let both = json!({ "spec": { "replicas": 9 }, "status": { "readyReplicas": 1 } });
    let after = deployments.patch_status("d", &PatchParams::default(), &Patch::Merge(&both)).await.unwrap();
    assert_eq!(after.status.as_ref().unwrap().ready_replicas, Some(1));
    assert_eq!((after.spec.as_ref().unwrap().replicas, after.metadata.generation), (Some(1), Some(1)));
    let after = deployments
        .patch("d", &PatchParams::default(), &Patch::Merge(&json!({ "status": { "readyReplicas": 7 } })))
        .await
        .unwrap();
    assert_eq!(after.status.unwrap().ready_replicas, Some(1));

    let scale = deployments.get_scale("d").await.unwrap();
    assert_eq!(scale.status.unwrap().selector.as_deref(), Some("app=d"));
    let scaled = deployments
        .patch_scale("d", &PatchParams::default(), &Patch::Merge(&json!({ "spec": { "replicas": 3 } })))
        .await
        .unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(3));
    let after = deployments.get("d").await.unwrap();
    assert_eq!((after.spec.unwrap().replicas, after.metadata.generation), (Some(3), Some(2)));
    running.stop().await;
}

#[tokio::test]
async fn a_watch_resumes_where_it_broke_off_or_says_that_it_cannot() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(running.client());
    let first = maps.create(&PostParams::default(), &config_map("a", "0")).await.unwrap();
    let start = first.metadata.resource_version.unwrap();
    for value in 1..4 {
        let patch = json!({ "data": { "key": value.to_string() } });
        maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let events: Vec<_> =
        maps.watch(&WatchParams::default(), &start).await.unwrap().take(4).try_collect().await.unwrap();
    let values: Vec<_> = events
        .iter()
        .map(|event| match event {
            WatchEvent::Modified(map) => format!("M{}", map.data.as_ref().unwrap()["key"]),
            WatchEvent::Deleted(map) => format!("D{}", map.data.as_ref().unwrap()["key"]),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(values, ["M1", "M2", "M3", "D3"]);

    // The history is bounded by bytes, too; a few large objects are enough.
    let large = "x".repeat(900 << 10);
    for value in 0..8 {
        maps.create(&PostParams::default(), &config_map(&format!("large{value}"), &large)).await.unwrap();
    }
    let error = maps.watch(&WatchParams::default(), &start).await.map(drop);
    match error {
        Err(error) => assert_eq!(reason(&error).0, 410),
        Ok(()) => panic!("the history is bounded"),
    }
    running.stop().await;
}

#[tokio::test]
async fn a_selecting_watch_sees_objects_come_and_go() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(running.client());
    let start = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let params = WatchParams::default().labels("on=yes");
    let mut events = maps.watch(&params, &start).await.unwrap().boxed();
    maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    for on in ["yes", "yes", "no"] {
        let patch = json!({ "metadata": { "labels": { "on": on } }, "data": { "at": fastrand::u64(..).to_string() } });
        maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(match events.next().await.unwrap().unwrap() {
            WatchEvent::Added(_) => "added",
            WatchEvent::Modified(_) => "modified",
            WatchEvent::Deleted(_) => "deleted",
            _ => "other",
        });
    }
    assert_eq!(seen, ["added", "modified", "deleted"]);
    running.stop().await;
}

#[tokio::test]
async fn racing_patches_all_count() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(running.client());
    maps.create(&PostParams::default(), &config_map("a", "0")).await.unwrap();
    let writers = (0..16).map(|index| {
        let maps = maps.clone();
        async move {
            let key = format!("k{index}");
            maps.patch("a", &PatchParams::default(), &Patch::Merge(&json!({ "data": { key: "1" } }))).await.unwrap();
        }
    });
    futures::future::join_all(writers).await;
    assert_eq!(maps.get("a").await.unwrap().data.unwrap().len(), 17);
    running.stop().await;
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(running.client());
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &config_map("a", "1")).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
    running.stop().await;
}

#[tokio::test]
async fn a_pod_on_a_node_goes_when_the_node_says_so() {
    let running = Running::start().await;
    let pods: Api<Pod> = Api::default_namespaced(running.client());
    let pod = |name: &str, node: Option<&str>| -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "nodeName": node, "terminationGracePeriodSeconds": 7, "containers": [{ "name": "a", "image": "a" }] },
        }))
        .unwrap()
    };
    let made = pods.create(&PostParams::default(), &pod("bound", Some("node"))).await.unwrap();
    assert_eq!(made.status.unwrap().phase.as_deref(), Some("Pending"));
    let marked = pods.delete("bound", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert_eq!(marked.metadata.deletion_grace_period_seconds, Some(7));
    assert!(pods.get("bound").await.unwrap().metadata.deletion_timestamp.is_some());
    let selected = pods.list(&ListParams::default().fields("spec.nodeName=node")).await.unwrap();
    assert_eq!(selected.items.len(), 1);
    pods.delete("bound", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.unwrap();
    assert!(pods.get_opt("bound").await.unwrap().is_none());
    pods.create(&PostParams::default(), &pod("free", None)).await.unwrap();
    pods.delete("free", &DeleteParams::default()).await.unwrap();
    assert!(pods.get_opt("free").await.unwrap().is_none(), "no node, no grace");
    running.stop().await;
}
