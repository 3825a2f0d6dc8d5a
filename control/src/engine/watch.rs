//! One watch a kind: fills the kind's store and wakes who cares. The only readers of the API besides these are tests.

use std::sync::Arc;

use futures::StreamExt;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use tokio::sync::watch;

use super::world::{Known, World};

/// Watches a kind in all namespaces for ever; `synced` turns true when the first list is in the store.
pub async fn watch_kind<K: Known>(client: Client, world: Arc<World>, synced: watch::Sender<bool>) {
    let mut config = watcher::Config::default();
    if let Some(selector) = K::SELECTOR {
        config = config.labels(selector);
    }
    let stream = watcher::watcher(Api::<K>::all(client), config).default_backoff();
    futures::pin_mut!(stream);
    let mut listed = Vec::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(object)) => listed.push(object),
            Ok(watcher::Event::InitDone) => {
                world.relist(std::mem::take(&mut listed));
                synced.send_replace(true);
            }
            Ok(watcher::Event::Apply(object)) => world.observe(object),
            Ok(watcher::Event::Delete(object)) => world.forget(&object),
            Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "watch broke; it starts again"),
        }
    }
}
