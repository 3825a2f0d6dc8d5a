//! Annotations by which a revision says how the activator holds and orders its requests: all off by default.
//!
//! Written on the template (`spec.template.metadata.annotations`), read from the Revision. [`read`] gives the
//! [`Policy`] and the problems: admission refuses an object that has any; the activator, which may meet an object that
//! passed no admission, uses the default for what is wrong and warns once. What the words do is in the activator's
//! `throttle` module.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;

use crate::annotations::{Problem, Wrong, read_each};
use crate::duration;

/// What all keys begin with.
pub const PREFIX: &str = "activator.dormouse.dev/";
/// Most requests that wait for the revision: a whole number, 1 to [`MOST_QUEUE_LENGTH`].
pub const QUEUE_LENGTH: &str = "activator.dormouse.dev/queue-length";
/// Most bytes that waiting requests may hold (heads, and bodies as far as they were taken): a number of bytes, or one
/// with `k`, `M`, `G`, `Ki`, `Mi` or `Gi`; [`LEAST_QUEUE_BYTES`] to [`MOST_QUEUE_BYTES`].
pub const QUEUE_BYTES: &str = "activator.dormouse.dev/queue-bytes";
/// Longest time in line, then 503: a Go duration, [`SHORTEST_QUEUE_TIMEOUT`] to [`LONGEST_QUEUE_TIMEOUT`].
pub const QUEUE_TIMEOUT: &str = "activator.dormouse.dev/queue-timeout";
/// Name of the header with a request's class: 0 to 9, higher goes first, 5 where it is absent or something else.
pub const PRIORITY_HEADER: &str = "activator.dormouse.dev/priority-header";
/// Whose turns are equal: `ip`, or `header:NAME`.
pub const FAIR_SHARE: &str = "activator.dormouse.dev/fair-share";
/// What keeps a client at one pod: `header:NAME`, or `cookie:NAME`.
pub const SESSION_AFFINITY: &str = "activator.dormouse.dev/session-affinity";

/// See [`QUEUE_LENGTH`].
pub const MOST_QUEUE_LENGTH: usize = 1_000_000;
/// See [`QUEUE_BYTES`]: room for one request's head.
pub const LEAST_QUEUE_BYTES: u64 = 1 << 10;
/// See [`QUEUE_BYTES`].
pub const MOST_QUEUE_BYTES: u64 = 1 << 40;
/// See [`QUEUE_TIMEOUT`].
pub const SHORTEST_QUEUE_TIMEOUT: Duration = Duration::from_millis(1);
/// See [`QUEUE_TIMEOUT`].
pub const LONGEST_QUEUE_TIMEOUT: Duration = Duration::from_secs(3600);

/// The classes of [`PRIORITY_HEADER`]: 0 to 9.
pub const CLASSES: u8 = 10;
/// The class of a request that names none.
pub const DEFAULT_CLASS: u8 = 5;

/// How the requests of a revision are held and ordered. The default is upstream's: first come, first served.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Most requests in line; `None` = the activator's own bound.
    pub queue_length: Option<usize>,
    /// Most bytes in line; `None` = the activator's own bounds.
    pub queue_bytes: Option<u64>,
    /// Longest time in line; `None` = as long as the request's own timeouts allow.
    pub queue_timeout: Option<Duration>,
    /// Where the class stands.
    pub priority_header: Option<HeaderName>,
    /// Whose turns are equal.
    pub fair_share: Option<FairShare>,
    /// What keeps a client at one pod.
    pub session_affinity: Option<SessionAffinity>,
}

/// By what clients are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FairShare {
    /// By address.
    Ip,
    /// By the value of a header; requests without it share one turn.
    Header(HeaderName),
}

/// By what a session is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionAffinity {
    /// The value of a header; requests without it go where there is room.
    Header(HeaderName),
    /// The value of a cookie, which the activator sets where it is absent. Names of cookies are case-sensitive.
    Cookie(String),
}

impl Policy {
    /// Whether nothing is set.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The policy that annotations ask for. What is wrong keeps its default and is told.
pub fn read(annotations: &BTreeMap<String, String>) -> (Policy, Vec<Problem>) {
    let mut policy = Policy::default();
    let problems = read_each(annotations, PREFIX, |key, value| read_one(&mut policy, key, value));
    (policy, problems)
}

fn read_one(policy: &mut Policy, key: &str, value: &str) -> Result<(), Wrong> {
    match key {
        QUEUE_LENGTH => policy.queue_length = Some(length(value)?),
        QUEUE_BYTES => policy.queue_bytes = Some(bytes(value)?),
        QUEUE_TIMEOUT => policy.queue_timeout = Some(timeout(value)?),
        PRIORITY_HEADER => policy.priority_header = Some(header(value).ok_or(Wrong::Want("the name of a header"))?),
        FAIR_SHARE => {
            policy.fair_share = Some(match value.split_once(':') {
                None if value == "ip" => FairShare::Ip,
                Some(("header", name)) => FairShare::Header(header(name).ok_or(Wrong::Want(WANT_FAIR_SHARE))?),
                _ => return Err(Wrong::Want(WANT_FAIR_SHARE)),
            });
        }
        SESSION_AFFINITY => {
            policy.session_affinity = Some(match value.split_once(':') {
                Some(("header", name)) => SessionAffinity::Header(header(name).ok_or(Wrong::Want(WANT_AFFINITY))?),
                Some(("cookie", name)) if is_token(name) => SessionAffinity::Cookie(name.to_owned()),
                _ => return Err(Wrong::Want(WANT_AFFINITY)),
            });
        }
        _ => return Err(Wrong::UnknownKey),
    }
    Ok(())
}

const WANT_FAIR_SHARE: &str = "ip, or header:NAME";
const WANT_AFFINITY: &str = "header:NAME, or cookie:NAME";

fn length(value: &str) -> Result<usize, Wrong> {
    if !is_digits(value) {
        return Err(Wrong::Want("a whole number"));
    }
    // Digits that do not fit are too many.
    let number = value.parse().unwrap_or(usize::MAX);
    if (1..=MOST_QUEUE_LENGTH).contains(&number) { Ok(number) } else { Err(Wrong::Bounds("1", "1000000")) }
}

fn bytes(value: &str) -> Result<u64, Wrong> {
    let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = value.split_at(digits);
    let scale: u64 = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err(Wrong::Want("a number of bytes, such as 65536, 64Ki or 16Mi")),
    };
    if !is_digits(number) {
        return Err(Wrong::Want("a number of bytes, such as 65536, 64Ki or 16Mi"));
    }
    let bytes = number.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(scale);
    if (LEAST_QUEUE_BYTES..=MOST_QUEUE_BYTES).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(Wrong::Bounds("1Ki", "1024Gi"))
    }
}

