//! Admission on a cluster: the API server asks here, over HTTPS, before it stores what users write. The judgement is
//! [`crate::admission`], the same code that `dormouse up` calls in process.
//!
//! A process of its own, upstream's `webhook`. In the order of its life:
//! 1. [`certificates`]: a CA and a certificate of its own, kept in a Secret that all replicas share; pure.
//! 2. [`registration`]: what the API server is told of it; pure.
//! 3. [`keeper`] writes both and renews the certificate well before it ends.
//! 4. [`answer`]: one review to one answer, about an object or about its version ([`crate::v1alpha1`]); pure. This file
//!    is the socket around it.

pub mod answer;
pub mod certificates;
pub mod keeper;
pub mod registration;

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use api::labels::SYSTEM_NAMESPACE;
use arc_swap::ArcSwap;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::service::service_fn;
use kube::Client;
use proxy::{Body, Drain, ServerConfig, tls::Tls};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{config_maps, settings::Settings};
use keeper::Keeper;

/// Largest question: two objects of the API server's limit, and what is around them.
const MAX_QUESTION: usize = 8 << 20;
/// The end waits this long for answers under way.
const DRAIN: Duration = Duration::from_secs(10);

/// What the webhook is told at start.
#[derive(Clone)]
pub struct Config {
    /// The API server.
    pub client: Client,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Namespace of the Service, the Secret and the ConfigMaps.
    pub system_namespace: String,
    /// The Service by which the API server finds us.
    pub service: String,
    /// `https://HOST:PORT` by which it finds us instead, where it does not know the cluster's Services.
    pub url: Option<String>,
    /// Domain of the cluster's DNS.
    pub cluster_domain: String,
    /// How often Secret and registration are looked after.
    pub every: Duration,
    /// How long API servers take to hear of another CA.
    pub settle: Duration,
}

impl Config {
    /// The usual settings with this client.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8443)),
            system_namespace: SYSTEM_NAMESPACE.to_owned(),
            service: "webhook".to_owned(),
            url: None,
            cluster_domain: "cluster.local".to_owned(),
            every: Duration::from_secs(60),
            settle: Duration::from_secs(30),
        }
    }
}

/// Why the webhook does not start or stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port is not to be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The settings cannot be read.
    #[error("list ConfigMaps in {namespace}: {source}")]
    Settings {
        /// System namespace.
        namespace: String,
        /// What the API server or the connection said.
        #[source]
        source: kube::Error,
    },
    /// There is no certificate to be had.
    #[error(transparent)]
    Keeper(#[from] keeper::Error),
    /// A certificate that is none.
    #[error("certificate: {0}")]
    Tls(#[from] proxy::tls::TlsError),
    /// No thread to serve on.
    #[error("no thread to serve on: {0}")]
    Thread(#[from] std::io::Error),
}

/// A webhook with its socket bound.
pub struct Webhook {
    config: Config,
    listener: std::net::TcpListener,
    address: SocketAddr,
}

impl Webhook {
    /// Binds the port.
    pub fn bind(config: Config) -> Result<Self, Error> {
        let failed = |source| Error::Listen { address: config.listen, source };
        let listener = std::net::TcpListener::bind(config.listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { config, listener, address })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, which lets questions under way be answered.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self { config, listener, .. } = self;
        let namespace = config.system_namespace.clone();
        let settings = config_maps::read(&config.client, &namespace, &config.cluster_domain).await;
        let settings = settings.map_err(|source| Error::Settings { namespace: namespace.clone(), source })?;
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let mut keeper = Keeper::new(config.clone());
        let material = keeper.first().await?;
        let tls = Tls::new(&proxy::tls::Options::default(), material.chain.as_bytes(), material.key.as_bytes())?;
        let (ended, mut served) = watch::channel(false);
        let server = Server { settings: Arc::clone(&settings), namespace: namespace.clone() };
        let (its_tls, its_stop) = (tls.clone(), shutdown.clone());
        // A thread of its own: an answer must not wait for a list of objects that is being read.
        let thread = std::thread::Builder::new().name("webhook".to_owned()).spawn(move || {
            let served = proxy::runtime::block_on(serve(server, listener, its_tls, its_stop));
            // Whoever waited for it is gone only at the end.
            let _ = ended.send(true);
            served
        })?;
        tokio::select! {
            // The thread ends at the shutdown, or because it cannot serve.
            _ = served.wait_for(|ended| *ended) => {}
            () = config_maps::follow(config.client, &namespace, &settings, || {}) => {}
            () = keeper.keep(&tls) => {}
        }
        match thread.join() {
            Ok(served) => Ok(served??),
            Err(_) => Err(std::io::Error::other("the serving thread panicked").into()),
        }
    }
}

#[derive(Clone)]
struct Server {
    settings: Arc<ArcSwap<Settings>>,
    namespace: String,
}

async fn serve(
    server: Server,
    listener: std::net::TcpListener,
    tls: Tls,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let config = ServerConfig {
        header_read_timeout: Duration::from_secs(15),
        hop: "webhook",
        tls: Some(tls),
        ..ServerConfig::default()
    };
    let (drain, server) = (Drain::default(), Rc::new(server));
    let accepting = proxy::serve(listener, config, drain.clone(), move |_peer| {
        let server = Rc::clone(&server);
        service_fn(move |request| {
            let server = Rc::clone(&server);
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        })
    });
    tokio::pin!(accepting);
    tokio::select! {
        () = &mut accepting => {}
        () = shutdown.cancelled() => {
            drain.begin();
            if tokio::time::timeout(DRAIN, accepting).await.is_err() {
                tracing::warn!("questions left at the end");
            }
        }
    }
    Ok(())
}

impl Server {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        if head.method == Method::GET {
            // Kubelet's probes.
            return text(StatusCode::OK, "");
        }
        let Ok(body) = Limited::new(body, MAX_QUESTION).collect().await else {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "question too long, or cut off\n");
        };
        let settings = self.settings.load();
        match answer::answer(head.uri.path(), &body.to_bytes(), &settings, &self.namespace) {
            Ok(json) => {
                let mut response = Response::new(Body::full(json));
                let value = header::HeaderValue::from_static("application/json");
                response.headers_mut().insert(header::CONTENT_TYPE, value);
                response
            }
            Err(error) => text(StatusCode::BAD_REQUEST, &format!("{error}\n")),
        }
    }
}

fn text(status: StatusCode, body: &str) -> Response<Body> {
    let mut response = Response::new(Body::full(body.to_owned()));
    *response.status_mut() = status;
    response
}
