//! Header rules of an HTTP hop, as pure functions over header maps; [`request`] is for headers that are no map.
//!
//! Sources: RFC 9110 §7.6.1 (hop-by-hop), RFC 9112 §3.2 and §6.3 (Host, message length), upstream's Go
//! `httputil.ReverseProxy` for what exactly is removed and put back.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Version};

mod present;
pub mod request;

use crate::errors::Fault;

pub use present::Present;
pub(crate) use present::is_but_for_case;
pub use request::{Headers, as_map, insert, remove};

/// `X-Forwarded-For`.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Refuses a Host that two parsers could read differently (the HTTP/1 engine has refused such lengths already).
/// `authority_in_target`: the request line named a host.
pub fn check(version: Version, headers: &HeaderMap, authority_in_target: bool) -> Result<(), Fault> {
    if version == Version::HTTP_2 {
        return Ok(()); // The h2 layer has refused connection headers and bad pseudo-headers already.
    }
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err(Fault::BadRequest("too many Host headers")),
        (Some(host), None) if !is_host(host.as_bytes()) => return Err(Fault::BadRequest("malformed Host header")),
        (None, _) if version == Version::HTTP_11 && !authority_in_target => {
            return Err(Fault::BadRequest("missing required Host header"));
        }
        _ => {}
    }
    Ok(())
}

/// Whether a request waits for 100 before it sends its body.
pub fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Whether a Host could be one: what RFC 3986 allows in an authority without user info. Empty is allowed by RFC 9112.
pub fn is_host(host: &[u8]) -> bool {
    const ALLOWED: [bool; 256] = {
        let (mut allowed, mut byte) = ([false; 256], 0_u8);
        while byte < 128 {
            allowed[byte as usize] = byte.is_ascii_alphanumeric()
                || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+')
                || matches!(byte, b',' | b';' | b'=' | b':' | b'%' | b'[' | b']');
            byte += 1;
        }
        allowed
    };
    host.iter().all(|byte| ALLOWED[usize::from(*byte)])
}

/// The protocol a request asks to switch to: `Upgrade`, if `Connection` names it.
pub fn upgrade_token(headers: &HeaderMap) -> Option<&HeaderValue> {
    let token = headers.get(UPGRADE)?;
    (!token.is_empty() && lists(headers, &CONNECTION, "upgrade")).then_some(token)
}

/// Whether a comma-separated header names a token, ignoring case.
pub fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// Removes what belongs to one connection only, and what `Connection` names. `TE: trailers` and a wanted upgrade are
/// put back. `Trailer` stays: the next hop needs the announcement to pass trailers on.
pub fn remove_hop_by_hop(headers: &mut HeaderMap, present: Present) {
    const OTHERS: Present = Present::PROXY_CONNECTION
        .and(Present::KEEP_ALIVE)
        .and(Present::PROXY_AUTHENTICATE)
        .and(Present::PROXY_AUTHORIZATION)
        .and(Present::TRANSFER_ENCODING)
        .and(Present::UPGRADE);
    let (connection, te, others) = (present.any(Present::CONNECTION), present.any(Present::TE), present.any(OTHERS));
    if !(connection || te || others) {
        return;
    }
    let upgrade = if connection && present.any(Present::UPGRADE) { upgrade_token(headers).cloned() } else { None };
    let trailers = te && lists(headers, &TE, "trailers");
    if connection {
        remove_named_by_connection(headers);
        headers.remove(CONNECTION);
    }
    if te {
        headers.remove(TE);
    }
    if others {
        for name in [PROXY_CONNECTION, KEEP_ALIVE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TRANSFER_ENCODING, UPGRADE]
        {
            headers.remove(name);
        }
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(token) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, token);
    }
}

