//! Which of the headers that a hop looks for are there: one pass over the names instead of a look-up for each of them.
//! Nearly all of them are absent from nearly all requests.

use std::ops::{BitOr, BitOrAssign};

use http::HeaderMap;

/// A set of header names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Present(u32);

macro_rules! names {
    ($($length:literal { $($bit:literal $constant:ident $name:literal,)* })*) => {
        impl Present {
            $($(
                #[doc = concat!("`", $name, "`.")]
                pub const $constant: Self = Self(1 << $bit);
            )*)*

            /// The set of this one name, ignoring case; empty if no hop looks for it.
            pub(crate) fn named(name: &[u8]) -> Self {
                match name.len() {
                    $($($length if is_but_for_case(name, $name.as_bytes()) => Self::$constant,)*)*
                    _ => Self::default(),
                }
            }
        }

        const _: () = {
            $($(assert!($name.len() == $length);)*)*
        };
    };
}

/// Whether a header name is this lower-case one but for its case. Nothing that may stand in a name differs from a letter
/// by the bit of the case, and all in one go is faster than letter by letter.
#[inline]
pub(crate) fn is_but_for_case(name: &[u8], lower: &[u8]) -> bool {
    name.len() == lower.len() && name.iter().zip(lower).fold(0, |all, (byte, lower)| all | ((byte | 0x20) ^ lower)) == 0
}

// By length, which tells most names apart.
names! {
    2 {
        7 TE "te",
    }
    4 {
        0 HOST "host",
        5 DATE "date",
    }
    6 {
        9 EXPECT "expect",
    }
    7 {
        8 UPGRADE "upgrade",
        10 TRAILER "trailer",
    }
    9 {
        11 FORWARDED "forwarded",
    }
    10 {
        1 USER_AGENT "user-agent",
        2 CONNECTION "connection",
        6 KEEP_ALIVE "keep-alive",
    }
    14 {
        3 CONTENT_LENGTH "content-length",
        24 NETWORK_HASH "k-network-hash",
    }
    15 {
        12 X_FORWARDED_FOR "x-forwarded-for",
        18 NETWORK_PROBE "k-network-probe",
        19 KUBELET_PROBE "k-kubelet-probe",
        20 PROXY_REQUEST "k-proxy-request",
        21 ORIGINAL_HOST "k-original-host",
    }
    16 {
        13 X_FORWARDED_HOST "x-forwarded-host",
        15 PROXY_CONNECTION "proxy-connection",
    }
    17 {
        4 TRANSFER_ENCODING "transfer-encoding",
        14 X_FORWARDED_PROTO "x-forwarded-proto",
    }
    18 {
        16 PROXY_AUTHENTICATE "proxy-authenticate",
    }
    19 {
        17 PROXY_AUTHORIZATION "proxy-authorization",
    }
    24 {
        23 SERVING_REVISION "knative-serving-revision",
    }
    25 {
        22 SERVING_NAMESPACE "knative-serving-namespace",
    }
}

impl Present {
    /// A `User-Agent` without text.
    pub const EMPTY_USER_AGENT: Self = Self(1 << 31);

    /// What is in a header map.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut present = Self::default();
        for (name, value) in headers {
            let this = Self::named(name.as_str().as_bytes());
            present |= this;
            if this == Self::USER_AGENT && value.is_empty() {
                present |= Self::EMPTY_USER_AGENT;
            }
        }
        present
    }

    /// Whether any of these is there.
    pub const fn any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }

    /// Those of these that are there.
    #[must_use]
    pub const fn among(self, of: Self) -> Self {
        Self(self.0 & of.0)
    }

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOr for Present {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.and(other)
    }
}

impl BitOrAssign for Present {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.and(other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    #[test]
    fn a_map_is_known_by_its_names() {
        let map = |lines: &[(&'static str, &'static str)]| -> HeaderMap {
            lines.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
        };
        let present = Present::of(&map(&[("host", "a"), ("x-own", "1"), ("te", ""), ("user-agent", "x")]));
        assert_eq!(present, Present::HOST | Present::TE | Present::USER_AGENT);
        assert!(present.any(Present::TE | Present::UPGRADE) && !present.any(Present::UPGRADE));
        assert!(Present::of(&map(&[("user-agent", "")])).any(Present::EMPTY_USER_AGENT));
    }

    #[test]
    fn names_match_without_case_and_only_as_a_whole() {
        assert_eq!(Present::named(b"X-Forwarded-For"), Present::X_FORWARDED_FOR);
        assert_eq!(Present::named(b"x-forwarded-foo"), Present::default());
        assert_eq!(Present::named(b""), Present::default());
    }
}
