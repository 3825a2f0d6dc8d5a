//! Watches turned into engine events. One task per kind; the engine's own maps are the only cache.

use std::{collections::HashSet, fmt::Debug, sync::Arc, time::Duration};

use api::{
    autoscaling::{Metric, PodAutoscaler},
    labels::serving,
    networking::ServerlessService,
    settings,
};
use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::{
    collect::PodView,
    decider::{Change, Event, Kind, Settings},
    key::Key,
};

/// Starts all watches; they end when `events` closes or their tasks are aborted.
pub fn spawn(
    client: &Client,
    system_namespace: &str,
    events: &mpsc::Sender<Event>,
    tasks: &mut tokio::task::JoinSet<()>,
) {
    let everything = watcher::Config::default();
    let of_revisions = watcher::Config::default().labels(serving::REVISION_UID);
    tasks.spawn(watch(
        Api::<PodAutoscaler>::all(client.clone()),
        everything.clone(),
        Kind::PodAutoscaler,
        events.clone(),
        |change| Some(Event::PodAutoscaler(boxed(change))),
    ));
    tasks.spawn(watch(
        Api::<ServerlessService>::all(client.clone()),
        everything.clone(),
        Kind::ServerlessService,
        events.clone(),
        |change| Some(Event::Sks(boxed(change))),
    ));
    tasks.spawn(watch(Api::<Metric>::all(client.clone()), everything, Kind::Metric, events.clone(), |change| {
        Some(Event::Metric(boxed(change)))
    }));
    tasks.spawn(watch(Api::<Pod>::all(client.clone()), of_revisions.clone(), Kind::Pod, events.clone(), |change| {
        match change {
            Change::Applied(pod) => PodView::of(&pod).map(|view| Event::Pod(Change::Applied(view))),
            Change::Deleted(key) => Some(Event::Pod(Change::Deleted(key))),
        }
    }));
    tasks.spawn(watch(Api::<Deployment>::all(client.clone()), of_revisions, Kind::Target, events.clone(), |change| {
        Some(Event::Target(match change {
            Change::Applied(deployment) => {
                let replicas = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
                let version = deployment.resource_version().and_then(|v| v.parse().ok()).unwrap_or(0);
                Change::Applied((Key::of(&deployment), replicas, version))
            }
            Change::Deleted(key) => Change::Deleted(key),
        }))
    }));
    let mut current = Settings::default();
    tasks.spawn(watch(
        Api::<ConfigMap>::namespaced(client.clone(), system_namespace),
        watcher::Config::default(),
        Kind::Settings,
        events.clone(),
        move |change| settings_event(&mut current, &change),
    ));
}

fn boxed<T>(change: Change<T>) -> Change<Box<T>> {
    match change {
        Change::Applied(object) => Change::Applied(Box::new(object)),
        Change::Deleted(key) => Change::Deleted(key),
    }
}

/// A ConfigMap that does not parse is said so, and the settings stay as they are.
fn settings_event(current: &mut Settings, change: &Change<ConfigMap>) -> Option<Event> {
    let (name, data) = match change {
        Change::Applied(map) => (map.name_any(), map.data.clone().unwrap_or_default()),
        Change::Deleted(key) => (key.name().to_owned(), settings::Data::new()),
    };
    let mut next = current.clone();
    let parsed = match name.as_str() {
        "config-autoscaler" => settings::Autoscaler::parse(&data).map(|s| next.autoscaler = s),
        "config-deployment" => settings::Deployment::parse(&data).map(|s| next.deployment = s),
        _ => return None,
    };
    if let Err(error) = parsed {
        tracing::error!(%error, "settings refused; the old ones stay");
        return None;
    }
    if next == *current {
        return None;
    }
    tracing::info!(config_map = name, "settings changed");
    *current = next.clone();
    Some(Event::Settings(Arc::new(next)))
}

async fn watch<K>(
    api: Api<K>,
    config: watcher::Config,
    kind: Kind,
    events: mpsc::Sender<Event>,
    mut to_event: impl FnMut(Change<K>) -> Option<Event> + Send,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    // The engine knows what exists; only ConfigMaps, which it does not keep, are remembered here.
    let mut known = HashSet::new();
    let remembers = kind == Kind::Settings;
    let mut listed = HashSet::new();
    let mut hashes = HashSet::new();
    let mut lists = 0_u64;
    let mut stream = watcher(api, config).default_backoff().boxed();
    while let Some(event) = stream.next().await {
        let mut batch = Vec::new();
        match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                hashes.clear();
                lists += 1;
            }
            Ok(watcher::Event::InitApply(object)) => {
                let key = Key::of(&object);
                if remembers {
                    known.insert(key.clone());
                    listed.insert(key);
                } else if lists > 1 {
                    hashes.insert(key.hashed());
                }
                batch.extend(to_event(Change::Applied(object)));
            }
            Ok(watcher::Event::InitDone) => {
                // What went while nobody watched has no event of its own.
                let gone: Vec<Key> = known.difference(&listed).cloned().collect();
                for key in gone {
                    known.remove(&key);
                    batch.extend(to_event(Change::Deleted(key)));
                }
                listed = HashSet::new();
                if !remembers && lists > 1 {
                    batch.push(Event::Listed(kind, std::mem::take(&mut hashes)));
                }
                batch.push(Event::Synced(kind));
            }
            Ok(watcher::Event::Apply(object)) => {
                if remembers {
                    known.insert(Key::of(&object));
                }
                batch.extend(to_event(Change::Applied(object)));
            }
            Ok(watcher::Event::Delete(object)) => {
                let key = Key::of(&object);
                known.remove(&key);
                batch.extend(to_event(Change::Deleted(key)));
            }
            Err(error) => {
                tracing::warn!(?kind, %error, "watch failed; it is taken up again");
                // The backoff of the stream paces retries; this one only keeps a tight loop impossible.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        for event in batch {
            if events.send(event).await.is_err() {
                return;
            }
        }
    }
}
