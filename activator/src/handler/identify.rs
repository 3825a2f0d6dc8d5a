//! Which revision a request is for. Pure but for the snapshots it reads.

use std::sync::Arc;

use api::headers::{SERVING_NAMESPACE, SERVING_REVISION};
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use proxy::Fault;

use crate::revision::{Revision, RevisionKey, Revisions};
use crate::table::{HostRoute, PathRoute, Table, Visibility, normalize};

/// Where a request goes, and what is written on it for the way.
#[derive(Debug)]
pub struct Destination {
    /// The revision.
    pub revision: Arc<Revision>,
    /// Headers to set.
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
    /// The Host to show the app instead of the client's.
    pub rewrite_host: Option<HeaderValue>,
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

/// As a gateway: by Host, path and headers. `random(n)` is uniform in `0..n`.
pub fn by_table(
    table: &Table,
    revisions: &Revisions,
    uri: &Uri,
    headers: &HeaderMap,
    random: impl Fn(u64) -> u64,
) -> Result<Destination, Fault> {
    let asked = String::from_utf8_lossy(host(uri, headers));
    let name = normalize(&asked);
    let route = table.host(&name).filter(|route| route.visibility == Visibility::External);
    let Some(route) = route else { return Err(unknown_host(&name)) };
    let path = find(route, uri, headers, &name)?;
    let Some(target) = path.rewrite_host.as_ref() else {
        return destination(path, revisions, None, &random);
    };
    // A domain mapping: it names another host of ours, which may well be a cluster-local one.
    let inner = target.to_str().ok().and_then(|host| table.host(&normalize(host)));
    match inner {
        Some(inner) => {
            destination(find(inner, uri, headers, &name)?, revisions, Some(target), &random).map(|mut found| {
                found.set_headers.extend(path.set_headers.iter().cloned());
                found
            })
        }
        None => destination(path, revisions, Some(target), &random),
    }
}

fn find<'a>(route: &'a HostRoute, uri: &Uri, headers: &HeaderMap, name: &str) -> Result<&'a PathRoute, Fault> {
    route.path(uri.path(), headers).ok_or_else(|| Fault::Other {
        status: StatusCode::NOT_FOUND,
        reason: "unknown-path",
        body: format!("host {name:?} has no route for this path and these headers\n").into(),
        retry_after: None,
    })
}

fn destination(
    path: &PathRoute,
    revisions: &Revisions,
    rewrite_host: Option<&HeaderValue>,
    random: &impl Fn(u64) -> u64,
) -> Result<Destination, Fault> {
    let drawn = if path.splits.len() > 1 { random(path.total_weight) } else { 0 };
    let backend = path.choose(drawn).ok_or_else(|| unknown_revision(""))?;
    let revision = revisions.get(&backend.revision).ok_or_else(|| unknown_revision(&backend.revision.name))?;
    let set_headers = path.set_headers.iter().chain(&backend.set_headers).cloned().collect();
    Ok(Destination { revision, set_headers, rewrite_host: rewrite_host.cloned() })
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
    match revisions.get(&RevisionKey::new(namespace, name)) {
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
