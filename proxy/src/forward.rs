//! A request on its way to the next hop, and the answer on its way back.
//!
//! [`prepare`] turns what arrived into what is sent; [`answer`] does the same for the response. In between the caller
//! chooses a target and sends, as often as it wants while nothing was sent.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, UPGRADE, USER_AGENT};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, Response, StatusCode, Uri, Version};

use crate::body::Body;
use crate::errors::Fault;
use crate::h1::RawQuery;
use crate::h1::origin::Origin;
use crate::headers::{self, Headers, Present, X_FORWARDED_FOR};
use crate::pool::Answer;
use crate::upgrade::Tunnel;

/// What a hop does to a request beyond the rules of HTTP.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Who sent it, appended to `X-Forwarded-For`; `None` if the caller sees to that.
    pub forwarded_for: Option<&'a HeaderValue>,
    /// Headers that end here, and how [`Present`] knows them.
    pub remove: &'a [(Present, HeaderName)],
    /// Host for HTTP/1.0 requests that have none.
    pub default_host: &'a HeaderValue,
}

/// A client that waits for 101.
#[derive(Debug)]
pub struct Pending {
    token: HeaderValue,
    client: Origin,
}

/// Refuses a Host that two parsers could read differently; a hop that changes a request first must check it before.
pub fn check(request: &Request<Body>) -> Result<(), Fault> {
    if request.body().fields().is_some() {
        return Ok(()); // Only heads with one good Host stay lines.
    }
    headers::check(request.version(), request.headers(), request.uri().authority().is_some())
}

/// Rewrites a request, which has passed [`check`], for the next hop. The protocol stays: HTTP/1.x goes on as HTTP/1.1,
/// h2 as h2. `present`: its headers. Returns the client's side of an upgrade if it asked for one.
pub fn prepare(request: &mut Request<Body>, present: Present, options: &Options<'_>) -> Result<Option<Pending>, Fault> {
    let mut upgrade = None;
    if present.any(Present::UPGRADE) {
        // Only HTTP/1 requests have a connection that could be handed over.
        let token = headers::upgrade_token(request.headers()).cloned();
        upgrade = token.and_then(|token| Some(Pending { token, client: request.body().origin()? }));
    }
    rewrite(request, present, options)?;
    Ok(upgrade)
}

/// The part of [`prepare`] that needs no connection.
fn rewrite(request: &mut Request<Body>, present: Present, options: &Options<'_>) -> Result<(), Fault> {
    if !request.extensions().is_empty() {
        let raw_query = request.extensions_mut().remove::<RawQuery>();
        request.extensions_mut().clear();
        if let Some(raw_query) = raw_query {
            request.extensions_mut().insert(raw_query);
        }
    }
    match request.body_mut().fields_mut() {
        Some(lines) => lines.remove_hop_by_hop(),
        None => headers::remove_hop_by_hop(request.headers_mut(), present),
    }
    for (_, name) in options.remove.iter().filter(|(known, _)| present.any(*known)) {
        headers::remove(request, name);
    }
    if let Some(peer) = options.forwarded_for {
        let value = headers::forwarded_for(Headers::of(request), present, peer);
        headers::insert(request, X_FORWARDED_FOR, value);
    }
    if present.any(Present::EMPTY_USER_AGENT) {
        headers::remove(request, &USER_AGENT);
    }
    if request.version() != Version::HTTP_2 {
        *request.version_mut() = Version::HTTP_11;
        if request.method() != Method::CONNECT {
            to_origin_form(request)?;
        }
        if !present.any(Present::HOST) && !request.headers().contains_key(HOST) {
            headers::insert(request, HOST, options.default_host.clone());
        }
    }
    encode_path(request.uri_mut())
}

/// Absolute form becomes origin form; its authority, less the user in it, wins over Host (RFC 9112 §3.2.2).
fn to_origin_form<B>(request: &mut Request<B>) -> Result<(), Fault> {
    let Some(authority) = request.uri().authority() else { return Ok(()) };
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    let host = HeaderValue::from_str(host).map_err(|_| Fault::BadRequest("malformed target"))?;
    let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    request.headers_mut().insert(HOST, host);
    *request.uri_mut() = Uri::from(path);
    Ok(())
}

