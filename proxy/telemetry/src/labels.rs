//! Labels of a request that are closed lists, as small numbers: method and version. Whatever a client sends, metrics
//! have no more of them than there are here.

use http::{HeaderName, Method, Version};
use proxy::headers::Headers;

/// Methods told apart; any other is the last.
const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "_OTHER"];

/// The route a request took, from the headers that the ingress sets: the tag itself, or a word beginning with `kn:`.
pub fn route_tag(headers: Headers<'_>) -> &str {
    let get = |name: &HeaderName| headers.text(name).unwrap_or_default();
    let tag = get(&api::headers::SERVING_TAG);
    match (tag, get(&api::headers::SERVING_DEFAULT_ROUTE)) {
        ("", "") => "kn:disabled",
        ("", _) => "kn:default",
        (_, "true") => "kn:undefined",
        (tag, _) => tag,
    }
}

/// One of [`METHODS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MethodLabel(u8);

impl MethodLabel {
    /// How many there are.
    pub const COUNT: usize = METHODS.len();

    /// The label of a method.
    pub fn of(method: &Method) -> Self {
        let found = METHODS.iter().position(|name| *name == method.as_str());
        Self(found.unwrap_or(METHODS.len() - 1) as u8)
    }

    /// As metrics and spans have it.
    pub fn name(self) -> &'static str {
        METHODS.get(usize::from(self.0)).copied().unwrap_or("_OTHER")
    }

    /// A small number, below [`MethodLabel::COUNT`].
    pub fn index(self) -> u8 {
        self.0
    }
}

/// The version of HTTP; anything else is 1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum VersionLabel {
    /// HTTP/1.0.
    One,
    /// HTTP/1.1.
    OneOne,
    /// HTTP/2.
    Two,
}

impl VersionLabel {
    /// The label of a version.
    pub fn of(version: Version) -> Self {
        match version {
            Version::HTTP_2 => Self::Two,
            Version::HTTP_10 => Self::One,
            _ => Self::OneOne,
        }
    }

    /// As metrics and spans have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "1.0",
            Self::OneOne => "1.1",
            Self::Two => "2",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue};

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
            assert_eq!(route_tag((&headers).into()), expected);
        }
    }

    #[test]
    fn methods_of_clients_share_one_label() {
        assert_eq!(MethodLabel::of(&Method::PATCH).name(), "PATCH");
        let odd = Method::from_bytes(b"BREW").unwrap();
        assert_eq!((MethodLabel::of(&odd).name(), MethodLabel::of(&odd).index()), ("_OTHER", 9));
    }
}
