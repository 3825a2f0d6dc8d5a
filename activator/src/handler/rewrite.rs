//! A request made ready for the pods of its revision: what ends here is taken off, what the door says is put on.
//!
//! Most requests of a connection get the same: that is put together once, as lines ([`proxy::Added`]). What cannot be
//! lines, h2 and requests whose headers decide how they are held, goes by the header map; both come from [`Door::mark`].

use std::rc::Rc;

use api::headers::{NETWORK_HASH, ORIGINAL_HOST, PROXY_REQUEST, SERVING_NAMESPACE, SERVING_REVISION};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, Version};
use proxy::forward::{self, Options, Pending};
use proxy::headers::{self, Headers, Present, X_FORWARDED_FOR};
use proxy::{Added, Body, Fault};

use super::identify::{self, Destination, Way};
use super::{Client, Door, HOP, Routed};
use crate::config::Routing;

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Headers that end at the activator.
const ENDS_HERE: [(Present, HeaderName); 3] = [
    (Present::SERVING_NAMESPACE, SERVING_NAMESPACE),
    (Present::SERVING_REVISION, SERVING_REVISION),
    (Present::NETWORK_HASH, NETWORK_HASH),
];

/// A request that is ready.
#[derive(Debug)]
pub struct Ready {
    /// The client waits for 101.
    pub upgrade: Option<Pending>,
    /// What goes with it as lines.
    pub added: Option<Rc<Added>>,
}

impl Door {
    /// Makes a request ready.
    pub(super) fn rewrite(
        &self,
        client: &Client,
        request: &mut Request<Body>,
        routed: &Routed,
    ) -> Result<Ready, Fault> {
        let Routed { destination, has_policy, present } = routed;
        let present = *present;
        // A policy reads the headers as the pods will see them.
        let added = if *has_policy {
            headers::as_map(request)?;
            None
        } else {
            self.lines(client, request, present, destination)
        };
        let original_host = match &added {
            Some(_) => None,
            None => self.original_host(request, present, destination)?,
        };
        let sees_to_it = added.is_some() && !present.any(Present::X_FORWARDED_FOR);
        let options = Options {
            forwarded_for: if sees_to_it { None } else { Some(&client.peer.forwarded_for) },
            remove: &ENDS_HERE,
            default_host: &HeaderValue::from_static(""),
        };
        let upgrade = forward::prepare(request, present, &options)?;
        if let Some(added) = &added {
            added.displace(request, present);
        } else {
            let set = |name, value| headers::insert(request, name, value);
            self.mark(set, client, present, original_host, destination);
        }
        Ok(Ready { upgrade, added })
    }

    /// What this connection's requests get as lines, if this one can have them.
    fn lines(
        &self,
        client: &Client,
        request: &Request<Body>,
        present: Present,
        destination: &Destination,
    ) -> Option<Rc<Added>> {
        let Way::Split(split) = &destination.way else { return None };
        // A host in the target may be another than the remembered one.
        if request.version() == Version::HTTP_2 || request.uri().authority().is_some() {
            return None;
        }
        client.memory.lines(split, present, |host| {
            let mut headers = HeaderMap::new();
            if !present.any(Present::X_FORWARDED_FOR) {
                headers.insert(X_FORWARDED_FOR, client.peer.forwarded_for.clone());
            }
            let set = |name, value| drop(headers.insert(name, value));
            self.mark(set, client, present, Some(host.clone()), destination);
            self.pool.added(&headers)
        })
    }

    /// The host to tell the app of. Behind a gateway its word counts; as the gateway ours does.
    fn original_host(
        &self,
        request: &Request<Body>,
        present: Present,
        destination: &Destination,
    ) -> Result<Option<HeaderValue>, Fault> {
        if !self.is_gateway() && present.any(Present::ORIGINAL_HOST) {
            return Ok(None);
        }
        match &destination.way {
            Way::Rewritten { host, .. } => Ok(Some(host.clone())),
            Way::Named | Way::Split(_) => identify::host_value(request.uri(), Headers::of(request)).map(Some),
        }
    }

    /// Sets what the door says of a request. `present`: what it arrived with.
    fn mark(
        &self,
        mut set: impl FnMut(HeaderName, HeaderValue),
        client: &Client,
        present: Present,
        original_host: Option<HeaderValue>,
        destination: &Destination,
    ) {
        set(PROXY_REQUEST, HeaderValue::from_static(HOP));
        if let Some(host) = original_host {
            set(ORIGINAL_HOST, host);
        }
        // On a plain listener a balancer that ended TLS in front of us knows better.
        if self.is_gateway() && (client.entrance.is_secure() || !present.any(Present::X_FORWARDED_PROTO)) {
            set(X_FORWARDED_PROTO, client.entrance.scheme());
        }
        for (name, value) in destination.way.set_headers() {
            set(name.clone(), value.clone());
        }
    }

    /// Whether it is the way in itself, and not behind one.
    pub(super) fn is_gateway(&self) -> bool {
        matches!(self.routing, Routing::Ingress { .. })
    }
}
