//! Sockets, servers and the order of the end.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use hyper::service::service_fn;
use proxy::accept::bind;
use proxy::certificates::{Certificate, CertificateError};
use proxy::{Drain, ServerConfig, serve};
use telemetry::metrics_server::MetricsServerError;
use telemetry::observability::Endpoint;
use telemetry::otlp::Sending;
use telemetry::profiling;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::handler::{HOP, handle};
use crate::metrics::{self, Metrics};
use crate::side_ports::{self, Terminating};
use crate::sidecar::{REPORT_PERIOD, Sidecar};

/// Upgraded connections are waited for this long after the last ordinary request.
const TUNNELS_AT_THE_END: Duration = Duration::from_secs(60);

/// Why the sidecar cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port cannot be opened.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The TLS port cannot be served.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The TLS port is none.
    #[error("environment variable QUEUE_SERVING_TLS_PORT={0:?}: not a port number")]
    TlsPort(String),
    /// The user's metrics cannot be served as they are asked for.
    #[error(transparent)]
    MetricsServer(#[from] MetricsServerError),
    /// Signals cannot be listened for.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    /// The metrics cannot be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// The sockets are open, nothing is served yet.
#[derive(Debug)]
pub struct QueueProxy {
    config: Config,
    main: TcpListener,
    secure: Option<(TcpListener, Certificate)>,
    admin: TcpListener,
    stats: TcpListener,
    user_metrics: Option<(TcpListener, Option<Certificate>)>,
    profiling: Option<TcpListener>,
    addresses: Addresses,
}

/// Where the sidecar listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Requests.
    pub serving: SocketAddr,
    /// Requests over TLS.
    pub serving_tls: Option<SocketAddr>,
    /// `/wait-for-drain`.
    pub admin: SocketAddr,
    /// The autoscaler's stat.
    pub stats: SocketAddr,
    /// The user's metrics.
    pub user_metrics: Option<SocketAddr>,
    /// CPU profiles.
    pub profiling: Option<SocketAddr>,
}

impl QueueProxy {
    /// Opens the sockets. Must be called on the runtime that runs it later ([`proxy::runtime::local`]).
    #[allow(clippy::unused_async)] // the same shape as every other process
    pub async fn bind(config: Config) -> Result<Self, Error> {
        let main = listen(config.bind_address, config.serving_port)?;
        let secure = match Certificate::find(&config.tls)? {
            Some(certificate) => {
                let port = config.serving_tls_port.parse();
                let port = port.map_err(|_| Error::TlsPort(config.serving_tls_port.clone()))?;
                Some((listen(config.bind_address, port)?, certificate))
            }
            None => None,
        };
        let admin = listen(config.bind_address, config.admin_port)?;
        let stats = listen(config.bind_address, config.stats_port)?;
        let user_metrics = config.observability.prometheus.as_ref().and_then(|endpoint| {
            // The user's metrics are not worth the user's requests.
            listen_for_metrics(endpoint, &config).inspect_err(|error| tracing::error!(%error, "no user metrics")).ok()
        });
        let profiling = config.profiling_port.map(|port| listen(config.bind_address, port)).transpose()?;
        let address = |listener: &TcpListener| {
            listener.local_addr().map_err(|source| Error::Bind { address: any(config.serving_port), source })
        };
        let addresses = Addresses {
            serving: address(&main)?,
            serving_tls: secure.as_ref().map(|(listener, _)| address(listener)).transpose()?,
            admin: address(&admin)?,
            stats: address(&stats)?,
            user_metrics: user_metrics.as_ref().map(|(listener, _)| address(listener)).transpose()?,
            profiling: profiling.as_ref().map(address).transpose()?,
        };
        Ok(Self { config, main, secure, admin, stats, user_metrics, profiling, addresses })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> Addresses {
        self.addresses
    }

    /// Serves until cancelled, then: health checks fail, quiet period, the main port ends its requests, the side
    /// ports last.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let metrics = match (&self.config.observability.prometheus, &self.config.telemetry.metrics) {
            (None, None) => None,
            (page, _) => Some(Metrics::new(&metrics::Settings {
                identity: &self.config.identity,
                user_port: self.config.user.port(),
                old_names: page.is_some() && self.config.old_metric_names,
            })?),
        };
        let sidecar = Sidecar::new(&self.config, metrics);
        let (outbox, weak) = (sidecar.outbox.clone(), Rc::downgrade(&sidecar));
        let sending = Sending::start(&self.config.telemetry, outbox, &metrics::CATALOG, move || {
            Some(weak.upgrade()?.metrics_now()?.families())
        });
        let terminating = Terminating::new(Cell::new(false));
        let side = Drain::default();
        serve_side_ports(self.admin, self.stats, self.user_metrics, &sidecar, &terminating, &side);
        if let Some(listener) = self.profiling {
            let config = ServerConfig { header_read_timeout: Duration::from_secs(15), ..ServerConfig::default() };
            tokio::task::spawn_local(serve(listener, config, side.clone(), |_peer| {
                service_fn(|request| profiling::answer(request).map(Ok::<_, Infallible>))
            }));
        }
        tokio::task::spawn_local(report(Rc::downgrade(&sidecar)));

