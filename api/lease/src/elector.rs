//! Holds a lease, or waits for it.

use std::time::Duration;

use api::settings::LeaderElection;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::candidate::{Candidate, Record, Step};

/// One call to the API server may take this long.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A candidate for leases.
#[derive(Clone)]
pub struct Elector {
    /// The API server.
    pub client: Client,
    /// Where leases are.
    pub namespace: String,
    /// Who we are; no other candidate may be called so.
    pub identity: String,
    /// Times.
    pub settings: LeaderElection,
}

impl Elector {
    /// Runs for a lease until `shutdown`, then gives it back so that another need not wait. `told` hears when it
    /// becomes ours and when it is not any more.
    pub async fn run(self, name: &str, shutdown: CancellationToken, told: watch::Sender<bool>) {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut candidate = Candidate::new(self.identity.clone(), self.settings);
        let mut leads = false;
        loop {
            let pause = tokio::select! {
                () = shutdown.cancelled() => break,
                pause = self.turn(&leases, name, &mut candidate) => pause,
            };
            let now = Instant::now();
            if candidate.leads(now) != leads {
                leads = !leads;
                tracing::info!(lease = name, leads, "lease");
                told.send_replace(leads);
            }
            // A holder looks again in time to stop.
            let pause = candidate.leads_for(now).filter(|_| leads).map_or(pause, |rest| pause.min(rest));
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(pause.max(Duration::from_millis(1))) => {}
            }
        }
        if leads {
            self.release(&leases, name).await;
        }
    }

    /// Reads the lease and writes it if it is to be ours; returns when to come again.
    async fn turn(&self, leases: &Api<Lease>, name: &str, candidate: &mut Candidate) -> Duration {
        let retry = self.settings.retry_period;
        match tokio::time::timeout(TIMEOUT, self.attempt(leases, name, candidate)).await {
            Ok(Ok(pause)) => pause.unwrap_or(retry),
            // Somebody else was faster: look at once whose it is.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Duration::from_millis(50),
            Ok(Err(error)) => {
                tracing::warn!(lease = name, %error, "cannot look after the lease");
                retry.min(Duration::from_secs(2))
            }
            Err(_) => {
                tracing::warn!(lease = name, "no answer about the lease in time");
                retry.min(Duration::from_secs(2))
            }
        }
    }

    async fn attempt(
        &self,
        leases: &Api<Lease>,
        name: &str,
        candidate: &mut Candidate,
    ) -> Result<Option<Duration>, kube::Error> {
        let found = leases.get_opt(name).await?;
        let begun = Instant::now();
        let holder = found.as_ref().and_then(|lease| lease.spec.as_ref()?.holder_identity.as_deref());
        if holder.is_some_and(|holder| *holder != *self.identity) {
            candidate.lost();
        }
        match candidate.see(found.as_ref().map(record), begun) {
            Step::Wait(pause) => return Ok(Some(pause)),
            Step::Create => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(name.to_owned()),
                        namespace: Some(self.namespace.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(self.spec(0, None)),
                };
                leases.create(&PostParams::default(), &lease).await?;
            }
            Step::Write { transitions } => {
                let Some(mut lease) = found else { return Ok(None) };
                let acquired = lease.spec.as_ref().and_then(|spec| {
                    spec.acquire_time.clone().filter(|_| spec.holder_identity.as_deref() == Some(&self.identity))
                });
                lease.spec = Some(self.spec(transitions, acquired));
                lease.metadata.managed_fields = None;
                // The resource version makes sure that it is still as read.
                leases.replace(name, &PostParams::default(), &lease).await?;
            }
        }
        candidate.renewed(begun);
        Ok(None)
    }

    fn spec(&self, transitions: i32, acquired: Option<MicroTime>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.settings.lease_duration.as_secs()).ok(),
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// Gives the lease back, if it is still ours.
    async fn release(&self, leases: &Api<Lease>, name: &str) {
        let work = async {
            let Some(mut lease) = leases.get_opt(name).await? else { return Ok(()) };
            let Some(spec) = lease.spec.as_mut() else { return Ok(()) };
            if spec.holder_identity.as_deref() != Some(&self.identity) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            lease.metadata.managed_fields = None;
            leases.replace(name, &PostParams::default(), &lease).await.map(|_| ())
        };
        match tokio::time::timeout(TIMEOUT, work).await {
            Ok(Ok(())) => tracing::info!(lease = name, "lease given back"),
            Ok(Err(error)) => tracing::warn!(lease = name, error = %error as kube::Error, "lease not given back"),
            Err(_) => tracing::warn!(lease = name, "lease not given back in time"),
        }
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(0)),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        transitions: spec.lease_transitions.unwrap_or(0),
    }
}
