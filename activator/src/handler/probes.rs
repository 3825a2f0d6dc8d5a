//! Probes: asked about us, not about a revision. Recognised before anything is counted. Pure.

use api::headers::{KUBELET_PROBE, NETWORK_HASH, NETWORK_PROBE};
use api::probe::{ACTIVATOR, KUBELET_USER_AGENT, PROBE};
use http::header::{HeaderName, USER_AGENT};
use proxy::headers::{Headers, Present};

/// What kind of probe a request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe<'a> {
    /// The kubelet: are we well?
    Kubelet,
    /// Which version of its configuration do we serve? Carries the hash asked about.
    Network(&'a [u8]),
    /// The autoscaler: is an activator in the path?
    Activator,
    /// No probe we know; carries the answer's text.
    Wrong(String),
}

/// Recognises a probe. `present`: what is among the headers.
pub fn classify(headers: Headers<'_>, present: Present) -> Option<Probe<'_>> {
    const SIGNS: Present = Present::USER_AGENT.and(Present::NETWORK_PROBE).and(Present::KUBELET_PROBE);
    if !present.any(SIGNS) {
        return None;
    }
    let filled = |name: &HeaderName| headers.get(name).filter(|value| !value.is_empty());
    let kubelet = headers.get(&USER_AGENT).is_some_and(|agent| agent.starts_with(KUBELET_USER_AGENT.as_bytes()));
    if kubelet || (present.any(Present::KUBELET_PROBE) && filled(&KUBELET_PROBE).is_some()) {
        return Some(Probe::Kubelet);
    }
    if !present.any(Present::NETWORK_PROBE) {
        return None;
    }
    let probe = filled(&NETWORK_PROBE)?;
    if probe == PROBE.as_bytes() {
        return Some(match filled(&NETWORK_HASH) {
            Some(hash) => Probe::Network(hash),
            None => Probe::Wrong(r#"a probe request must contain a non-empty "K-Network-Hash" header"#.to_owned()),
        });
    }
    if probe == ACTIVATOR.as_bytes() {
        return Some(Probe::Activator);
    }
    Some(Probe::Wrong(format!("unexpected probe header value: \"{}\"", escape(&String::from_utf8_lossy(probe)))))
}

/// As Go's `html.EscapeString`: the text may be shown by a browser.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\'' => escaped.push_str("&#39;"),
            '"' => escaped.push_str("&#34;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn t63_t64_probes_are_recognised() {
        let kind = |pairs: &[(&'static str, &'static str)]| {
            let headers = headers(pairs);
            classify((&headers).into(), Present::of(&headers)).map(|probe| match probe {
                Probe::Kubelet => "kubelet".to_owned(),
                Probe::Network(hash) => format!("hash {}", String::from_utf8_lossy(hash)),
                Probe::Activator => "activator".to_owned(),
                Probe::Wrong(text) => text,
            })
        };
        assert_eq!(kind(&[]), None);
        assert_eq!(kind(&[("k-network-probe", "")]), None);
        assert_eq!(kind(&[("user-agent", "kube-probe/1.34")]).unwrap(), "kubelet");
        assert_eq!(kind(&[("k-kubelet-probe", "x")]).unwrap(), "kubelet");
        assert_eq!(kind(&[("k-network-probe", "activator")]).unwrap(), "activator");
        assert_eq!(kind(&[("k-network-probe", "probe"), ("k-network-hash", "h")]).unwrap(), "hash h");
        assert_eq!(
            kind(&[("k-network-probe", "probe")]).unwrap(),
            r#"a probe request must contain a non-empty "K-Network-Hash" header"#
        );
        assert_eq!(kind(&[("k-network-probe", "<b>")]).unwrap(), r#"unexpected probe header value: "&lt;b&gt;""#);
    }
}
