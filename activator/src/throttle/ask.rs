//! What a request asks for at the door: its class, whose turn it takes, the pod it would like, the bytes it holds.
//! Without a policy it asks for nothing, and finding that out is one branch.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::LazyLock;

use api::activation::{CLASSES, DEFAULT_CLASS, FairShare, Policy, SessionAffinity};
use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};

/// See the module. The default is a request of a revision without a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// 0 to 9; higher goes first.
    pub class: u8,
    /// Whose turn it takes: equal for requests of one client.
    pub key: u32,
    /// Which pod it would like: equal for requests of one session. The same in every activator.
    pub affinity: Option<NonZeroU64>,
    /// Bytes it holds while it waits.
    pub bytes: u32,
    /// A session that begins with this request; see [`Ask::set_cookie`].
    pub session: Option<NonZeroU64>,
}

impl Default for Ask {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Ask {
    /// A request that asks for nothing and holds nothing.
    pub const DEFAULT: Self = Self { class: DEFAULT_CLASS, key: 0, affinity: None, bytes: 0, session: None };

    /// A request that holds so many bytes and asks for nothing.
    pub fn plain(bytes: usize) -> Self {
        Self { bytes: u32::try_from(bytes).unwrap_or(u32::MAX), ..Self::default() }
    }

    /// What a request asks for under its revision's policy. `client` is the address that `fair-share: ip` goes by.
    #[inline]
    pub fn of(policy: Option<&Policy>, headers: &HeaderMap, client: IpAddr, bytes: usize) -> Self {
        match policy {
            None => Self::plain(bytes),
            Some(policy) => Self::under(policy, headers, client, bytes),
        }
    }

    fn under(policy: &Policy, headers: &HeaderMap, client: IpAddr, bytes: usize) -> Self {
        let mut ask = Self::plain(bytes);
        if let Some(name) = &policy.priority_header {
            ask.class = class(headers.get(name));
        }
        if let Some(share) = &policy.fair_share {
            ask.key = match share {
                FairShare::Ip => key_of_client(client),
                FairShare::Header(name) => key(headers.get(name).map_or(&[], HeaderValue::as_bytes)),
            };
        }
        match &policy.session_affinity {
            None => {}
            Some(SessionAffinity::Header(name)) => {
                ask.affinity = headers.get(name).and_then(|value| affinity(value.as_bytes()));
            }
            Some(SessionAffinity::Cookie(name)) => {
                if let Some(value) = cookie(headers, name) {
                    ask.affinity = affinity(value);
                } else {
                    let session = fastrand::u64(1..);
                    ask.session = NonZeroU64::new(session);
                    ask.affinity = affinity(session_text(session).as_bytes());
                }
            }
        }
        ask
    }

    /// The `Set-Cookie` of the answer, if a session begins with this request. `secure`: the client came over TLS.
    pub fn set_cookie(&self, policy: &Policy, secure: bool) -> Option<HeaderValue> {
        let Some(SessionAffinity::Cookie(name)) = &policy.session_affinity else { return None };
        let session = session_text(self.session?.get());
        let secure = if secure { "; Secure" } else { "" };
        HeaderValue::try_from(format!("{name}={session}; Path=/; HttpOnly; SameSite=Lax{secure}")).ok()
    }
}

/// Keys are mixed with a secret of the process: a client cannot pick one that falls together with another's.
static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);

fn key(bytes: &[u8]) -> u32 {
    SECRET.hash_one(bytes) as u32
}

/// An IPv6 client is its /64: it can choose the rest of its address as it likes.
fn key_of_client(client: IpAddr) -> u32 {
    match client.to_canonical() {
        IpAddr::V4(ip) => key(&ip.octets()),
        IpAddr::V6(ip) => key(&ip.octets()[..8]),
    }
}

fn class(value: Option<&HeaderValue>) -> u8 {
    match value.map(HeaderValue::as_bytes) {
        Some([digit @ b'0'..=b'9']) => (digit - b'0').min(CLASSES - 1),
        _ => DEFAULT_CLASS,
    }
}

