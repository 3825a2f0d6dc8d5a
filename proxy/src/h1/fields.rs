//! Heads of requests whose headers mostly go on as they came: their lines are kept as lines, with an index, which spares
//! a map of headers and most of its allocations.
//!
//! Only simple heads: HTTP/1.1, one Host, each line in its usual form, and of the headers that concern the hop itself only
//! the usual ones, once. For any other [`read`] declines, and the head is read as a whole. Whoever wants to see or change
//! such headers does so through [`crate::headers::request`], which knows of both.

use std::cell::RefCell;
use std::mem::MaybeUninit;

use http::header::HOST;
use http::{HeaderMap, HeaderName, Method, Request};

use super::encode;
use super::framing::{self, Framing};
use super::head::{self, Malformed, RequestHead};
use super::lines;
use super::spare::{self, Spare};
use super::target;
use crate::headers::{Present, is_but_for_case, is_host};

/// Header lines of a head that is still simple: the bits of a [`Set`].
const MOST_LINES: usize = 32;
/// Bytes of a head that is still simple: what the index can point at.
const MOST_BYTES: usize = u16::MAX as usize;

thread_local! {
    static SPARE: Spare<Box<Fields>> = const { RefCell::new(Vec::new()) };
}

/// The header lines of a request, without a map.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    /// The head as it came, but for the case of names.
    head: Vec<u8>,
    lines: [Line; MOST_LINES],
    /// All lines there are.
    all: Set,
    /// Those that concern the connection, and the one that says how long the body is: they end here.
    hop: Set,
    sized: Set,
    /// Those that were taken away since.
    removed: Set,
    /// Which line is Host.
    host: Set,
    present: Present,
    /// The `Content-Length` that was said.
    pub(crate) length: Option<u64>,
}

/// Where a line stands: `Name: value\r\n`.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    name: u16,
    value: u16,
    /// Of the value.
    end: u16,
}

/// Some of the lines, a bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Set(u32);

impl Set {
    fn one(at: usize) -> Self {
        Self(1 << at)
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn places(mut self) -> impl Iterator<Item = usize> {
        std::iter::from_fn(move || {
            let at = self.0.trailing_zeros();
            self.0 &= self.0.wrapping_sub(1);
            (at < u32::BITS).then_some(at as usize)
        })
    }
}

/// What concerns one hop, and Host. If there is more of it than [`read`] says, the head is not simple.
const ONCE: Present = lines::HOP.and(Present::EXPECT).and(Present::HOST);

/// Reads the head that these bytes begin with, if it is simple. Returns its length. `title_case`: names go on as `X-Lower`.
pub(crate) fn read(bytes: &[u8], title_case: bool, into: &mut Option<RequestHead>) -> Option<usize> {
    let mut room = [const { MaybeUninit::uninit() }; MOST_LINES];
    let mut parsed = httparse::Request::new(&mut []);
    let complete =
        httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, bytes, &mut room).ok()?;
    let (method, path) = (parsed.method?, parsed.path?);
    let httparse::Status::Complete(length_of_head) = complete else { return None };
    let bytes = bytes.get(..length_of_head).filter(|bytes| bytes.len() <= MOST_BYTES)?;
    if parsed.version != Some(1) || !path.starts_with('/') {
        return None;
    }
    let mut at = method.len() + 1 + path.len() + b" HTTP/1.1\r\n".len();
    // Of those that are left over the lines stay, out of sight.
    let mut fields = spare::take(&SPARE);
    let lines = &mut fields.lines;
    let (mut hop, mut sized, mut host, mut present) =
        (Set::default(), Set::default(), Set::default(), Present::default());
    let (mut length, mut chunked, mut keep_alive, mut lower) = (None, false, true, Set::default());
    for (nth, (line, field)) in lines.iter_mut().zip(&*parsed.headers).enumerate() {
        let (name, value) = (field.name.as_bytes(), field.value);
        let value_at = at + name.len() + 2;
        let end = value_at + value.len();
        // The parser forgives more; what is not in this form it did not read in this place.
        if bytes.get(value_at - 2..value_at) != Some(b": ") || bytes.get(end..end + 2) != Some(b"\r\n") {
            return None;
        }
        *line = Line { name: at as u16, value: value_at as u16, end: end as u16 };
        at = end + 2;
        if name.first().is_some_and(u8::is_ascii_lowercase) {
            lower = lower.and(Set::one(nth));
        }
        let this = Present::named(name);
        if this == Present::default() {
            continue;
        }
        if this.any(ONCE) && present.any(this) {
            return None;
        }
        present |= this;
        match this {
            Present::HOST if is_host(value) => host = Set::one(nth),
            Present::CONTENT_LENGTH => length = Some(framing::length(value)?),
            Present::TRANSFER_ENCODING if value.eq_ignore_ascii_case(b"chunked") => chunked = true,
            Present::CONNECTION if value.eq_ignore_ascii_case(b"keep-alive") => {}
            Present::CONNECTION if value.eq_ignore_ascii_case(b"close") => keep_alive = false,
            Present::KEEP_ALIVE => {}
            // To be taken away.
            Present::USER_AGENT if value.is_empty() => return None,
            _ if this.any(ONCE) => return None,
            _ => continue,
        }
        match this {
            Present::HOST => {}
            Present::CONTENT_LENGTH => sized = Set::one(nth),
            _ => hop = hop.and(Set::one(nth)),
        }
    }
    // Both a length and chunks: for the careful reader to refuse.
    if bytes.get(at..) != Some(b"\r\n") || host == Set::default() || (chunked && length.is_some()) {
        return None;
    }
    let method = Method::from_bytes(method.as_bytes()).ok().filter(|method| *method != Method::CONNECT)?;
    let (uri, None) = target::parse(&method, bytes::Bytes::copy_from_slice(path.as_bytes()))? else { return None };
    let mut request = Request::new(());
    (*request.method_mut(), *request.uri_mut()) = (method, uri);
    let framing = if chunked { Framing::Chunked } else { Framing::Length(length.unwrap_or(0)) };
    let all = Set(u32::MAX.checked_shr(u32::BITS - parsed.headers.len() as u32).unwrap_or(0));
    fields.head.clear();
    fields.head.extend_from_slice(bytes);
    if title_case {
        for line in lower.places().filter_map(|nth| fields.lines.get(nth)) {
            fields.head.get_mut(line.range_of_name()).map(encode::make_title_case);
        }
    }
    (fields.all, fields.hop, fields.sized, fields.removed, fields.host) = (all, hop, sized, Set::default(), host);
    (fields.present, fields.length) = (present, length);
    *into = Some(RequestHead { request, framing, keep_alive, fields: Some(fields) });
    Some(length_of_head)
}

