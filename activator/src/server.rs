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
use http::{Request, Response, StatusCode};
use hyper::service::service_fn;
use proxy::drain::Drain;
use proxy::{Body, Pool, PoolConfig, ServerConfig};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Routing};
use crate::feed::{Event, Feed};
use crate::handler::{Connection, Door};
use crate::metrics::Metrics;
use crate::report::{Reporter, socket};
use crate::shared::Shared;
use crate::throttle::Lines;
use crate::throttle::budget::Budget;
use crate::world::{Rules, Synced, World};

/// Load reports go out this often.
const REPORT_EVERY: Duration = Duration::from_secs(1);

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
    /// The metrics contradict each other.
    #[error("cannot declare metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A setting that cannot be served yet.
    #[error("{0}")]
    Unsupported(&'static str),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// A thread is gone; why is in the log.
    #[error("a thread of the activator broke")]
    Broken,
}

/// An activator with its sockets open, not yet serving.
pub struct Activator {
    config: Config,
    local: SocketAddr,
    metrics_local: Option<SocketAddr>,
    /// Per data thread its listeners.
    listeners: Vec<Vec<StdListener>>,
    metrics_listener: Option<StdListener>,
    shared: Arc<Shared>,
    events: mpsc::UnboundedReceiver<Event>,
    frames: mpsc::UnboundedReceiver<Bytes>,
}

