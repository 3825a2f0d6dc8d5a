//! Watches of the API server, as a thin shell: `kube` lists and watches, the [`Feed`] gets what it says.
//!
//! A drop-in watches no more than upstream's role allows: Revisions, Endpoints and Services of all namespaces, ConfigMaps
//! and one Secret of the system namespace.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::pin::pin;

use api::labels::networking::{SERVICE_TYPE, SERVICE_TYPE_PRIVATE, SERVICE_TYPE_PUBLIC};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;

use crate::certificates::SecretName;
use crate::config::Config;
use crate::feed::{Change, Event, Feed, NameOf, One, Seen, endpoints_of, own_name, service_of};
use crate::internal_tls;

/// Watches everything the activator needs, for ever. Ingresses only as a gateway: upstream's roles do not let an
/// activator read them.
pub async fn run(client: Client, feed: Feed, config: &Config) {
    let endpoints =
        watcher::Config::default().labels(&format!("{SERVICE_TYPE} in ({SERVICE_TYPE_PRIVATE},{SERVICE_TYPE_PUBLIC})"));
    let everything = watcher::Config::default;
    let all = || client.clone();
    let routes = async {
        if !config.is_drop_in() {
            let tell = |one| feed.send(Event::Ingress(one));
            follow_many("ingresses", Api::all(all()), everything(), own_name, tell).await;
        }
    };
    let services = async {
        if config.needs_services() {
            let private = watcher::Config::default().labels(&format!("{SERVICE_TYPE}={SERVICE_TYPE_PRIVATE}"));
            let tell = |one| feed.send(Event::Service(one));
            follow_many("services", Api::all(all()), private, service_of, tell).await;
        }
    };
    let secret = async {
        if let Some(tls) = &config.internal_tls {
            let secrets = Api::namespaced(all(), &config.system_namespace);
            let one = watcher::Config::default().fields(&format!("metadata.name={}", internal_tls::SECRET));
            let tell = |change| match change {
                Change::Listed(secrets) => secrets.iter().for_each(|secret| tls.secret(secret)),
                Change::Applied(secret) => tls.secret(&secret),
                Change::Deleted(_) => {} // the last known certificate stays
            };
            follow::<Secret>("secrets", secrets, one, tell).await;
        }
    };
    let config_maps = async {
        if config.live_sender.is_some() || config.internal_tls.is_some() {
            let maps = Api::namespaced(all(), &config.system_namespace);
            follow::<ConfigMap>("configmaps", maps, everything(), |change| config_maps(config, change)).await;
        }
    };
    tokio::join!(
        routes,
        services,
        config_maps,
        secret,
        follow_many("revisions", Api::all(all()), everything(), own_name, |one| feed.send(Event::Revision(one))),
        follow_many("endpoints", Api::all(all()), endpoints, endpoints_of, |one| feed.send(Event::Endpoints(one))),
    );
}

/// Takes over the ConfigMaps that may change while the process runs.
fn config_maps(config: &Config, change: Change<ConfigMap>) {
    if let Some(tls) = &config.internal_tls {
        tls.config_maps(&change);
    }
    let Some(sender) = &config.live_sender else { return };
    let maps = match change {
        Change::Listed(maps) => maps,
        Change::Applied(map) => vec![map],
        Change::Deleted(_) => return, // the last known settings stay
    };
    for map in maps {
        let (name, data) = (map.name_any(), map.data.unwrap_or_default());
        sender.send_if_modified(|live| match live.apply(&config.config_maps, &name, &data) {
            Ok(changed) => {
                if changed {
                    tracing::info!(name, "ConfigMap taken over");
                }
                changed
            }
            Err(error) => {
                tracing::error!(%error, "ConfigMap not taken over; the last good one holds");
                false
            }
        });
    }
}

/// Follows a kind of many objects: each is handed on as it comes.
async fn follow_many<K>(
    kind: &'static str,
    api: Api<K>,
    config: watcher::Config,
    name: NameOf<K>,
    tell: impl Fn(One<K>),
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut seen = Seen::default();
    watched(kind, api, config, |event| match event {
        watcher::Event::Init => seen = Seen::default(),
        watcher::Event::InitApply(object) => {
            seen.add(name(&object));
            tell(One::Applied(object));
        }
        watcher::Event::InitDone => {
            tracing::info!(kind, count = seen.len(), "listed");
            tell(One::Complete(std::mem::take(&mut seen)));
        }
        watcher::Event::Apply(object) => tell(One::Applied(object)),
        watcher::Event::Delete(object) => tell(One::Deleted(object)),
    })
    .await;
}

/// Follows a kind of few objects: a list is handed on in one piece.
async fn follow<K>(kind: &'static str, api: Api<K>, config: watcher::Config, tell: impl Fn(Change<K>))
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut listed = Vec::new();
    watched(kind, api, config, |event| match event {
        watcher::Event::Init => listed.clear(),
        watcher::Event::InitApply(object) => listed.push(object),
        watcher::Event::InitDone => {
            tracing::info!(kind, count = listed.len(), "listed");
            tell(Change::Listed(std::mem::take(&mut listed)));
        }
        watcher::Event::Apply(object) => tell(Change::Applied(object)),
        watcher::Event::Delete(object) => tell(Change::Deleted(object)),
    })
    .await;
}

async fn watched<K>(kind: &'static str, api: Api<K>, config: watcher::Config, mut tell: impl FnMut(watcher::Event<K>))
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = pin!(watcher(api, config).default_backoff());
    let mut failing = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => tell(event),
            Err(error) => {
                // Once per outage: the backoff tries again by itself, and meanwhile the last known state serves.
                if !failing {
                    tracing::warn!(kind, %error, "watch failed; serving what was last known");
                }
                failing = true;
                continue;
            }
        }
        failing = false;
    }
}

/// Secrets watched at once; each takes a connection to the API server.
const MOST_SECRETS: usize = 1000;

/// Watches the Secrets that Ingresses name, each by itself and no others, so that the right to read them can be given
/// one by one.
pub async fn secrets(client: Client, mut wanted: Receiver<BTreeSet<SecretName>>, feed: Feed) {
    // Dropped with the set, a watch ends.
    let mut watched: HashMap<SecretName, JoinSet<()>> = HashMap::new();
    loop {
        let names = wanted.borrow_and_update().clone();
        watched.retain(|name, _| names.contains(name));
        for name in &names {
            if watched.contains_key(name) {
                continue;
            }
            if watched.len() == MOST_SECRETS {
                tracing::warn!(secret = %name, "too many secrets for TLS: only {MOST_SECRETS} are watched");
                break;
            }
            let mut task = JoinSet::new();
            task.spawn_local(secret(client.clone(), name.clone(), feed.clone()));
            watched.insert(name.clone(), task);
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

async fn secret(client: Client, name: SecretName, feed: Feed) {
    let api = Api::<Secret>::namespaced(client, &name.namespace);
    let mut seen = pin!(watcher::watch_object(api, &name.name).default_backoff());
    let mut failing = false;
    while let Some(event) = seen.next().await {
        match event {
            Ok(secret) => feed.secret(name.clone(), secret),
            Err(error) => {
                if !failing {
                    tracing::warn!(secret = %name, %error, "watch failed; serving the last known certificate");
                }
                failing = true;
                continue;
            }
        }
        failing = false;
    }
}
