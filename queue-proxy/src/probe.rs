//! Who is a probe, and which one: the table of the contract as one pure function.

use std::time::Duration;

use api::headers as words;
use api::probe;
use http::header::{HeaderValue, USER_AGENT};
use proxy::headers::{Headers, Present};

/// What a request is, before anything else is known about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Kubelet, activator or autoscaler asks whether the app is ready.
    Readiness {
        /// How long the answer may be held back until it is good.
        hold: Option<Duration>,
    },
    /// A health check addressed to another component: refused with its value.
    Misdirected(String),
    /// An ingress controller asks whether its route ends here: the hash goes back.
    Network(HeaderValue),
    /// The same without a hash.
    NetworkWithoutHash,
    /// Old mark of a kubelet probe: straight to the app, past limits and counts.
    Bypass,
    /// A user's request that carries a stray probe header: counted and limited, but not in the user's metrics.
    Unmeasured,
    /// A user's request.
    Ordinary,
}

impl Kind {
    /// Whether the sidecar answers itself. Such requests do not keep a drain open.
    pub fn answered_here(&self) -> bool {
        matches!(self, Self::Readiness { .. } | Self::Misdirected(_) | Self::Network(_) | Self::NetworkWithoutHash)
    }
}

/// Classifies a request by its headers. Path and method never matter.
pub fn classify(headers: Headers<'_>, present: Present) -> Kind {
    const SIGNS: Present = Present::USER_AGENT.and(Present::NETWORK_PROBE).and(Present::KUBELET_PROBE);
    if !present.any(SIGNS) {
        return Kind::Ordinary;
    }
    let network_probe = present
        .any(Present::NETWORK_PROBE)
        .then(|| headers.get(&words::NETWORK_PROBE))
        .flatten()
        .filter(|value| !value.is_empty());
    if headers.get(&USER_AGENT).is_some_and(is_health_check) {
        let value = network_probe.unwrap_or_default();
        if value == probe::QUEUE.as_bytes() {
            let hold = headers.get(&words::HOLD).and_then(probe::parse_hold);
            return Kind::Readiness { hold };
        }
        return Kind::Misdirected(String::from_utf8_lossy(value).into_owned());
    }
    match network_probe {
        Some(value) if value == probe::PROBE.as_bytes() => {
            let hash = headers.get(&words::NETWORK_HASH).filter(|hash| !hash.is_empty());
            match hash.and_then(|hash| HeaderValue::from_bytes(hash).ok()) {
                Some(hash) => Kind::Network(hash),
                None => Kind::NetworkWithoutHash,
            }
        }
        other => {
            if present.any(Present::KUBELET_PROBE)
                && headers.get(&words::KUBELET_PROBE).is_some_and(|value| !value.is_empty())
            {
                Kind::Bypass
            } else if other.is_some() {
                Kind::Unmeasured
            } else {
                Kind::Ordinary
            }
        }
    }
}

fn is_health_check(agent: &[u8]) -> bool {
    [probe::KUBELET_USER_AGENT, probe::ACTIVATOR_USER_AGENT, probe::AUTOSCALING_USER_AGENT]
        .iter()
        .any(|prefix| agent.starts_with(prefix.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    #[test]
    fn table() {
        let hash = || HeaderValue::from_static("abc");
        let ready = || Kind::Readiness { hold: None };
        let misdirected = |value: &str| Kind::Misdirected(value.into());
        let table: &[(&[(&'static str, &'static str)], Kind)] = &[
            (&[("user-agent", "kube-probe/1.30"), ("k-network-probe", "queue")], ready()),
            (&[("user-agent", "Knative-Activator-Probe"), ("k-network-probe", "queue")], ready()),
            (&[("user-agent", "Knative-Autoscaling-Probe/2"), ("k-network-probe", "queue")], ready()),
            (
                &[("user-agent", "kube-probe/"), ("k-network-probe", "queue"), ("dormouse-hold", "250")],
                Kind::Readiness { hold: Some(Duration::from_millis(250)) },
            ),
            (&[("user-agent", "kube-probe/1.30")], misdirected("")),
            (&[("user-agent", "kube-probe/1"), ("k-network-probe", "test-probe")], misdirected("test-probe")),
            (
                &[("user-agent", "Knative-Autoscaling-Probe"), ("k-network-probe", "activator")],
                misdirected("activator"),
            ),
            (&[("k-network-probe", "probe"), ("k-network-hash", "abc")], Kind::Network(hash())),
            (
                &[("user-agent", "Knative-Ingress-Probe"), ("k-network-probe", "probe"), ("k-network-hash", "abc")],
                Kind::Network(hash()),
            ),
            (&[("k-network-probe", "probe")], Kind::NetworkWithoutHash),
            (&[("k-network-probe", "probe"), ("k-network-hash", "")], Kind::NetworkWithoutHash),
            (&[("k-network-probe", "queue")], Kind::Unmeasured),
            (&[("k-network-probe", "queue"), ("dormouse-hold", "250")], Kind::Unmeasured),
            (&[("k-network-probe", "")], Kind::Ordinary),
            (&[("k-kubelet-probe", "x")], Kind::Bypass),
            (&[("k-kubelet-probe", "")], Kind::Ordinary),
            (&[("k-network-hash", "abc")], Kind::Ordinary),
            (&[("user-agent", "kube-prober"), ("x", "y")], Kind::Ordinary),
            (&[("user-agent", "curl/8 kube-probe/1")], Kind::Ordinary),
            (&[], Kind::Ordinary),
        ];
        for (lines, expected) in table {
            let headers: HeaderMap = lines
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            assert_eq!(classify((&headers).into(), Present::of(&headers)), *expected, "{lines:?}");
        }
    }
}