impl Activator {
    /// Opens the sockets.
    // Async as every part's `bind` is, so that it may one day wait for something.
    #[allow(clippy::unused_async)]
    pub async fn bind(config: Config) -> Result<Self, Error> {
        if config.mesh == api::settings::MeshCompatibility::Enabled {
            return Err(Error::Unsupported(
                "mesh-compatibility-mode: enabled is not supported yet; use auto or disabled",
            ));
        }
        let threads = match config.threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            wanted => wanted,
        };
        let mut listeners: Vec<Vec<StdListener>> = (0..threads).map(|_| Vec::new()).collect();
        let mut local = config.listen;
        for (n, address) in std::iter::once(config.listen).chain(config.also_listen.iter().copied()).enumerate() {
            let bound = listen_all(address, &mut listeners).map_err(|source| Error::Bind { address, source })?;
            if n == 0 {
                local = bound;
            }
        }
        let bind_one = |address| listen(address, false).map_err(|source| Error::Bind { address, source });
        let metrics_listener = config.metrics_listen.map(bind_one).transpose()?;
        let metrics_local = metrics_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let (feed, events) = Feed::new();
        let (reporter, frames) = Reporter::new(&config.pod_name);
        let metrics = Arc::new(Metrics::new()?);
        let shared = Arc::new(Shared::new(reporter, metrics, config.observer.clone(), feed));
        Ok(Self { config, local, metrics_local, listeners, metrics_listener, shared, events, frames })
    }

    /// Where requests are taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Where metrics are, if anywhere.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_local
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
            trust_kubernetes: self.config.mesh == api::settings::MeshCompatibility::Disabled,
            own_ip: self.config.pod_ip.clone(),
        };
        let (world, synced) = World::new(rules, Arc::clone(&self.shared), self.shared.feed.clone());
        let control = Control {
            world,
            events: self.events,
            frames: self.frames,
            metrics_listener: self.metrics_listener,
            config: self.config.clone(),
            shared: Arc::clone(&self.shared),
        };
        let token = end_control.clone();
        let mut control = spawn("activator-control".to_owned(), move || control.run(token))?;
        let mut data = Vec::new();
        for (n, listeners) in self.listeners.into_iter().enumerate() {
            let thread = DataThread {
                listeners,
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
fn listen_all(address: SocketAddr, threads: &mut [Vec<StdListener>]) -> io::Result<SocketAddr> {
    if let [only] = threads {
        let listener = listen(address, false)?;
        let bound = listener.local_addr()?;
        only.push(listener);
        return Ok(bound);
    }
    // A shared port may be joined by anybody of the same user, so first make sure that nobody has it.
    let probe = listen(address, false)?;
    let bound = probe.local_addr()?;
    drop(probe);
    for listeners in threads {
        listeners.push(listen(bound, true)?);
    }
    Ok(bound)
}

struct DataThread {
    listeners: Vec<StdListener>,
    config: Config,
    shared: Arc<Shared>,
    drain: Drain,
    cut: CancellationToken,
    synced: watch::Receiver<Synced>,
}

impl DataThread {
    fn run(self) -> io::Result<()> {
        let Self { listeners, config, shared, drain, cut, mut synced } = self;
        proxy::runtime::block_on(async move {
            let listeners = listeners.into_iter().map(TcpListener::from_std).collect::<io::Result<Vec<_>>>()?;
            let pool = Pool::new(PoolConfig {
                max_idle_per_target: config.max_idle_per_target,
                // A pod that swallows connections is set aside and another one tried; no need for twenty seconds.
                dial: proxy::dial::DialPolicy { attempts: 5, ..proxy::dial::DialPolicy::default() },
                ..PoolConfig::default()
            });
            let needs_ingresses = matches!(config.routing, Routing::Ingress { .. });
            if config.client.is_some() {
                tokio::select! {
                    _ = synced.wait_for(|synced| synced.complete(needs_ingresses)) => {}
                    () = drain.started() => {}
                }
            }
            tokio::task::spawn_local(forget_gone(pool.clone(), shared.gone.subscribe()));
            let door = Rc::new(Door {
                shared,
                pool,
                drain: drain.clone(),
                routing: config.routing,
                server_timing: config.server_timing,
            });
            let serving = listeners.into_iter().map(|listener| {
                let door = Rc::clone(&door);
                let make = move |peer| Connection::new(&door, peer);
                proxy::serve(listener, ServerConfig::default(), drain.clone(), make)
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
    metrics_listener: Option<StdListener>,
    config: Config,
    shared: Arc<Shared>,
}

impl Control {
    fn run(self, end: CancellationToken) -> io::Result<()> {
        proxy::runtime::block_on(async move {
            let Self { world, events, frames, metrics_listener, config, shared } = self;
            let metrics_listener = metrics_listener.map(TcpListener::from_std).transpose()?;
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
                    let gateway = matches!(config.routing, Routing::Ingress { .. });
                    crate::watch::run(client, shared.feed.clone(), gateway).await;
                }
            };
            let link = socket::run(
                config.autoscaler_url.clone(),
                Arc::clone(&shared.reporter),
                frames,
                Arc::clone(&shared.metrics),
            );
            let metrics = async {
                if let Some(listener) = metrics_listener {
                    serve_metrics(listener, Arc::clone(&shared.metrics)).await;
                }
            };
            let everything = async { tokio::join!(world.run(events), watches, ticks, link, metrics) };
            tokio::select! {
                _ = everything => {}
                () = end.cancelled() => {}
            }
            Ok(())
        })?
    }
}

async fn serve_metrics(listener: TcpListener, metrics: Arc<Metrics>) {
    let make = |_peer| {
        let metrics = Arc::clone(&metrics);
        service_fn(move |request: Request<Body>| {
            let answer = match (request.uri().path(), metrics.render()) {
                ("/metrics", Ok(text)) => Response::new(Body::full(text)),
                (path, rendered) => {
                    let status =
                        if path == "/metrics" { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::NOT_FOUND };
                    let text = rendered.err().map(|error| error.to_string()).unwrap_or_default();
                    let mut response = Response::new(Body::full(text));
                    *response.status_mut() = status;
                    response
                }
            };
            std::future::ready(Ok::<_, std::convert::Infallible>(answer))
        })
    };
    proxy::serve(listener, ServerConfig::default(), Drain::default(), make).await;
}
