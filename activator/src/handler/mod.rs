//! One request, in the order in which things happen to it.
//!
//! Probes are answered first and never counted. Then: which revision ([`identify`]), rewrite for the next hop, open the
//! account, start the timeouts, wait and send ([`admit`]), answer. Waiting counts as concurrency, latency and time.

pub mod admit;
pub mod identify;
pub mod probes;
pub mod reply;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use api::headers::{NETWORK_HASH, ORIGINAL_HOST, PROXY_REQUEST, SERVING_NAMESPACE, SERVING_REVISION};
use http::header::{HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::service::Service;
use proxy::deadline::Deadline;
use proxy::drain::Drain;
use proxy::forward::{self, Options, Pending};
use proxy::headers::Present;
use proxy::{Body, Fault, Peer, Pool};

use crate::config::Routing;
use crate::entrance::Entrance;
use crate::shared::Shared;
use identify::{Destination, Nowhere};
use probes::Probe;
use reply::{Account, Held, ReplyBody};

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const TIMEOUT_TEXT: &str = "activator request timeout";

/// The request path of one thread.
#[derive(Debug)]
pub struct Door {
    /// What all threads see.
    pub shared: Arc<Shared>,
    /// This thread's connections to pods.
    pub pool: Pool,
    /// Holds the process up while tunnels run.
    pub drain: Drain,
    /// How revisions are found.
    pub routing: Routing,
    /// Where clients find our TLS.
    pub https_port: u16,
    /// Whether answers carry `Server-Timing`.
    pub server_timing: bool,
}

/// The service of one connection.
#[derive(Debug, Clone)]
pub struct Connection {
    door: Rc<Door>,
    peer: Rc<Peer>,
    entrance: Entrance,
}

impl Connection {
    /// A client came through the door.
    pub fn new(door: &Rc<Door>, peer: Peer, entrance: Entrance) -> Self {
        Self { door: Rc::clone(door), peer: Rc::new(peer), entrance }
    }
}

impl Service<Request<Body>> for Connection {
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn call(&self, request: Request<Body>) -> Self::Future {
        let (door, peer, entrance) = (Rc::clone(&self.door), Rc::clone(&self.peer), self.entrance);
        Box::pin(async move { Ok(door.handle(request, &peer, entrance).await) })
    }
}

impl Door {
    async fn handle(&self, request: Request<Body>, peer: &Peer, entrance: Entrance) -> Response<ReplyBody> {
        if let Some(probe) = probes::classify(request.headers()) {
            return self.answer_probe(&probe, &request);
        }
        match self.route(request, peer, entrance) {
            Ok((request, upgrade, destination)) => self.forward(request, upgrade, destination).await,
            Err(Nowhere::Fault(fault)) => reply::fault(&self.shared, &fault),
            Err(Nowhere::Https(location)) => reply::moved(location),
        }
    }

    /// Finds the revision and makes the request ready for its pod.
    fn route(
        &self,
        request: Request<Body>,
        peer: &Peer,
        entrance: Entrance,
    ) -> Result<(Request<Body>, Option<Pending>, Destination), Nowhere> {
        let (parts, body) = request.into_parts();
        let original_host = identify::host(&parts);
        let destination = match &self.routing {
            Routing::Ingress { .. } => {
                let table = self.shared.table.load();
                identify::by_table(&table, entrance, self.https_port, &parts, |n| fastrand::u64(0..n))?
            }
            Routing::Identity { cluster_domain } => {
                identify::by_identity(&parts.headers, &original_host, cluster_domain, &self.shared.revisions)?
            }
        };
        let original_host = match &destination.rewrite_host {
            Some(host) => host.clone(),
            None => HeaderValue::from_bytes(&original_host).map_err(|_| Fault::BadRequest("malformed host"))?,
        };
        let options = Options {
            peer,
            remove: &[
                (Present::SERVING_NAMESPACE, SERVING_NAMESPACE),
                (Present::SERVING_REVISION, SERVING_REVISION),
                (Present::NETWORK_HASH, NETWORK_HASH),
            ],
            default_host: &HeaderValue::from_static(""),
        };
        let mut request = Request::from_parts(parts, body);
        forward::check(&request)?;
        let present = Present::of(request.headers());
        let upgrade = forward::prepare(&mut request, present, &options)?;
        let headers = request.headers_mut();
        headers.insert(PROXY_REQUEST, HeaderValue::from_static("activator"));
        // Behind a gateway its word counts; as the gateway ours does.
        if matches!(self.routing, Routing::Ingress { .. }) || !headers.contains_key(ORIGINAL_HOST) {
            headers.insert(ORIGINAL_HOST, original_host);
        }
        if matches!(self.routing, Routing::Ingress { .. })
            && (entrance.is_secure() || !present.any(Present::X_FORWARDED_PROTO))
        {
            // On a plain listener a balancer that ended TLS in front of us knows better.
            headers.insert(X_FORWARDED_PROTO, entrance.scheme());
        }
        for (name, value) in &destination.set_headers {
            headers.insert(name, value.clone());
        }
        Ok((request, upgrade, destination))
    }

    async fn forward(
        &self,
        request: Request<Body>,
        upgrade: Option<Pending>,
        destination: Destination,
    ) -> Response<ReplyBody> {
        let revision = destination.revision;
        let mut account = Account::open(&self.shared, &revision);
        let start = Instant::now();
        let mut deadline = Deadline::start(revision.settings.load().limits);
        let sent = admit::serve(&self.shared, &self.pool, &revision, request);
        let served = match deadline.run(sent).await {
            Ok(Ok(served)) => served,
            Ok(Err(fault)) => return self.refuse(account, &fault),
            Err(limit) => return self.refuse(account, &Fault::Timeout { limit, text: TIMEOUT_TEXT }),
        };
        if served.waited.is_some()
            && let Some(phases) = revision.wake.first_byte(&revision.key, &self.shared.observer, Instant::now())
        {
            self.shared.metrics.woken(phases);
        }
        let mut response = served.response;
        let tunnel = match forward::answer(&mut response, upgrade) {
            Ok(tunnel) => tunnel,
            Err(fault) => return self.refuse(account, &fault),
        };
        account.answered(response.status());
        if self.server_timing {
            let waited = served.waited.unwrap_or_default();
            let pod = start.elapsed().saturating_sub(waited);
            let ms = |duration: std::time::Duration| duration.as_secs_f64() * 1000.0;
            let text = format!("dormouse-wait;dur={:.3}, dormouse-pod;dur={:.3}", ms(waited), ms(pod));
            if let Ok(value) = HeaderValue::try_from(text) {
                response.headers_mut().append(SERVER_TIMING, value);
            }
        }
        let held = Held { permit: served.permit, active: served.active, account };
        let Some(tunnel) = tunnel else { return reply::forwarded(response, deadline, held) };
        let guard = self.drain.guard();
        tokio::task::spawn_local(async move {
            if let Err(error) = tunnel.run(deadline).await {
                tracing::debug!(%error, "upgraded connection ended");
            }
            drop((held, guard));
        });
        reply::own(response)
    }

    fn refuse(&self, mut account: Account, fault: &Fault) -> Response<ReplyBody> {
        account.answered(fault.status());
        reply::fault(&self.shared, fault)
    }

    fn answer_probe(&self, probe: &Probe<'_>, request: &Request<Body>) -> Response<ReplyBody> {
        match probe {
            Probe::Kubelet => match self.shared.unhealthy() {
                None => reply::text(StatusCode::OK, ""),
                Some(why) => reply::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
            },
            Probe::Activator => reply::text(StatusCode::OK, api::probe::ACTIVATOR),
            Probe::Wrong(text) => reply::text(StatusCode::BAD_REQUEST, format!("{text}\n")),
            Probe::Network(hash) => {
                let hash = match &self.routing {
                    Routing::Identity { .. } => Some((*hash).clone()),
                    Routing::Ingress { .. } => self.hash_for(request),
                };
                let Some(hash) = hash else { return reply::text(StatusCode::NOT_FOUND, "") };
                let mut response = reply::text(StatusCode::OK, "");
                response.headers_mut().insert(NETWORK_HASH, hash);
                response
            }
        }
    }

    /// The version of the Ingress that serves a request's host, once its revisions are known here too: whoever asks
    /// will send requests next.
    fn hash_for(&self, request: &Request<Body>) -> Option<HeaderValue> {
        let asked = match request.uri().authority() {
            Some(authority) => authority.as_str(),
            None => request.headers().get(http::header::HOST)?.to_str().ok()?,
        };
        let table = self.shared.table.load();
        let route = table.host(&crate::table::normalize(asked))?;
        let known = route.slots().all(|slot| slot.is_filled());
        known.then(|| route.hash.clone())
    }
}
