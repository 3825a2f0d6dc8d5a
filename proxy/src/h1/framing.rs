//! How long a message's body is, by RFC 9112 §6.3, as pure functions over heads.
//!
//! Strict where a lenient reading would let two hops disagree about where a request ends: such a request is refused.
//! Answers of a target are read as leniently as upstream's client reads them, but the connection is not used again.

use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, Version};

use crate::headers::{Present, lists};

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After this many bytes; zero is no body.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// The body of a request; an error says why the request is refused.
pub(crate) fn of_request(version: Version, headers: &HeaderMap, present: Present) -> Result<Framing, &'static str> {
    let length = if present.any(Present::CONTENT_LENGTH) { content_length(headers, Twice::Refused)? } else { None };
    if !present.any(Present::TRANSFER_ENCODING) {
        return Ok(Framing::Length(length.unwrap_or(0)));
    }
    if version != Version::HTTP_11 {
        return Err("Transfer-Encoding before HTTP/1.1");
    }
    if !only_chunked(headers) {
        return Err("unsupported transfer encoding");
    }
    if length.is_some() {
        return Err("both Content-Length and Transfer-Encoding");
    }
    Ok(Framing::Chunked)
}

/// The body of an answer to a request of this method, and whether its connection may serve another request.
pub(crate) fn of_answer(
    method: &Method,
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
) -> Result<(Framing, bool), &'static str> {
    let reusable = keeps_alive(version, headers, Present::of(headers));
    let body = *method != Method::HEAD && may_have_body(status);
    let chunked = headers.contains_key(TRANSFER_ENCODING);
    if body && chunked && !only_chunked(headers) {
        return Err("the target's transfer encoding is not known");
    }
    let length = match content_length(headers, Twice::IfEqual) {
        Err(_) if body && !chunked => return Err("the target's Content-Length is none"),
        Err(_) => Some(0), // not looked at, but it is there
        Ok(length) => length,
    };
    Ok(of_simple_answer(method, status, length, chunked, reusable))
}

/// The same for an answer that says of its body no more than this, each at most once.
pub(crate) fn of_simple_answer(
    method: &Method,
    status: StatusCode,
    length: Option<u64>,
    chunked: bool,
    reusable: bool,
) -> (Framing, bool) {
    if *method == Method::HEAD || !may_have_body(status) {
        return (Framing::Length(0), reusable);
    }
    match (length, chunked) {
        // The length beside it is dropped; a connection on which such things are said is not trusted again.
        (_, true) => (Framing::Chunked, reusable && length.is_none()),
        (Some(length), false) => (Framing::Length(length), reusable),
        (None, false) => (Framing::UntilClose, false),
    }
}

/// Whether an answer of this status may have a body at all.
pub(crate) fn may_have_body(status: StatusCode) -> bool {
    !(status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED)
}

/// Whether the sender goes on with this connection after the message.
pub(crate) fn keeps_alive(version: Version, headers: &HeaderMap, present: Present) -> bool {
    if !present.any(Present::CONNECTION) {
        return version == Version::HTTP_11;
    }
    match version {
        Version::HTTP_11 => !lists(headers, &CONNECTION, "close"),
        _ => lists(headers, &CONNECTION, "keep-alive") && !lists(headers, &CONNECTION, "close"),
    }
}

/// How long the target says it keeps an idle connection (`Keep-Alive: timeout=`), less a margin for the way there.
pub(crate) fn announced_lifetime(keep_alive: &[u8]) -> Option<Duration> {
    let value = std::str::from_utf8(keep_alive).ok()?;
    let seconds: u64 = value
        .split(',')
        .filter_map(|part| part.trim().split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))
        .and_then(|(_, seconds)| seconds.trim().parse().ok())?;
    Some(Duration::from_secs(seconds.min(3600)).saturating_sub(Duration::from_millis(500)))
}

fn only_chunked(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    codings.next().is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")) && codings.next().is_none()
}

/// What to make of a length that is said more than once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Twice {
    Refused,
    /// Of answers, as upstream's client has it.
    IfEqual,
}

fn content_length(headers: &HeaderMap, twice: Twice) -> Result<Option<u64>, &'static str> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.any(|other| twice == Twice::Refused || other != value) {
        return Err("more than one Content-Length");
    }
    length(value.as_bytes()).map(Some).ok_or("malformed Content-Length")
}