/// For h2; the HTTP/1 engine has encoded its paths already.
fn encode_path(uri: &mut Uri) -> Result<(), Fault> {
    let Some(encoded) = headers::encode_path(uri.path()) else { return Ok(()) };
    let whole = match uri.query() {
        Some(query) => format!("{encoded}?{query}"),
        None => encoded,
    };
    let malformed = Fault::BadRequest("malformed target");
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(whole).map_err(|_| malformed.clone())?);
    *uri = Uri::from_parts(parts).map_err(|_| malformed)?;
    Ok(())
}

/// Makes a request name another host: Host on HTTP/1, `:authority` on h2. Junk is refused.
pub fn set_host(request: &mut Request<Body>, host: HeaderValue) -> Result<(), Fault> {
    let malformed = Fault::BadRequest("malformed host");
    if !headers::is_host(host.as_bytes()) {
        return Err(malformed);
    }
    if request.version() != Version::HTTP_2 {
        // An absolute-form target would win over Host later.
        if request.uri().authority().is_some() && request.method() != Method::CONNECT {
            to_origin_form(request)?;
        }
        headers::insert(request, HOST, host);
        return Ok(());
    }
    request.headers_mut().remove(HOST);
    let authority = Authority::try_from(host.as_bytes()).map_err(|_| malformed.clone())?;
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.authority = Some(authority);
    uri.scheme.get_or_insert(http::uri::Scheme::HTTP);
    uri.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| malformed)?;
    Ok(())
}

/// Makes an answer ready for the client. With a 101 that both sides agree on comes the [`Tunnel`], which the caller
/// must run.
pub fn answer(answer: Answer, upgrade: Option<Pending>) -> Result<(Response<Body>, Option<Tunnel>), Fault> {
    let mut response = answer.into_response();
    if response.headers().is_empty() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok((response, None)); // Its lines were made ready when they came.
    }
    let present = Present::of(response.headers());
    headers::remove_hop_by_hop(response.headers_mut(), present);
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // `remove_hop_by_hop` puts a wanted upgrade back; a response that does not switch has no use for it.
        if present.any(Present::UPGRADE) {
            response.headers_mut().remove(UPGRADE);
            response.headers_mut().remove(CONNECTION);
        }
        return Ok((response, None));
    }
    let Some(pending) = upgrade else { return Err(Fault::Upgrade) };
    let agreed = headers::upgrade_token(response.headers())
        .is_some_and(|token| token.as_bytes().eq_ignore_ascii_case(pending.token.as_bytes()));
    let target = std::mem::take(response.body_mut()).into_switched();
    let Some(target) = target.filter(|_| agreed) else { return Err(Fault::Upgrade) };
    response.headers_mut().remove(CONTENT_LENGTH);
    Ok((response, Some(Tunnel::new(pending.client, target))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accept::Peer;
    use http::request;
    use std::net::{Ipv4Addr, SocketAddr};

    fn rewritten(request: request::Builder) -> Result<request::Parts, Fault> {
        let mut request = request.body(Body::empty()).unwrap();
        let peer = Peer::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 1234)));
        let options = Options {
            forwarded_for: Some(&peer.forwarded_for),
            remove: &[(Present::SERVING_REVISION, HeaderName::from_static("knative-serving-revision"))],
            default_host: &HeaderValue::from_static("127.0.0.1:8080"),
        };
        let present = Present::of(request.headers());
        rewrite(&mut request, present, &options).map(|()| request.into_parts().0)
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
        let parts = rewritten(Request::builder().uri("http://user:secret@real/")).unwrap();
        assert_eq!(parts.headers[HOST], "real");
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
        let mut h1 = Request::builder().uri("/x").header(HOST, "pod").body(Body::empty()).unwrap();
        set_host(&mut h1, host.clone()).unwrap();
        assert_eq!(h1.headers()[HOST], host);
        let mut h2 = Request::builder().version(Version::HTTP_2).uri("http://pod/x?y").body(Body::empty()).unwrap();
        set_host(&mut h2, host).unwrap();
        assert_eq!(h2.uri().to_string(), "http://original.example/x?y");
        assert!(set_host(&mut h2, HeaderValue::from_static("a b")).is_err());
    }
}
