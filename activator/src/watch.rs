//! Watches of the API server, as a thin shell: `kube` lists and watches, the [`Feed`] gets what it says.

use std::fmt::Debug;
use std::pin::pin;

use api::labels::networking::{SERVICE_TYPE, SERVICE_TYPE_PRIVATE, SERVICE_TYPE_PUBLIC};
use api::networking::Ingress;
use api::serving::Revision;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Endpoints;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

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
