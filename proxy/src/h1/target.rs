//! The request target as it stands in the request line, made into a [`Uri`].
//!
//! `http::Uri` is stricter than the field: upstream takes what browsers and hand-made clients send. So what may not
//! stand in a path is percent-encoded on its way in (upstream does the same on its way out), and a query that `Uri`
//! would refuse travels beside it, byte for byte, as [`RawQuery`].

use bytes::Bytes;
use http::{Method, Uri};

/// A query that a [`Uri`] cannot hold; an extension of the request, written out in place of the (empty) query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawQuery(pub Bytes);

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
    if !target[path_at..].iter().copied().any(unusual) {
        return Some((Uri::from_maybe_shared(target).ok()?, None));
    }
    let query_at = target[path_at..].iter().position(|byte| *byte == b'?').map_or(target.len(), |at| path_at + at);
    let path = &target[path_at..query_at];
    if !escapes_are_whole(path) {
        return None;
    }
    let mut encoded = Vec::with_capacity(target.len() + 16);
    encoded.extend_from_slice(&target[..path_at]);
    encode_path(&mut encoded, path);
    let query = target.slice(query_at..);
    if query.iter().all(|byte| fits_query(*byte)) {
        encoded.extend_from_slice(&query);
        return Some((Uri::from_maybe_shared(Bytes::from(encoded)).ok()?, None));
    }
    encoded.push(b'?');
    Some((Uri::from_maybe_shared(Bytes::from(encoded)).ok()?, Some(RawQuery(query.slice(1..)))))
}

/// Bytes that ask for a closer look, in a path or a query.
fn unusual(byte: u8) -> bool {
    matches!(byte, b'%' | b'|' | b'"' | b'<' | b'>' | b'{' | b'}' | b'^' | b'`' | b'#') || byte >= 0x80
}

fn illegal_in_path(byte: u8) -> bool {
    unusual(byte) && byte != b'%'
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

fn encode_path(out: &mut Vec<u8>, path: &[u8]) {
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
        assert_eq!(sent(&Method::CONNECT, b"host:443"), Some("host:443".into()));
        assert_eq!(sent(&Method::CONNECT, b"/path"), Some("/path".into()));
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