/// Digits only: `+3`, `3, 3`, `0x3` and the empty text are no lengths.
pub(crate) fn length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |length, digit| match digit {
        b'0'..=b'9' => length.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    type Lines = &'static [(&'static str, &'static str)];

    const CL: &str = "content-length";
    const TE: &str = "transfer-encoding";

    #[test]
    fn requests() {
        let table: &[(Lines, Option<Framing>)] = &[
            (&[], Some(Framing::Length(0))),
            (&[(CL, "0")], Some(Framing::Length(0))),
            (&[(CL, "42")], Some(Framing::Length(42))),
            (&[(CL, "007")], Some(Framing::Length(7))),
            (&[(CL, "18446744073709551615")], Some(Framing::Length(u64::MAX))),
            (&[(TE, "chunked")], Some(Framing::Chunked)),
            (&[(TE, "Chunked")], Some(Framing::Chunked)),
            (&[(CL, "18446744073709551616")], None),
            (&[(CL, "+3")], None),
            (&[(CL, "-1")], None),
            (&[(CL, "3 ")], None),
            (&[(CL, "3,3")], None),
            (&[(CL, "")], None),
            (&[(CL, "3"), (CL, "3")], None),
            (&[(CL, "3"), (TE, "chunked")], None),
            (&[(TE, "gzip, chunked")], None),
            (&[(TE, "chunked, chunked")], None),
            (&[(TE, "chunked"), (TE, "chunked")], None),
            (&[(TE, "chunked"), (TE, "identity")], None),
            (&[(TE, "identity")], None),
            (&[(TE, "xchunked")], None),
            (&[(TE, "chunked;q=1")], None),
            (&[(TE, "")], None),
        ];
        for (lines, expected) in table {
            let headers = headers(lines);
            let got = of_request(Version::HTTP_11, &headers, Present::of(&headers));
            assert_eq!(got.ok(), *expected, "{lines:?}");
        }
        assert!(of_request(Version::HTTP_10, &headers(&[(TE, "chunked")]), Present::TRANSFER_ENCODING).is_err());
    }

    #[test]
    fn answers() {
        type Case = (&'static Method, u16, Lines, Option<(Framing, bool)>);
        let table: &[Case] = &[
            (&Method::GET, 200, &[(CL, "5")], Some((Framing::Length(5), true))),
            (&Method::GET, 200, &[(CL, "5"), ("connection", "Close")], Some((Framing::Length(5), false))),
            (&Method::GET, 200, &[(TE, "chunked")], Some((Framing::Chunked, true))),
            (&Method::GET, 200, &[(TE, "chunked"), (CL, "5")], Some((Framing::Chunked, false))),
            (&Method::GET, 200, &[], Some((Framing::UntilClose, false))),
            (&Method::GET, 204, &[(CL, "5")], Some((Framing::Length(0), true))),
            (&Method::GET, 304, &[(CL, "5")], Some((Framing::Length(0), true))),
            (&Method::HEAD, 200, &[(CL, "5")], Some((Framing::Length(0), true))),
            (&Method::HEAD, 200, &[(TE, "chunked")], Some((Framing::Length(0), true))),
            (&Method::GET, 200, &[(TE, "gzip")], None),
            (&Method::GET, 200, &[(CL, "x")], None),
            (&Method::GET, 200, &[(CL, "1"), (CL, "2")], None),
            (&Method::GET, 200, &[(CL, "2"), (CL, "2")], Some((Framing::Length(2), true))),
        ];
        for (method, status, lines, expected) in table {
            let status = StatusCode::from_u16(*status).unwrap();
            let got = of_answer(method, status, Version::HTTP_11, &headers(lines)).ok();
            assert_eq!(got, *expected, "{method} {status} {lines:?}");
        }
    }

    #[test]
    fn old_peers_must_ask_to_be_kept() {
        for (version, connection, kept) in [
            (Version::HTTP_11, None, true),
            (Version::HTTP_11, Some("close"), false),
            (Version::HTTP_11, Some("keep-alive, CLOSE"), false),
            (Version::HTTP_11, Some("upgrade"), true),
            (Version::HTTP_10, None, false),
            (Version::HTTP_10, Some("Keep-Alive"), true),
            (Version::HTTP_10, Some("keep-alive, close"), false),
        ] {
            let headers = connection.map(|value| headers(&[("connection", value)])).unwrap_or_default();
            assert_eq!(keeps_alive(version, &headers, Present::of(&headers)), kept, "{version:?} {connection:?}");
        }
    }

    #[test]
    fn announced_keep_alive_shortens_the_life() {
        let lifetime = |value: &str| announced_lifetime(value.as_bytes());
        assert_eq!(lifetime("timeout=5"), Some(Duration::from_millis(4500)));
        assert_eq!(lifetime("max=100, Timeout=2"), Some(Duration::from_millis(1500)));
        assert_eq!(lifetime("timeout=0"), Some(Duration::ZERO));
        assert_eq!(lifetime("max=100"), None);
        assert_eq!(lifetime("timeout=soon"), None);
    }
}