/// Not mixed with anything secret: all activators must send a session to the same pod.
fn affinity(value: &[u8]) -> Option<NonZeroU64> {
    // Zero is as good as one.
    NonZeroU64::new(api::hash::fnv1a(value).max(1))
}

fn session_text(session: u64) -> String {
    format!("{session:016x}")
}

/// The value of a cookie (RFC 6265 §5.4; h2 may split them over several headers).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    const HEADER: HeaderName = COOKIE;
    headers
        .get_all(HEADER)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b';'))
        .find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        .filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    fn ask(policy: &Policy, pairs: &[(&'static str, &'static str)]) -> Ask {
        Ask::of(Some(policy), &headers(pairs), CLIENT, 0)
    }

    #[test]
    fn without_a_policy_only_bytes_count() {
        let got = Ask::of(None, &headers(&[("x-class", "9"), ("cookie", "sid=1")]), CLIENT, 700);
        assert_eq!(got, Ask::plain(700));
        assert_eq!(Ask::plain(usize::MAX).bytes, u32::MAX);
    }

    #[test]
    fn a_class_is_one_digit() {
        let policy = Policy { priority_header: Some(HeaderName::from_static("x-class")), ..Policy::default() };
        for (value, class) in [("0", 0), ("9", 9), ("5", 5), ("10", 5), ("-1", 5), ("high", 5), ("", 5)] {
            assert_eq!(ask(&policy, &[("x-class", value)]).class, class, "{value:?}");
        }
        assert_eq!(ask(&policy, &[]).class, 5);
    }

    #[test]
    fn clients_are_told_apart_by_address_or_header() {
        let by_ip = Policy { fair_share: Some(FairShare::Ip), ..Policy::default() };
        let key = |ip: &str| Ask::of(Some(&by_ip), &HeaderMap::new(), ip.parse().unwrap(), 0).key;
        assert_eq!(key("10.0.0.1"), key("10.0.0.1"));
        assert_ne!(key("10.0.0.1"), key("10.0.0.2"));
        assert_eq!(key("10.0.0.1"), key("::ffff:10.0.0.1"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::2"), "one /64");
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        let by_header =
            Policy { fair_share: Some(FairShare::Header(HeaderName::from_static("x-tenant"))), ..Policy::default() };
        let key = |value| ask(&by_header, &[("x-tenant", value)]).key;
        assert_eq!(key("a"), key("a"));
        assert_ne!(key("a"), key("b"));
        assert_eq!(ask(&by_header, &[]).key, ask(&by_header, &[]).key);
    }

    #[test]
    fn a_session_is_known_by_its_header() {
        let policy = Policy {
            session_affinity: Some(SessionAffinity::Header(HeaderName::from_static("x-user"))),
            ..Policy::default()
        };
        let of = |value| ask(&policy, &[("x-user", value)]).affinity;
        assert!(of("a").is_some() && of("a") == of("a") && of("a") != of("b"));
        assert_eq!(ask(&policy, &[]), Ask::default());
    }

    #[test]
    fn a_session_without_its_cookie_gets_one_and_comes_back_with_it() {
        let policy = Policy { session_affinity: Some(SessionAffinity::Cookie("sid".to_owned())), ..Policy::default() };
        let first = ask(&policy, &[("cookie", "SID=1; sid2=2; sid=")]);
        let set = first.set_cookie(&policy, true).unwrap();
        let set = set.to_str().unwrap();
        let (pair, rest) = set.split_once("; ").unwrap();
        assert_eq!(rest, "Path=/; HttpOnly; SameSite=Lax; Secure");
        let mut back = HeaderMap::new();
        back.append(COOKIE, HeaderValue::from_static("other=1"));
        back.append(COOKIE, HeaderValue::try_from(format!("more=2; {pair};x=y")).unwrap());
        let second = Ask::of(Some(&policy), &back, CLIENT, 0);
        assert_eq!(second.affinity, first.affinity);
        assert_eq!(second.set_cookie(&policy, false), None);
        assert_eq!(first.set_cookie(&Policy::default(), false), None);
        assert_ne!(ask(&policy, &[]).affinity, ask(&policy, &[]).affinity, "every session its own");
    }
}
