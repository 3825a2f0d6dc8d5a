//! Host names in the one form in which they are compared, and the patterns that rules have for them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Longest host that is looked up: the longest name DNS has. It bounds what a request's Host can cost.
pub const MAX_HOST: usize = 253;

/// A host of a rule: `name`, `*.suffix`, or `*` for all that no other rule has. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Reads a rule's host; `None` if no request could name it.
    pub fn parse(host: &str) -> Option<Self> {
        let host = normalize(host);
        let (name, wildcard) = match host.strip_prefix('*') {
            Some("") => ("", true),
            Some(rest) => (rest.strip_prefix('.')?, true),
            None => (&*host, false),
        };
        let whole = name.len() <= MAX_HOST && name.split('.').all(|label| !label.is_empty());
        let catch_all = wildcard && host.len() == 1;
        let plain = proxy::headers::is_host(name.as_bytes()) && !name.contains('*');
        (plain && (whole || catch_all)).then(|| Self((*host).into()))
    }

    /// The whole name of an exact host, the suffix of a wildcard.
    pub fn name(&self) -> &str {
        match self.0.strip_prefix('*') {
            None => &self.0,
            Some(rest) => rest.strip_prefix('.').unwrap_or_default(),
        }
    }

    /// Whether it stands for more than one host.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Labels of [`Pattern::name`]; 0 for the catch-all.
    pub(super) fn labels(&self) -> usize {
        let name = self.name();
        if name.is_empty() { 0 } else { 1 + dots(name) }
    }

    /// Whether a host (normalized) is one of these.
    pub fn covers(&self, host: &str) -> bool {
        let name = self.name();
        if !self.is_wildcard() {
            return host == name;
        }
        name.is_empty() || host.strip_suffix(name).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many dots a name has.
pub(super) fn dots(name: &str) -> usize {
    name.bytes().filter(|byte| *byte == b'.').count()
}

/// Lower case, without port and without the dot at the end. An IPv6 literal keeps its brackets.
pub fn normalize(host: &str) -> Cow<'_, str> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !inside_brackets(name) => name,
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) { name.to_ascii_lowercase().into() } else { name.into() }
}

/// `[::1` of `[::1]`: the colon found was not one before a port.
fn inside_brackets(name: &str) -> bool {
    name.starts_with('[') && !name.ends_with(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_compare_without_case_port_and_last_dot() {
        let cases = [
            ("hello.default.example.com", "hello.default.example.com"),
            ("HELLO.default.Example.com:8080", "hello.default.example.com"),
            ("hello.default.example.com.", "hello.default.example.com"),
            ("hello.default.example.com.:80", "hello.default.example.com"),
            ("localhost:", "localhost"),
            ("[::1]:8080", "[::1]"),
            ("[::1]", "[::1]"),
            ("a:b", "a:b"),
            ("", ""),
        ];
        for (host, expected) in cases {
            assert_eq!(normalize(host), expected, "{host}");
        }
    }

    #[test]
    fn patterns_are_names_wildcards_or_everything() {
        for (text, shown) in [
            ("Hello.Example.com", "hello.example.com"),
            ("*.Example.com", "*.example.com"),
            ("*", "*"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(Pattern::parse(text).unwrap().to_string(), shown);
        }
        let long = format!("{}.com", "a".repeat(250));
        for text in ["", "*..", "a.*.com", "*a.com", "**", "a..b", ".a", "a b", "a/b", "*.*.com", long.as_str()] {
            assert_eq!(Pattern::parse(text), None, "{text}");
        }
        let wide = Pattern::parse("*.example.com").unwrap();
        assert!(wide.covers("a.example.com") && wide.covers("a.b.example.com"));
        assert!(!wide.covers("example.com") && !wide.covers(".example.com") && !wide.covers("aexample.com"));
        assert!(Pattern::parse("*").unwrap().covers("anything") && !Pattern::parse("a").unwrap().covers("b"));
    }
}
