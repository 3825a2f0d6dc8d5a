//! Host, path and headers → revision: the gateway's routing table.
//!
//! A [`Table`] is immutable. The control thread builds a new one from the Ingress objects ([`build`]) and swaps it in;
//! requests read it without a lock. Which backend of a split a request takes is a pure function of a random number.

pub mod build;
mod host;

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

pub use host::normalize;

use crate::revision::RevisionKey;

/// Who may use a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Visibility {
    /// Everybody who reaches the external listener.
    #[default]
    External,
    /// Callers inside the cluster only.
    ClusterLocal,
}

/// All hosts.
#[derive(Debug, Default)]
pub struct Table {
    exact: HashMap<Box<str>, Arc<HostRoute>>,
    /// `*.suffix` by `suffix`.
    wildcard: HashMap<Box<str>, Arc<HostRoute>>,
}

/// What one host leads to.
#[derive(Debug)]
pub struct HostRoute {
    /// Who may use it.
    pub visibility: Visibility,
    /// Identifies the version of the Ingress this came from; the answer to a probe.
    pub hash: HeaderValue,
    /// Longest prefix first; at equal length more headers first.
    pub paths: Vec<PathRoute>,
}

/// Requests with a path prefix and certain headers.
#[derive(Debug)]
pub struct PathRoute {
    /// Literal prefix; empty = every path.
    pub prefix: Box<str>,
    /// Headers that must have exactly these values, all of them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The Host the backend shall see.
    pub rewrite_host: Option<HeaderValue>,
    /// Headers set on the request, whichever backend.
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
    /// Backends with their weight; never empty.
    pub splits: Vec<Backend>,
    /// Sum of the weights.
    pub total_weight: u64,
}

/// A backend of a split.
#[derive(Debug)]
pub struct Backend {
    /// Which revision.
    pub revision: RevisionKey,
    /// Its share of [`PathRoute::total_weight`].
    pub weight: u64,
    /// Headers set on requests that go there.
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
}

impl Table {
    /// The route of a host as [`normalize`] gives it; an exact name before a wildcard, the longest wildcard first.
    pub fn host(&self, host: &str) -> Option<&Arc<HostRoute>> {
        if let Some(route) = self.exact.get(host) {
            return Some(route);
        }
        if self.wildcard.is_empty() {
            return None;
        }
        let mut rest = host;
        while let Some((_, suffix)) = rest.split_once('.') {
            if let Some(route) = self.wildcard.get(suffix) {
                return Some(route);
            }
            rest = suffix;
        }
        None
    }

    /// Hosts known.
    pub fn len(&self) -> usize {
        self.exact.len() + self.wildcard.len()
    }

    /// Whether no host is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl HostRoute {
    /// The first path whose prefix and headers match.
    pub fn path(&self, path: &str, headers: &HeaderMap) -> Option<&PathRoute> {
        self.paths.iter().find(|route| {
            path.starts_with(&*route.prefix)
                && route.headers.iter().all(|(name, value)| headers.get(name).is_some_and(|have| have == value))
        })
    }

    /// Every revision this host may lead to.
    pub fn revisions(&self) -> impl Iterator<Item = &RevisionKey> {
        self.paths.iter().flat_map(|path| path.splits.iter().map(|split| &split.revision))
    }
}

impl PathRoute {
    /// The backend for a number drawn uniformly from `0..total_weight`.
    pub fn choose(&self, mut drawn: u64) -> Option<&Backend> {
        for split in &self.splits {
            match drawn.checked_sub(split.weight) {
                None => return Some(split),
                Some(rest) => drawn = rest,
            }
        }
        self.splits.last()
    }
}
