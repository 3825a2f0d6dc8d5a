//! One request, in the order in which things happen to it.
//!
//! Probes are answered first and never counted. Then: whether it is traced, which revision ([`identify`]), open the
//! account ([`account`]), start the timeouts, rewrite for the next hop ([`rewrite`]), wait and send ([`admit`]),
//! answer. Waiting counts as concurrency, latency and time; [`timing`] tells the client of it, if asked.

pub mod account;
pub mod admit;
pub mod identify;
pub mod memory;
pub mod probes;
pub mod rewrite;
pub mod timing;

use std::convert::Infallible;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use api::headers::NETWORK_HASH;
use http::header::{HeaderName, HeaderValue, LOCATION, SET_COOKIE};
use http::{Request, Response, StatusCode};
use proxy::body::Tracked;
use proxy::clock;
use proxy::deadline::{Deadline, Limited, Timers};
use proxy::drain::Drain;
use proxy::forward::{self, Pending};
use proxy::headers::{self, Headers, Present};
use proxy::upgrade::Tunnel;
use proxy::{Answer, Body, Fault, Peer, Pool, RawQuery};
use telemetry::traces::{Trace, Traces};

use crate::config::Routing;
use crate::entrance::Entrance;
use crate::metrics::cells::Shard;
use crate::metrics::requests::Measure;
use crate::shared::Shared;
use account::{Account, Accounting};
use identify::{Destination, Nowhere};
use memory::Memory;
use probes::Probe;
use rewrite::Ready;

/// Who signs our own answers.
pub const HOP: &str = "activator";

/// The body of everything the door answers.
pub type AnswerBody = Tracked<Limited<Body>, Accounting>;

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const TIMEOUT_TEXT: &str = "activator request timeout";

/// The request path of one thread.
#[derive(Debug)]
pub struct Door {
    /// What all threads see.
    pub shared: Arc<Shared>,
    /// This thread's place in the metrics.
    pub shard: Shard,
    /// Tracing, if it is on.
    pub traces: Option<Traces>,
    /// This thread's connections to pods.
    pub pool: Pool,
    /// This thread's timers.
    pub timers: Timers,
    /// Holds the process up while tunnels run.
    pub drain: Drain,
    /// How revisions are found.
    pub routing: Routing,
    /// Where clients find our TLS.
    pub https_port: u16,
    /// Whether answers carry `Server-Timing`.
    pub server_timing: bool,
}

/// Who is at the other end of a connection, and how it came in.
#[derive(Debug)]
pub struct Client {
    /// Where it is.
    pub peer: Peer,
    /// Which listener took it.
    pub entrance: Entrance,
    /// Where its last request went.
    pub memory: Memory,
}

impl Client {
    /// A client that has asked for nothing yet.
    pub fn new(peer: Peer, entrance: Entrance) -> Self {
        Self { peer, entrance, memory: Memory::default() }
    }
}

/// A request as it arrived: where it goes, and what decides how.
#[derive(Debug)]
pub struct Routed {
    /// Where it goes.
    pub destination: Destination,
    /// Whether the revision has a policy for its line.
    pub has_policy: bool,
    /// The headers it came with.
    pub present: Present,
}

