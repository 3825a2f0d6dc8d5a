//! Heads: bytes → `http` types. Pure; whoever has the bytes calls it.
//!
//! The grammar is httparse's. A head is looked at only once its end has come, so that a client that sends it byte by
//! byte costs one pass over it, not one per byte.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};

use super::fields::Fields;
use super::framing::{self, Framing};
use super::target;
use crate::headers::Present;

/// Header lines that fit without an allocation, as almost always.
const USUAL_LINES: usize = 64;
/// Header lines of one head at most.
const MOST_LINES: usize = 1024;

/// Why bytes are no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// Not by the grammar, or of a shape that is refused.
    #[error("{0}")]
    Shape(&'static str),
    /// Longer, or of more lines, than is taken.
    #[error("header too large")]
    TooLarge,
}

/// A request as it arrived.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) request: Request<()>,
    pub(crate) framing: Framing,
    /// Whether the client goes on with the connection.
    pub(crate) keep_alive: bool,
    /// Its headers, if they are not in the request's map.
    pub(crate) fields: Option<Box<Fields>>,
}

/// Where the head at the start of these bytes ends, past its empty line. `from`: bytes looked at before.
pub(crate) fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from.saturating_sub(2);
    loop {
        at += memchr::memchr(b'\n', bytes.get(at..)?)? + 1;
        match bytes.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
}

/// Empty lines before a request line, which a server skips (RFC 9112 §2.2).
pub(crate) fn blank(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()
}

/// A whole request head.
pub(crate) fn request(head: &[u8]) -> Result<RequestHead, Malformed> {
    let head = Bytes::copy_from_slice(head);
    match request_of(&head, None) {
        // httparse takes targets of UTF-8 only; a query is passed on whatever its bytes are.
        Err(httparse::Error::Token) => {
            let (head, target) = target::taken_out(&head).ok_or(malformed(httparse::Error::Token))?;
            request_of(&head, Some(target)).map_err(malformed)?
        }
        parsed => parsed.map_err(malformed)?,
    }
}

/// `target`: instead of the one in the head.
fn request_of(head: &Bytes, target: Option<Bytes>) -> Result<Result<RequestHead, Malformed>, httparse::Error> {
    let mut usual = [const { MaybeUninit::uninit() }; USUAL_LINES];
    match parse_request(head, target.clone(), &mut usual) {
        Err(httparse::Error::TooManyHeaders) => {
            let mut most = vec![MaybeUninit::uninit(); MOST_LINES];
            parse_request(head, target, &mut most)
        }
        parsed => parsed,
    }
}

fn parse_request<'b>(
    head: &'b Bytes,
    target: Option<Bytes>,
    lines: &mut [MaybeUninit<httparse::Header<'b>>],
) -> Result<Result<RequestHead, Malformed>, httparse::Error> {
    let mut parsed = httparse::Request::new(&mut []);
    let complete = httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, head, lines)?;
    if !complete.is_complete() {
        return Ok(Err(Malformed::Shape("incomplete head")));
    }
    let target = target.unwrap_or_else(|| head.slice_ref(parsed.path.unwrap_or_default().as_bytes()));
    Ok(make_request(head, target, &parsed))
}

fn make_request(head: &Bytes, target: Bytes, parsed: &httparse::Request<'_, '_>) -> Result<RequestHead, Malformed> {
    let shape = Malformed::Shape;
    let method = Method::from_bytes(parsed.method.unwrap_or_default().as_bytes()).map_err(|_| shape("method"))?;
    let (uri, raw_query) = target::parse(&method, target).ok_or(shape("malformed target"))?;
    let version = version(parsed.version);
    let (headers, present) = headers(head, parsed.headers)?;
    let framing = framing::of_request(version, &headers, present).map_err(Malformed::Shape)?;
    let keep_alive = framing::keeps_alive(version, &headers, present);
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    if let Some(raw_query) = raw_query {
        request.extensions_mut().insert(raw_query);
    }
    Ok(RequestHead { request, framing, keep_alive, fields: None })
}

/// A whole response head.
pub(crate) fn response(head: &[u8]) -> Result<Response<()>, Malformed> {
    let head = Bytes::copy_from_slice(head);
    let mut usual = [const { MaybeUninit::uninit() }; USUAL_LINES];
    match parse_response(&head, &mut usual) {
        Err(httparse::Error::TooManyHeaders) => {
            let mut most = vec![MaybeUninit::uninit(); MOST_LINES];
            parse_response(&head, &mut most).map_err(malformed)?
        }
        parsed => parsed.map_err(malformed)?,
    }
}

fn parse_response<'b>(
    head: &'b Bytes,
    lines: &mut [MaybeUninit<httparse::Header<'b>>],
) -> Result<Result<Response<()>, Malformed>, httparse::Error> {
    let mut parsed = httparse::Response::new(&mut []);
    let complete = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, head, lines)?;
    Ok(if complete.is_complete() { make_response(head, &parsed) } else { Err(Malformed::Shape("incomplete head")) })
}

fn make_response(head: &Bytes, parsed: &httparse::Response<'_, '_>) -> Result<Response<()>, Malformed> {
    let mut response = Response::new(());
    *response.status_mut() =
        StatusCode::from_u16(parsed.code.unwrap_or_default()).map_err(|_| Malformed::Shape("malformed status"))?;
    *response.version_mut() = version(parsed.version);
    *response.headers_mut() = headers(head, parsed.headers)?.0;
    Ok(response)
}

