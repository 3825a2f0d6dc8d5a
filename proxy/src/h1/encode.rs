//! Heads, chunks and trailers as bytes. Pure.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HOST, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, StatusCode, Version};

use super::added::Extra;
use super::fields::Fields;
use super::lines::Lines;
use super::target::RawQuery;

/// How the body of a message that we send ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// There is none, and nothing is said of a length beyond what the headers say.
    None,
    /// There is none; this is how long it would be.
    Spared(u64),
    /// After this many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// With the connection.
    Close,
}

/// What the head of an answer says of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// What HTTP/1.1 takes for granted.
    Silent,
    /// An HTTP/1.0 client is told that it may go on.
    Alive,
    /// This answer is the last.
    Close,
}

/// The end of a chunk, and of the message behind its last chunk.
pub(crate) const CHUNK_END: &[u8] = b"\r\n";

/// A request head in origin form, HTTP/1.1. `fields`: those of its headers that stayed lines.
pub(crate) fn request<B>(
    out: &mut Vec<u8>,
    request: &Request<B>,
    fields: Option<&Fields>,
    extra: Option<Extra<'_>>,
    ending: Ending,
    title_case: bool,
) {
    let (method, uri) = (request.method(), request.uri());
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    // CONNECT names an authority, as a rule; a path is passed like any other.
    let target = match uri.authority() {
        Some(authority) if *method == Method::CONNECT => authority.as_str(),
        _ => uri.path_and_query().map_or("/", |target| target.as_str()),
    };
    out.extend_from_slice(target.as_bytes());
    // The URI stands with its `?` and an empty query.
    if let Some(RawQuery(query)) = request.extensions().get() {
        out.extend_from_slice(query);
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(Extra { host, added }) = extra {
        line(out, b"Host", host.as_bytes(), false);
        out.extend_from_slice(added.lines());
    }
    let mut ending = ending;
    if let Some(fields) = fields {
        fields.write(out, extra.is_none());
        ending = fields.length.filter(|_| ending == Ending::None).map_or(ending, Ending::Spared);
    }
    lines(out, request.headers(), title_case, |name| {
        *name == TRANSFER_ENCODING || *name == CONTENT_LENGTH || (extra.is_some() && *name == HOST)
    });
    body_line(out, ending, request.headers());
    out.extend_from_slice(b"\r\n");
}

/// The head of an answer; `passed` lines stand before those of the map. `Date` is added if it is missing.
pub(crate) fn response(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &HeaderMap,
    passed: Option<&Lines>,
    ending: Ending,
    keep: Keep,
    title_case: bool,
) {
    status_line(out, status);
    let switching = status == StatusCode::SWITCHING_PROTOCOLS;
    lines(out, headers, title_case, |name| {
        *name == TRANSFER_ENCODING || *name == CONTENT_LENGTH || (*name == CONNECTION && !switching)
    });
    let ending = match (passed, ending) {
        (Some(Lines { bytes, length, .. }), _) => {
            out.extend_from_slice(bytes);
            length.filter(|_| ending == Ending::None).map_or(ending, Ending::Spared)
        }
        (None, _) => ending,
    };
    // Nothing is said of the length of what has no body by its status (RFC 9110 §8.6).
    if status != StatusCode::NO_CONTENT && !switching {
        body_line(out, ending, headers);
    }
    if !switching {
        match keep {
            Keep::Silent => {}
            Keep::Alive => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            Keep::Close => out.extend_from_slice(b"Connection: close\r\n"),
        }
    }
    if !(passed.is_some_and(|lines| lines.dated) || headers.contains_key(DATE)) {
        out.extend_from_slice(b"Date: ");
        date(out);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// An answer before the answer (1xx).
pub(crate) fn interim(out: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap, title_case: bool) {
    status_line(out, status);
    lines(out, headers, title_case, |name| *name == TRANSFER_ENCODING || *name == CONTENT_LENGTH);
    out.extend_from_slice(b"\r\n");
}

/// The size line of a chunk.
pub(crate) fn chunk_size(out: &mut Vec<u8>, size: usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|digit| HEX[size >> (4 * digit) & 15]));
    out.extend_from_slice(CHUNK_END);
}

/// The end of a chunked message, with its trailers.
pub(crate) fn last_chunk(out: &mut Vec<u8>, trailers: Option<&HeaderMap>, title_case: bool) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        lines(out, trailers, title_case, |_| false);
    }
    out.extend_from_slice(CHUNK_END);
}

