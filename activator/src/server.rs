//! Sockets, threads and their order: bind, serve, drain, end.
//!
//! Data threads run one single-threaded runtime each, with a listener of their own on the same address; the kernel
//! spreads connections over them. The control thread runs watches, probes, reports and metrics, so that none of them
//! shows in a request's tail. Nothing is accepted before the first lists are in: clients wait in the backlog.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::service::service_fn;
use proxy::certificates::{Certificate, CertificateError};
use proxy::deadline::Timers;
use proxy::drain::Drain;
use proxy::tls::{Tls, TlsError};
use proxy::{Pool, PoolConfig, ServerConfig};
use socket2::{Domain, Socket, Type};
use telemetry::otlp::Sending;
use telemetry::otlp::outbox::Outbox;
use telemetry::traces::Traces;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::certificates::{ByHost, Certificates};
use crate::config::{Config, Routing};
use crate::entrance::Entrance;
use crate::feed::{Event, Feed};
use crate::handler::{self, Client, Door};
use crate::live::LiveSettings;
use crate::metrics::cells::Shard;
use crate::metrics::{self, Metrics};
use crate::observe::Switches;
use crate::report::{Reporter, socket};
use crate::shared::Shared;
use crate::side_ports;
use crate::throttle::Lines;
use crate::throttle::budget::Budget;
use crate::traces;
use crate::world::{Rules, Synced, World};

/// Load reports go out this often.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Longest wait for certificates before https is served without some.
const CERTIFICATES: Duration = Duration::from_secs(5);

/// Why an activator cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The TLS settings cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// The metrics contradict each other.
    #[error("cannot declare metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The certificate of the metrics page cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// A thread is gone; why is in the log.
    #[error("a thread of the activator broke")]
    Broken,
}

/// A listening socket, and what comes in there.
type Listener = (StdListener, Entrance);

/// An activator with its sockets open, not yet serving.
pub struct Activator {
    config: Config,
    local: SocketAddr,
    inside_local: Option<SocketAddr>,
    https_local: Option<SocketAddr>,
    internal_local: Option<SocketAddr>,
    metrics_local: Option<SocketAddr>,
    profiles_local: Option<SocketAddr>,
    /// Per data thread its listeners.
    listeners: Vec<Vec<Listener>>,
    /// Of the https listener, if there is one.
    tls: Option<Tls>,
    side: Side,
    shared: Arc<Shared>,
    events: mpsc::UnboundedReceiver<Event>,
    frames: mpsc::UnboundedReceiver<Bytes>,
}

