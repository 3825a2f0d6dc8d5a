//! Who holds a lease: `POD_NAME_POD_IP`, as upstream writes it, so that both can read each other's. And the bucket of a
//! StatefulSet's pod, which needs no lease.

use std::{fmt, net::IpAddr, str::FromStr};

/// A holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its pod.
    pub pod: String,
    /// Where it listens.
    pub ip: IpAddr,
}

/// A text that names no holder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no holder: want POD-NAME_IP")]
pub struct Error(String);

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.pod, self.ip)
    }
}

impl FromStr for Identity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = text.rsplit_once('_').filter(|(pod, _)| !pod.is_empty());
        let ip = parts.and_then(|(_, ip)| ip.parse().ok());
        match (parts, ip) {
            (Some((pod, _)), Some(ip)) => Ok(Self { pod: pod.to_owned(), ip }),
            _ => Err(Error(text.to_owned())),
        }
    }
}

/// A StatefulSet whose pods own a bucket each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatefulSet {
    /// The pod's number.
    pub ordinal: u8,
    /// The headless Service.
    pub service: String,
    /// Port in the addresses of buckets.
    pub port: u16,
    /// Scheme in them; reports flow with `ws` only.
    pub protocol: String,
}

impl StatefulSet {
    /// Addresses of all buckets: `PROTOCOL://SET-I.SERVICE.NAMESPACE.svc.DOMAIN:PORT`. They are the buckets' names.
    pub fn buckets(&self, pod: &str, namespace: &str, domain: &str, buckets: u32) -> Vec<String> {
        let set = pod.rsplit_once('-').map_or(pod, |(set, _)| set);
        let Self { service, port, protocol, .. } = self;
        (0..buckets).map(|i| format!("{protocol}://{set}-{i}.{service}.{namespace}.svc.{domain}:{port}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s69_holders() {
        let holder: Identity = "as_1.2.3.4".parse().unwrap();
        assert_eq!(holder, Identity { pod: "as".into(), ip: [1, 2, 3, 4].into() });
        assert_eq!(holder.to_string(), "as_1.2.3.4");
        assert!("as-0_fd00::1".parse::<Identity>().is_ok_and(|holder| holder.ip.is_ipv6()));
        for text in ["1.2.3.4", "", "_1.2.3.4", "as_", "as_elsewhere"] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_statefulsets_buckets_are_addresses() {
        let set = StatefulSet { ordinal: 1, service: "autoscaler".into(), port: 8080, protocol: "ws".into() };
        let buckets = set.buckets("as-1", "knative-serving", "cluster.local", 2);
        assert_eq!(buckets[0], "ws://as-0.autoscaler.knative-serving.svc.cluster.local:8080");
        assert_eq!(buckets[1], "ws://as-1.autoscaler.knative-serving.svc.cluster.local:8080");
    }
}