/// The head of a data frame in this coding; what [`super::wire::Wire::put`] takes along.
pub(crate) fn before_data(out: &mut Vec<u8>, data: &Bytes, ending: Ending) -> &'static [u8] {
    if ending == Ending::Chunked {
        chunk_size(out, data.len());
        CHUNK_END
    } else {
        b""
    }
}

fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes());
    out.extend_from_slice(CHUNK_END);
}

fn body_line(out: &mut Vec<u8>, ending: Ending, headers: &HeaderMap) {
    match ending {
        // HEAD, 304: the length that the body would have.
        Ending::None => {
            if let Some(length) = headers.get(CONTENT_LENGTH) {
                line(out, b"Content-Length", length.as_bytes(), false);
            }
        }
        Ending::Length(length) | Ending::Spared(length) => {
            out.extend_from_slice(b"Content-Length: ");
            decimal(out, length);
            out.extend_from_slice(CHUNK_END);
        }
        Ending::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Ending::Close => {}
    }
}

fn lines(out: &mut Vec<u8>, headers: &HeaderMap, title_case: bool, skip: impl Fn(&HeaderName) -> bool) {
    for (name, value) in headers {
        if !skip(name) {
            line(out, name.as_str().as_bytes(), value.as_bytes(), title_case);
        }
    }
}

/// One header line; `title_case`: the name as `X-Lower`.
pub(crate) fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8], title_case: bool) {
    let start = out.len();
    out.extend_from_slice(name);
    // Most senders have written it so already; what they chose (`ETag`) stays.
    if title_case && name.first().is_some_and(u8::is_ascii_lowercase) {
        make_title_case(&mut out[start..]);
    }
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(CHUNK_END);
}

/// `x-lower` as `X-Lower`.
pub(crate) fn make_title_case(name: &mut [u8]) {
    let mut up = true;
    for byte in name {
        if up {
            byte.make_ascii_uppercase();
        }
        up = *byte == b'-';
    }
}

