//! Reads what a revision of the HPA class has and writes what it should have. Seldom: on changes only.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use api::{
    autoscaling::{PodAutoscaler, PodAutoscalerStatus},
    networking::{MODE_SERVE, ServerlessService},
};
use futures::StreamExt;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};
use serde_json::json;
use tokio::sync::mpsc;

use super::desired::{self, Replicas};
use crate::{
    algorithm::condition::{self, Sks},
    apply::{
        desired as owned, plan,
        write::{Error, status_patch},
    },
    clock::Clock,
    decider::Settings,
    key::Key,
};

/// Until a revision that failed is looked at again.
const RETRY: Duration = Duration::from_secs(5);

/// Looks after revisions as their names come in `look_at`, and after those whose HorizontalPodAutoscaler changes.
pub async fn run(client: Client, clock: Clock, mut look_at: mpsc::Receiver<(Key, Arc<Settings>)>) {
    let horizontals: Api<HorizontalPodAutoscaler> = Api::all(client.clone());
    let mut changes = None;
    let mut settings = Arc::<Settings>::default();
    let mut known = HashSet::new();
    // Each in its turn: one that always fails keeps none of the others.
    let mut failed = VecDeque::new();
    let mut retry = tokio::time::interval(RETRY);
    loop {
        let key = tokio::select! {
            told = look_at.recv() => match told {
                Some((key, newest)) => {
                    settings = newest;
                    // Clusters without such revisions, which are most, need no watch.
                    changes.get_or_insert_with(|| {
                        let watched = watcher(horizontals.clone(), watcher::Config::default());
                        watched.default_backoff().touched_objects().boxed()
                    });
                    known.insert(key.clone());
                    key
                }
                None => return,
            },
            Some(change) = next(&mut changes) => match change {
                Ok(changed) if known.contains(&Key::of(&changed)) => Key::of(&changed),
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!(%error, "HorizontalPodAutoscalers cannot be watched; it is taken up again");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
            },
            _ = retry.tick(), if !failed.is_empty() => {
                let Some(key) = failed.pop_front() else { continue };
                key
            }
        };
        failed.retain(|other| *other != key);
        match reconcile(&client, &key, &settings, clock).await {
            Ok(exists) => {
                if !exists {
                    known.remove(&key);
                }
            }
            Err(error) => {
                tracing::warn!(revision = %key, %error, "HorizontalPodAutoscaler not reconciled; it is tried again");
                failed.push_back(key);
            }
        }
    }
}

async fn next<S: futures::Stream + Unpin>(stream: &mut Option<S>) -> Option<S::Item> {
    match stream {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

/// Whether the revision exists.
async fn reconcile(client: &Client, key: &Key, settings: &Settings, clock: Clock) -> Result<bool, Error> {
    let (namespace, name) = (key.namespace(), key.name());
    let pas: Api<PodAutoscaler> = Api::namespaced(client.clone(), namespace);
    let Some(pa) = pas.get_opt(name).await? else { return Ok(false) };
    if pa.metadata.deletion_timestamp.is_some() {
        return Ok(false);
    }
    let (merge, create) = (PatchParams::default(), PostParams::default());
    let write_status = async |status: PodAutoscalerStatus| -> Result<(), Error> {
        if pa.status.as_ref() != Some(&status) {
            pas.patch_status(name, &merge, &Patch::Merge(status_patch(&status))).await?;
        }
        Ok(())
    };
    let not_owned = |kind: &str| {
        let before = pa.status.clone().unwrap_or_default();
        condition::not_owned(&before, pa.metadata.generation, kind, name, clock.now())
    };

    let horizontals: Api<HorizontalPodAutoscaler> = Api::namespaced(client.clone(), namespace);
    let wanted = desired::horizontal(&pa, &settings.autoscaler);
    let horizontal = match horizontals.get_opt(name).await? {
        None => horizontals.create(&create, &serde_json::from_value(wanted)?).await?,
        Some(found) if !owned::is_controlled_by(&found, &pa) => {
            write_status(not_owned("HPA")).await?;
            return Ok(true);
        }
        Some(found) if desired::covers(&serde_json::to_value(&found.spec)?, &wanted["spec"]) => found,
        Some(mut found) => {
            found.spec = serde_json::from_value(wanted["spec"].clone())?;
            found.metadata.managed_fields = None;
            horizontals.replace(name, &create, &found).await?
        }
    };

    let services: Api<ServerlessService> = Api::namespaced(client.clone(), namespace);
    let spec = owned::sks_spec(&pa, MODE_SERVE, 0);
    let sks = match services.get_opt(name).await? {
        None => services.create(&create, &owned::sks(&pa, spec)).await?,
        Some(found) if !owned::is_controlled_by(&found, &pa) => {
            write_status(not_owned("ServerlessService")).await?;
            return Ok(true);
        }
        Some(found) if found.spec == spec => found,
        Some(_) => services.patch(name, &merge, &Patch::Merge(json!({ "spec": spec }))).await?,
    };

    let private = sks.status.as_ref().and_then(|s| s.private_service_name.as_deref()).filter(|name| !name.is_empty());
    let seen = private.map(|private| Sks {
        service_name: sks.status.as_ref().and_then(|s| s.service_name.as_deref()),
        private_service_name: private,
        ready: plan::sks_ready(&sks),
    });
    let replicas = horizontal.status.as_ref().map_or_else(Replicas::default, |status| Replicas {
        desired: status.desired_replicas,
        current: status.current_replicas.unwrap_or(0),
    });
    write_status(desired::status(&pa, &settings.autoscaler, seen.as_ref(), replicas, clock.now())).await?;
    tracing::debug!(revision = %key, horizontal = horizontal.name_any(), "HPA class reconciled");
    Ok(true)
}
