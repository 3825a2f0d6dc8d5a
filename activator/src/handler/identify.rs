//! Which revision a request is for. Pure but for the snapshots it reads.

use std::cell::RefCell;
use std::sync::Arc;

use api::headers::{SERVING_NAMESPACE, SERVING_REVISION};
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use proxy::{Fault, RawQuery};

use crate::entrance::Entrance;
use crate::revision::{Revision, Revisions};
use crate::table::{HostRoute, PathRoute, Table, normalize};

/// Domain mappings that lead to each other: followed this often.
const MOST_REWRITES: usize = 4;

/// Where a request goes, and what is written on it for the way.
#[derive(Debug)]
pub struct Destination {
    /// The revision.
    pub revision: Arc<Revision>,
    /// Headers to set, in this order: a later one wins.
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
    /// The Host to show the app instead of the client's.
    pub rewrite_host: Option<HeaderValue>,
}

/// Why a request goes to no revision.
#[derive(Debug)]
pub enum Nowhere {
    /// It cannot be served.
    Fault(Fault),
    /// It is served by https only; [`https_location`] says where.
    Https,
}

impl From<Fault> for Nowhere {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The host a request names: an authority in its target wins over Host.
pub fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a [u8] {
    match uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => headers.get(HOST).map_or(&b""[..], HeaderValue::as_bytes),
    }
}

/// The same as a header of its own.
pub fn host_value(uri: &Uri, headers: &HeaderMap) -> Result<HeaderValue, Fault> {
    match uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).map_err(|_| Fault::BadRequest("malformed host")),
        None => Ok(headers.get(HOST).cloned().unwrap_or(HeaderValue::from_static(""))),
    }
}

/// Where the last request of a connection went: clients mostly ask for the same host again, and to compare it costs less
/// than to look it up.
#[derive(Debug, Default)]
pub struct Memory(RefCell<Option<Remembered>>);

#[derive(Debug)]
struct Remembered {
    /// Of the table it was found in.
    generation: u64,
    /// As the client wrote it.
    host: HeaderValue,
    route: Arc<HostRoute>,
}

impl Memory {
    fn of(&self, table: &Table, host: &[u8]) -> Option<Arc<HostRoute>> {
        let memory = self.0.borrow();
        let known = memory.as_ref().filter(|known| known.generation == table.generation());
        known.filter(|known| known.host.as_bytes() == host).map(|known| Arc::clone(&known.route))
    }

    fn keep(&self, table: &Table, headers: &HeaderMap, host: &[u8], route: &Arc<HostRoute>) {
        // Of h2 the authority is a part of the target, which is not kept for this.
        if let Some(value) = headers.get(HOST).filter(|value| value.as_bytes() == host) {
            let (host, route) = (value.clone(), Arc::clone(route));
            *self.0.borrow_mut() = Some(Remembered { generation: table.generation(), host, route });
        }
    }
}

/// As a gateway: by Host, path and headers. `random(n)` is uniform in `0..n`. One look-up finds the host and the slots of
/// its revisions; a domain mapping takes one more, for its target.
pub fn by_table(
    table: &Table,
    entrance: Entrance,
    memory: &Memory,
    uri: &Uri,
    headers: &HeaderMap,
    random: impl Fn(u64) -> u64,
) -> Result<Destination, Nowhere> {
    let asked = host(uri, headers);
    let found = if let Some(route) = memory.of(table, asked) {
        route
    } else {
        let text = String::from_utf8_lossy(asked);
        let name = normalize(&text);
        let found = table.host(&name).filter(|route| entrance.serves(route.visibility));
        let found = found.ok_or_else(|| unknown_host(&name))?;
        memory.keep(table, headers, asked, found);
        Arc::clone(found)
    };
    let mut route = &found;
    let mut set_headers = Vec::new();
    let mut rewrite_host = None;
    for hop in 0..MOST_REWRITES {
        let path = find(route, uri, headers, asked)?;
        if hop == 0 && route.to_https && !entrance.is_secure() {
            return Err(Nowhere::Https);
        }
        let drawn = if path.splits.len() > 1 { random(path.total_weight) } else { 0 };
        let backend = path.choose(drawn).ok_or_else(|| unknown_revision(""))?;
        set_headers.extend(backend.set_headers.iter().chain(&path.set_headers).cloned());
        if let Some(target) = &path.rewrite_host {
            rewrite_host = Some(HeaderValue::clone(target));
            // A domain mapping: it names another host of ours, which may well be a cluster-local one.
            let inner = target.to_str().ok().and_then(|host| table.host(&normalize(host)));
            if let Some(inner) = inner.filter(|inner| !Arc::ptr_eq(inner, route)) {
                route = inner;
                continue;
            }
        }
        let revision = backend.slot.get().ok_or_else(|| unknown_revision(&backend.slot.key().name))?;
        return Ok(Destination { revision, set_headers, rewrite_host });
    }
    Err(Nowhere::Fault(Fault::Other {
        status: StatusCode::LOOP_DETECTED,
        reason: "rewrite-loop",
        body: format!("host {:?} leads to other hosts and never to a service\n", String::from_utf8_lossy(asked)).into(),
        retry_after: None,
    }))
}

