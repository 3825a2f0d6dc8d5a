//! A request's headers as a Go template sees them: without Host, by canonical names, undecodable bytes replaced.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{AsHeaderName, HOST, HeaderName};

/// All headers but those that Go, or upstream, does not show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Headers<'a>(pub(super) &'a HeaderMap);

impl<'a> Headers<'a> {
    /// The first line of a header; empty if there is none.
    pub(super) fn text(self, name: impl AsHeaderName) -> Cow<'a, str> {
        self.0.get(name).map(|value| String::from_utf8_lossy(value.as_bytes())).unwrap_or_default()
    }

    /// As `Header.Get` does it: in any case, and not what is hidden.
    pub(super) fn get(self, name: &str) -> Cow<'a, str> {
        if hidden(name) { Cow::Borrowed("") } else { self.text(name) }
    }

    /// The lines of a header.
    pub(super) fn lines(self, name: impl AsHeaderName) -> Vec<Cow<'a, str>> {
        self.0.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect()
    }

    /// As a Go map is asked: by the canonical name, nothing else is found.
    pub(super) fn index(self, name: &str) -> Vec<Cow<'a, str>> {
        let lower = name.to_ascii_lowercase();
        if hidden(name) || canonical(&lower) != name { Vec::new() } else { self.lines(lower) }
    }

    /// How many names there are.
    pub(super) fn len(self) -> usize {
        self.shown().count()
    }

    /// All of them: `map[A:[1 2] B:[3]]`, in the order of their names.
    pub(super) fn print(self, out: &mut Vec<u8>) {
        let mut names: Vec<&HeaderName> = self.shown().collect();
        names.sort_unstable_by_key(|name| name.as_str());
        out.extend_from_slice(b"map[");
        for (n, name) in names.into_iter().enumerate() {
            if n > 0 {
                out.push(b' ');
            }
            out.extend_from_slice(canonical(name.as_str()).as_bytes());
            out.push(b':');
            print_list(&self.lines(name), out);
        }
        out.push(b']');
    }

    fn shown(self) -> impl Iterator<Item = &'a HeaderName> {
        self.0.keys().filter(|name| !hidden(name.as_str()))
    }
}

/// `[a b]`
pub(super) fn print_list(list: &[Cow<'_, str>], out: &mut Vec<u8>) {
    out.push(b'[');
    for (n, text) in list.iter().enumerate() {
        if n > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b']');
}

/// Go keeps Host out of the headers; the original host is not for the user.
fn hidden(name: &str) -> bool {
    [HOST, api::headers::ORIGINAL_HOST].iter().any(|hidden| name.eq_ignore_ascii_case(hidden.as_str()))
}

/// Go's canonical form of a header name, by which templates ask.
fn canonical(name: &str) -> String {
    let mut up = true;
    name.chars()
        .map(|c| {
            let c = if up { c.to_ascii_uppercase() } else { c };
            up = c == '-';
            c
        })
        .collect()
}
