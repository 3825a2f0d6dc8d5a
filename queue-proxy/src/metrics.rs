//! Metrics for the user, in Prometheus text on 9091; made only when `OBSERVABILITY_CONFIG` asks.
//!
//! Names, units, bounds and labels are those of upstream's OpenTelemetry exporter. Label sets are bounded: methods and
//! versions are closed lists, route tags beyond [`MAX_TAGS`] share one value, and no label comes from the Host header.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, Version};
use prometheus::{Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, Registry, TextEncoder};

use crate::config::Identity;

/// Bounds of durations in seconds.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Bounds of sizes in bytes.
const BYTES: [f64; 15] =
    [0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0];
/// Route tags told apart.
const MAX_TAGS: usize = 100;

/// All handles.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    server_duration: HistogramVec,
    response_size: HistogramVec,
    invocation: HistogramVec,
    queue_depth: Gauge,
    resolved: RefCell<HashMap<Labels, Series>>,
    tags: RefCell<HashSet<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Labels {
    method: &'static str,
    status: u16,
    version: &'static str,
    tag: String,
}

#[derive(Debug, Clone)]
struct Series {
    server_duration: Histogram,
    response_size: Histogram,
    invocation: Histogram,
}

/// What is known of a request when it arrives.
#[derive(Debug, Clone)]
pub struct Arrival {
    method: &'static str,
    version: &'static str,
    tag: String,
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Status sent.
    pub status: StatusCode,
    /// Body bytes sent.
    pub bytes: u64,
    /// From arrival to the last byte.
    pub total: Duration,
    /// From the slot to the last byte; `None` if the app was never asked.
    pub invocation: Option<Duration>,
}

impl Metrics {
    /// Registers everything for a pod.
    pub fn new(identity: &Identity) -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(None, Some(resource_labels(identity)))?;
        let server_labels =
            ["http_request_method", "http_response_status_code", "network_protocol_version", "kn_route_tag"];
        let vec = |name: &str, help: &str, bounds: &[f64], labels: &[&str]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(bounds.to_vec()), labels)
        };
        let server_duration = vec(
            "http_server_request_duration_seconds",
            "Duration of requests to the sidecar.",
            &SECONDS,
            &server_labels,
        )?;
        let response_size =
            vec("http_server_response_body_size_bytes", "Size of response bodies.", &BYTES, &server_labels)?;
        let invocation = vec(
            "kn_serving_invocation_duration_seconds",
            "Duration of requests to the user container.",
            &SECONDS,
            &["http_response_status_code"],
        )?;
        let queue_depth = Gauge::new("kn_serving_queue_depth", "Requests running and waiting at this pod.")?;
        registry.register(Box::new(server_duration.clone()))?;
        registry.register(Box::new(response_size.clone()))?;
        registry.register(Box::new(invocation.clone()))?;
        registry.register(Box::new(queue_depth.clone()))?;
        Ok(Self {
            registry,
            server_duration,
            response_size,
            invocation,
            queue_depth,
            resolved: RefCell::default(),
            tags: RefCell::default(),
        })
    }

    /// Notes what the labels need from a request.
    pub fn arrive(&self, method: &Method, version: Version, headers: &HeaderMap) -> Arrival {
        Arrival { method: method_label(method), version: version_label(version), tag: self.bounded(route_tag(headers)) }
    }

    /// Records a request that is over.
    pub fn record(&self, arrival: Arrival, outcome: &Outcome) {
        let Arrival { method, version, tag } = arrival;
        let labels = Labels { method, status: outcome.status.as_u16(), version, tag };
        let mut resolved = self.resolved.borrow_mut();
        let series = resolved.entry(labels).or_insert_with_key(|labels| self.resolve(labels));
        series.server_duration.observe(outcome.total.as_secs_f64());
        series.response_size.observe(outcome.bytes as f64);
        if let Some(invocation) = outcome.invocation {
            series.invocation.observe(invocation.as_secs_f64());
        }
    }

    /// Running and waiting now.
    pub fn queue_depth(&self, depth: usize) {
        self.queue_depth.set(depth as f64);
    }

    /// The page.
    pub fn text(&self) -> Vec<u8> {
        let mut page = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut page) {
            tracing::warn!(%error, "metrics page");
        }
        page
    }

    fn resolve(&self, labels: &Labels) -> Series {
        let status = labels.status.to_string();
        let values = [labels.method, &status, labels.version, &labels.tag];
        Series {
            server_duration: self.server_duration.with_label_values(&values),
            response_size: self.response_size.with_label_values(&values),
            invocation: self.invocation.with_label_values(&[status.as_str()]),
        }
    }

    fn bounded(&self, tag: String) -> String {
        if tag.starts_with("kn:") {
            return tag;
        }
        let mut tags = self.tags.borrow_mut();
        if tags.contains(&tag) {
            return tag;
        }
        if tags.len() >= MAX_TAGS || tag.len() > 63 {
            return "kn:other".into();
        }
        tags.insert(tag.clone());
        tag
    }
}