/// Trailer lines up to and with their empty line.
pub(crate) fn trailers(lines: &[u8]) -> Result<HeaderMap, Malformed> {
    let lines = Bytes::copy_from_slice(lines);
    let mut parsed = [httparse::EMPTY_HEADER; USUAL_LINES];
    match httparse::parse_headers(&lines, &mut parsed).map_err(malformed)? {
        httparse::Status::Complete((_, parsed)) => headers(&lines, parsed).map(|(trailers, _)| trailers),
        httparse::Status::Partial => Err(Malformed::Shape("incomplete trailers")),
    }
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 }
}

fn headers(head: &Bytes, lines: &[httparse::Header<'_>]) -> Result<(HeaderMap, Present), Malformed> {
    let mut present = Present::default();
    let mut headers = HeaderMap::with_capacity(lines.len() + 6); // what a hop adds; to grow costs more
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Malformed::Shape("header name"))?;
        let value = if line.value.is_empty() { Bytes::new() } else { head.slice_ref(line.value) };
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Malformed::Shape("header value"))?;
        headers.try_append(name, value).map_err(|_| Malformed::TooLarge)?;
        present |= Present::named(line.name.as_bytes());
    }
    Ok((headers, present))
}

fn malformed(error: httparse::Error) -> Malformed {
    match error {
        httparse::Error::TooManyHeaders => Malformed::TooLarge,
        httparse::Error::Version => Malformed::Shape("neither HTTP/1.0 nor HTTP/1.1"),
        httparse::Error::HeaderName => Malformed::Shape("malformed header name"),
        httparse::Error::HeaderValue => Malformed::Shape("malformed header value"),
        httparse::Error::NewLine => Malformed::Shape("malformed line end"),
        httparse::Error::Status => Malformed::Shape("malformed status"),
        httparse::Error::Token => Malformed::Shape("malformed first line"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_end_is_found_wherever_the_pieces_were_cut() {
        for (bytes, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nrest", Some(27)),
            ("GET / HTTP/1.1\nHost: a\n\nrest", Some(24)),
            ("GET / HTTP/1.1\r\nHost: a\n\r\nrest", Some(26)),
            ("GET / HTTP/1.1\r\nHost: a\r\n", None),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r", None),
            ("", None),
        ] {
            for from in 0..=bytes.len().min(expected.unwrap_or(bytes.len()) - usize::from(expected.is_some())) {
                assert_eq!(end(bytes.as_bytes(), from), expected, "{bytes:?} from {from}");
            }
        }
        assert_eq!(blank(b"\r\n\n\rGET"), 4);
    }

    #[test]
    fn a_request_keeps_its_lines_in_order_and_as_they_are() {
        let bytes =
            b"PATCH /p?q HTTP/1.1\r\nHOST: a\r\nCookie: one\r\nX-Bytes: \xe9 \t\r\nCookie: two\r\nEmpty:\r\n\r\n";
        let head = request(bytes).unwrap();
        assert_eq!(head.request.method(), Method::PATCH);
        assert_eq!(head.request.uri(), "/p?q");
        assert!(head.keep_alive);
        assert_eq!(head.framing, Framing::Length(0));
        let headers = head.request.headers();
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(headers["x-bytes"].as_bytes(), b"\xe9");
        assert_eq!(headers["empty"], "");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let shape = |bytes: &str| match request(bytes.as_bytes()) {
            Err(Malformed::Shape(_)) => "shape",
            Err(Malformed::TooLarge) => "large",
            Ok(_) => "fine",
        };
        let lines = |n: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(n));
        for (bytes, expected) in [
            ("GET / HTTP/1.1\r\n\r\n".to_string(), "fine"),
            ("GET / HTTP/1.0\r\n\r\n".into(), "fine"),
            ("GET / HTTP/1.2\r\n\r\n".into(), "shape"),
            ("GET / HTTP/2.0\r\n\r\n".into(), "shape"),
            ("GET / HTP/1.1\r\n\r\n".into(), "shape"),
            ("GET /\r\n\r\n".into(), "shape"),
            ("GET  HTTP/1.1\r\n\r\n".into(), "shape"),
            ("G T / HTTP/1.1\r\n\r\n".into(), "shape"),
            ("GET / HTTP/1.1\r\nA : b\r\n\r\n".into(), "shape"),
            ("GET / HTTP/1.1\r\n: b\r\n\r\n".into(), "shape"),
            ("GET / HTTP/1.1\r\nA b\r\n\r\n".into(), "shape"),
            ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n".into(), "shape"),
            ("GET / HTTP/1.1\r\nA: b\u{0}c\r\n\r\n".into(), "shape"),
            ("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n".into(), "shape"),
            ("GET page HTTP/1.1\r\n\r\n".into(), "shape"),
            (lines(USUAL_LINES + 1), "fine"),
            (lines(MOST_LINES), "fine"),
            (lines(MOST_LINES + 1), "large"),
        ] {
            assert_eq!(shape(&bytes), expected, "{}", &bytes[..bytes.len().min(60)]);
        }
    }

    #[test]
    fn responses() {
        let parsed = response(b"HTTP/1.0 404 Gone Fishing\r\nA: b\r\n\r\n").unwrap();
        assert_eq!((parsed.status(), parsed.version()), (StatusCode::NOT_FOUND, Version::HTTP_10));
        assert_eq!(response(b"HTTP/1.1 204\r\n\r\n").unwrap().status(), StatusCode::NO_CONTENT);
        for bad in ["nonsense\r\n\r\n", "HTTP/1.1 2xx OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 099 X\r\n\r\n"] {
            assert!(response(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (request(&bytes), response(&bytes), trailers(&bytes), end(&bytes, bytes.len() / 2));
            let mut seeded = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
            seeded.extend_from_slice(&bytes);
            seeded.extend_from_slice(b"\r\n\r\n");
            let _ = request(&seeded);
        }
    }
}
