//! The shell around everything: watches, the queue's dispatcher, and the end.

use std::{sync::Arc, time::Instant};

use api::{
    autoscaling::PodAutoscaler,
    networking::{Certificate, ClusterDomainClaim, Ingress, ServerlessService},
    serving::{Configuration, DomainMapping, Revision, Route, Service},
};
use futures::FutureExt;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Endpoints, Namespace, Pod, Service as CoreService},
};
use lease::Elector;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    certificate,
    config::Config,
    config_maps, configuration,
    context::{Context, ReconcileError},
    domain_mapping,
    engine::{
        queue::Outcome,
        watch::watch_kind,
        world::{Key, Kind, Known, World},
        writer::Writer,
    },
    gc, ingress, labeler,
    metrics::Metrics,
    revision, route, serverless_service, service,
};

/// Why the controller does not start or stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot be read.
    #[error("list ConfigMaps in {namespace}: {source}")]
    Settings {
        /// System namespace.
        namespace: String,
        /// What the API server or the connection said.
        #[source]
        source: kube::Error,
    },
    /// Another controller does the work now, or nobody knows.
    #[error("the lease {LEASE} is not ours any more: another controller works on")]
    LeaseLost,
    /// The metrics are declared twice in one registry.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// The lease of the one that does the work.
const LEASE: &str = "dormouse-controller";

/// Reconciles until told to stop.
pub struct Controller {
    config: Config,
    context: Arc<Context>,
}

impl Controller {
    /// Reads the settings; nothing is watched or written before [`Self::run`].
    pub async fn bind(config: Config) -> Result<Self, Error> {
        let metrics = Metrics::new(&config.registry)?;
        let settings = config_maps::read(&config.client, &config.system_namespace, &config.cluster_domain).await;
        let settings =
            settings.map_err(|source| Error::Settings { namespace: config.system_namespace.clone(), source })?;
        config.settings.store(Arc::new(settings));
        let world = Arc::new(World::new(&config.system_namespace));
        let writer = Writer::new(config.client.clone(), Arc::clone(&world), metrics.clone());
        let context = Context::new(&config, world, writer, metrics);
        Ok(Self { config, context: Arc::new(context) })
    }

    /// Reconciles until `shutdown`; work under way is finished first.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut watches = JoinSet::new();
        let mut synced = Vec::new();
        self.watch::<Service>(&mut watches, &mut synced);
        self.watch::<Configuration>(&mut watches, &mut synced);
        self.watch::<Revision>(&mut watches, &mut synced);
        self.watch::<Route>(&mut watches, &mut synced);
        self.watch::<PodAutoscaler>(&mut watches, &mut synced);
        self.watch::<ServerlessService>(&mut watches, &mut synced);
        self.watch::<Ingress>(&mut watches, &mut synced);
        self.watch::<Deployment>(&mut watches, &mut synced);
        self.watch::<Pod>(&mut watches, &mut synced);
        self.watch::<CoreService>(&mut watches, &mut synced);
        self.watch::<Endpoints>(&mut watches, &mut synced);
        self.watch::<DomainMapping>(&mut watches, &mut synced);
        self.watch::<ClusterDomainClaim>(&mut watches, &mut synced);
        self.watch::<Certificate>(&mut watches, &mut synced);
        self.watch::<Namespace>(&mut watches, &mut synced);
        let (config, context) = (self.config.clone(), Arc::clone(&self.context));
        watches.spawn(async move {
            // A change wakes what depends on settings.
            let wake = || context.world.wake_all();
            config_maps::follow(config.client, &config.system_namespace, &context.settings, wake).await;
        });
        // Before everything was listed once, "is not there" means nothing.
        for receiver in &mut synced {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                // The sender lives as long as its watch, and that as long as we do.
                _ = receiver.wait_for(|done| *done) => {}
            }
        }
        let workers = self.config.workers.max(1);
        let ended = match self.config.candidate.clone() {
            None => {
                tracing::info!(workers, "controller has seen everything and starts");
                dispatch(&self.context, workers, &shutdown).await;
                Ok(())
            }
            Some(identity) => self.lead(identity, workers, &shutdown).await,
        };
        watches.shutdown().await;
        ended
    }

    /// Works while the lease is ours. Until then everything is watched, so that taking over takes no time; when it is
    /// lost, work under way is cut off: another does it.
    async fn lead(&self, identity: String, workers: usize, shutdown: &CancellationToken) -> Result<(), Error> {
        let (client, namespace) = (self.config.client.clone(), self.config.system_namespace.clone());
        let settings = config_maps::leader_election(&client, &namespace).await;
        let settings = settings.map_err(|source| Error::Settings { namespace: namespace.clone(), source })?;
        let elector = Elector { client, namespace, identity, settings };
        let (told, mut leads) = watch::channel(false);
        // The lease is given back when the work is done, not while it still is.
        let done = CancellationToken::new();
        let electing = elector.run(LEASE, done.clone(), told);
        let work = async {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = leads.wait_for(|leads| *leads) => {}
            }
            tracing::info!(workers, "controller has the lease and starts");
            tokio::select! {
                () = dispatch(&self.context, workers, shutdown) => Ok(()),
                _ = leads.wait_for(|leads| !leads) => Err(Error::LeaseLost),
            }
        };
        let ending = async {
            let ended = work.await;
            done.cancel();
            ended
        };
        let ((), ended) = tokio::join!(electing, ending);
        ended
    }

    fn watch<K: Known>(&self, watches: &mut JoinSet<()>, synced: &mut Vec<watch::Receiver<bool>>) {
        let (sender, receiver) = watch::channel(false);
        synced.push(receiver);
        watches.spawn(watch_kind::<K>(self.config.client.clone(), Arc::clone(&self.context.world), sender));
    }
}

