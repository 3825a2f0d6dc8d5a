//! Versions of Kubernetes, as far as "at least this one" needs them (upstream `knative.dev/pkg/version/version.go`).
//!
//! Pre-releases and builds of a version count as that version: `v1.34.0-rc.1` and `v1.34.0-gke.7` are at least
//! `v1.34.0`.

use std::fmt;
use std::str::FromStr;

/// The oldest API server taken, unless `KUBERNETES_MIN_VERSION` says otherwise.
pub(super) const OLDEST: Version = Version([1, 34, 0]);

/// Major, minor, patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version([u64; 3]);

/// Not a version.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no version; want one such as v1.34.0")]
pub(super) struct VersionError(String);

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let error = || VersionError(text.chars().take(64).collect());
        let core = text.strip_prefix('v').unwrap_or(text).split(['-', '+']).next().unwrap_or_default();
        let mut numbers = core.split('.').map(|number| {
            // Digits alone: `parse` would take a sign too.
            if number.bytes().all(|byte| byte.is_ascii_digit()) { number.parse().ok() } else { None }
        });
        let mut next = || numbers.next().flatten().ok_or_else(error);
        let version = Self([next()?, next()?, next()?]);
        if numbers.next().is_some() { Err(error()) } else { Ok(version) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([major, minor, patch]) = self;
        write!(f, "v{major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least() {
        for (version, oldest, good) in [
            ("v1.34.0", "v1.34.0", true),
            ("v1.34.0-rc.1", "v1.34.0", true),
            ("v1.34.2+k3s1", "1.34.0", true),
            ("v1.33.9", "v1.34.0", false),
            ("v2.0.0", "v1.34.0", true),
            ("v1.4.0", "v1.34.0", false),
        ] {
            let [version, oldest] = [version, oldest].map(|text| text.parse::<Version>().unwrap());
            assert_eq!(version >= oldest, good, "{version} {oldest}");
        }
        assert_eq!("v1.34.0".parse::<Version>().unwrap(), OLDEST);
    }

    #[test]
    fn junk_is_no_version() {
        for text in ["", "v", "1.34", "v1.34.0.1", "v1.x.0", "1.+3.0", "v99999999999999999999.0.0", "latest"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
