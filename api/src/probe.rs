//! The probe protocol: who asks, with which words, and which answers count.
//!
//! A health check is recognised by its User-Agent; `K-Network-Probe` says which component should answer. Sources:
//! upstream `pkg/queue/health/handler.go`, `knative.dev/networking/pkg/http/header`.

use std::time::Duration;

/// User-Agent prefix of the kubelet.
pub const KUBELET_USER_AGENT: &str = "kube-probe/";
/// User-Agent of the activator's readiness probe.
pub const ACTIVATOR_USER_AGENT: &str = "Knative-Activator-Probe";
/// User-Agent of the autoscaler's scale-to-zero probe.
pub const AUTOSCALING_USER_AGENT: &str = "Knative-Autoscaling-Probe";
/// User-Agent of an ingress controller's probe.
pub const INGRESS_USER_AGENT: &str = "Knative-Ingress-Probe";

/// `K-Network-Probe` value answered by queue-proxy; also the body of the good answer.
pub const QUEUE: &str = "queue";
/// `K-Network-Probe` value answered by the activator; also the body of the good answer.
pub const ACTIVATOR: &str = "activator";
/// `K-Network-Probe` value answered by whatever is in front, with the hash echoed.
pub const PROBE: &str = "probe";
/// Path that probes use; nobody looks at it.
pub const PATH: &str = "/healthz";

/// The longest a queue-proxy holds a probe that asks for it with `Dormouse-Hold`.
pub const MAX_HOLD: Duration = Duration::from_secs(60);

/// Reads the value of `Dormouse-Hold` (whole milliseconds). Anything unreadable means "do not hold"; more than
/// [`MAX_HOLD`] is cut to it.
pub fn parse_hold(value: &[u8]) -> Option<Duration> {
    let ms: u64 = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
    (ms > 0).then(|| Duration::from_millis(ms).min(MAX_HOLD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hold_is_bounded_and_junk_means_no_hold() {
        assert_eq!(parse_hold(b"250"), Some(Duration::from_millis(250)));
        assert_eq!(parse_hold(b"99999999999"), Some(MAX_HOLD));
        for junk in [&b""[..], b"0", b"-1", b"1.5", b"abc", b"\xff"] {
            assert_eq!(parse_hold(junk), None, "{junk:?}");
        }
    }
}
