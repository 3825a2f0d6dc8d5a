//! The labels of a request, as small numbers: closed lists, and route tags up to a bound.

use std::collections::HashMap;

use http::{HeaderMap, Method, Version};

/// Route tags told apart.
pub(super) const MAX_TAGS: u8 = 100;
/// Tags that are there from the beginning: without a tag, by the default route, both at once, one too many.
const WORDS: [&str; 4] = ["kn:disabled", "kn:default", "kn:undefined", "kn:other"];
const OTHER: Tag = Tag(3);
/// Methods told apart; any other is the last.
const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "_OTHER"];

/// The route a request took, from the headers that the ingress sets.
pub(crate) fn route_tag(headers: &HeaderMap) -> &str {
    let get = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).unwrap_or_default();
    let tag = get(api::headers::SERVING_TAG);
    match (tag, get(api::headers::SERVING_DEFAULT_ROUTE)) {
        ("", "") => "kn:disabled",
        ("", _) => "kn:default",
        (_, "true") => "kn:undefined",
        (tag, _) => tag,
    }
}

/// One of [`Tags`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tag(u8);

/// The route tags seen so far, at most [`MAX_TAGS`] besides [`WORDS`].
#[derive(Debug, Default)]
pub(super) struct Tags {
    known: HashMap<String, Tag>,
    names: Vec<String>,
}

impl Tags {
    pub(super) fn tag(&mut self, name: &str) -> Tag {
        if let Some(word) = (0..).zip(WORDS).find_map(|(n, word)| (word == name).then_some(Tag(n))) {
            return word;
        }
        if let Some(tag) = self.known.get(name) {
            return *tag;
        }
        let seen = u8::try_from(self.names.len()).unwrap_or(MAX_TAGS);
        if seen >= MAX_TAGS || name.len() > 63 {
            return OTHER;
        }
        let tag = Tag(WORDS.len() as u8 + seen);
        self.names.push(name.into());
        self.known.insert(name.into(), tag);
        tag
    }

    pub(super) fn name(&self, Tag(n): Tag) -> &str {
        let of_a_client = || self.names.get(usize::from(n).checked_sub(WORDS.len())?).map(String::as_str);
        WORDS.get(usize::from(n)).copied().or_else(of_a_client).unwrap_or(WORDS[usize::from(OTHER.0)])
    }
}

/// One of [`METHODS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MethodLabel(u8);

impl MethodLabel {
    pub(super) fn of(method: &Method) -> Self {
        let found = METHODS.iter().position(|name| *name == method.as_str());
        Self(found.unwrap_or(METHODS.len() - 1) as u8)
    }

    pub(super) fn name(self) -> &'static str {
        METHODS.get(usize::from(self.0)).copied().unwrap_or("_OTHER")
    }
}

/// The version of HTTP; anything else is 1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum VersionLabel {
    One,
    OneOne,
    Two,
}

impl VersionLabel {
    pub(super) fn of(version: Version) -> Self {
        match version {
            Version::HTTP_2 => Self::Two,
            Version::HTTP_10 => Self::One,
            _ => Self::OneOne,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::One => "1.0",
            Self::OneOne => "1.1",
            Self::Two => "2",
        }
    }
}

pub(crate) fn method_label(method: &Method) -> &'static str {
    MethodLabel::of(method).name()
}

pub(crate) fn version_label(version: Version) -> &'static str {
    VersionLabel::of(version).name()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn route_tags_follow_the_table() {
        for (tag, default_route, expected) in [
            ("", "", "kn:disabled"),
            ("", "true", "kn:default"),
            ("blue", "true", "kn:undefined"),
            ("blue", "", "blue"),
            ("blue", "false", "blue"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(api::headers::SERVING_TAG, HeaderValue::from_static(tag));
            headers.insert(api::headers::SERVING_DEFAULT_ROUTE, HeaderValue::from_static(default_route));
            assert_eq!(route_tag(&headers), expected);
        }
    }
}