impl Activator {
    /// Opens the sockets.
    // Async as every part's `bind` is, so that it may one day wait for something.
    #[allow(clippy::unused_async)]
    pub async fn bind(config: Config) -> Result<Self, Error> {
        let threads = match config.threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            wanted => wanted,
        };
        let mut listeners: Vec<Vec<Listener>> = (0..threads).map(|_| Vec::new()).collect();
        let mut open = |address, entrance| {
            listen_all(address, entrance, &mut listeners).map_err(|source| Error::Bind { address, source })
        };
        let local = open(config.listen, Entrance::External)?;
        for address in &config.also_listen {
            open(*address, Entrance::External)?;
        }
        let inside_local = config.local_listen.map(|address| open(address, Entrance::Local)).transpose()?;
        let https_local = config.tls_listen.map(|address| open(address, Entrance::Https)).transpose()?;
        let internal = config.internal_tls.is_some().then_some(config.internal_tls_listen);
        let internal_local = internal.map(|address| open(address, Entrance::Internal)).transpose()?;
        let bind_one = |address| listen(address, false).map_err(|source| Error::Bind { address, source });
        let page = config.observing.page.as_ref();
        let side = Side {
            metrics: page.map(|page| bind_one(page.listen)).transpose()?,
            certificate: page.and_then(|page| page.tls.as_ref()).map(Certificate::load).transpose()?,
            profiles: config.profiling_listen.map(bind_one).transpose()?,
        };
        let at = |listener: &Option<StdListener>| listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let (metrics_local, profiles_local) = (at(&side.metrics), at(&side.profiles));
        let (feed, events) = Feed::new();
        let (reporter, frames) = Reporter::new(&config.pod_name);
        let metrics = Arc::new(Metrics::new(metrics::Wanted {
            threads,
            requests: side.metrics.is_some() || config.observing.telemetry.metrics.is_some(),
            old_names: config.observing.old_metric_names,
            pod: config.pod_name.clone(),
        })?);
        let switches = Switches::new(config.log.clone());
        switches.apply(&config.live.borrow(), None);
        let certificates = Certificates::new(config.default_certificate.clone());
        let shared = Shared::new(reporter, metrics, config.observer.clone(), switches, feed, certificates);
        let shared = Arc::new(shared);
        let tls = match https_local {
            Some(_) => Some(Tls::by_name(&config.tls, Arc::new(ByHost(Arc::clone(&shared))))?),
            None => None,
        };
        Ok(Self {
            config,
            local,
            inside_local,
            https_local,
            internal_local,
            metrics_local,
            profiles_local,
            listeners,
            tls,
            side,
            shared,
            events,
            frames,
        })
    }

    /// Where requests are taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Where requests from inside the cluster are taken, if that is a place of its own.
    pub fn inside_addr(&self) -> Option<SocketAddr> {
        self.inside_local
    }

    /// Where requests of the cluster's own parts are taken over TLS, if anywhere.
    pub fn internal_tls_addr(&self) -> Option<SocketAddr> {
        self.internal_local
    }

    /// Where requests by https are taken, if anywhere.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.https_local
    }

    /// Where metrics are, if anywhere.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_local
    }

    /// Where profiles are, if anywhere.
    pub fn profiles_addr(&self) -> Option<SocketAddr> {
        self.profiles_local
    }

    /// The way to feed it by hand; watches use the same.
    pub fn feed(&self) -> Feed {
        self.shared.feed.clone()
    }

    /// What all threads see, for tests and consoles.
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Serves until cancelled; then finishes what is in flight, and returns.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let drain = Drain::default();
        let cut = CancellationToken::new();
        let end_control = CancellationToken::new();
        let rules = Rules {
            ingress_class: match &self.config.routing {
                Routing::Ingress { class } => class.clone(),
                Routing::Identity { .. } => String::new(),
            },
            lines: Lines {
                length: self.config.queue_limit,
                budget: Budget::new(self.config.queue_limit_total, self.config.queue_bytes_total),
            },
            rhythm: self.config.rhythm,
            mesh: self.config.mesh,
            passthrough: self.config.passthrough,
            services: self.config.needs_services(),
            tls: self.config.internal_tls.clone(),
            own_ip: self.config.pod_ip.clone(),
        };
        let (world, synced) = World::new(rules, Arc::clone(&self.shared), self.shared.feed.clone());
        let traces = self.config.observing.telemetry.traces.as_ref();
        let outbox = traces.map(|traces| Arc::new(Outbox::new(traces.batch)));
        let control = Control {
            world,
            events: self.events,
            frames: self.frames,
            side: self.side,
            outbox: outbox.clone(),
            config: self.config.clone(),
            shared: Arc::clone(&self.shared),
        };
        let token = end_control.clone();
        let mut control = spawn("activator-control".to_owned(), move || control.run(token))?;
        let mut data = Vec::new();
        let threads = self.listeners.len();
        for (n, listeners) in self.listeners.into_iter().enumerate() {
            let thread = DataThread {
                shard: Shard(n),
                outbox: outbox.clone(),
                listeners,
                tls: self.tls.clone(),
                threads,
                config: self.config.clone(),
                shared: Arc::clone(&self.shared),
                drain: drain.clone(),
                cut: cut.clone(),
                synced: synced.clone(),
            };
            data.push(spawn(format!("activator-{n}"), move || thread.run())?);
        }
        tracing::info!(address = %self.local, threads = data.len(), "activator serves");
        let mut all = futures::future::try_join_all(data);
        tokio::select! {
            () = shutdown.cancelled() => {}
            ended = &mut control => return Err(ended.err().unwrap_or(Error::Broken)),
            ended = &mut all => return Err(ended.err().unwrap_or(Error::Broken)),
        }
        self.shared.stop();
        tokio::time::sleep(self.config.linger).await;
        tracing::info!(connections = drain.active(), "activator finishes what is in flight");
        drain.begin();
        let limit = self.config.drain_limit.unwrap_or(Duration::MAX);
        let ended = if let Ok(ended) = tokio::time::timeout(limit, &mut all).await {
            ended.map(drop)
        } else {
            tracing::warn!(connections = drain.active(), "cut off what did not end in time");
            cut.cancel();
            all.await.map(drop)
        };
        end_control.cancel();
        control.await?;
        ended
    }
}

