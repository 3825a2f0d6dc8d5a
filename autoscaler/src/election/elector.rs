//! Holds leases, or waits for them: one task a bucket.

use api::settings::LeaderElection;
use kube::Client;
use lease::Elector;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Identity, service};
use crate::{decider::Event, ownership::Ownership};

/// What the electors of all buckets share.
#[derive(Clone)]
pub struct Election {
    /// The API server.
    pub client: Client,
    /// Where leases are.
    pub namespace: String,
    /// Who we are.
    pub identity: Identity,
    /// Times.
    pub settings: LeaderElection,
    /// Told what is held.
    pub ownership: Ownership,
    /// Told when that changes.
    pub events: mpsc::Sender<Event>,
}

impl Election {
    /// Runs for one bucket until cancelled, then gives the lease back so that another need not wait.
    pub async fn run(self, bucket: u8, shutdown: CancellationToken) {
        let Some(name) = self.ownership.names().get(usize::from(bucket)).cloned() else { return };
        let elector = Elector {
            client: self.client.clone(),
            namespace: self.namespace.clone(),
            identity: self.identity.to_string(),
            settings: self.settings,
        };
        let (told, mut leads) = watch::channel(false);
        let stop = shutdown.child_token();
        let electing = elector.run(&name, stop.clone(), told);
        let following = async {
            // Until the elector has ended.
            while leads.changed().await.is_ok() {
                let now_leads = *leads.borrow_and_update();
                let held = self.ownership.set_held(bucket, now_leads);
                if self.events.send(Event::Held(held)).await.is_err() {
                    stop.cancel();
                }
                if now_leads {
                    // Reports find the holder by the lease too; this is for those that look for the Service.
                    let place = service::Place { namespace: self.namespace.clone(), ip: self.identity.ip };
                    tokio::spawn(service::announce(self.client.clone(), place, name.clone()));
                }
            }
        };
        tokio::join!(electing, following);
    }
}
