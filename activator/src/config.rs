//! What an activator is told at its start.
//!
//! [`environment`] reads upstream's variables, [`flags`] its command line; what only the API server can say is added by
//! [`crate::standalone`].

pub mod cluster_domain;
pub mod environment;
pub mod flags;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::labels::SYSTEM_NAMESPACE;
use api::labels::networking::DORMOUSE_INGRESS_CLASS;
use api::timeline::Observer;
use api::{ports, settings};
use kube::Client;
use proxy::tls;
use tokio::sync::watch;

use crate::certificates::SecretName;
use crate::endpoints::probe::Rhythm;
use crate::internal_tls::InternalTls;
use crate::live::{LiveSettings, Names};
use crate::observe::Observing;
pub use environment::ConfigError;

/// Waiters per revision unless told otherwise: upstream's queue depth (which upstream cannot reach).
pub const QUEUE_LIMIT: usize = 10_000;

/// Waiters in all revisions together unless told otherwise.
pub const QUEUE_LIMIT_TOTAL: usize = 100_000;
/// Bytes that waiting requests hold, in all revisions together, unless told otherwise: less than half of the memory
/// that upstream's Deployment gives an activator (600 MiB).
pub const QUEUE_BYTES_TOTAL: usize = 256 << 20;

/// How a request says which revision it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routing {
    /// We are the gateway: by Host, from the Ingresses of this class. Identity headers of clients are ignored.
    Ingress {
        /// Value of the class annotation.
        class: String,
    },
    /// A gateway stands in front: by `Knative-Serving-*` headers, else by a Host `revision.namespace.svc.DOMAIN`.
    Identity {
        /// The cluster's domain.
        cluster_domain: String,
    },
}

/// Everything an activator needs to know.
#[derive(Clone)]
pub struct Config {
    /// Where requests come in; port 0 = any.
    pub listen: SocketAddr,
    /// Further addresses with the same service (the h2c port of a drop-in).
    pub also_listen: Vec<SocketAddr>,
    /// Where profiles may be asked for, if anywhere; given only while they are switched on.
    pub profiling_listen: Option<SocketAddr>,
    /// Where requests from inside the cluster come in: to cluster-local hosts too, which are served nowhere else.
    pub local_listen: Option<SocketAddr>,
    /// Where requests by https come in; certificates are those of the Secrets that Ingresses name. Gateway only.
    pub tls_listen: Option<SocketAddr>,
    /// What that TLS negotiates.
    pub tls: tls::Options,
    /// The Secret with the certificate for hosts that have none of their own; without it they are refused.
    pub default_certificate: Option<SecretName>,
    /// What of the telemetry is on from the start: metrics and traces.
    pub observing: Observing,
    /// The process's log, if it is ours to shape.
    pub log: Option<telemetry::logging::Log>,
    /// See [`Routing`].
    pub routing: Routing,
    /// Where ConfigMaps and Secrets live.
    pub system_namespace: String,
    /// What the ConfigMaps that may change are called.
    pub config_maps: Names,
    /// What they say, now and later.
    pub live: watch::Receiver<LiveSettings>,
    /// Where [`crate::watch`] says it; `None` = they are not watched.
    pub live_sender: Option<watch::Sender<LiveSettings>>,
    /// The API server; `None` = fed by hand ([`crate::Activator::feed`]).
    pub client: Option<Client>,
    /// `ws://host:port` of the autoscaler.
    pub autoscaler_url: String,
    /// Name in load reports.
    pub pod_name: String,
    /// Own address among the activators of a revision; empty = never shares one.
    pub pod_ip: String,
    /// Data threads; 0 = one per core.
    pub threads: usize,
    /// Where marks of wake-ups go.
    pub observer: Observer,
    /// Most requests that wait for one revision; more are told 503.
    pub queue_limit: usize,
    /// Idle HTTP/1 connections kept to all pods, over all threads.
    pub max_idle: usize,
    /// Most requests that wait, for all revisions together.
    pub queue_limit_total: usize,
    /// Most bytes that requests which wait may hold, for all revisions together.
    pub queue_bytes_total: usize,
    /// Idle HTTP/1 connections kept per pod and thread.
    pub max_idle_per_target: usize,
    /// How starting pods are asked whether they can serve.
    pub rhythm: Rhythm,
    /// How revisions behind a mesh are reached.
    pub mesh: settings::MeshCompatibility,
    /// Pods of a mesh can be addressed (`enable-mesh-pod-addressability`): requests and probes name the private Service
    /// in their Host and ask the mesh to pass them through, and the cluster IP is never used.
    pub passthrough: bool,
    /// Where requests come in over TLS, if [`Config::internal_tls`] is there.
    pub internal_tls_listen: SocketAddr,
    /// How TLS is spoken there.
    pub tls_options: proxy::tls::Options,
    /// Certificate and authorities of TLS with gateways and pods; `None` = pods are spoken to in clear text.
    pub internal_tls: Option<Arc<InternalTls>>,
    /// Where clients find our TLS: plain requests to hosts that are served by https only are sent there.
    pub https_port: u16,
    /// Whether answers carry `Server-Timing`.
    pub server_timing: bool,
    /// How long to go on serving after being asked to end, so that gateways notice.
    pub linger: Duration,
    /// Longest wait for requests in flight at the end; `None` = as long as they take.
    pub drain_limit: Option<Duration>,
}

