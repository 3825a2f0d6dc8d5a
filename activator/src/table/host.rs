//! Host names in the one form in which they are compared.

use std::borrow::Cow;

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
}