impl Line {
    fn range_of_name(self) -> std::ops::Range<usize> {
        usize::from(self.name)..usize::from(self.value).saturating_sub(2)
    }
}

impl Fields {
    /// They are not needed any more.
    pub(crate) fn recycle(self: Box<Self>) {
        if self.head.capacity() <= spare::KEPT {
            spare::keep(self, &SPARE);
        }
    }

    /// Which headers there are, those that were taken away among them.
    pub(crate) fn present(&self) -> Present {
        self.present
    }

    /// Bytes of all lines, about.
    pub(crate) fn len(&self) -> usize {
        self.head.len()
    }

    /// The first value of a header.
    pub(crate) fn first(&self, name: &HeaderName) -> Option<&[u8]> {
        // Each request is asked for its Host, most for nothing else.
        let at = if *name == HOST { self.host.without(self.removed).places().next() } else { self.named(name).next() };
        self.value(at?)
    }

    /// The values of a header, in order.
    pub(crate) fn all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        self.named(name).filter_map(|at| self.value(at))
    }

    /// Takes all lines of a name away.
    pub(crate) fn remove(&mut self, name: &HeaderName) {
        let removed = self.named(name).fold(self.removed, |removed, at| removed.and(Set::one(at)));
        self.removed = removed;
    }

    /// Takes those away that concern the connection. They are not written in any case.
    pub(crate) fn remove_hop_by_hop(&mut self) {
        self.removed = self.removed.and(self.hop);
    }

    /// Writes the lines that go on, with or without Host.
    pub(crate) fn write(&self, out: &mut Vec<u8>, with_host: bool) {
        let host = if with_host { Set::default() } else { self.host };
        let left_out = self.removed.and(self.hop).and(self.sized).and(host);
        // As few copies as there are gaps.
        let mut run = 0..0;
        for line in self.all.without(left_out).places().filter_map(|at| self.lines.get(at)) {
            let (start, end) = (usize::from(line.name), usize::from(line.end) + 2);
            if run.end != start {
                out.extend_from_slice(self.head.get(run).unwrap_or_default());
                run = start..start;
            }
            run.end = end;
        }
        out.extend_from_slice(self.head.get(run).unwrap_or_default());
    }

    /// The same headers as a map, as if they had come as one.
    pub(crate) fn to_map(&self) -> Result<HeaderMap, Malformed> {
        let mut headers = head::request(&self.head)?.request.into_parts().0.headers;
        for line in self.removed.places().filter_map(|at| self.lines.get(at)) {
            let name = self.head.get(line.range_of_name()).and_then(|name| HeaderName::from_bytes(name).ok());
            if let Some(name) = name {
                headers.remove(name);
            }
        }
        Ok(headers)
    }

    fn named(&self, name: &HeaderName) -> impl Iterator<Item = usize> {
        let lower = name.as_str().as_bytes();
        self.all.without(self.removed).places().filter(move |at| {
            let name = self.lines.get(*at).and_then(|line| self.head.get(line.range_of_name()));
            name.is_some_and(|name| is_but_for_case(name, lower))
        })
    }

    fn value(&self, at: usize) -> Option<&[u8]> {
        let line = self.lines.get(at)?;
        self.head.get(usize::from(line.value)..usize::from(line.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(fields: &Fields, with_host: bool) -> String {
        let mut out = Vec::new();
        fields.write(&mut out, with_host);
        String::from_utf8(out).unwrap()
    }

    fn simple(lines: &str) -> Option<(String, Framing, bool)> {
        let head = format!("GET /p?q HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut read = None;
        let length = super::read(format!("{head}GET / HTTP/1.1\r\n").as_bytes(), true, &mut read)?;
        assert_eq!(length, head.len());
        let read = read?;
        let fields = read.fields?;
        let lines = written(&fields, false);
        // The next one must not see any of it.
        fields.recycle();
        Some((lines, read.framing, read.keep_alive))
    }

    #[test]
    fn simple_heads_stay_lines_and_all_others_are_declined() {
        let none = Framing::Length(0);
        for (lines, expected) in [
            ("", Some(("", none, true))),
            ("x-two-words: b\r\nAccept: */*\r\n", Some(("X-Two-Words: b\r\nAccept: */*\r\n", none, true))),
            ("Content-Length: 3\r\nA: 1\r\nA: 2\r\n", Some(("A: 1\r\nA: 2\r\n", Framing::Length(3), true))),
            ("A: 1\r\nTransfer-Encoding: Chunked\r\nB: 2\r\n", Some(("A: 1\r\nB: 2\r\n", Framing::Chunked, true))),
            ("Connection: Keep-Alive\r\nKeep-Alive: 5\r\nA: 1\r\n", Some(("A: 1\r\n", none, true))),
            ("A: \u{e9}\r\nConnection: close\r\n", Some(("A: \u{e9}\r\n", none, false))),
            ("Trailer: x\r\nUser-Agent: y\r\n", Some(("Trailer: x\r\nUser-Agent: y\r\n", none, true))),
            // In a form that goes on otherwise.
            ("A:1\r\n", None),
            ("A:  1\r\n", None),
            ("A: 1 \r\n", None),
            ("A: 1\n", None),
            ("User-Agent: \r\n", None),
            // More than one hop may mean by it.
            ("Host: a\r\n", None),
            ("Content-Length: 3\r\nContent-Length: 3\r\n", None),
            ("Content-Length: x\r\n", None),
            ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", None),
            ("Transfer-Encoding: gzip\r\n", None),
            ("Connection: a\r\nA: 1\r\n", None),
            ("Connection: close\r\nConnection: close\r\n", None),
            ("Upgrade: h2c\r\n", None),
            ("Expect: 100-continue\r\n", None),
            ("TE: trailers\r\n", None),
            ("Proxy-Authorization: x\r\n", None),
        ] {
            let expected = expected.map(|(lines, framing, keep)| (lines.to_string(), framing, keep));
            assert_eq!(simple(lines), expected, "{lines:?}");
        }
        for head in [
            "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nA: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /?<q> HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
            "nonsense\r\n\r\n",
        ] {
            assert!(read(head.as_bytes(), true, &mut None).is_none(), "{head:?}");
        }
        let many = |n| simple(&"A: b\r\n".repeat(n)).map(|(lines, ..)| lines.len());
        assert_eq!((many(MOST_LINES - 1), many(MOST_LINES)), (Some(6 * (MOST_LINES - 1)), None));
        let long = |n| simple(&format!("A: {}\r\n", "b".repeat(n))).map(|(lines, ..)| lines.len());
        assert_eq!((long(60_000), long(70_000)), (Some(60_005), None));
    }

    #[test]
    fn lines_can_be_seen_and_taken_away() {
        let bytes = b"PUT / HTTP/1.1\r\na: 1\r\nB: 2\r\nHOST: h\r\nA: 3\r\nContent-Length: 0\r\n\r\n";
        let mut head = None;
        read(bytes, true, &mut head).unwrap();
        let mut fields = head.unwrap().fields.unwrap();
        let all = |fields: &Fields, name| {
            fields.all(&HeaderName::from_static(name)).map(|value| String::from_utf8(value.to_vec()).unwrap()).collect()
        };
        let values: [Vec<String>; 4] = ["a", "host", "content-length", "c"].map(|name| all(&fields, name));
        assert_eq!(values, [vec!["1", "3"], vec!["h"], vec!["0"], vec![]]);
        assert_eq!(written(&fields, true), "A: 1\r\nB: 2\r\nHOST: h\r\nA: 3\r\n");
        assert_eq!(written(&fields, false), "A: 1\r\nB: 2\r\nA: 3\r\n");
        fields.remove(&HeaderName::from_static("a"));
        assert_eq!((written(&fields, true).as_str(), all(&fields, "a")), ("B: 2\r\nHOST: h\r\n", vec![]));
        assert_eq!(fields.to_map().unwrap().len(), 3);
        fields.remove(&HOST);
        assert_eq!((written(&fields, true).as_str(), all(&fields, "host")), ("B: 2\r\n", vec![]));
    }

    proptest! {
        /// What stays lines means the same as what becomes a map.
        #[test]
        fn both_readers_agree(
            method in prop::sample::select(&["GET", "HEAD", "POST", "BREW"][..]),
            target in prop::sample::select(&["/", "/p?q", "/a|b", "/%2f", "/%zz", "//x"][..]),
            lines in prop::collection::vec(
                (
                    prop::sample::select(&[
                        "host", "Content-Length", "transfer-encoding", "Connection", "keep-alive", "x-a", "X-B", "x-forwarded-for",
                        "user-agent", "te", "Upgrade", "k-network-hash",
                    ][..]),
                    prop::sample::select(&["3", "0", "chunked", "close", "keep-alive", "x", "", "a.b:1", "a, b"][..]),
                    prop::sample::select(&[": ", ":", ":  "][..]),
                ),
                0..6,
            ),
            taken in prop::sample::select(&["x-a", "x-b", "host", "k-network-hash"][..]),
        ) {
            let lines: String = lines.iter().map(|(name, value, colon)| format!("{name}{colon}{value}\r\n")).collect();
            let bytes = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
            let mut simple = None;
            read(bytes.as_bytes(), false, &mut simple);
            let Some(simple) = simple else { return Ok(()) };
            let whole = head::request(bytes.as_bytes()).unwrap();
            prop_assert_eq!((simple.framing, simple.keep_alive), (whole.framing, whole.keep_alive));
            prop_assert_eq!(simple.request.method(), whole.request.method());
            prop_assert_eq!(simple.request.uri(), whole.request.uri());
            let (mut fields, mut headers) = (simple.fields.unwrap(), whole.request.headers().clone());
            prop_assert_eq!(&fields.to_map().unwrap(), &headers);
            prop_assert_eq!(fields.present(), Present::of(&headers));
            let taken = HeaderName::from_static(taken);
            fields.remove(&taken);
            headers.remove(&taken);
            prop_assert_eq!(&fields.to_map().unwrap(), &headers);
            // On the wire as the map would be.
            let present = Present::of(&headers);
            crate::headers::remove_hop_by_hop(&mut headers, present);
            headers.remove("content-length");
            let mut lines: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
            let text = written(&fields, true).to_ascii_lowercase();
            let mut ours: Vec<_> = text.lines().collect();
            lines.sort_unstable();
            ours.sort_unstable();
            prop_assert_eq!(ours, lines);
            fields.recycle();
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, true, &mut None);
            let mut seeded = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
            seeded.extend_from_slice(&bytes);
            seeded.extend_from_slice(b"\r\n\r\n");
            let _ = read(&seeded, true, &mut None);
        }
    }
}
