//! The loop around the engine: events in, effects out, and nothing else.

use std::{net::SocketAddr, sync::Arc};

use ::prometheus::Registry;
use api::{
    autoscaling::PodAutoscaler,
    settings::Network,
    timeline::{Observer, Phase},
};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    apply::{
        probe::{Prober, Resolve},
        watch,
        write::Writer,
    },
    clock::Clock,
    collect::{
        listeners::Listeners,
        mesh::Reach,
        prometheus,
        scrape::Scraper,
        server::{self, Server},
    },
    config::{Config, Sharing},
    decider::{Effect, Engine, Event, Settings, Write, Written},
    election::forward::Forwarder,
    hpa,
    key::Key,
    metrics::Metrics,
    shares::{self, Shares},
};

/// Why an autoscaler does not start or ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stat port is not to be had.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// A ConfigMap that is read once is bad, or cannot be read.
    #[error("cannot use ConfigMap {0}: {1}")]
    Settings(String, String),
    /// The pod's place is beyond the buckets.
    #[error("STATEFUL_CONTROLLER_ORDINAL = {0}, but config-leader-election has {1} buckets")]
    Ordinal(u8, u32),
    /// A metric of that name exists already.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] ::prometheus::Error),
}

/// Events that may wait. Senders wait beyond that; nothing is dropped.
const QUEUE: usize = 1024;
/// Revisions looked at for time's sake between two looks at the queue.
const BATCH: usize = 64;

/// An autoscaler with its socket bound.
pub struct Autoscaler {
    listener: TcpListener,
    address: SocketAddr,
    config: Config,
    metrics: Metrics,
}

impl Autoscaler {
    /// Binds the stat port and registers the metrics.
    pub async fn bind(config: Config) -> Result<Self, Error> {
        let failed = |error| Error::Listen(config.listen, error);
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let metrics = Metrics::register(&config.registry)?;
        Ok(Self { listener, address, config, metrics })
    }

    /// Where activators report: `ws://ADDRESS/`.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Runs until cancelled; then closes the reporters' connections and ends.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self { listener, address, config, metrics } = self;
        tracing::info!(%address, pod = config.pod_name, "autoscaler listening");
        let (events, queue) = mpsc::channel(QUEUE);
        let clock = Clock::start();
        let reach = reach(&config).await?;
        let mut tasks = JoinSet::new();
        let Shares { ownership, forwarder, electors, stop_electing } =
            Shares::start(&config, &events, &mut tasks).await?;
        watch::spawn(&config.client, &config.system_namespace, &events, &mut tasks);
        let server = Server {
            events: events.clone(),
            ownership: ownership.clone(),
            registry: Registry::clone(&config.registry),
            metrics: metrics.clone(),
        };
        let serving = tokio::spawn(server::serve(server, listener, shutdown.clone()));
        let resolve =
            if config.resolve_by_endpoints { Resolve::Endpoints } else { Resolve::Dns(config.cluster_domain) };
        let (horizontals, look_at) = mpsc::channel(64);
        tasks.spawn(hpa::run(config.client.clone(), clock, look_at));
        let scraper = Scraper::with(config.scrape_port, reach);
        let hands = Hands {
            writer: Writer::new(config.client.clone(), scraper.clone()),
            prober: Prober::new(config.client.clone(), resolve),
            client: config.client,
            listeners: Listeners::new(scraper.clone(), events.clone()),
            scraper,
            observer: config.observer,
            metrics: metrics.clone(),
            forwarder,
            horizontals,
            events,
        };
        let mut engine = Engine::new(ownership, metrics);
        if hands.scraper.reaches_pods() {
            engine = engine.listening();
        }
        decide(engine, queue, hands, clock, &shutdown).await;
        // Leases are given back only now that nothing is decided any more.
        stop_electing.cancel();
        electors.join_all().await;
        tasks.shutdown().await;
        if let Err(error) = serving.await {
            tracing::error!(%error, "stat server ended badly");
        }
        Ok(())
    }
}

/// How pods are reached: read once, as a change of it means new pods anyway.
async fn reach(config: &Config) -> Result<Reach, Error> {
    const NAME: &str = "config-network";
    if config.sharing == Sharing::Alone {
        // On one machine there is no mesh.
        return Ok(Reach::default());
    }
    let data = shares::read_once(&config.client, &config.system_namespace, NAME).await?;
    let network = Network::parse(&data).map_err(|error| Error::Settings(NAME.to_owned(), error.to_string()))?;
    Ok(Reach { mesh: network.mesh_compatibility_mode, addressable: network.enable_mesh_pod_addressability })
}

