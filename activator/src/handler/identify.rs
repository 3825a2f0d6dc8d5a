//! Which revision a request is for. Pure but for the snapshots it reads.

use std::sync::Arc;

use api::headers::{SERVING_NAMESPACE, SERVING_REVISION};
use http::header::HOST;
use http::{HeaderName, HeaderValue, StatusCode, Uri};
use proxy::headers::Headers;
use proxy::{Fault, RawQuery};

use super::memory::Memory;
use crate::entrance::Entrance;
use crate::revision::{Revision, Revisions};
use crate::table::{HostRoute, PathRoute, Table, normalize};

/// Domain mappings that lead to each other: followed this often.
const MOST_REWRITES: usize = 4;

/// Where a request goes.
#[derive(Debug)]
pub struct Destination {
    /// The revision.
    pub revision: Arc<Revision>,
    /// How it was found.
    pub way: Way,
}

/// How a revision was found, and what is written on a request for that.
#[derive(Debug)]
pub enum Way {
    /// It was named.
    Named,
    /// The request's host leads there.
    Split(Split),
    /// Another host stands in for it.
    Rewritten {
        /// The Host to show the app instead of the client's.
        host: HeaderValue,
        /// Headers to set, in this order: a later one wins.
        set_headers: Vec<(HeaderName, HeaderValue)>,
    },
}

/// A split of a route.
#[derive(Debug)]
pub struct Split {
    /// The route of the request's host.
    pub route: Arc<HostRoute>,
    /// Which path of the route, and which split of the path.
    pub way: (usize, usize),
}

impl Way {
    /// Headers to set, in this order: a later one wins.
    pub fn set_headers(&self) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        let (first, second) = match self {
            Self::Named => (&[][..], &[][..]),
            Self::Rewritten { set_headers, .. } => (&set_headers[..], &[][..]),
            Self::Split(Split { route, way: (path, split) }) => match route.paths.get(*path) {
                Some(path) => (path.splits.get(*split).map_or(&[][..], |split| &split.set_headers), &*path.set_headers),
                None => (&[][..], &[][..]),
            },
        };
        first.iter().chain(second)
    }
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
pub fn host<'a>(uri: &'a Uri, headers: Headers<'a>) -> &'a [u8] {
    match uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => headers.get(&HOST).unwrap_or_default(),
    }
}

/// The same as a header of its own.
pub fn host_value(uri: &Uri, headers: Headers<'_>) -> Result<HeaderValue, Fault> {
    HeaderValue::from_bytes(host(uri, headers)).map_err(|_| Fault::BadRequest("malformed host"))
}

/// As a gateway: by Host, path and headers. `random(n)` is uniform in `0..n`. One look-up finds the host and the slots of
/// its revisions; a domain mapping takes one more, for its target.
pub fn by_table(
    table: &Table,
    entrance: Entrance,
    memory: &Memory,
    uri: &Uri,
    headers: Headers<'_>,
    random: impl Fn(u64) -> u64,
) -> Result<Destination, Nowhere> {
    let asked = host(uri, headers);
    let found = if let Some(route) = memory.route(table, asked) {
        route
    } else {
        let text = String::from_utf8_lossy(asked);
        let name = normalize(&text);
        let found = table.host(&name).filter(|route| entrance.serves(route.visibility));
        let found = found.ok_or_else(|| unknown_host(&name))?;
        memory.keep(table, headers.get(&HOST) == Some(asked), asked, found);
        Arc::clone(found)
    };
    let mut route = &found;
    let (mut set_headers, mut rewritten) = (Vec::new(), None);
    for hop in 0..MOST_REWRITES {
        let (at, path) = find(route, uri, headers, asked)?;
        if hop == 0 && route.to_https && !entrance.is_secure() {
            return Err(Nowhere::Https);
        }
        let drawn = if path.splits.len() > 1 { random(path.total_weight) } else { 0 };
        let (split, backend) = path.choose(drawn).ok_or_else(|| unknown_revision(""))?;
        let revision = || backend.slot.get().ok_or_else(|| unknown_revision(&backend.slot.key().name));
        let Some(target) = &path.rewrite_host else {
            let revision = revision()?;
            return Ok(match rewritten {
                None => {
                    let way = (at, split);
                    Destination { revision, way: Way::Split(Split { route: found, way }) }
                }
                Some(host) => {
                    set_headers.extend(backend.set_headers.iter().chain(&path.set_headers).cloned());
                    Destination { revision, way: Way::Rewritten { host, set_headers } }
                }
            });
        };
        set_headers.extend(backend.set_headers.iter().chain(&path.set_headers).cloned());
        let host = HeaderValue::clone(target);
        match mapped(table, route, target) {
            Some(inner) => (route, rewritten) = (inner, Some(host)),
            None => return Ok(Destination { revision: revision()?, way: Way::Rewritten { host, set_headers } }),
        }
    }
    Err(Nowhere::Fault(Fault::Other {
        status: StatusCode::LOOP_DETECTED,
        reason: "rewrite-loop",
        body: format!("host {:?} leads to other hosts and never to a service\n", String::from_utf8_lossy(asked)).into(),
        retry_after: None,
    }))
}

/// A domain mapping names another host of ours, which may well be a cluster-local one.
fn mapped<'a>(table: &'a Table, route: &HostRoute, target: &HeaderValue) -> Option<&'a Arc<HostRoute>> {
    let inner = target.to_str().ok().and_then(|host| table.host(&normalize(host)));
    inner.filter(|inner| !std::ptr::eq(Arc::as_ptr(inner), route))
}

/// Whether every revision that requests for a host may end at is known here.
pub fn is_known(table: &Table, route: &HostRoute) -> bool {
    fn within(table: &Table, route: &HostRoute, hops: usize) -> bool {
        route.paths.iter().all(|path| {
            let inner = path.rewrite_host.as_ref().and_then(|target| mapped(table, route, target));
            match (inner, hops) {
                (Some(inner), 1..) => within(table, inner, hops - 1),
                (Some(_), 0) => false,
                (None, _) => path.splits.iter().all(|split| split.slot.is_filled()),
            }
        })
    }
    within(table, route, MOST_REWRITES)
}

fn find<'a>(
    route: &'a HostRoute,
    uri: &Uri,
    headers: Headers<'_>,
    asked: &[u8],
) -> Result<(usize, &'a PathRoute), Fault> {
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
    headers: Headers<'_>,
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
    headers: Headers<'_>,
    cluster_domain: &str,
    revisions: &Revisions,
) -> Result<Destination, Fault> {
    let text = |name: &HeaderName| headers.text(name).unwrap_or_default();
    let (mut namespace, mut name) = (text(&SERVING_NAMESPACE), text(&SERVING_REVISION));
    if (namespace.is_empty() || name.is_empty())
        && let Some((host_name, host_namespace)) =
            std::str::from_utf8(host(uri, headers)).ok().and_then(|host| from_service_host(host, cluster_domain))
    {
        (namespace, name) = (host_namespace, host_name);
    }
    match revisions.find(namespace, name) {
        Some(revision) => Ok(Destination { revision, way: Way::Named }),
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
