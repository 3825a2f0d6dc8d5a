//! Host, path and headers → revision: the gateway's routing table.
//!
//! A [`Table`] is immutable; requests read it without a lock. The control thread keeps [`Routes`]: it compiles each
//! Ingress by itself ([`compile`]), settles who has a host that two of them want, and swaps a new table in that shares
//! all but the changed parts with the old one. Which backend of a split a request takes is a pure function of a random
//! number.

pub mod compile;
mod host;
mod routes;
mod sharded;

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use proxy::headers::Headers;

pub use compile::Skipped;
pub use host::{MAX_HOST, Pattern, normalize};
pub use routes::Routes;
pub use sharded::{Entry, Table};

use crate::certificates::Certificates;
use crate::revision::{RevisionSlot, Revisions};

/// Where routes name what they need.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// Revisions of backends.
    pub revisions: &'a Revisions,
    /// Certificates of hosts.
    pub certificates: &'a Certificates,
}

/// Who may use a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Visibility {
    /// Everybody who reaches the external listener.
    #[default]
    External,
    /// Callers inside the cluster only.
    ClusterLocal,
}

/// Which Ingress a route comes from, in the order of precedence: the older one keeps a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// Seconds since 1970 of its creation; `None` = not said, which counts as oldest.
    pub created: Option<i64>,
    /// Its namespace; one string for all of it.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Box<str>,
    /// Identifies the version of the object.
    pub version: Box<str>,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What the hosts of one rule lead to.
#[derive(Debug)]
pub struct HostRoute {
    /// Who may use it.
    pub visibility: Visibility,
    /// Whether plain requests are sent to https; never of cluster-local hosts.
    pub to_https: bool,
    /// The Ingress, in the version this came from.
    pub source: Arc<Source>,
    /// Longest prefix first; at equal length more headers first, then the object's order.
    pub paths: Box<[PathRoute]>,
}

/// Requests with a path prefix and certain headers.
#[derive(Debug)]
pub struct PathRoute {
    /// Literal prefix; empty = every path.
    pub prefix: Box<str>,
    /// Headers that must be there, all of them, with exactly this value if there is one.
    pub headers: Box<[(HeaderName, Option<HeaderValue>)]>,
    /// The Host the backend shall see. Boxed because it is rare and paths are many.
    pub rewrite_host: Option<Box<HeaderValue>>,
    /// Headers set on the request, whichever backend; they win over the backend's (upstream's layers do it so).
    pub set_headers: Box<[(HeaderName, HeaderValue)]>,
    /// Backends with their weight; never empty.
    pub splits: Box<[Backend]>,
    /// Sum of the weights.
    pub total_weight: u64,
}

/// A backend of a split.
#[derive(Debug)]
pub struct Backend {
    /// Which revision; its slot may be empty.
    pub slot: Arc<RevisionSlot>,
    /// Its share of [`PathRoute::total_weight`].
    pub weight: u64,
    /// Headers set on requests that go there.
    pub set_headers: Box<[(HeaderName, HeaderValue)]>,
}

impl HostRoute {
    /// The first path whose prefix and headers match, and which one it is.
    pub fn path(&self, path: &str, headers: Headers<'_>) -> Option<(usize, &PathRoute)> {
        self.paths.iter().enumerate().find(|(_, route)| route.matches(path, headers))
    }

    /// Names the version of the Ingress that is served; the answer to a probe.
    pub fn hash(&self) -> HeaderValue {
        HeaderValue::from_str(&self.source.version).unwrap_or(HeaderValue::from_static("unknown"))
    }

    /// Every revision these hosts may lead to.
    pub fn slots(&self) -> impl Iterator<Item = &Arc<RevisionSlot>> {
        self.paths.iter().flat_map(|path| path.splits.iter().map(|split| &split.slot))
    }
}

impl PathRoute {
    fn matches(&self, path: &str, headers: Headers<'_>) -> bool {
        path.starts_with(&*self.prefix)
            && self.headers.iter().all(|(name, wanted)| {
                let have = headers.get(name);
                have.is_some_and(|have| wanted.as_ref().is_none_or(|wanted| have == wanted.as_bytes()))
            })
    }

    /// The backend for a number drawn uniformly from `0..total_weight`, and which one it is.
    pub fn choose(&self, mut drawn: u64) -> Option<(usize, &Backend)> {
        for (nth, split) in self.splits.iter().enumerate() {
            match drawn.checked_sub(split.weight) {
                None => return Some((nth, split)),
                Some(rest) => drawn = rest,
            }
        }
        self.splits.iter().enumerate().next_back()
    }
}
