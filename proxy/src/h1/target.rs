//! The request target as it stands in the request line, made into a [`Uri`].
//!
//! `http::Uri` is stricter than the field: upstream takes what browsers and hand-made clients send. So what may not
//! stand in a path is percent-encoded on its way in (upstream does the same on its way out), and a query that `Uri`
//! would refuse travels beside it, byte for byte, as [`RawQuery`].

use bytes::Bytes;
use http::{Method, Uri};

use crate::headers::{illegal_in_path, push_path};

/// A query that a [`Uri`] cannot hold; an extension of the request, written out in place of the (empty) query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawQuery(pub Bytes);

/// Longer is no [`Uri`]; upstream takes whatever fits into a head.
const MOST_URI: usize = u16::MAX as usize - 1;

/// Reads a request target; `None` if it is none.
pub(crate) fn parse(method: &Method, target: Bytes) -> Option<(Uri, Option<RawQuery>)> {
    if method == Method::CONNECT {
        return Some((Uri::from_maybe_shared(target).ok()?, None));
    }
    let path_at = match &target[..] {
        [b'/', ..] => 0,
        b"*" => return Some((Uri::from_static("*"), None)),
        absolute => {
            let authority_at = absolute.windows(3).position(|bytes| bytes == b"://")? + 3;
            let rest = &absolute[authority_at..];
            authority_at + rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len())
        }
    };
    // One look decides for nearly all requests that there is nothing to do.
    let pathless = target.get(path_at) == Some(&b'?');
    if target.len() <= MOST_URI && !pathless && !target[path_at..].iter().copied().any(unusual) {
        return Some((Uri::from_maybe_shared(target).ok()?, None));
    }
    let query_at = target[path_at..].iter().position(|byte| *byte == b'?').map_or(target.len(), |at| path_at + at);
    let path = &target[path_at..query_at];
    if !escapes_are_whole(path) {
        return None;
    }
    let mut encoded = Vec::with_capacity(target.len() + 16);
    encoded.extend_from_slice(&target[..path_at]);
    push_path(&mut encoded, if pathless { b"/" } else { path });
    let query = target.slice(query_at..);
    if encoded.len() + query.len() <= MOST_URI && query.iter().all(|byte| fits_query(*byte)) {
        encoded.extend_from_slice(&query);
        return Some((Uri::from_maybe_shared(Bytes::from(encoded)).ok()?, None));
    }
    encoded.push(b'?');
    Some((Uri::from_maybe_shared(Bytes::from(encoded)).ok()?, Some(RawQuery(query.slice(1..)))))
}

/// A request head whose target is not UTF-8, with `/` in its place, and that target; `None` if that is not what is wrong
/// with it.
pub(crate) fn taken_out(head: &Bytes) -> Option<(Bytes, Bytes)> {
    let line = &head[..memchr::memchr(b'\n', head)?];
    let start = memchr::memchr(b' ', line)? + 1;
    let end = start + memchr::memchr(b' ', &line[start..])?;
    let target = &line[start..end];
    if std::str::from_utf8(target).is_ok() || target.iter().any(u8::is_ascii_control) {
        return None;
    }
    let plain = [&head[..start], b"/", &head[end..]].concat();
    Some((plain.into(), head.slice(start..end)))
}

/// Bytes that ask for a closer look, in a path or a query.
fn unusual(byte: u8) -> bool {
    byte == b'%' || illegal_in_path(byte)
}

/// What `Uri` takes in a query.
fn fits_query(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x24..=0x3B | 0x3D | 0x3F..=0x7E)
}