impl Config {
    /// As the gateway of `dormouse up`: loopback, any port, one activator.
    pub fn local(client: Client) -> Self {
        Self { client: Some(client), ..Self::detached() }
    }

    /// A gateway without an API server, fed by hand: for tests and simulations.
    pub fn detached() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            also_listen: Vec::new(),
            profiling_listen: None,
            local_listen: None,
            tls_listen: None,
            // Browsers and libraries that know no 1.3 are still about.
            tls: tls::Options { min_version: "1.2".to_owned(), ..tls::Options::default() },
            default_certificate: None,
            observing: Observing::default(),
            log: None,
            routing: Routing::Ingress { class: DORMOUSE_INGRESS_CLASS.to_owned() },
            system_namespace: SYSTEM_NAMESPACE.to_owned(),
            config_maps: Names::default(),
            // Its sender is gone: these settings stay as they are.
            live: watch::channel(LiveSettings::default()).1,
            live_sender: None,
            client: None,
            autoscaler_url: format!("ws://127.0.0.1:{}", ports::AUTOSCALER),
            pod_name: "activator".to_owned(),
            pod_ip: String::new(),
            threads: 0,
            observer: Observer::default(),
            queue_limit: QUEUE_LIMIT,
            max_idle: 1000,
            queue_limit_total: QUEUE_LIMIT_TOTAL,
            queue_bytes_total: QUEUE_BYTES_TOTAL,
            max_idle_per_target: 100,
            rhythm: Rhythm::default(),
            mesh: settings::MeshCompatibility::Auto,
            passthrough: false,
            internal_tls_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls_options: proxy::tls::Options::default(),
            internal_tls: None,
            https_port: 443,
            server_timing: false,
            linger: Duration::ZERO,
            drain_limit: Some(Duration::from_secs(25)),
        }
    }

    /// Whether identity comes from a gateway in front of us, which is what upstream's activator knows.
    pub fn is_drop_in(&self) -> bool {
        matches!(self.routing, Routing::Identity { .. })
    }

    /// Whether cluster IPs may be needed. As a gateway only if they are asked for, as `up` has none.
    pub fn needs_services(&self) -> bool {
        match self.mesh {
            settings::MeshCompatibility::Enabled => true,
            settings::MeshCompatibility::Auto => self.is_drop_in() && !self.passthrough,
            settings::MeshCompatibility::Disabled => false,
        }
    }
}