fn decimal(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The time of day, made anew once a second.
fn date(out: &mut Vec<u8>) {
    thread_local! {
        static DATE: RefCell<(SystemTime, String)> = const { RefCell::new((SystemTime::UNIX_EPOCH, String::new())) };
    }
    let now = SystemTime::now();
    DATE.with_borrow_mut(|(made, text)| {
        if !now.duration_since(*made).is_ok_and(|age| age < Duration::from_secs(1)) {
            let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            *made = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            *text = httpdate::fmt_http_date(*made);
        }
        out.extend_from_slice(text.as_bytes());
    });
}

/// How the answer to a request ends, given what is known of its body.
pub(crate) fn ending(method: &Method, version: Version, status: StatusCode, exact: Option<u64>) -> Ending {
    if !super::framing::may_have_body(status) {
        return Ending::None;
    }
    if *method == Method::HEAD {
        // An answer that was fetched for a HEAD has no body to ask; its length, if any, is in its headers.
        return exact.filter(|length| *length > 0).map_or(Ending::None, Ending::Spared);
    }
    match exact {
        Some(length) => Ending::Length(length),
        None if version == Version::HTTP_11 => Ending::Chunked,
        None => Ending::Close,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn requests() {
        let request = |builder: http::request::Builder, ending| {
            let asked = builder.body(()).unwrap();
            text(|out| request(out, &asked, None, None, ending, true))
        };
        let get = Request::get("/p?q").header("host", "a").header("x-two-words", "1");
        assert_eq!(request(get, Ending::None), "GET /p?q HTTP/1.1\r\nHost: a\r\nX-Two-Words: 1\r\n\r\n");
        let post = Request::post("/").header("content-length", "9").header("transfer-encoding", "gzip");
        assert_eq!(request(post, Ending::Length(3)), "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n");
        assert_eq!(request(Request::put("/"), Ending::Chunked), "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
        let zero = Request::get("/").header("content-length", "0");
        assert_eq!(request(zero, Ending::None), "GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
        let raw = Request::get("/?").extension(RawQuery(Bytes::from_static(b"<raw>")));
        assert_eq!(request(raw, Ending::None), "GET /?<raw> HTTP/1.1\r\n\r\n");
        assert_eq!(request(Request::connect("host:1"), Ending::None), "CONNECT host:1 HTTP/1.1\r\n\r\n");
        assert_eq!(request(Request::connect("/path"), Ending::None), "CONNECT /path HTTP/1.1\r\n\r\n");
        assert_eq!(request(Request::options("*"), Ending::None), "OPTIONS * HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn passed_lines_stand_as_they_are() {
        let lines = |length| Lines { bytes: b"Server: x\r\n".to_vec(), dated: true, length };
        for (length, ending, expected) in [
            (Some(3), Ending::Length(3), "Server: x\r\nContent-Length: 3\r\n\r\n"),
            (Some(3), Ending::None, "Server: x\r\nContent-Length: 3\r\n\r\n"),
            (None, Ending::None, "Server: x\r\n\r\n"),
            (None, Ending::Chunked, "Server: x\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ] {
            let lines = lines(length);
            let written = text(|out| {
                response(out, StatusCode::OK, &HeaderMap::new(), Some(&lines), ending, Keep::Silent, true);
            });
            assert_eq!(written, format!("HTTP/1.1 200 OK\r\n{expected}"));
        }
    }

    #[test]
    fn responses() {
        let headers: HeaderMap = [
            (DATE, HeaderValue::from_static("today")),
            (CONNECTION, HeaderValue::from_static("x")),
            (CONTENT_LENGTH, HeaderValue::from_static("42")),
        ]
        .into_iter()
        .collect();
        for (status, ending, keep, expected) in [
            (200, Ending::Length(7), Keep::Silent, "200 OK\r\nDate: today\r\nContent-Length: 7\r\n\r\n"),
            (
                200,
                Ending::Chunked,
                Keep::Close,
                "200 OK\r\nDate: today\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
            ),
            (
                304,
                Ending::None,
                Keep::Alive,
                "304 Not Modified\r\nDate: today\r\nContent-Length: 42\r\nConnection: keep-alive\r\n\r\n",
            ),
            (204, Ending::None, Keep::Silent, "204 No Content\r\nDate: today\r\n\r\n"),
            (599, Ending::Close, Keep::Close, "599 Unknown\r\nDate: today\r\nConnection: close\r\n\r\n"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let written = text(|out| response(out, status, &headers, None, ending, keep, true));
            assert_eq!(written, format!("HTTP/1.1 {expected}"));
        }
        let written = text(|out| {
            response(out, StatusCode::OK, &HeaderMap::new(), None, Ending::Length(0), Keep::Silent, false);
        });
        assert!(written.contains("\r\nDate: ") && written.ends_with(" GMT\r\n\r\n"), "{written}");
    }

    #[test]
    fn chunks() {
        for size in [0, 1, 9, 10, 15, 16, 255, 256, 65535, 65536, 0x00ab_cdef] {
            assert_eq!(text(|out| chunk_size(out, size)), format!("{size:x}\r\n"));
        }
        let trailers: HeaderMap =
            [(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))].into_iter().collect();
        assert_eq!(text(|out| last_chunk(out, Some(&trailers), true)), "0\r\nGrpc-Status: 0\r\n\r\n");
        assert_eq!(text(|out| last_chunk(out, None, true)), "0\r\n\r\n");
        for n in [0, 7, 10, 12345, u64::MAX] {
            assert_eq!(text(|out| decimal(out, n)), n.to_string());
        }
    }
}
