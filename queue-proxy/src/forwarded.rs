//! The `Forwarded` header, built from `X-Forwarded-*` when nobody sent one. Upstream's form, quirks included: apps
//! parse it.

use http::header::{FORWARDED, HeaderName, HeaderValue};
use proxy::headers::{Headers, Present, X_FORWARDED_FOR};

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// `Forwarded`, if it is absent or empty and there is something to say. Must be asked before the own peer is appended.
pub fn of(headers: Headers<'_>, present: Present) -> Option<HeaderValue> {
    const SOURCES: Present = Present::X_FORWARDED_FOR.and(Present::X_FORWARDED_HOST).and(Present::X_FORWARDED_PROTO);
    if !present.any(SOURCES) || headers.get(&FORWARDED).is_some_and(|value| !value.is_empty()) {
        return None;
    }
    let first = |name: &HeaderName| headers.text(name).unwrap_or_default();
    let (nodes, host, proto) = (first(&X_FORWARDED_FOR), first(&X_FORWARDED_HOST), first(&X_FORWARDED_PROTO));
    if nodes.is_empty() && host.is_empty() && proto.is_empty() {
        return None;
    }
    HeaderValue::try_from(build(nodes, host, proto)).ok()
}

fn build(nodes: &str, host: &str, proto: &str) -> String {
    let mut forwarded = String::with_capacity(nodes.len() + host.len() + proto.len() + 32);
    let mut nodes = if nodes.is_empty() { None } else { Some(nodes.split_terminator(',').map(str::trim)) };
    let mut first_is_named = false;
    if let Some(node) = nodes.as_mut().and_then(Iterator::next) {
        push_node(&mut forwarded, node);
        first_is_named = !node.is_empty();
    }
    let mut separator = if first_is_named { ";" } else { "" };
    for (name, value) in [("host=", host), ("proto=", proto)] {
        if !value.is_empty() {
            forwarded.push_str(separator);
            forwarded.push_str(name);
            forwarded.push_str(value);
            separator = ";";
        }
    }
    for node in nodes.into_iter().flatten() {
        forwarded.push_str(", ");
        push_node(&mut forwarded, node);
    }
    forwarded
}

fn push_node(forwarded: &mut String, node: &str) {
    forwarded.push_str("for=");
    if node.contains(':') {
        forwarded.push_str("\"[");
        forwarded.push_str(node);
        forwarded.push_str("]\"");
    } else {
        forwarded.push_str(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    #[test]
    fn upstream_cases() {
        for (nodes, host, proto, expected) in [
            ("127.0.0.1, ::1", "h", "p", "for=127.0.0.1;host=h;proto=p, for=\"[::1]\""),
            ("127.0.0.1", "h", "p", "for=127.0.0.1;host=h;proto=p"),
            ("127.0.0.1, 10.0.0.1", "", "", "for=127.0.0.1, for=10.0.0.1"),
            ("127.0.0.1, 10.0.0.1", "", "p", "for=127.0.0.1;proto=p, for=10.0.0.1"),
            ("127.0.0.1, 10.0.0.1", "h", "", "for=127.0.0.1;host=h, for=10.0.0.1"),
            ("", "h", "", "host=h"),
            ("", "", "p", "proto=p"),
            ("", "h", "p", "host=h;proto=p"),
            (",,,", "", "", "for=, for=, for="),
        ] {
            assert_eq!(build(nodes, host, proto), expected, "{nodes} {host} {proto}");
        }
    }

    #[test]
    fn an_existing_header_is_left_alone_and_none_is_made_of_nothing() {
        let mut headers = HeaderMap::new();
        assert_eq!(of((&headers).into(), Present::default()), None);
        headers.insert(X_FORWARDED_FOR, HeaderValue::from_static("1.1.1.1"));
        assert_eq!(of((&headers).into(), Present::of(&headers)).unwrap(), "for=1.1.1.1");
        headers.insert(FORWARDED, HeaderValue::from_static("for=x"));
        assert_eq!(of((&headers).into(), Present::of(&headers)), None);
    }
}