fn remove_named_by_connection(headers: &mut HeaderMap) {
    // Nearly always `keep-alive` or `close`, which name no header worth an allocation.
    let only_usual = headers.get_all(CONNECTION).iter().all(|value| {
        let value = value.as_bytes();
        value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
    });
    if only_usual {
        headers.remove(KEEP_ALIVE);
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|part| HeaderName::from_bytes(part.trim().as_bytes()).ok())
        // A client must not be able to take away what frames the message or what routes it.
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH && *name != TE)
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// `X-Forwarded-For` with the peer appended, earlier lines joined into one.
pub fn forwarded_for(headers: Headers<'_>, present: Present, peer: &HeaderValue) -> HeaderValue {
    if !present.any(Present::X_FORWARDED_FOR) {
        return peer.clone();
    }
    let mut joined: Vec<u8> = Vec::new();
    for value in headers.all(&X_FORWARDED_FOR) {
        joined.extend_from_slice(value);
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(peer.as_bytes());
    // Of values a value; so this always is one.
    HeaderValue::from_bytes(&joined).unwrap_or_else(|_| peer.clone())
}

/// Percent-encodes what may not stand in a path and what strict servers would refuse; `None` if nothing is to do.
/// The query is never touched.
pub fn encode_path(path: &str) -> Option<String> {
    if !path.bytes().any(illegal_in_path) {
        return None;
    }
    let mut encoded = Vec::with_capacity(path.len() + 16);
    push_path(&mut encoded, path.as_bytes());
    String::from_utf8(encoded).ok() // always: what is no ASCII was encoded
}

/// What may not stand in a path as it is; `%` may, before two digits.
pub(crate) fn illegal_in_path(byte: u8) -> bool {
    matches!(byte, b'|' | b'"' | b'<' | b'>' | b'{' | b'}' | b'^' | b'`' | b'#') || byte >= 0x80
}

/// Appends a path of any bytes, percent-encoded where it must be.
pub(crate) fn push_path(out: &mut Vec<u8>, path: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in path {
        if illegal_in_path(byte) {
            out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        } else {
            out.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Lines = &'static [(&'static str, &'static str)];

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap()))
            .collect::<Vec<_>>()
            .into_iter()
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    #[test]
    fn hop_by_hop_headers_go_and_the_right_ones_come_back() {
        let table: &[(Lines, Lines)] = &[
            (&[("host", "h"), ("x-a", "1")], &[("host", "h"), ("x-a", "1")]),
            (&[("connection", "x-a, close"), ("x-a", "1"), ("x-b", "2")], &[("x-b", "2")]),
            (&[("connection", "keep-alive"), ("keep-alive", "timeout=5")], &[]),
            (&[("te", "gzip, Trailers;q=0.5"), ("te", "trailers")], &[("te", "trailers")]),
            (&[("te", "gzip")], &[]),
            (
                &[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")],
                &[("connection", "Upgrade"), ("upgrade", "websocket")],
            ),
            (&[("upgrade", "websocket")], &[]),
            (&[("connection", "upgrade")], &[]),
            (&[("proxy-authorization", "x"), ("proxy-connection", "close"), ("transfer-encoding", "chunked")], &[]),
            (
                &[("connection", "host, content-length"), ("host", "h"), ("content-length", "3")],
                &[("host", "h"), ("content-length", "3")],
            ),
            (&[("trailer", "x-sum")], &[("trailer", "x-sum")]),
        ];
        for (before, after) in table {
            let mut headers = map(before);
            let present = Present::of(&headers);
            remove_hop_by_hop(&mut headers, present);
            assert_eq!(headers, map(after), "{before:?}");
        }
    }

    #[test]
    fn ambiguous_hosts_are_refused() {
        let ok: &[Lines] = &[&[("host", "a.example:80")], &[("host", "[::1]:8080")], &[("host", "")]];
        let refused: &[Lines] =
            &[&[], &[("host", "a"), ("host", "a")], &[("host", "a b")], &[("host", "a/b")], &[("host", "user@a")]];
        for shape in ok {
            assert_eq!(check(Version::HTTP_11, &map(shape), false), Ok(()), "{shape:?}");
        }
        for shape in refused {
            assert!(check(Version::HTTP_11, &map(shape), false).is_err(), "{shape:?}");
        }
        assert_eq!(check(Version::HTTP_10, &map(&[]), false), Ok(()));
        assert_eq!(check(Version::HTTP_11, &map(&[]), true), Ok(()));
    }

    #[test]
    fn forwarded_for_becomes_one_line() {
        let peer = HeaderValue::from_static("10.0.0.9");
        for (before, after) in [
            (&[][..], "10.0.0.9"),
            (&[("x-forwarded-for", "1.1.1.1")][..], "1.1.1.1, 10.0.0.9"),
            (
                &[("x-forwarded-for", "1.1.1.1, 2.2.2.2"), ("x-forwarded-for", "::1")][..],
                "1.1.1.1, 2.2.2.2, ::1, 10.0.0.9",
            ),
        ] {
            let headers = map(before);
            assert_eq!(forwarded_for((&headers).into(), Present::of(&headers), &peer), after);
        }
    }

    #[test]
    fn only_illegal_path_bytes_are_encoded() {
        for legal in ["/", "//x//y", "/%2f/..;a=b", "/a'b(c)!$&*+,=:@~", "*"] {
            assert_eq!(encode_path(legal), None, "{legal}");
        }
        assert_eq!(encode_path("/a|b\"{}").unwrap(), "/a%7Cb%22%7B%7D");
        assert_eq!(encode_path("/é").unwrap(), "/%C3%A9");
    }

    proptest! {
        #[test]
        fn removal_is_idempotent_and_leaves_nothing_named(names in proptest::collection::vec("[a-z]{1,8}", 0..6)) {
            let mut headers = map(&[("connection", &names.join(", ")), ("te", "trailers")]);
            for name in &names {
                headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("v"));
            }
            let present = Present::of(&headers);
            remove_hop_by_hop(&mut headers, present);
            let once = headers.clone();
            let present = Present::of(&headers);
            remove_hop_by_hop(&mut headers, present);
            prop_assert_eq!(&once, &headers);
            for name in names.iter().filter(|name| !matches!(name.as_str(), "te" | "host")) {
                prop_assert!(!headers.contains_key(name.as_str()), "{} survived", name);
            }
        }
    }
}
