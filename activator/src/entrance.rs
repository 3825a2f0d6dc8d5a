//! Which door of the gateway a connection came through. It decides which hosts are served and what is said of the scheme.

use http::HeaderValue;

use crate::table::Visibility;

/// A listener's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Entrance {
    /// Plain HTTP from outside: external hosts only.
    #[default]
    External,
    /// Plain HTTP from inside the cluster: every host.
    Local,
    /// HTTPS from outside: external hosts only.
    Https,
    /// TLS between the cluster's own parts: from an ingress, which has chosen the revision.
    Internal,
}

impl Entrance {
    /// Whether hosts of this visibility are served here.
    pub const fn serves(self, visibility: Visibility) -> bool {
        matches!((self, visibility), (_, Visibility::External) | (Self::Local, _))
    }

    /// Whether connections are encrypted.
    pub const fn is_secure(self) -> bool {
        matches!(self, Self::Https | Self::Internal)
    }

    /// The value of `X-Forwarded-Proto`.
    pub const fn scheme(self) -> HeaderValue {
        HeaderValue::from_static(if self.is_secure() { "https" } else { "http" })
    }
}