fn resource_labels(identity: &Identity) -> HashMap<String, String> {
    [
        ("k8s_namespace_name", &identity.namespace),
        ("kn_service_name", &identity.service),
        ("kn_configuration_name", &identity.configuration),
        ("kn_revision_name", &identity.revision),
        ("k8s_pod_name", &identity.pod),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(name, value)| (name.to_string(), value.clone()))
    .collect()
}

/// The route a request took, from the headers that the ingress sets.
fn route_tag(headers: &HeaderMap) -> String {
    let get = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).unwrap_or_default();
    let tag = get(api::headers::SERVING_TAG);
    match (tag, get(api::headers::SERVING_DEFAULT_ROUTE)) {
        ("", "") => "kn:disabled".into(),
        ("", _) => "kn:default".into(),
        (_, "true") => "kn:undefined".into(),
        (tag, _) => tag.into(),
    }
}

fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "CONNECT" => "CONNECT",
        "OPTIONS" => "OPTIONS",
        "TRACE" => "TRACE",
        _ => "_OTHER",
    }
}

fn version_label(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn route_tags_follow_the_table() {
        for (tag, default_route, expected) in [
            ("", "", "kn:disabled"),
            ("", "true", "kn:default"),
            ("blue", "true", "kn:undefined"),
            ("blue", "", "blue"),
            ("blue", "false", "blue"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(api::headers::SERVING_TAG, HeaderValue::from_static(tag));
            headers.insert(api::headers::SERVING_DEFAULT_ROUTE, HeaderValue::from_static(default_route));
            assert_eq!(route_tag(&headers), expected);
        }
    }

    #[test]
    fn tags_and_methods_from_clients_cannot_grow_the_page() {
        let metrics = Metrics::new(&Identity::default()).unwrap();
        let outcome = Outcome { status: StatusCode::OK, bytes: 5, total: Duration::from_millis(3), invocation: None };
        for n in 0..1000 {
            let mut headers = HeaderMap::new();
            headers.insert(api::headers::SERVING_TAG, HeaderValue::try_from(format!("tag{n}")).unwrap());
            let method = Method::from_bytes(format!("M{n}").as_bytes()).unwrap();
            metrics.record(metrics.arrive(&method, Version::HTTP_11, &headers), &outcome);
        }
        assert_eq!(metrics.resolved.borrow().len(), MAX_TAGS + 1);
    }

    #[test]
    fn a_request_of_a_second_falls_into_its_bucket() {
        let metrics = Metrics::new(&Identity { revision: "rev".into(), ..Identity::default() }).unwrap();
        let second = Duration::from_secs(1);
        let outcome = Outcome { status: StatusCode::OK, bytes: 5, total: second, invocation: Some(second) };
        metrics.record(metrics.arrive(&Method::GET, Version::HTTP_11, &HeaderMap::new()), &outcome);
        let page = String::from_utf8(metrics.text()).unwrap();
        let line =
            "kn_serving_invocation_duration_seconds_bucket{http_response_status_code=\"200\",kn_revision_name=\"rev\"";
        assert!(page.contains(&format!("{line},le=\"1\"}} 1")), "{page}");
        assert!(page.contains(&format!("{line},le=\"0.75\"}} 0")), "{page}");
    }
}
