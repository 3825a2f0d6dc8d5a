//! Starts what sharing the work needs, by the way it is shared: electors, the watch of leases, the forwarder.

use std::time::Duration;

use api::settings::{Data, LeaderElection};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Sharing},
    decider::Event,
    election::{
        Identity,
        elector::Election,
        forward::{Forwarder, Holders},
    },
    ownership::Ownership,
    service::Error,
};

/// Tries to read a ConfigMap at the start, a second apart: API servers and pods start together.
const TRIES: usize = 60;

/// What came of it.
pub(crate) struct Shares {
    pub(crate) ownership: Ownership,
    pub(crate) forwarder: Option<Forwarder>,
    /// They end, giving back their leases, when told so.
    pub(crate) electors: JoinSet<()>,
    pub(crate) stop_electing: CancellationToken,
}

impl Shares {
    pub(crate) async fn start(
        config: &Config,
        events: &mpsc::Sender<Event>,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self, Error> {
        let mut shares = Self {
            ownership: Ownership::All,
            forwarder: None,
            electors: JoinSet::new(),
            stop_electing: CancellationToken::new(),
        };
        if config.sharing == Sharing::Alone {
            return Ok(shares);
        }
        let (namespace, domain) = (&config.system_namespace, &config.cluster_domain);
        let data = read_once(&config.client, namespace, &config.leader_election_config).await?;
        let settings = LeaderElection::parse(&data)
            .map_err(|error| Error::Settings(config.leader_election_config.clone(), error.to_string()))?;
        let holders = Holders::default();
        if let Sharing::StatefulSet(set) = &config.sharing {
            if u32::from(set.ordinal) >= settings.buckets {
                return Err(Error::Ordinal(set.ordinal, settings.buckets));
            }
            let names = set.buckets(&config.pod_name, namespace, domain, settings.buckets);
            shares.ownership = Ownership::fixed(names, set.ordinal);
        } else {
            shares.ownership = Ownership::of_leases(settings.buckets);
            let names = shares.ownership.names().to_vec();
            tasks.spawn(holders.clone().watch(config.client.clone(), namespace.clone(), names));
            let election = Election {
                client: config.client.clone(),
                namespace: namespace.clone(),
                identity: Identity { pod: config.pod_name.clone(), ip: config.pod_ip },
                settings,
                ownership: shares.ownership.clone(),
                events: events.clone(),
            };
            for bucket in (0_u8..).take(shares.ownership.names().len()) {
                shares.electors.spawn(election.clone().run(bucket, shares.stop_electing.clone()));
            }
        }
        shares.forwarder = Some(Forwarder::new(shares.ownership.names(), &holders, namespace, domain));
        Ok(shares)
    }
}

/// Data of a ConfigMap that is read once; one that does not exist is empty.
pub(crate) async fn read_once(client: &Client, namespace: &str, name: &str) -> Result<Data, Error> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let mut tries = 0;
    loop {
        match maps.get_opt(name).await {
            Ok(map) => return Ok(map.and_then(|map| map.data).unwrap_or_default()),
            Err(error) if tries == TRIES => return Err(Error::Settings(name.to_owned(), error.to_string())),
            Err(error) => tracing::warn!(name, %error, "cannot read the ConfigMap yet"),
        }
        tries += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
