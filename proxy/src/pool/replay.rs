//! Which requests may be sent a second time after something of them was written, and after which failures.
//!
//! Upstream's rule (Go's `net/http`): no body, and a safe method or an idempotency key.

use std::io;

use http::{HeaderMap, Method, Request, Uri, Version};

use crate::body::Body;

/// The head of a request that may be sent a second time.
pub(super) struct Replay {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
}

impl Replay {
    pub(super) fn of(request: &Request<Body>) -> Option<Self> {
        if !request.body().is_empty() {
            return None;
        }
        let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
        let headers = request.headers();
        if !safe && !headers.contains_key("idempotency-key") && !headers.contains_key("x-idempotency-key") {
            return None;
        }
        Some(Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: headers.clone(),
        })
    }

    pub(super) fn into_request(self) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers;
        request
    }
}

/// Whether the connection ended before any byte of an answer, as when the target closed it while we wrote.
pub(super) fn died_before_answering(error: &hyper::Error) -> bool {
    if error.is_canceled() || error.is_closed() {
        return true;
    }
    if error.is_parse() {
        return false;
    }
    // `is_incomplete_message` covers EOF in the head too, but an endpoint that began to answer and broke off is no
    // stale connection; hyper does not tell them apart, and a safe method may be repeated in either case.
    error.is_incomplete_message() || caused_by_io(error)
}

fn caused_by_io(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return matches!(
                io.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof
            );
        }
        source = inner.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_requests_without_a_body_are_kept_for_replay() {
        let request = |method: Method, key: bool, body: Body| {
            let mut request = Request::new(body);
            *request.method_mut() = method;
            if key {
                request.headers_mut().insert("idempotency-key", http::HeaderValue::from_static("1"));
            }
            Replay::of(&request).is_some()
        };
        for safe in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE] {
            assert!(request(safe.clone(), false, Body::empty()), "{safe}");
            assert!(!request(safe.clone(), true, Body::full("x")), "{safe} with a body");
        }
        for unsafe_method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            assert!(!request(unsafe_method.clone(), false, Body::empty()), "{unsafe_method}");
            assert!(request(unsafe_method.clone(), true, Body::empty()), "{unsafe_method} with a key");
        }
    }
}
