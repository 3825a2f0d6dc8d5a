//! Load reports on the wire (upstream `pkg/autoscaler/metrics/stat.proto`, proto3, package `metrics`).
//!
//! queue-proxy serves one [`Stat`] on :9090; the activator sends [`WireStatMessages`] as binary websocket frames.

/// One report of one pod (or activator) about one revision.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stat {
    /// Pod that reports, or the activator's pod name.
    #[prost(string, tag = "1")]
    pub pod_name: String,
    /// Time-weighted average of requests in flight over the last window.
    #[prost(double, tag = "2")]
    pub average_concurrent_requests: f64,
    /// The part of it that came through an activator.
    #[prost(double, tag = "3")]
    pub average_proxied_concurrent_requests: f64,
    /// Requests that arrived, per second.
    #[prost(double, tag = "4")]
    pub request_count: f64,
    /// The part of them that came through an activator.
    #[prost(double, tag = "5")]
    pub proxied_request_count: f64,
    /// Seconds since the process started.
    #[prost(double, tag = "6")]
    pub process_uptime: f64,
    /// Unix seconds; 0 = the receiver stamps it.
    #[prost(int64, tag = "7")]
    pub timestamp: i64,
}

/// A [`Stat`] with the revision it is about.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WireStatMessage {
    /// Namespace of the revision.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Name of the revision.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Absent: the message is skipped.
    #[prost(message, optional, tag = "3")]
    pub stat: Option<Stat>,
}

/// One websocket frame.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WireStatMessages {
    /// The messages, in order.
    #[prost(message, repeated, tag = "1")]
    pub messages: Vec<WireStatMessage>,
}

impl Stat {
    /// What did not come through an activator, which reports its part itself: requests in flight, and requests per
    /// second. This is what a pod adds to its revision's load.
    pub fn direct(&self) -> (f64, f64) {
        (
            self.average_concurrent_requests - self.average_proxied_concurrent_requests,
            self.request_count - self.proxied_request_count,
        )
    }
}

/// The exact Content-Type of a [`Stat`] over HTTP; the reader compares without parameters.
pub const CONTENT_TYPE: &str = "application/protobuf";

/// Stats that a pod sends by itself, over a connection that the reader opened: a `GET` of the same page with this header
/// is answered with a body that does not end. It holds [`Stat`]s, each after its length as a varint: one at once, one
/// whenever what the pod has to say changed, and one after [`HEARTBEAT`] of silence. Upstream's queue-proxy, which knows
/// nothing of it, answers once.
pub const STREAM: &str = "dormouse-stats";

/// Content-Type of such a body.
pub const STREAM_CONTENT_TYPE: &str = "application/vnd.dormouse.stats+protobuf";

/// Longest silence of a pod that sends by itself.
pub const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(15);

/// The most bytes a reader takes of a scraped [`Stat`]: six numbers of 10, a pod name of 256, and slack.
pub const MAX_SCRAPE_BYTES: usize = 6 * 10 + 256 + 20;

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn stat_matches_upstream_vector() {
        let stat = Stat {
            pod_name: "pod1".into(),
            average_concurrent_requests: 1.5,
            average_proxied_concurrent_requests: 0.5,
            request_count: 2.0,
            proxied_request_count: 1.0,
            process_uptime: 5.0,
            timestamp: 0,
        };
        assert_eq!(
            hex(&stat.encode_to_vec()),
            "0a04706f643111000000000000f83f19000000000000e03f21000000000000004029000000000000f03f310000000000001440"
        );
    }

    #[test]
    fn frame_matches_upstream_vector() {
        let frame = WireStatMessages {
            messages: vec![WireStatMessage {
                namespace: "ns".into(),
                name: "rev".into(),
                stat: Some(Stat {
                    pod_name: "act-1".into(),
                    average_concurrent_requests: 1.0,
                    request_count: 1.0,
                    ..Default::default()
                }),
            }],
        };
        assert_eq!(
            hex(&frame.encode_to_vec()),
            "0a240a026e7312037265761a190a056163742d3111000000000000f03f21000000000000f03f"
        );
    }

    #[test]
    fn what_activators_report_is_not_a_pods_own() {
        let stat = Stat {
            average_concurrent_requests: 5.0,
            average_proxied_concurrent_requests: 3.0,
            request_count: 40.0,
            proxied_request_count: 10.0,
            ..Stat::default()
        };
        assert_eq!(stat.direct(), (2.0, 30.0));
    }

    #[test]
    fn a_fresh_pod_sends_only_its_name() {
        assert_eq!(hex(&Stat { pod_name: "p".into(), ..Default::default() }.encode_to_vec()), "0a0170");
    }
}