/// Whether each `%` is followed by two hexadecimal digits, without which a path has no meaning.
fn escapes_are_whole(path: &[u8]) -> bool {
    path.iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'%')
        .all(|(at, _)| path.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The target as the next hop gets it.
    fn sent(method: &Method, target: &'static [u8]) -> Option<String> {
        let (uri, raw) = parse(method, Bytes::from_static(target))?;
        let raw = raw.map(|raw| String::from_utf8_lossy(&raw.0).into_owned()).unwrap_or_default();
        Some(format!("{uri}{raw}"))
    }

    #[test]
    fn table() {
        for (target, expected) in [
            ("/", Some("/")),
            ("*", Some("*")),
            ("//x//y", Some("//x//y")),
            ("/%2f/../;p?q", Some("/%2f/../;p?q")),
            ("/a?b=%zz|c", Some("/a?b=%zz|c")),
            ("/a?b=<c>\"#d", Some("/a?b=<c>\"#d")),
            ("/a|b\"c<d>e{f}g^h`i#j\\k?l", Some("/a%7Cb%22c%3Cd%3Ee%7Bf%7Dg%5Eh%60i%23j\\k?l")),
            ("/caf\u{e9}?caf\u{e9}", Some("/caf%C3%A9?caf\u{e9}")),
            ("http://host:81/p?q", Some("http://host:81/p?q")),
            ("http://host", Some("http://host/")),
            ("http://host?q", Some("http://host/?q")),
            ("http://host?<q>", Some("http://host/?<q>")),
            ("http://host/a|b", Some("http://host/a%7Cb")),
            ("/%zz", None),
            ("/%2", None),
            ("/%", None),
            ("page", None),
            ("", None),
            ("http:///p", None),
        ] {
            assert_eq!(sent(&Method::GET, target.as_bytes()).as_deref(), expected, "{target}");
        }
        assert_eq!(sent(&Method::GET, b"/\xff?\xff"), Some("/%FF?\u{fffd}".into()));
        let long: &'static [u8] = format!("/p?{}", "q".repeat(MOST_URI)).leak().as_bytes();
        assert_eq!(sent(&Method::GET, long).map(String::into_bytes).as_deref(), Some(long));
        assert_eq!(sent(&Method::CONNECT, b"host:443"), Some("host:443".into()));
        assert_eq!(sent(&Method::CONNECT, b"/path"), Some("/path".into()));
    }

    #[test]
    fn only_a_target_that_is_not_utf_8_is_taken_out() {
        for (head, expected) in [
            (
                &b"GET /\xff?q HTTP/1.1\r\nA: \xff\r\n\r\n"[..],
                Some((&b"GET / HTTP/1.1\r\nA: \xff\r\n\r\n"[..], &b"/\xff?q"[..])),
            ),
            (b"GET /p HTTP/1.1\r\nA: \xff\r\n\r\n", None),
            (b"GET /\xff\x01 HTTP/1.1\r\n\r\n", None),
            (b"GET\xff / HTTP/1.1\r\n\r\n", None),
            (b"GET /\xff\r\n\r\n", None),
            (b"\xff", None),
        ] {
            let got = taken_out(&Bytes::from_static(head));
            assert_eq!(got.as_ref().map(|(head, target)| (&head[..], &target[..])), expected, "{head:?}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_made_legal_or_refused_for_a_broken_escape(path in "/[ -~\u{80}-\u{ff}]{0,40}") {
            let path = path.replace([' ', '?'], "");
            let parsed = parse(&Method::GET, Bytes::from(path.clone().into_bytes()));
            prop_assert_eq!(parsed.is_some(), escapes_are_whole(path.as_bytes()));
            if let Some((uri, raw)) = parsed {
                prop_assert!(raw.is_none());
                prop_assert!(!uri.path().bytes().any(illegal_in_path));
            }
        }

        #[test]
        fn a_query_is_never_changed(query in "[!-~\u{80}-\u{ff}]{1,40}") {
            let target = format!("/p?{query}");
            let (uri, raw) = parse(&Method::GET, Bytes::from(target.clone().into_bytes())).unwrap();
            let raw = raw.map(|raw| String::from_utf8(raw.0.to_vec()).unwrap()).unwrap_or_default();
            prop_assert_eq!(format!("{uri}{raw}"), target);
        }
    }
}
