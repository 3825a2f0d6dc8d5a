//! A request on its way to the next hop, and the answer on its way back.
//!
//! [`prepare`] turns what arrived into what is sent; [`answer`] does the same for the response. In between the caller
//! chooses a target and sends, as often as it wants while nothing was sent.

use http::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, Response, StatusCode, Uri, Version, request};

use crate::accept::Peer;
use crate::body::Body;
use crate::errors::Fault;
use crate::h1::RawQuery;
use crate::h1::server::Origin;
use crate::headers::{self, Present};
use crate::upgrade::Tunnel;

/// What a hop does to a request beyond the rules of HTTP.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Who sent it; appended to `X-Forwarded-For`.
    pub peer: &'a Peer,
    /// Headers that end here, and how [`Present`] knows them.
    pub remove: &'a [(Present, HeaderName)],
    /// Host for HTTP/1.0 requests that have none.
    pub default_host: &'a HeaderValue,
}

/// A request ready to be sent, and the client's side of an upgrade if it asked for one.
#[derive(Debug)]
pub struct Outbound {
    /// What to send.
    pub request: Request<Body>,
    /// What to do if the answer is 101.
    pub upgrade: Option<Pending>,
}

/// A client that waits for 101.
#[derive(Debug)]
pub struct Pending {
    token: HeaderValue,
    client: Origin,
}

/// Checks and rewrites a request for the next hop. The protocol stays: HTTP/1.x goes on as HTTP/1.1, h2 as h2.
pub fn prepare(request: Request<Body>, options: &Options<'_>) -> Result<Outbound, Fault> {
    check(&request)?;
    let present = Present::of(request.headers());
    prepare_checked(request, present, options)
}

/// Refuses shapes that two parsers could read differently; a hop that changes a request first must check it before.
pub fn check<B>(request: &Request<B>) -> Result<(), Fault> {
    headers::check(request.version(), request.headers(), request.uri().authority().is_some())
}

/// [`prepare`] for a request that has passed [`check`] and whose headers are known.
pub fn prepare_checked(request: Request<Body>, present: Present, options: &Options<'_>) -> Result<Outbound, Fault> {
    let (mut parts, body) = request.into_parts();
    let upgrade = if present.any(Present::UPGRADE) {
        // Only HTTP/1 requests have a connection that could be handed over.
        let token = headers::upgrade_token(&parts.headers).cloned();
        token.and_then(|token| Some(Pending { token, client: body.origin()? }))
    } else {
        None
    };
    rewrite(&mut parts, present, options)?;
    Ok(Outbound { request: Request::from_parts(parts, body), upgrade })
}

/// The part of [`prepare`] that needs no connection.
pub fn rewrite(parts: &mut request::Parts, present: Present, options: &Options<'_>) -> Result<(), Fault> {
    let raw_query = parts.extensions.remove::<RawQuery>();
    parts.extensions.clear();
    if let Some(raw_query) = raw_query {
        parts.extensions.insert(raw_query);
    }
    headers::remove_hop_by_hop(&mut parts.headers, present);
    for (_, name) in options.remove.iter().filter(|(known, _)| present.any(*known)) {
        parts.headers.remove(name);
    }
    headers::append_forwarded_for(&mut parts.headers, present, &options.peer.forwarded_for);
    if present.any(Present::EMPTY_USER_AGENT) {
        parts.headers.remove(USER_AGENT);
    }
    if parts.version != Version::HTTP_2 {
        parts.version = Version::HTTP_11;
        if parts.method != Method::CONNECT {
            to_origin_form(parts)?;
        }
        if !present.any(Present::HOST) && !parts.headers.contains_key(HOST) {
            parts.headers.insert(HOST, options.default_host.clone());
        }
    }
    encode_path(parts)
}

/// Absolute form becomes origin form; its authority wins over Host (RFC 9112 §3.2.2).
fn to_origin_form(parts: &mut request::Parts) -> Result<(), Fault> {
    let Some(authority) = parts.uri.authority() else { return Ok(()) };
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Fault::BadRequest("malformed target"))?;
    parts.headers.insert(HOST, host);
    let path = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    parts.uri = Uri::from(path);
    Ok(())
}

fn encode_path(parts: &mut request::Parts) -> Result<(), Fault> {
    let Some(encoded) = headers::encode_path(parts.uri.path()) else { return Ok(()) };
    let whole = match parts.uri.query() {
        Some(query) => format!("{encoded}?{query}"),
        None => encoded,
    };
    let malformed = |_| Fault::BadRequest("malformed target");
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.path_and_query = Some(PathAndQuery::try_from(whole).map_err(|_| Fault::BadRequest("malformed target"))?);
    parts.uri = Uri::from_parts(uri).map_err(malformed)?;
    Ok(())
}