/// Hands keys to at most `workers` tasks until `shutdown`, then waits for those under way.
async fn dispatch(context: &Arc<Context>, workers: usize, shutdown: &CancellationToken) {
    let mut running = JoinSet::new();
    loop {
        if running.len() >= workers {
            running.join_next().await;
            continue;
        }
        let key = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            key = context.world.work.next() => key,
            Some(_) = running.join_next() => continue,
        };
        context.metrics.queue_depth.set(i64::try_from(context.world.work.depth()).unwrap_or(i64::MAX));
        running.spawn(work_on(Arc::clone(context), key));
    }
    while running.join_next().await.is_some() {}
}

async fn work_on(context: Arc<Context>, key: Key) {
    let started = Instant::now();
    // A bug in one reconciler must not take its key out of the queue for ever.
    let caught = std::panic::AssertUnwindSafe(reconcile(&context, &key)).catch_unwind().await;
    let outcome = match caught {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(ReconcileError::Write(error))) if error.is_conflict() => {
            tracing::debug!(%error, "someone wrote in between; looking again");
            Outcome::Failed
        }
        // The object (or its namespace) went while we worked on it; the watch tells.
        Ok(Err(ReconcileError::Write(error))) if error.is_gone() => {
            tracing::debug!(%error, "gone meanwhile");
            Outcome::Failed
        }
        Ok(Err(error)) => {
            tracing::warn!(reconciler = key.kind.name(), namespace = %key.namespace, name = %key.name, %error, "reconcile failed; it is tried again");
            Outcome::Failed
        }
        Err(_) => {
            tracing::error!(reconciler = key.kind.name(), namespace = %key.namespace, name = %key.name, "reconcile panicked");
            Outcome::Failed
        }
    };
    let word = match outcome {
        Outcome::Settled => "settled",
        Outcome::Again(_) => "again",
        Outcome::Failed => "failed",
    };
    context.metrics.reconciles.with_label_values(&[key.kind.name(), word]).inc();
    context.metrics.reconcile_seconds.with_label_values(&[key.kind.name()]).observe(started.elapsed().as_secs_f64());
    context.world.work.done(key, outcome);
}

async fn reconcile(context: &Context, key: &Key) -> Result<Outcome, ReconcileError> {
    match key.kind {
        Kind::Service => service::reconcile(context, key).await,
        Kind::Configuration => configuration::reconcile(context, key).await,
        Kind::Gc => gc::reconcile(context, key).await,
        Kind::Labeler => labeler::reconcile(context, key).await,
        Kind::Revision => revision::reconcile(context, key).await,
        Kind::ServerlessService => serverless_service::reconcile(context, key).await,
        Kind::Route => route::reconcile(context, key).await,
        Kind::Ingress => ingress::reconcile(context, key).await,
        Kind::DomainMapping => domain_mapping::reconcile(context, key).await,
        Kind::Certificate => certificate::reconcile(context, key).await,
        Kind::Namespace => certificate::namespaces::reconcile(context, key).await,
    }
}