        // Log and traces see all headers.
        let keep_lines = sidecar.log.is_none() && sidecar.traces.is_none();
        let config = ServerConfig { hop: HOP, keep_lines, ..ServerConfig::default() };
        let main = serve_main(self.main, config.clone(), &sidecar);
        let secure = async {
            if let Some((listener, certificate)) = self.secure {
                let config = ServerConfig { tls: Some(certificate.tls()), ..config };
                tokio::task::spawn_local(certificate.renew());
                serve_main(listener, config, &sidecar).await;
            }
        };
        let end = async {
            shutdown.cancelled().await;
            terminating.set(true);
            tracing::info!(quiet = ?self.config.drain_quiet, "draining");
            sidecar.drainer.drain().await;
            sidecar.drain.begin();
            sidecar.no_active().await;
            tokio::time::sleep(TUNNELS_AT_THE_END).await;
            tracing::warn!("upgraded connections cut");
        };
        tokio::select! {
            ((), ()) = futures::future::join(main, secure) => {}
            () = end => {}
        }
        side.begin();
        sidecar.broadcast.end();
        // A waiting preStop hook is answered before the process goes.
        let _ = tokio::time::timeout(Duration::from_secs(1), side.idle()).await;
        sending.end().await;
        Ok(())
    }
}

/// The main handler on a port; there are two if certificates are mounted.
async fn serve_main(listener: TcpListener, config: ServerConfig, sidecar: &Rc<Sidecar>) {
    let shared = Rc::clone(sidecar);
    let make = move |peer| {
        let (sidecar, peer) = (Rc::clone(&shared), Rc::new(peer));
        service_fn(move |request| handle(Rc::clone(&sidecar), Rc::clone(&peer), request))
    };
    serve(listener, config, sidecar.drain.clone(), make).await;
}

fn serve_side_ports(
    admin: TcpListener,
    stats: TcpListener,
    user_metrics: Option<(TcpListener, Option<Certificate>)>,
    sidecar: &Rc<Sidecar>,
    terminating: &Terminating,
    side: &Drain,
) {
    let (shared, terminating) = (Rc::clone(sidecar), Rc::clone(terminating));
    tokio::task::spawn_local(serve(admin, ServerConfig::default(), side.clone(), move |_peer| {
        let (sidecar, terminating) = (Rc::clone(&shared), Rc::clone(&terminating));
        service_fn(move |request| side_ports::admin(Rc::clone(&sidecar), Rc::clone(&terminating), request))
    }));
    let shared = Rc::clone(sidecar);
    tokio::task::spawn_local(serve(stats, ServerConfig::default(), side.clone(), move |_peer| {
        let sidecar = Rc::clone(&shared);
        service_fn(move |request| {
            let response = side_ports::stat(&sidecar, &request);
            async move { Ok::<_, Infallible>(response) }
        })
    }));
    if let Some((listener, certificate)) = user_metrics {
        let tls = certificate.as_ref().map(Certificate::tls);
        let config = ServerConfig { header_read_timeout: Duration::from_secs(5), tls, ..ServerConfig::default() };
        if let Some(certificate) = certificate {
            tokio::task::spawn_local(certificate.renew());
        }
        let shared = Rc::clone(sidecar);
        tokio::task::spawn_local(serve(listener, config, side.clone(), move |_peer| {
            let sidecar = Rc::clone(&shared);
            service_fn(move |request| {
                let response = side_ports::user_metrics(&sidecar, &request);
                async move { Ok::<_, Infallible>(response) }
            })
        }));
    }
}

async fn report(sidecar: std::rc::Weak<Sidecar>) {
    let mut tick = tokio::time::interval(REPORT_PERIOD);
    tick.tick().await; // the first is immediate
    loop {
        tick.tick().await;
        let Some(sidecar) = sidecar.upgrade() else { return };
        sidecar.report();
    }
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
}

fn listen_for_metrics(endpoint: &Endpoint, config: &Config) -> Result<(TcpListener, Option<Certificate>), Error> {
    let certificate = config.metrics_server.tls.as_ref().map(Certificate::load).transpose()?;
    let (address, port) = config.metrics_server.address(endpoint)?;
    Ok((listen(address.or(config.bind_address), port)?, certificate))
}

/// Opens a port on one address, or on all of them (IPv4 only where IPv6 is missing).
fn listen(address: Option<IpAddr>, port: u16) -> Result<TcpListener, Error> {
    let open = |address: SocketAddr| bind(address, false).map_err(|source| Error::Bind { address, source });
    match address {
        Some(ip) => open(SocketAddr::from((ip, port))),
        None => match open(any(port)) {
            Err(Error::Bind { source, .. }) if source.kind() != io::ErrorKind::AddrInUse => {
                open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
            }
            result => result,
        },
    }
}