/// Makes a request name another host: Host on HTTP/1, `:authority` on h2. Junk is refused.
pub fn set_host(parts: &mut request::Parts, host: HeaderValue) -> Result<(), Fault> {
    let malformed = Fault::BadRequest("malformed host");
    if !headers::is_host(host.as_bytes()) {
        return Err(malformed);
    }
    if parts.version != Version::HTTP_2 {
        // An absolute-form target would win over Host later.
        if parts.uri.authority().is_some() && parts.method != Method::CONNECT {
            to_origin_form(parts)?;
        }
        parts.headers.insert(HOST, host);
        return Ok(());
    }
    parts.headers.remove(HOST);
    let authority = Authority::try_from(host.as_bytes()).map_err(|_| malformed.clone())?;
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.authority = Some(authority);
    uri.scheme.get_or_insert(http::uri::Scheme::HTTP);
    uri.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    parts.uri = Uri::from_parts(uri).map_err(|_| malformed)?;
    Ok(())
}

/// The answer for the client. With a 101 that both sides agree on comes the [`Tunnel`], which the caller must run.
pub fn answer(response: Response<Body>, upgrade: Option<Pending>) -> Result<(Response<Body>, Option<Tunnel>), Fault> {
    let (mut parts, body) = response.into_parts();
    let present = Present::of(&parts.headers);
    headers::remove_hop_by_hop(&mut parts.headers, present);
    if parts.status != StatusCode::SWITCHING_PROTOCOLS {
        // `remove_hop_by_hop` puts a wanted upgrade back; a response that does not switch has no use for it.
        if present.any(Present::UPGRADE) {
            parts.headers.remove(http::header::UPGRADE);
            parts.headers.remove(http::header::CONNECTION);
        }
        return Ok((Response::from_parts(parts, body), None));
    }
    let Some(pending) = upgrade else { return Err(Fault::Upgrade) };
    let agreed = headers::upgrade_token(&parts.headers)
        .is_some_and(|token| token.as_bytes().eq_ignore_ascii_case(pending.token.as_bytes()));
    let Some(target) = body.into_switched().filter(|_| agreed) else { return Err(Fault::Upgrade) };
    parts.headers.remove(CONTENT_LENGTH);
    Ok((Response::from_parts(parts, Body::empty()), Some(Tunnel::new(pending.client, *target))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddr};

    fn rewritten(request: request::Builder) -> Result<request::Parts, Fault> {
        let peer = Peer::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 1234)));
        let options = Options {
            peer: &peer,
            remove: &[(Present::SERVING_REVISION, HeaderName::from_static("knative-serving-revision"))],
            default_host: &HeaderValue::from_static("127.0.0.1:8080"),
        };
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let present = Present::of(&parts.headers);
        rewrite(&mut parts, present, &options).map(|()| parts)
    }

    #[test]
    fn raw_path_and_query_are_kept() {
        for target in ["/", "//x//y?a=%zz|", "/%2f/../;p?q", "/a?", "*"] {
            let parts = rewritten(Request::builder().uri(target)).unwrap();
            assert_eq!(parts.uri.to_string(), target);
        }
        let parts = rewritten(Request::builder().uri("/a|b?c|d")).unwrap();
        assert_eq!(parts.uri.to_string(), "/a%7Cb?c|d");
    }

    #[test]
    fn absolute_form_wins_over_host() {
        let parts = rewritten(Request::builder().uri("http://real:81/p?q").header(HOST, "other")).unwrap();
        assert_eq!(parts.uri.to_string(), "/p?q");
        assert_eq!(parts.headers[HOST], "real:81");
    }

    #[test]
    fn http_1_0_goes_on_as_1_1_with_a_host() {
        let parts = rewritten(Request::builder().version(Version::HTTP_10).uri("/")).unwrap();
        assert_eq!(parts.version, Version::HTTP_11);
        assert_eq!(parts.headers[HOST], "127.0.0.1:8080");
        assert_eq!(parts.headers[headers::X_FORWARDED_FOR], "127.0.0.1");
    }

    #[test]
    fn listed_headers_end_here() {
        let parts =
            rewritten(Request::builder().uri("/").header("knative-serving-revision", "1").header(USER_AGENT, ""))
                .unwrap();
        assert!(!parts.headers.contains_key("knative-serving-revision"));
        assert!(!parts.headers.contains_key(USER_AGENT));
    }

    #[test]
    fn host_can_be_restored_on_both_protocols() {
        let host = HeaderValue::from_static("original.example");
        let (mut h1, ()) = Request::builder().uri("/x").header(HOST, "pod").body(()).unwrap().into_parts();
        set_host(&mut h1, host.clone()).unwrap();
        assert_eq!(h1.headers[HOST], host);
        let (mut h2, ()) =
            Request::builder().version(Version::HTTP_2).uri("http://pod/x?y").body(()).unwrap().into_parts();
        set_host(&mut h2, host).unwrap();
        assert_eq!(h2.uri.to_string(), "http://original.example/x?y");
        assert!(set_host(&mut h2, HeaderValue::from_static("a b")).is_err());
    }
}