async fn decide(
    mut engine: Engine,
    mut queue: mpsc::Receiver<Event>,
    mut hands: Hands,
    clock: Clock,
    shutdown: &CancellationToken,
) {
    let mut effects = Vec::new();
    let mut tasks = JoinSet::new();
    loop {
        let due = engine.next_due().map(|due| clock.instant(due));
        let far = Instant::now() + std::time::Duration::from_secs(3600);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            event = queue.recv() => match event {
                Some(event) => engine.handle(event, clock.now(), &mut effects),
                None => break,
            },
            () = sleep_until(due.unwrap_or(far)) => engine.run_due(clock.now(), BATCH, &mut effects),
            Some(_) = tasks.join_next() => {}
            () = hands.listeners.clear() => {}
        }
        for effect in effects.drain(..) {
            hands.perform(effect, &mut tasks);
        }
    }
    // Writes under way are finished by nobody; the next process sees what is missing.
    tasks.shutdown().await;
    if let Some(forwarder) = hands.forwarder {
        forwarder.shutdown().await;
    }
}

/// Performs effects, each in a task of its own, and reports back as events.
struct Hands {
    writer: Writer,
    client: kube::Client,
    prober: Prober,
    scraper: Scraper,
    listeners: Listeners,
    observer: Observer,
    metrics: Metrics,
    forwarder: Option<Forwarder>,
    horizontals: mpsc::Sender<(Key, Arc<Settings>)>,
    events: mpsc::Sender<Event>,
}

impl Hands {
    fn perform(&mut self, effect: Effect, tasks: &mut JoinSet<()>) {
        let events = self.events.clone();
        match effect {
            Effect::Decided(key) => self.observer.mark(key.namespace(), key.name(), Phase::Decided),
            Effect::Write { key, write, wakes } => {
                let (writer, observer, metrics) = (self.writer.clone(), self.observer.clone(), self.metrics.clone());
                let start = Instant::now();
                tasks.spawn(async move {
                    let is_scale = matches!(write, Write::Scale { .. });
                    let written = writer.write(&key, write).await;
                    if wakes && is_scale && matches!(written, Written::Scale(Ok(_))) {
                        observer.mark(key.namespace(), key.name(), Phase::ScaleWritten);
                        metrics.wake_seconds.observe(start.elapsed().as_secs_f64());
                    }
                    // The engine is gone only at the end.
                    drop(events.send(Event::Wrote(key, written)).await);
                });
            }
            Effect::Scrape { key, round } => {
                let (scraper, metrics) = (self.scraper.clone(), self.metrics.clone());
                tasks.spawn(async move {
                    let start = Instant::now();
                    let stat = match scraper.round(&key, &round).await {
                        Ok(stat) => stat,
                        Err(error) => {
                            tracing::debug!(revision = %key, %error, "scrape failed");
                            None
                        }
                    };
                    metrics.scrape_seconds.observe(start.elapsed().as_secs_f64());
                    drop(events.send(Event::Scraped(key, stat)).await);
                });
            }
            Effect::Listen { key, pod, service } => {
                self.listeners.listen(key, pod, &service);
                self.metrics.listened_pods.set(self.listeners.len() as f64);
            }
            Effect::Hush(key, pod) => {
                self.listeners.hush(&(key, pod));
                self.metrics.listened_pods.set(self.listeners.len() as f64);
            }
            Effect::Horizontal(key, settings) => {
                let horizontals = self.horizontals.clone();
                // Its queue is short; who waits for it is a task and not the engine.
                tasks.spawn(async move { drop(horizontals.send((key, settings)).await) });
            }
            Effect::Forward(bucket, report) => {
                if !self.forwarder.as_ref().is_some_and(|forwarder| forwarder.send(bucket, report)) {
                    self.metrics.unforwarded_stats.inc();
                }
            }
            Effect::Fetch(key) => {
                let api: kube::Api<PodAutoscaler> = kube::Api::namespaced(self.client.clone(), key.namespace());
                tasks.spawn(async move {
                    let pa = match api.get_opt(key.name()).await {
                        Ok(pa) => pa.map(Box::new),
                        Err(error) => {
                            tracing::warn!(revision = %key, %error, "cannot read the PodAutoscaler");
                            None
                        }
                    };
                    drop(events.send(Event::Fetched(key, pa)).await);
                });
            }
            Effect::Measure { key, address, query } => {
                tasks.spawn(async move {
                    let value = match prometheus::load(&address, &query).await {
                        Ok(value) => Some(value),
                        Err(error) => {
                            tracing::debug!(revision = %key, %error, "no load from Prometheus");
                            None
                        }
                    };
                    drop(events.send(Event::Measured(key, value)).await);
                });
            }
            Effect::Probe { key, target } => {
                let prober = self.prober.clone();
                tasks.spawn(async move {
                    let in_path = prober.until_activator(&key, &target).await;
                    drop(events.send(Event::Probed(key, in_path)).await);
                });
            }
        }
    }
}