/// Runs a closure on a thread of its own; the future is done when it is.
fn spawn(
    name: String,
    run: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<impl Future<Output = Result<(), Error>> + Send + Unpin, Error> {
    let (done, wait) = oneshot::channel();
    let body = move || {
        let _ = done.send(run());
    };
    thread::Builder::new().name(name).spawn(body).map_err(Error::Thread)?;
    Ok(Box::pin(async move {
        match wait.await {
            Ok(result) => result.map_err(Error::Thread),
            Err(_) => Err(Error::Broken),
        }
    }))
}

fn listen(address: SocketAddr, share: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if share {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Opens an address once per thread.
fn listen_all(address: SocketAddr, entrance: Entrance, threads: &mut [Vec<Listener>]) -> io::Result<SocketAddr> {
    if let [only] = threads {
        let listener = listen(address, false)?;
        let bound = listener.local_addr()?;
        only.push((listener, entrance));
        return Ok(bound);
    }
    // A shared port may be joined by anybody of the same user, so first make sure that nobody has it.
    let probe = listen(address, false)?;
    let bound = probe.local_addr()?;
    drop(probe);
    for listeners in threads {
        listeners.push((listen(bound, true)?, entrance));
    }
    Ok(bound)
}

/// The sockets beside the requests'.
struct Side {
    metrics: Option<StdListener>,
    certificate: Option<Certificate>,
    profiles: Option<StdListener>,
}

struct DataThread {
    shard: Shard,
    /// Where traced requests are handed in.
    outbox: Option<Arc<Outbox>>,
    listeners: Vec<Listener>,
    tls: Option<Tls>,
    threads: usize,
    config: Config,
    shared: Arc<Shared>,
    drain: Drain,
    cut: CancellationToken,
    synced: watch::Receiver<Synced>,
}

impl DataThread {
    fn run(self) -> io::Result<()> {
        let Self { shard, outbox, listeners, tls, threads, config, shared, drain, cut, mut synced } = self;
        proxy::runtime::block_on(async move {
            let listeners =
                listeners.into_iter().map(|(listener, entrance)| Ok((TcpListener::from_std(listener)?, entrance)));
            let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
            let internal_tls = config.internal_tls.as_ref().map(|tls| tls.server());
            let pool = Pool::new(PoolConfig {
                max_idle: config.max_idle.div_ceil(threads.max(1)),
                max_idle_per_target: config.max_idle_per_target,
                // A pod that swallows connections is set aside and another one tried; no need for twenty seconds.
                dial: proxy::dial::DialPolicy { attempts: 5, ..proxy::dial::DialPolicy::default() },
                ..PoolConfig::default()
            });
            let watching = config.client.is_some();
            let needs_ingresses = matches!(config.routing, Routing::Ingress { .. });
            if watching {
                tokio::select! {
                    _ = synced.wait_for(|synced| synced.complete(needs_ingresses)) => {}
                    () = drain.started() => {}
                }
            }
            tokio::task::spawn_local(forget_gone(pool.clone(), shared.gone.subscribe()));
            let wanted = config.observing.telemetry.traces.as_ref();
            let door = Rc::new(Door {
                shared: Arc::clone(&shared),
                shard,
                traces: wanted.zip(outbox).map(|(traces, outbox)| Traces::new(&traces::HOP, traces.sampler, outbox)),
                pool,
                timers: Timers::default(),
                drain: drain.clone(),
                routing: config.routing,
                https_port: config.https_port,
                server_timing: config.server_timing,
            });
            // Traces see all headers.
            let keep_lines = door.traces.is_none();
            let server = ServerConfig { hop: handler::HOP, keep_lines, ..ServerConfig::default() };
            let serving = listeners.into_iter().map(|(listener, entrance)| {
                let door = Rc::clone(&door);
                let make = move |peer| {
                    let (door, client) = (Rc::clone(&door), Rc::new(Client::new(peer, entrance)));
                    service_fn(move |request| handler::handle(Rc::clone(&door), Rc::clone(&client), request))
                };
                let tls = match entrance {
                    Entrance::Https => tls.clone(),
                    Entrance::Internal => internal_tls.clone(),
                    Entrance::External | Entrance::Local => None,
                };
                let server = ServerConfig { tls, ..server.clone() };
                let (shared, drain) = (Arc::clone(&shared), drain.clone());
                async move {
                    if entrance == Entrance::Https && watching {
                        // One Secret that cannot be read must not keep the others waiting for ever.
                        tokio::select! {
                            _ = tokio::time::timeout(CERTIFICATES, shared.certificates.settled()) => {}
                            () = drain.started() => {}
                        }
                    }
                    proxy::serve(listener, server, drain, make).await;
                }
            });
            tokio::select! {
                _ = futures::future::join_all(serving) => {}
                () = cut.cancelled() => {}
            }
            Ok(())
        })?
    }
}

/// Closes idle connections to pods that are gone, and forgets their addresses.
async fn forget_gone(pool: Pool, mut gone: broadcast::Receiver<SocketAddr>) {
    loop {
        match gone.recv().await {
            Ok(address) => pool.forget(address),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

struct Control {
    world: World,
    events: mpsc::UnboundedReceiver<Event>,
    frames: mpsc::UnboundedReceiver<Bytes>,
    side: Side,
    outbox: Option<Arc<Outbox>>,
    config: Config,
    shared: Arc<Shared>,
}

impl Control {
    fn run(self, end: CancellationToken) -> io::Result<()> {
        proxy::runtime::block_on(async move {
            let Self { world, events, frames, side, outbox, config, shared } = self;
            let page = side.metrics.map(TcpListener::from_std).transpose()?;
            let profiles = side.profiles.map(TcpListener::from_std).transpose()?;
            let told = Arc::clone(&shared);
            let sending = Sending::start(&config.observing.telemetry, outbox, &metrics::CATALOG, move || {
                Some(told.metrics.families())
            });
            let reporter = Arc::clone(&shared.reporter);
            let ticks = async {
                let mut tick = tokio::time::interval(REPORT_EVERY);
                loop {
                    tick.tick().await;
                    reporter.tick(Instant::now());
                }
            };
            let watches = async {
                if let Some(client) = config.client.clone() {
                    Box::pin(crate::watch::run(client, shared.feed.clone(), &config)).await;
                }
            };
            let secrets = async {
                // Without a TLS listener nobody needs to see a Secret.
                if let Some(client) = config.client.clone().filter(|_| config.tls_listen.is_some()) {
                    crate::watch::secrets(client, shared.certificates.wanted(), shared.feed.clone()).await;
                }
            };
            let link = socket::run(
                config.autoscaler_url.clone(),
                Arc::clone(&shared.reporter),
                frames,
                Arc::clone(&shared.metrics),
            );
            let metrics = async {
                if let Some(listener) = page {
                    side_ports::metrics(listener, side.certificate, Arc::clone(&shared)).await;
                }
            };
            let profiles = async {
                if let Some(listener) = profiles {
                    side_ports::profiles(listener, Arc::clone(&shared)).await;
                }
            };
            let live = follow(config.live.clone(), &shared.switches);
            let everything =
                async { tokio::join!(world.run(events), watches, secrets, ticks, link, metrics, profiles, live) };
            tokio::select! {
                _ = everything => {}
                () = end.cancelled() => {}
            }
            sending.end().await;
            Ok(())
        })?
    }
}

/// Switches follow what is live, as long as somebody says it.
async fn follow(mut live: watch::Receiver<LiveSettings>, switches: &Switches) {
    let mut before = live.borrow_and_update().clone();
    // Again, for what was said between the start and now.
    switches.apply(&before, None);
    while live.changed().await.is_ok() {
        let now = live.borrow_and_update().clone();
        switches.apply(&now, Some(&before));
        before = now;
    }
}
