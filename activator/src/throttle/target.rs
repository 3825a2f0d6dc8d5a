//! Where requests are sent, as the request path sees it: the address, its text, and how to connect.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderValue;
use proxy::tls::client::Secure;

/// A pod, or the cluster IP of a revision, with everything formatted once.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// As Kubernetes names it: what targets are told apart by.
    pub address: SocketAddr,
    /// Of the address's text: what sessions choose by.
    pub hash: u64,
    text: HeaderValue,
    host: HeaderValue,
    passed_through: bool,
    connect: SocketAddr,
    tls: Option<Secure>,
    pods: Option<usize>,
}

impl Target {
    /// The pod at an address.
    pub fn new(address: SocketAddr) -> Self {
        let text = text(address);
        let hash = api::hash::fnv1a(text.as_bytes());
        Self { address, hash, host: text.clone(), text, passed_through: false, connect: address, tls: None, pods: None }
    }

    /// It stands for so many pods: requests are spread over them behind it.
    #[must_use]
    pub fn standing_for(self, pods: usize) -> Self {
        Self { pods: Some(pods), ..self }
    }

    /// It is spoken to over TLS, on another port of the same address.
    #[must_use]
    pub fn over_tls(self, port: u16, tls: Secure) -> Self {
        let connect = SocketAddr::new(self.address.ip(), port);
        let host = if self.passed_through { self.host } else { text(connect) };
        Self { connect, host, tls: Some(tls), ..self }
    }

    /// A mesh is asked to let requests through to it, which name this host instead of an address.
    #[must_use]
    pub fn passed_through(self, host: HeaderValue) -> Self {
        Self { host, passed_through: true, ..self }
    }

    /// The Host of requests: `ip:port` of the connection, unless a mesh needs a name.
    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Whether a mesh is asked to let requests through.
    pub fn is_passed_through(&self) -> bool {
        self.passed_through
    }

    /// `ip:port`, IPv6 in brackets.
    pub fn text(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Where to connect.
    pub fn connect(&self) -> SocketAddr {
        self.connect
    }

    /// How connections are secured, if they are.
    pub fn tls(&self) -> Option<&Secure> {
        self.tls.as_ref()
    }

    /// How many pods are behind it; `None`: it is one.
    pub fn pods(&self) -> Option<usize> {
        self.pods
    }
}

fn text(address: SocketAddr) -> HeaderValue {
    // Digits, dots, colons and brackets always make a header value.
    HeaderValue::try_from(address.to_string()).unwrap_or(HeaderValue::from_static("pod"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy::tls::client::{Authorities, Trust};

    #[test]
    fn t67_t68_where_and_under_which_name() {
        let mut authorities = Authorities::default();
        authorities.add(include_bytes!("../../../proxy/tests/certificates/authority.crt")).unwrap();
        let secure = Trust::new("data-plane.knative.dev", authorities).unwrap().also_named("kn-user-ns");
        for (pod, secured) in [("10.0.0.1:8012", "10.0.0.1:8112"), ("[2001:db8::1]:8012", "[2001:db8::1]:8112")] {
            let plain = Target::new(pod.parse().unwrap());
            assert_eq!((plain.host().to_str().unwrap(), plain.connect(), plain.tls()), (pod, plain.address, None));
            let target = plain.over_tls(8112, secure.clone());
            assert_eq!(target.host(), secured);
            assert_eq!((target.text(), target.connect()), (pod.as_bytes(), secured.parse().unwrap()));
            assert!(target.tls() == Some(&secure) && !target.is_passed_through());
        }
        let name = HeaderValue::from_static("real-name-private.real-namespace");
        let pod = || Target::new(SocketAddr::from(([10, 0, 0, 1], 8012)));
        for target in [
            pod().passed_through(name.clone()).over_tls(8112, secure.clone()),
            pod().over_tls(8112, secure.clone()).passed_through(name.clone()),
        ] {
            assert!(target.host() == name && target.is_passed_through() && target.connect().port() == 8112);
        }
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