fn find<'a>(route: &'a HostRoute, uri: &Uri, headers: &HeaderMap, asked: &[u8]) -> Result<&'a PathRoute, Fault> {
    route.path(uri.path(), headers).ok_or_else(|| Fault::Other {
        status: StatusCode::NOT_FOUND,
        reason: "unknown-path",
        body: format!(
            "host {:?} has no route for this path and these headers\n",
            normalize(&String::from_utf8_lossy(asked))
        )
        .into(),
        retry_after: None,
    })
}

/// The same host, path and query by https. Where plain HTTP is served TLS is not, so the client's port is not kept.
/// `port`: where clients find our TLS. `raw_query`: the query if the URI could not hold it.
pub fn https_location(
    uri: &Uri,
    headers: &HeaderMap,
    raw_query: Option<&RawQuery>,
    port: u16,
) -> Result<HeaderValue, Fault> {
    let asked = String::from_utf8_lossy(host(uri, headers));
    let name = normalize(&asked);
    let malformed = Fault::BadRequest("malformed host");
    // It goes into a URL, where some bytes would end it.
    if name.is_empty() || !proxy::headers::is_host(name.as_bytes()) {
        return Err(malformed);
    }
    let mut location = format!("https://{name}").into_bytes();
    if port != 443 {
        location.extend_from_slice(format!(":{port}").as_bytes());
    }
    location.extend_from_slice(uri.path().as_bytes());
    let raw_query = raw_query.map(|RawQuery(query)| &query[..]);
    if let Some(query) = raw_query.or(uri.query().map(str::as_bytes)) {
        location.push(b'?');
        location.extend_from_slice(query);
    }
    HeaderValue::from_bytes(&location).map_err(|_| malformed)
}

/// Behind a gateway: by the identity headers, else by a service host of the revision.
pub fn by_identity(
    uri: &Uri,
    headers: &HeaderMap,
    cluster_domain: &str,
    revisions: &Revisions,
) -> Result<Destination, Fault> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (mut namespace, mut name) = (text(&SERVING_NAMESPACE), text(&SERVING_REVISION));
    if (namespace.is_empty() || name.is_empty())
        && let Some((host_name, host_namespace)) =
            std::str::from_utf8(host(uri, headers)).ok().and_then(|host| from_service_host(host, cluster_domain))
    {
        (namespace, name) = (host_namespace, host_name);
    }
    match revisions.find(namespace, name) {
        Some(revision) => Ok(Destination { revision, set_headers: Vec::new(), rewrite_host: None }),
        None => Err(unknown_revision(name)),
    }
}

/// `revision.namespace.svc.DOMAIN[:port]` → name, namespace.
fn from_service_host<'a>(host: &'a str, cluster_domain: &str) -> Option<(&'a str, &'a str)> {
    let mut parts = host.splitn(4, '.');
    let (name, namespace, svc, domain) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let domain = domain.split_once(':').map_or(domain, |(domain, _)| domain);
    (svc == "svc" && domain == cluster_domain).then_some((name, namespace))
}

fn unknown_host(host: &str) -> Fault {
    Fault::Other {
        status: StatusCode::NOT_FOUND,
        reason: "unknown-host",
        body: format!(
            "no service is known by the host {host:?}\n\
             the URL column of `kubectl get ksvc -A` shows the hosts that are\n"
        )
        .into(),
        retry_after: None,
    }
}

/// Upstream's text.
fn unknown_revision(name: &str) -> Fault {
    Fault::Other {
        status: StatusCode::NOT_FOUND,
        reason: "unknown-revision",
        body: format!("Error getting active endpoint: revision.serving.knative.dev {name:?} not found\n").into(),
        retry_after: None,
    }
}

#[cfg(test)]
#[path = "identify_tests.rs"]
mod tests;