fn timeout(value: &str) -> Result<Duration, Wrong> {
    let timeout = duration::parse(value).map_err(|_| Wrong::Want("a duration, such as 500ms, 10s or 2m"))?;
    if (SHORTEST_QUEUE_TIMEOUT..=LONGEST_QUEUE_TIMEOUT).contains(&timeout) {
        Ok(timeout)
    } else {
        Err(Wrong::Bounds("1ms", "1h"))
    }
}

fn header(name: &str) -> Option<HeaderName> {
    name.parse().ok()
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// RFC 6265 §4.1.1: a cookie's name is an HTTP token.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> (Policy, Vec<Problem>) {
        read(&pairs.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned())).collect())
    }

    #[test]
    fn nothing_is_set_by_default() {
        let other = BTreeMap::from([("autoscaling.knative.dev/min-scale".to_owned(), "1".to_owned())]);
        let (policy, problems) = read(&other);
        assert!(policy.is_default() && problems.is_empty());
    }

    #[test]
    fn every_annotation_is_read() {
        let (policy, problems) = of(&[
            ("queue-length", "500"),
            ("queue-bytes", "16Mi"),
            ("queue-timeout", "1m30s"),
            ("priority-header", "X-Priority"),
            ("fair-share", "header:X-Tenant"),
            ("session-affinity", "cookie:Session_ID"),
        ]);
        assert_eq!(problems, []);
        assert_eq!(
            policy,
            Policy {
                queue_length: Some(500),
                queue_bytes: Some(16 << 20),
                queue_timeout: Some(Duration::from_secs(90)),
                priority_header: Some(HeaderName::from_static("x-priority")),
                fair_share: Some(FairShare::Header(HeaderName::from_static("x-tenant"))),
                session_affinity: Some(SessionAffinity::Cookie("Session_ID".to_owned())),
            }
        );
        let (policy, _) = of(&[("fair-share", "ip"), ("session-affinity", "header:Authorization")]);
        assert_eq!(policy.fair_share, Some(FairShare::Ip));
        assert_eq!(policy.session_affinity, Some(SessionAffinity::Header(http::header::AUTHORIZATION)));
    }

    #[test]
    fn bytes_have_units() {
        for (text, expected) in
            [("1024", 1024), ("2k", 2000), ("3M", 3_000_000), ("1G", 1_000_000_000), ("1Ki", 1024), ("1024Gi", 1 << 40)]
        {
            assert_eq!(of(&[("queue-bytes", text)]).0.queue_bytes, Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_keeps_its_default_and_is_told() {
        let cases = [
            ("queue-length", "0", "want 1 to 1000000"),
            ("queue-length", "1000001", "want 1 to 1000000"),
            ("queue-length", "99999999999999999999999", "want 1 to 1000000"),
            ("queue-length", "-1", "want a whole number"),
            ("queue-length", "", "want a whole number"),
            ("queue-length", "+5", "want a whole number"),
            ("queue-bytes", "1023", "want 1Ki to 1024Gi"),
            ("queue-bytes", "99999999999999999999Gi", "want 1Ki to 1024Gi"),
            ("queue-bytes", "Mi", "want a number of bytes, such as 65536, 64Ki or 16Mi"),
            ("queue-bytes", "1.5Mi", "want a number of bytes, such as 65536, 64Ki or 16Mi"),
            ("queue-bytes", "1 Mi", "want a number of bytes, such as 65536, 64Ki or 16Mi"),
            ("queue-timeout", "0s", "want 1ms to 1h"),
            ("queue-timeout", "61m", "want 1ms to 1h"),
            ("queue-timeout", "soon", "want a duration, such as 500ms, 10s or 2m"),
            ("priority-header", "two words", "want the name of a header"),
            ("priority-header", "", "want the name of a header"),
            ("fair-share", "IP", "want ip, or header:NAME"),
            ("fair-share", "header:", "want ip, or header:NAME"),
            ("fair-share", "cookie:a", "want ip, or header:NAME"),
            ("session-affinity", "ip", "want header:NAME, or cookie:NAME"),
            ("session-affinity", "cookie:a=b", "want header:NAME, or cookie:NAME"),
            ("session-affinity", "cookie:", "want header:NAME, or cookie:NAME"),
            ("queue-lenght", "5", "there is no such annotation"),
        ];
        for (key, value, want) in cases {
            let (policy, problems) = of(&[(key, value)]);
            assert!(policy.is_default(), "{key}={value}");
            let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
            assert_eq!(told, [format!("annotation {PREFIX}{key}={value:?}: {want}")]);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(key in "[a-z-]{0,20}", value in ".{0,40}") {
            let (_, problems) = of(&[(&key, &value)]);
            proptest::prop_assert!(problems.len() <= 1);
        }
    }
}
