//! Service with a selector + Pods → Endpoints, written the moment they differ.
//!
//! One task holds what the watches tell; each Service has at most one write under way, and the next one writes what is
//! true then.

mod desired;

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    time::Duration,
};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::{sync::mpsc::UnboundedReceiver, task::JoinSet, time::Instant};

use super::{
    cache::{Cache, Key, key, shared},
    pods::PodEvent,
};

const RETRY: Duration = Duration::from_secs(1);

/// Runs until dropped.
pub(super) async fn run(client: Client, mut pods: UnboundedReceiver<PodEvent>) {
    let mut services = pin!(watcher(Api::<Service>::all(client.clone()), watcher::Config::default()).default_backoff());
    let mut controller = Controller {
        client,
        services: Cache::default(),
        pods: Cache::default(),
        written: HashMap::new(),
        writing: HashSet::new(),
        dirty: HashSet::new(),
        retry: None,
        tasks: JoinSet::new(),
    };
    loop {
        let retry = controller.retry;
        tokio::select! {
            Some(event) = services.next() => match event {
                Ok(event) => controller.services_changed(event),
                Err(error) => tracing::warn!(%error, "watch of services failed"),
            },
            Some(event) = pods.recv() => controller.pods_changed(event),
            Some(Ok((key, failed))) = controller.tasks.join_next() => controller.wrote(key, failed),
            () = async { match retry { Some(at) => tokio::time::sleep_until(at).await, None => std::future::pending().await } } => {
                controller.retry = None;
            }
        }
        controller.work();
    }
}

struct Controller {
    client: Client,
    services: Cache<Service>,
    pods: Cache<Pod>,
    /// What each Service's Endpoints are since our last write.
    written: HashMap<Key, Endpoints>,
    writing: HashSet<Key>,
    dirty: HashSet<Key>,
    retry: Option<Instant>,
    tasks: JoinSet<(Key, bool)>,
}

impl Controller {
    fn services_changed(&mut self, event: watcher::Event<Service>) {
        for (old, new) in self.services.take(shared(event)) {
            self.dirty.extend(new.or(old).map(|service| key(&*service)));
        }
    }

    fn pods_changed(&mut self, event: PodEvent) {
        for (old, new) in self.pods.take(event) {
            for pod in old.iter().chain(&new) {
                let selecting = self.services.all().filter(|service| desired::selects(service, pod));
                self.dirty.extend(selecting.map(|service| key(&**service)));
            }
        }
    }

    fn wrote(&mut self, key: Key, failed: bool) {
        self.writing.remove(&key);
        if failed {
            self.written.remove(&key);
            self.retry = Some(Instant::now() + RETRY);
        }
        self.dirty.insert(key);
    }

    fn work(&mut self) {
        if !self.services.synced() || !self.pods.synced() || self.retry.is_some_and(|at| at > Instant::now()) {
            return;
        }
        for key in std::mem::take(&mut self.dirty) {
            if self.writing.contains(&key) {
                // Looked at again when that write is done.
                continue;
            }
            let service = self.services.get(&key).filter(|service| desired::selector(service).is_some());
            let Some((namespace, name)) = key.split_once('/') else { continue };
            let api: Api<Endpoints> = Api::namespaced(self.client.clone(), namespace);
            let name = name.to_owned();
            let Some(service) = service else {
                if self.written.remove(&key).is_some() {
                    self.writing.insert(key.clone());
                    self.tasks.spawn(async move {
                        // The API server may have removed it with its Service.
                        let _ = api.delete(&name, &DeleteParams::default()).await;
                        (key, false)
                    });
                }
                continue;
            };
            let desired = desired::endpoints(service, self.pods.all());
            if self.written.get(&key) == Some(&desired) {
                continue;
            }
            let exists = self.written.insert(key.clone(), desired.clone()).is_some();
            self.writing.insert(key.clone());
            self.tasks.spawn(async move {
                let result = write(&api, &name, &desired, exists).await;
                if let Err(error) = &result {
                    tracing::warn!(endpoints = name, %error, "endpoints not written");
                }
                (key, result.is_err())
            });
        }
    }
}

/// Puts Endpoints with one request where they exist, or where they do not, as expected.
async fn write(api: &Api<Endpoints>, name: &str, desired: &Endpoints, exists: bool) -> Result<(), kube::Error> {
    let status = |result: &Result<Endpoints, kube::Error>| match result {
        Err(kube::Error::Api(answer)) => answer.code,
        _ => 0,
    };
    let patch = || async {
        let patch = serde_json::json!({"metadata": {"labels": desired.labels()}, "subsets": desired.subsets});
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await
    };
    let create = || async { api.create(&PostParams::default(), desired).await };
    let mut result = if exists { patch().await } else { create().await };
    match (exists, status(&result)) {
        (true, 404) => result = create().await,
        (false, 409) => result = patch().await,
        _ => {}
    }
    result.map(drop)
}
