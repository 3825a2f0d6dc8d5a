//! Heads of answers that nobody on the way looks at: their lines are passed on as they came, which spares a map of
//! headers and its ten allocations.
//!
//! Only simple heads: a final status, and of the headers that concern the hop itself only the usual ones in their usual
//! form. For any other [`read`] declines, and the head is read as a whole.

use std::mem::MaybeUninit;
use std::time::Duration;

use http::{Method, StatusCode, Version};

use super::encode;
use super::framing::{self, Framing};
use super::spare;
use crate::headers::Present;

/// The header lines of an answer, ready to be written, without those that frame its body or concern one hop.
#[derive(Debug)]
pub struct Lines {
    pub(crate) bytes: Vec<u8>,
    /// Whether `Date` is among them.
    pub(crate) dated: bool,
    /// The `Content-Length` that was said, for answers that must repeat it without a body (HEAD, 304).
    pub(crate) length: Option<u64>,
}

impl Lines {
    /// They are not needed any more.
    pub(crate) fn recycle(self) {
        spare::keep_bytes(self.bytes);
    }
}

/// A simple head.
#[derive(Debug)]
pub(crate) struct Simple {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) lines: Lines,
    pub(crate) framing: Framing,
    /// Whether the target goes on with the connection, and for how long it says.
    pub(crate) reusable: bool,
    pub(crate) lifetime: Option<Duration>,
}

/// Header lines of a head that is still simple.
const MOST_LINES: usize = 48;

/// Reads the head that these bytes begin with, if it is simple. Returns its length as well.
pub(crate) fn read(head: &[u8], method: &Method, title_case: bool) -> Option<(Simple, usize)> {
    let mut room = [const { MaybeUninit::uninit() }; MOST_LINES];
    let mut parsed = httparse::Response::new(&mut []);
    let complete =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, head, &mut room).ok()?;
    let httparse::Status::Complete(length_of_head) = complete else { return None };
    let status = StatusCode::from_u16(parsed.code?).ok().filter(|status| !status.is_informational())?;
    let version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut kept = version == Version::HTTP_11;
    let mut bytes = spare::take_bytes();
    bytes.reserve(length_of_head);
    let (mut seen, mut length, mut lifetime) = (Present::default(), None, None);
    for line in &*parsed.headers {
        let this = Present::named(line.name.as_bytes());
        // One pass, each of them once: anything else is for the careful reader.
        if seen.any(this) && this.any(HOP) {
            return None;
        }
        seen |= this;
        match this {
            Present::CONTENT_LENGTH => length = Some(framing::length(line.value)?),
            Present::TRANSFER_ENCODING if line.value.eq_ignore_ascii_case(b"chunked") => {}
            Present::CONNECTION if line.value.eq_ignore_ascii_case(b"keep-alive") => kept = true,
            Present::CONNECTION if line.value.eq_ignore_ascii_case(b"close") => kept = false,
            Present::KEEP_ALIVE => lifetime = framing::announced_lifetime(line.value),
            _ if this.any(HOP) => return None,
            _ => encode::line(&mut bytes, line.name.as_bytes(), line.value, title_case),
        }
    }
    let chunked = seen.any(Present::TRANSFER_ENCODING);
    let (framing, reusable) = framing::of_simple_answer(method, status, length, chunked, kept);
    let lines = Lines { bytes, dated: seen.any(Present::DATE), length };
    Some((Simple { status, version, lines, framing, reusable, lifetime }, length_of_head))
}

