//! Watches of the API server, as a thin shell: `kube` lists and watches, the [`Feed`] gets what it says.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::pin::pin;

use api::labels::networking::{SERVICE_TYPE, SERVICE_TYPE_PRIVATE, SERVICE_TYPE_PUBLIC};
use api::networking::Ingress;
use api::serving::Revision;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Endpoints, Secret};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;

use crate::certificates::SecretName;
use crate::feed::{Change, Feed};

/// Watches everything the activator needs, for ever. Ingresses only as a gateway: upstream's roles do not let an
/// activator read them.
pub async fn run(client: Client, feed: Feed, ingresses: bool) {
    let endpoints =
        watcher::Config::default().labels(&format!("{SERVICE_TYPE} in ({SERVICE_TYPE_PRIVATE},{SERVICE_TYPE_PUBLIC})"));
    let routes = async {
        if ingresses {
            follow::<Ingress>("ingresses", client.clone(), watcher::Config::default(), |c| feed.ingress(c)).await;
        }
    };
    tokio::join!(
        routes,
        follow::<Revision>("revisions", client.clone(), watcher::Config::default(), |c| feed.revision(c)),
        follow::<Endpoints>("endpoints", client.clone(), endpoints, |c| feed.endpoints(c)),
    );
}

async fn follow<K>(kind: &'static str, client: Client, config: watcher::Config, tell: impl Fn(Change<K>))
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = pin!(watcher(Api::<K>::all(client), config).default_backoff());
    let mut listed = Vec::new();
    let mut failing = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(object)) => listed.push(object),
            Ok(watcher::Event::InitDone) => {
                tracing::info!(kind, count = listed.len(), "listed");
                tell(Change::Listed(std::mem::take(&mut listed)));
            }
            Ok(watcher::Event::Apply(object)) => tell(Change::Applied(object)),
            Ok(watcher::Event::Delete(object)) => tell(Change::Deleted(object)),
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
