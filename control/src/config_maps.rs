//! The ConfigMaps of the system namespace → [`Settings`], once and then for ever. Whoever obeys them shares the snapshot.

use api::settings::{Data, LeaderElection};
use arc_swap::ArcSwap;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    runtime::{WatchStreamExt, watcher},
};

use crate::settings::Settings;

/// The settings as they are now. A ConfigMap that cannot be read counts as absent, and that is said.
pub async fn read(client: &Client, namespace: &str, cluster_domain: &str) -> kube::Result<Settings> {
    let mut settings = Settings::new(cluster_domain);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    for map in maps.list(&ListParams::default()).await? {
        take_over(&mut settings, &map.name_any(), &map.data.unwrap_or_default());
    }
    Ok(settings)
}

/// How replicas share the work. Read once: those that run must agree.
pub async fn leader_election(client: &Client, namespace: &str) -> kube::Result<LeaderElection> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let data = maps.get_opt("config-leader-election").await?.and_then(|map| map.data).unwrap_or_default();
    Ok(LeaderElection::parse(&data).unwrap_or_else(|error| {
        tracing::error!(%error, "setting refused; the usual ones are used");
        LeaderElection::default()
    }))
}

/// Follows the ConfigMaps; `changed` is called after each change.
pub async fn follow(client: Client, namespace: &str, settings: &ArcSwap<Settings>, changed: impl Fn()) {
    let maps: Api<ConfigMap> = Api::namespaced(client, namespace);
    let stream = watcher::watcher(maps, watcher::Config::default()).default_backoff();
    futures::pin_mut!(stream);
    while let Some(event) = stream.next().await {
        let (name, data) = match event {
            Ok(watcher::Event::Apply(map) | watcher::Event::InitApply(map)) => {
                (map.name_any(), map.data.unwrap_or_default())
            }
            // A deleted ConfigMap means defaults.
            Ok(watcher::Event::Delete(map)) => (map.name_any(), Data::new()),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => continue,
            Err(error) => {
                tracing::warn!(kind = "ConfigMap", %error, "watch broke; it starts again");
                continue;
            }
        };
        let before = settings.load_full();
        let mut next = before.as_ref().clone();
        take_over(&mut next, &name, &data);
        if next != *before {
            tracing::info!(config_map = %name, "settings changed");
            settings.store(next.into());
            changed();
        }
    }
}

fn take_over(settings: &mut Settings, name: &str, data: &Data) {
    if let Err(error) = settings.apply(name, data) {
        tracing::error!(%error, "setting refused; the last good value stays");
    }
}