/// What concerns one hop, or frames the body.
pub(super) const HOP: Present = Present::CONTENT_LENGTH
    .and(Present::TRANSFER_ENCODING)
    .and(Present::CONNECTION)
    .and(Present::KEEP_ALIVE)
    .and(Present::UPGRADE)
    .and(Present::TE)
    .and(Present::PROXY_CONNECTION)
    .and(Present::PROXY_AUTHENTICATE)
    .and(Present::PROXY_AUTHORIZATION);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::head;
    use proptest::prelude::*;

    fn simple(lines: &str) -> Option<(String, Framing, bool)> {
        let head = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        let (read, length) = read(format!("{head}body").as_bytes(), &Method::GET, true)?;
        assert_eq!(length, head.len());
        Some((String::from_utf8(read.lines.bytes).unwrap(), read.framing, read.reusable))
    }

    #[test]
    fn simple_heads_are_passed_and_all_others_declined() {
        for (lines, expected) in [
            ("content-length: 3\r\nx-a: b\r\n", Some(("X-A: b\r\n", Framing::Length(3), true))),
            ("Transfer-Encoding: chunked\r\nVia: x\r\n", Some(("Via: x\r\n", Framing::Chunked, true))),
            ("Content-Length: 3\r\nConnection: Close\r\n", Some(("", Framing::Length(3), false))),
            ("Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n", Some(("", Framing::UntilClose, false))),
            ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", Some(("", Framing::Chunked, false))),
            ("A: 1\r\nA: 2\r\nContent-Length: 0\r\n", Some(("A: 1\r\nA: 2\r\n", Framing::Length(0), true))),
            ("Content-Length: 3\r\nContent-Length: 3\r\n", None),
            ("Content-Length: x\r\n", None),
            ("Transfer-Encoding: gzip\r\n", None),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", None),
            ("Connection: x-a\r\nX-A: b\r\n", None),
            ("Connection: close\r\nConnection: keep-alive\r\n", None),
            ("Upgrade: h2c\r\n", None),
            ("Proxy-Authenticate: x\r\n", None),
            ("TE: trailers\r\n", None),
        ] {
            let expected = expected.map(|(lines, framing, reusable)| (lines.to_string(), framing, reusable));
            assert_eq!(simple(lines), expected, "{lines:?}");
        }
        assert!(read(b"HTTP/1.1 103 Early Hints\r\n\r\n", &Method::GET, true).is_none());
        assert!(read(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", &Method::GET, true).is_none());
        assert!(read(b"nonsense\r\n\r\n", &Method::GET, true).is_none());
        assert!(simple(&"A: b\r\n".repeat(MOST_LINES + 1)).is_none());
    }

    proptest! {
        /// What is passed unread means the same as what is read.
        #[test]
        fn both_readers_agree(
            status in 200..599_u16,
            head in any::<bool>(),
            lines in prop::collection::vec(
                (
                    prop::sample::select(&["content-length", "transfer-encoding", "connection", "date", "x-a", "keep-alive"][..]),
                    prop::sample::select(&["3", "0", "chunked", "close", "keep-alive", "timeout=7", "x", ""][..]),
                ),
                0..5,
            ),
        ) {
            let method = if head { Method::HEAD } else { Method::GET };
            let lines: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let bytes = format!("HTTP/1.1 {status} X\r\n{lines}\r\n");
            if let Some((simple, _)) = read(bytes.as_bytes(), &method, false) {
                let whole = head::response(bytes.as_bytes()).unwrap();
                let careful = framing::of_answer(&method, whole.status(), whole.version(), whole.headers());
                prop_assert_eq!(careful.unwrap(), (simple.framing, simple.reusable));
                prop_assert_eq!(simple.status, whole.status());
                prop_assert_eq!(simple.lines.dated, whole.headers().contains_key("date"));
                let mut headers = whole.headers().clone();
                let present = Present::of(&headers);
                crate::headers::remove_hop_by_hop(&mut headers, present);
                headers.remove("content-length");
                let mut passed: Vec<_> = std::str::from_utf8(&simple.lines.bytes).unwrap().lines().collect();
                let mut read: Vec<_> =
                    headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
                passed.sort_unstable();
                read.sort_unstable();
                prop_assert_eq!(passed, read);
            }
        }
    }
}
