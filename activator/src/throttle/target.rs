//! A pod as the request path sees it: where to connect, and that address as text.

use std::net::SocketAddr;

use http::HeaderValue;

/// One address of one pod, with its text formatted once.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// Where to connect.
    pub address: SocketAddr,
    host: HeaderValue,
}

impl Target {
    /// The pod at an address.
    pub fn new(address: SocketAddr) -> Self {
        // Digits, dots, colons and brackets always make a header value.
        let host = HeaderValue::try_from(address.to_string()).unwrap_or(HeaderValue::from_static("pod"));
        Self { address, host }
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