/// Serves one request.
///
/// One `async` block that captures: an `async fn` would keep room for its arguments twice, and what such a function
/// returns is copied once more, which an answer is large enough to feel.
#[allow(clippy::manual_async_fn)]
pub fn handle(
    door: Rc<Door>,
    client: Rc<Client>,
    mut request: Request<Body>,
) -> impl Future<Output = Result<Response<AnswerBody>, Infallible>> {
    async move {
        let request = &mut request;
        if let Err(fault) = forward::check(request) {
            return Ok(uncounted(door.fault(&fault)));
        }
        let log = door.shared.switches.request_log();
        // The log sees all headers. (So do traces; with them none stay lines.)
        if log.is_some()
            && let Err(fault) = headers::as_map(request)
        {
            return Ok(uncounted(door.fault(&fault)));
        }
        let present = Headers::of(request).present();
        if let Some(probe) = probes::classify(Headers::of(request), present) {
            return Ok(uncounted(door.answer_probe(&probe, request)));
        }
        let arrived = clock::now().into_std();
        let measure = Measure::arrive(request, client.entrance.is_secure(), arrived);
        // It tells the pod by the request's headers.
        let trace = door.traces.as_ref().and_then(|traces| traces.arrive(request, &client.peer));
        let destination = match door.identify(&client, request) {
            Ok(destination) => destination,
            Err(Nowhere::Fault(fault)) => return Ok(door.charged_to_nobody(door.fault(&fault), measure, trace)),
            Err(Nowhere::Https) => return Ok(door.charged_to_nobody(door.to_https(request), measure, trace)),
        };
        let revision = Arc::clone(&destination.revision);
        let mut account = Account::open(&door, revision, request, &client.peer, measure, log, trace);
        let (limits, has_policy) = {
            let settings = destination.revision.settings.load();
            (settings.limits, settings.policy.is_some())
        };
        let routed = Routed { destination, has_policy, present };
        let mut deadline = door.timers.start_at(limits, arrived);
        let answered = exchange(&door, &client, request, &routed, &mut account, &mut deadline).await;
        let (mut response, tunnel) = match answered.and_then(|(answer, upgrade)| forward::answer(answer, upgrade)) {
            Ok(answered) => answered,
            Err(fault) => {
                // Our own answer is not cut by the limit that it reports.
                deadline = Deadline::unlimited();
                account.refused(&fault);
                // Without a pod there is no session with it.
                account.take_session();
                (door.fault(&fault), None)
            }
        };
        account.answers(response.status());
        if let Some(cookie) = account.take_session() {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        if door.server_timing
            && let Some(timing) = account.timing()
        {
            response.headers_mut().append(SERVER_TIMING, timing);
        }
        if let Some(tunnel) = tunnel {
            door.run(tunnel, account, deadline);
            return Ok(uncounted(response));
        }
        Ok(response.map(|body| Tracked::new(Limited::new(body, deadline), account.into())))
    }
}

/// Rewrites the request, waits for a pod and asks it. Returns its answer, and the client's side of an upgrade.
async fn exchange(
    door: &Door,
    client: &Client,
    request: &mut Request<Body>,
    routed: &Routed,
    account: &mut Account,
    deadline: &mut Deadline,
) -> Result<(Answer, Option<Pending>), Fault> {
    let Ready { upgrade, added } = door.rewrite(client, request, routed)?;
    let serve = admit::serve(door, client, request, added.as_deref(), routed.has_policy, account);
    match deadline.run(serve).await {
        Ok(served) => Ok((served?, upgrade)),
        Err(limit) => Err(Fault::Timeout { limit, text: TIMEOUT_TEXT }),
    }
}

impl Door {
    fn identify(&self, client: &Client, request: &Request<Body>) -> Result<Destination, Nowhere> {
        let (uri, headers) = (request.uri(), Headers::of(request));
        match &self.routing {
            Routing::Ingress { .. } => {
                let table = self.shared.table.load();
                identify::by_table(&table, client.entrance, &client.memory, uri, headers, |n| fastrand::u64(0..n))
            }
            Routing::Identity { cluster_domain } => {
                Ok(identify::by_identity(uri, headers, cluster_domain, &self.shared.revisions)?)
            }
        }
    }

    /// Lets an upgraded connection run; its request lasts as long as it.
    fn run(&self, tunnel: Tunnel, account: Box<Account>, deadline: Deadline) {
        let guard = self.drain.guard();
        tokio::task::spawn_local(async move {
            if let Err(error) = tunnel.run(deadline).await {
                tracing::debug!(%error, "upgraded connection ended");
            }
            drop((account, guard));
        });
    }

    /// The same by https, for good.
    fn to_https(&self, request: &Request<Body>) -> Response<Body> {
        let raw_query = request.extensions().get::<RawQuery>();
        match identify::https_location(request.uri(), Headers::of(request), raw_query, self.https_port) {
            Err(fault) => self.fault(&fault),
            Ok(location) => {
                let mut response = text(StatusCode::MOVED_PERMANENTLY, "");
                response.headers_mut().insert(LOCATION, location);
                response
            }
        }
    }

    /// An error of our own, signed and counted.
    fn fault(&self, fault: &Fault) -> Response<Body> {
        tracing::debug!(%fault, "request failed");
        self.shared.metrics.fault(self.shard, fault.reason());
        fault.response(HOP)
    }

    /// A request that reached no revision is measured and traced all the same.
    fn charged_to_nobody(
        &self,
        response: Response<Body>,
        measure: Measure,
        trace: Option<Box<Trace>>,
    ) -> Response<AnswerBody> {
        let bytes = http_body::Body::size_hint(response.body()).exact().unwrap_or(0) as usize;
        account::told(self, measure, trace, response.status(), bytes);
        uncounted(response)
    }

    fn answer_probe(&self, probe: &Probe<'_>, request: &Request<Body>) -> Response<Body> {
        match probe {
            Probe::Kubelet => match self.shared.unhealthy() {
                None => text(StatusCode::OK, ""),
                Some(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
            },
            Probe::Activator => text(StatusCode::OK, api::probe::ACTIVATOR),
            Probe::Wrong(why) => text(StatusCode::BAD_REQUEST, format!("{why}\n")),
            Probe::Network(hash) => {
                let hash = match &self.routing {
                    Routing::Identity { .. } => HeaderValue::from_bytes(hash).ok(),
                    Routing::Ingress { .. } => self.hash_for(request),
                };
                let Some(hash) = hash else { return text(StatusCode::NOT_FOUND, "") };
                let mut response = text(StatusCode::OK, "");
                response.headers_mut().insert(NETWORK_HASH, hash);
                response
            }
        }
    }

    /// The version of the Ingress that serves a request's host, once its revisions are known here too: whoever asks
    /// will send requests next.
    fn hash_for(&self, request: &Request<Body>) -> Option<HeaderValue> {
        let asked = std::str::from_utf8(identify::host(request.uri(), Headers::of(request))).ok()?;
        let table = self.shared.table.load();
        let route = table.host(&crate::table::normalize(asked))?;
        identify::is_known(&table, route).then(|| route.hash())
    }
}

/// An answer that no revision is charged with.
fn uncounted(response: Response<Body>) -> Response<AnswerBody> {
    response.map(|body| Tracked::new(Limited::new(body, Deadline::unlimited()), Accounting::default()))
}

fn text(status: StatusCode, text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// Every connection, busy or not, reserves room for one request in progress.
    #[test]
    fn a_request_in_progress_stays_small() {
        let size = size_of_future(handle);
        assert!(size <= 2048, "{size} bytes: box what is rare");
    }
}
