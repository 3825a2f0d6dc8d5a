//! A pod as the request path sees it: where to connect, and that address as text.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderValue;

/// One address of one pod, with its text formatted once.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// Where to connect.
    pub address: SocketAddr,
    /// Of the address's text: what sessions choose by.
    pub hash: u64,
    host: HeaderValue,
}

impl Target {
    /// The pod at an address.
    pub fn new(address: SocketAddr) -> Self {
        // Digits, dots, colons and brackets always make a header value.
        let host = HeaderValue::try_from(address.to_string()).unwrap_or(HeaderValue::from_static("pod"));
        Self { address, hash: api::hash::fnv1a(host.as_bytes()), host }
    }

    /// `ip:port` as a Host header.
    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// `ip:port`, IPv6 in brackets.
    pub fn text(&self) -> &[u8] {
        self.host.as_bytes()
    }
}

/// Pods in the order in which shares of them are cut, each once: by text, as upstream, so that activators of both kinds
/// cut the same list the same way.
pub fn in_order(targets: &[Arc<Target>]) -> Vec<Arc<Target>> {
    let mut sorted = targets.to_vec();
    sorted.sort_by(|a, b| a.text().cmp(b.text()));
    sorted.dedup_by_key(|target| target.address);
    sorted
}
