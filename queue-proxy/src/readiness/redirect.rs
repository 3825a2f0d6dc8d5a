//! Where a redirected probe goes next, as the kubelet decides it: on the same host anywhere, to another host nowhere
//! (the redirect itself then counts as the answer).

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query.
    pub(super) path: String,
}

/// The place that `location` names, seen from `from`; `None` if it is on another host or cannot be read.
pub(super) fn follow(from: &Place, location: &str) -> Option<Place> {
    let location = location.split('#').next().unwrap_or_default().trim();
    let (tls, rest) = match location.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
        _ => match location.strip_prefix("//") {
            Some(rest) => (from.tls, rest),
            None => return Some(Place { path: path(&from.path, location), ..from.clone() }),
        },
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at(end);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (authority, if tls { 443 } else { 80 }),
    };
    let host = host.trim_matches(['[', ']']);
    if !host.eq_ignore_ascii_case(&from.host) {
        return None;
    }
    Some(Place { tls, host: from.host.clone(), port, path: path("/", after) })
}

/// A relative reference resolved against a path (RFC 3986 §5.2).
fn path(base: &str, reference: &str) -> String {
    let base = base.split('?').next().unwrap_or("/");
    let (reference, query) = match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference, None),
    };
    let merged = if reference.is_empty() {
        base.to_string()
    } else if reference.starts_with('/') {
        reference.to_string()
    } else {
        let folder = base.rfind('/').map_or("/", |slash| &base[..=slash]);
        format!("{folder}{reference}")
    };
    let mut path = without_dots(&merged);
    if let Some(query) = query {
        path.push('?');
        path.push_str(query);
    }
    path
}

/// `.` and `..` taken out.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (n, segment) in segments.iter().enumerate() {
        let last = n + 1 == segments.len();
        match *segment {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                kept.pop();
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let from = Place { tls: false, host: "127.0.0.1".into(), port: 8080, path: "/a/b?c".into() };
        let at = |tls, port, path: &str| Some(Place { tls, host: "127.0.0.1".into(), port, path: path.into() });
        for (location, expected) in [
            ("/ready?x=1", at(false, 8080, "/ready?x=1")),
            ("next", at(false, 8080, "/a/next")),
            ("../up/./x/..", at(false, 8080, "/up/")),
            ("?only=query", at(false, 8080, "/a/b?only=query")),
            ("", at(false, 8080, "/a/b")),
            ("/x#fragment", at(false, 8080, "/x")),
            ("http://127.0.0.1:9000/x", at(false, 9000, "/x")),
            ("HTTPS://127.0.0.1", at(true, 443, "/")),
            ("http://127.0.0.1?q", at(false, 80, "/?q")),
            ("//127.0.0.1:1/x", at(false, 1, "/x")),
            ("http://other.example/x", None),
            ("//other.example/x", None),
            ("http://127.0.0.1:99999/", None),
        ] {
            assert_eq!(follow(&from, location), expected, "{location}");
        }
        let from = Place { tls: true, host: "::1".into(), ..from };
        assert_eq!(follow(&from, "https://[::1]:7/y"), Some(Place { port: 7, path: "/y".into(), ..from }));
    }
}
