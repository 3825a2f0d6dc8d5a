//! Header lines that a hop adds to many requests alike: put together once, copied onto each.
//!
//! A header map costs a hop some hundred instructions per header that it adds; a copy of ready lines costs nearly
//! nothing. For whoever forwards many requests of one connection the same way.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};

use http::{HeaderMap, Request};

use super::encode;
use crate::body::Body;
use crate::headers::{self, Present};

/// Lines to add, in place of any headers of the same names.
#[derive(Debug)]
pub struct Added {
    lines: Box<[u8]>,
    names: Box<[HeaderName]>,
    /// Those of the names that [`Present`] knows.
    known: Present,
    /// Whether it knows all of them.
    all_known: bool,
}

/// What [`crate::pool::Endpoint::forward`] writes on an HTTP/1 request beyond the headers that it has.
#[derive(Debug, Clone, Copy)]
pub struct Extra<'a> {
    /// Host, in place of the request's.
    pub host: &'a HeaderValue,
    /// All else. The request must not have headers of these names: see [`Added::displace`].
    pub added: &'a Added,
}

/// Headers that say something of the message or the connection, and are never added as mere lines.
const NOT_MERE: [HeaderName; 5] = [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT];

impl Added {
    /// The lines of these headers; `None` if one of them is more than a line to whoever sends it. `title_case`: names as
    /// `X-Lower`.
    pub fn of(headers: &HeaderMap, title_case: bool) -> Option<Self> {
        if NOT_MERE.iter().any(|name| headers.contains_key(name)) {
            return None;
        }
        let mut lines = Vec::new();
        for (name, value) in headers {
            encode::line(&mut lines, name.as_str().as_bytes(), value.as_bytes(), title_case);
        }
        let names: Box<[HeaderName]> = headers.keys().cloned().collect();
        let (mut known, mut all_known) = (Present::default(), true);
        for name in &names {
            let this = Present::named(name.as_str().as_bytes());
            known |= this;
            all_known &= this != Present::default();
        }
        Some(Self { lines: lines.into(), names, known, all_known })
    }

    /// Takes headers of the same names away from a request. `present`: what it arrived with.
    pub fn displace(&self, request: &mut Request<Body>, present: Present) {
        if self.all_known && !present.any(self.known) {
            return;
        }
        for name in &self.names {
            headers::remove(request, name);
        }
    }

    pub(crate) fn lines(&self) -> &[u8] {
        &self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = headers.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
        let mut map = HeaderMap::new();
        pairs.for_each(|(name, value)| {
            map.append(name, value);
        });
        map
    }

    #[test]
    fn lines_stand_in_place_of_headers_of_the_same_names() {
        for (ours, before, after) in [
            (&[("k-proxy-request", "activator")][..], &[("accept", "*/*")][..], &[("accept", "*/*")][..]),
            (&[("k-proxy-request", "activator")], &[("k-proxy-request", "me"), ("k-proxy-request", "you")], &[]),
            (&[("x-own", "1"), ("k-proxy-request", "a")], &[("x-own", "2"), ("x-other", "3")], &[("x-other", "3")]),
        ] {
            let added = Added::of(&map(ours), true).unwrap();
            let mut request = Request::new(Body::empty());
            *request.headers_mut() = map(before);
            let present = Present::of(request.headers());
            added.displace(&mut request, present);
            assert_eq!(*request.headers(), map(after), "{ours:?} on {before:?}");
        }
        let added = Added::of(&map(&[("x-own", "1"), ("k-proxy-request", "a")]), true).unwrap();
        assert_eq!(added.lines(), b"X-Own: 1\r\nK-Proxy-Request: a\r\n");
    }

    #[test]
    fn what_frames_or_routes_a_message_is_no_mere_line() {
        for name in NOT_MERE {
            let mut headers = HeaderMap::new();
            headers.insert(name.clone(), HeaderValue::from_static("1"));
            assert!(Added::of(&headers, true).is_none(), "{name}");
        }
    }
}
