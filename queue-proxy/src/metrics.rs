//! Metrics for the user, in Prometheus text on 9091 or pushed by [`telemetry::otlp`]; made only when `OBSERVABILITY_CONFIG`
//! asks.
//!
//! Names, units, bounds and labels are those of upstream's OpenTelemetry exporter. Label sets are bounded: methods and
//! versions are closed lists, route tags beyond [`labels::MAX_TAGS`] share one value, and no label comes from the Host header.
//! The names of upstream's earlier exporter are on the same page ([`old_names`]).
//!
//! Sizes of request bodies are recorded when the request names them; chunked ones are not measured.
//!
//! A request finds its series by a key of small numbers and adds to plain ones: the sidecar's one thread records them and
//! reads them, and the atomic ones of the registry get what was added when somebody wants to see them.

mod catalog;
mod labels;
mod old_names;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use http::{Method, StatusCode, Version};
use prometheus::local::LocalHistogram;
use prometheus::{Encoder, Gauge, HistogramOpts, HistogramVec, Registry, TextEncoder};
use proxy::headers::Headers;

use crate::config::Identity;
pub(crate) use catalog::CATALOG;
use labels::{Tag, Tags};
use old_names::OldNames;
use telemetry::labels::{MethodLabel, VersionLabel, route_tag};

/// Bounds of durations in seconds.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Bounds of sizes in bytes.
const BYTES: [f64; 15] =
    [0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0];
/// All handles.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    server_duration: HistogramVec,
    request_size: HistogramVec,
    response_size: HistogramVec,
    client_duration: HistogramVec,
    client_request_size: HistogramVec,
    invocation: HistogramVec,
    queue_depth: Gauge,
    old_names: Option<OldNames>,
    resolved: RefCell<BTreeMap<Labels, Series>>,
    tags: RefCell<Tags>,
}

/// Mostly there are few, so that a search in their order is quicker than a hash of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    status: u16,
    tag: Tag,
    method: MethodLabel,
    version: VersionLabel,
    /// What the app gave, if it was asked.
    app: Option<Result<u16, &'static str>>,
}

#[derive(Debug)]
struct Series {
    server_duration: LocalHistogram,
    request_size: LocalHistogram,
    response_size: LocalHistogram,
    client: Option<(LocalHistogram, LocalHistogram)>,
    invocation: LocalHistogram,
    old: Option<old_names::Series>,
}

/// What of it all is wanted, and for which pod.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// Whose metrics.
    pub identity: &'a Identity,
    /// Where the app listens.
    pub user_port: u16,
    /// Today's names and the old ones, or today's only.
    pub old_names: bool,
}

/// What is known of a request when it arrives.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    method: MethodLabel,
    version: VersionLabel,
    tag: Tag,
    body: Option<u64>,
}

/// What the app gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Its status, or a word for why there is none.
    pub status: Result<StatusCode, &'static str>,
    /// From the first byte sent to the response head.
    pub after: Duration,
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
    /// What the app gave; `None` if it was never asked or the client left before.
    pub answer: Option<Answer>,
}

impl Metrics {
    /// Registers everything for a pod.
    pub fn new(settings: &Settings<'_>) -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(None, Some(resource_labels(settings.identity)))?;
        let server_labels =
            ["http_request_method", "http_response_status_code", "network_protocol_version", "kn_route_tag"];
        let client_labels = [
            "http_request_method",
            "http_response_status_code",
            "error_type",
            "network_protocol_version",
            "kn_route_tag",
        ];
        let vec = |name: &str, help: &str, bounds: &[f64], labels: &[&str]| {
            let mut options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
            if name.starts_with("http_") {
                options = options.const_label("network_protocol_name", "http").const_label("url_scheme", "http");
            }
            if name.starts_with("http_client_") {
                let port = settings.user_port.to_string();
                options = options.const_label("server_address", "127.0.0.1").const_label("server_port", port);
            }
            HistogramVec::new(options, labels)
        };
        let server_duration = vec(
            "http_server_request_duration_seconds",
            "Duration of requests to the sidecar.",
            &SECONDS,
            &server_labels,
        )?;
        let response_size =
            vec("http_server_response_body_size_bytes", "Size of response bodies.", &BYTES, &server_labels)?;
        let request_size =
            vec("http_server_request_body_size_bytes", "Size of request bodies.", &BYTES, &server_labels)?;
        let client_duration = vec(
            "http_client_request_duration_seconds",
            "Duration of requests to the app, up to the response head.",
            &SECONDS,
            &client_labels,
        )?;
        let client_request_size =
            vec("http_client_request_body_size_bytes", "Size of request bodies to the app.", &BYTES, &client_labels)?;
        let invocation = vec(
            "kn_serving_invocation_duration_seconds",
            "Duration of requests to the user container.",
            &SECONDS,
            &["http_response_status_code"],
        )?;
        let queue_depth = Gauge::new("kn_serving_queue_depth", "Requests running and waiting at this pod.")?;
        for histogram in
            [&server_duration, &request_size, &response_size, &client_duration, &client_request_size, &invocation]
        {
            registry.register(Box::new(histogram.clone()))?;
        }
        registry.register(Box::new(queue_depth.clone()))?;
        Ok(Self {
            registry,
            server_duration,
            request_size,
            response_size,
            client_duration,
            client_request_size,
            invocation,
            queue_depth,
            old_names: settings.old_names.then(|| OldNames::new(settings.identity)).transpose()?,
            resolved: RefCell::default(),
            tags: RefCell::default(),
        })
    }

    /// Notes what the labels need from a request. `body`: its size, if it is known.
    pub fn arrive(&self, method: &Method, version: Version, headers: Headers<'_>, body: Option<u64>) -> Arrival {
        let tag = self.tags.borrow_mut().tag(route_tag(headers));
        Arrival { method: MethodLabel::of(method), version: VersionLabel::of(version), tag, body }
    }

    /// Records a request that is over.
    pub fn record(&self, arrival: Arrival, outcome: &Outcome) {
        let Arrival { method, version, tag, body } = arrival;
        let app = outcome.answer.map(|answer| answer.status.map(|status| status.as_u16()));
        let labels = Labels { method, status: outcome.status.as_u16(), version, tag, app };
        let mut resolved = self.resolved.borrow_mut();
        let series = resolved.entry(labels).or_insert_with_key(|labels| self.resolve(labels));
        series.server_duration.observe(outcome.total.as_secs_f64());
        series.response_size.observe(outcome.bytes as f64);
        if let Some(body) = body {
            series.request_size.observe(body as f64);
        }
        if let (Some((duration, size)), Some(answer)) = (&series.client, outcome.answer) {
            duration.observe(answer.after.as_secs_f64());
            if let Some(body) = body {
                size.observe(body as f64);
            }
        }
        if let Some(invocation) = outcome.invocation {
            series.invocation.observe(invocation.as_secs_f64());
        }
        if let Some(old) = &series.old {
            old.record(outcome);
        }
    }

    /// Running and waiting now.
    pub fn queue_depth(&self, depth: usize) {
        self.queue_depth.set(depth as f64);
        if let Some(old) = &self.old_names {
            old.queue_depth(depth as f64);
        }
    }

    /// Today's metrics as they are now, for the push.
    pub(crate) fn families(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.flush();
        self.registry.gather()
    }

    /// The page.
    pub fn text(&self) -> Vec<u8> {
        self.flush();
        let mut page = Vec::new();
        let old = self.old_names.as_ref().map(|old| &old.registry);
        for registry in [Some(&self.registry), old].into_iter().flatten() {
            if let Err(error) = TextEncoder::new().encode(&registry.gather(), &mut page) {
                tracing::warn!(%error, "metrics page");
            }
        }
        page
    }

    /// Hands what was added to the registries.
    fn flush(&self) {
        self.resolved.borrow().values().for_each(Series::flush);
    }

    fn resolve(&self, labels: &Labels) -> Series {
        let tags = self.tags.borrow();
        let (method, version, tag) = (labels.method.name(), labels.version.name(), tags.name(labels.tag));
        let status = labels.status.to_string();
        let values = [method, &status, version, tag];
        let of = |vec: &HistogramVec, values: &[&str]| vec.with_label_values(values).local();
        let client = labels.app.map(|app| {
            let (app_status, error) = match app {
                Ok(status) => (status.to_string(), ""),
                Err(error) => (String::new(), error),
            };
            let values = [method, &app_status, error, version, tag];
            (of(&self.client_duration, &values), of(&self.client_request_size, &values))
        });
        Series {
            server_duration: of(&self.server_duration, &values),
            request_size: of(&self.request_size, &values),
            client,
            old: self.old_names.as_ref().map(|old| old.resolve(labels.status, tag)),
            response_size: of(&self.response_size, &values),
            invocation: of(&self.invocation, &[status.as_str()]),
        }
    }
}

impl Series {
    fn flush(&self) {
        let client = self.client.iter().flat_map(|(duration, size)| [duration, size]);
        let server = [&self.server_duration, &self.request_size, &self.response_size, &self.invocation];
        client.chain(server).for_each(LocalHistogram::flush);
        if let Some(old) = &self.old {
            old.flush();
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use http::HeaderValue;

    fn metrics(identity: &Identity) -> Metrics {
        Metrics::new(&Settings { identity, user_port: 8080, old_names: true }).unwrap()
    }

    #[test]
    fn tags_and_methods_from_clients_cannot_grow_the_page() {
        let metrics = metrics(&Identity::default());
        let outcome = Outcome {
            status: StatusCode::OK,
            bytes: 5,
            total: Duration::from_millis(3),
            invocation: None,
            answer: None,
        };
        for n in 0..1000 {
            let mut headers = HeaderMap::new();
            headers.insert(
                api::headers::SERVING_TAG,
                HeaderValue::try_from(format!("{}tag{n}", ["", "kn:"][n % 2])).unwrap(),
            );
            let method = Method::from_bytes(format!("M{n}").as_bytes()).unwrap();
            metrics.record(metrics.arrive(&method, Version::HTTP_11, (&headers).into(), None), &outcome);
        }
        assert_eq!(metrics.resolved.borrow().len(), usize::from(labels::MAX_TAGS) + 1);
    }

    #[test]
    fn a_request_of_a_second_falls_into_its_bucket() {
        let metrics = metrics(&Identity { revision: "rev".into(), ..Identity::default() });
        let second = Duration::from_secs(1);
        let answer = Answer { status: Ok(StatusCode::OK), after: Duration::from_millis(600) };
        let outcome =
            Outcome { status: StatusCode::OK, bytes: 5, total: second, invocation: Some(second), answer: Some(answer) };
        metrics.record(metrics.arrive(&Method::GET, Version::HTTP_11, (&HeaderMap::new()).into(), Some(7)), &outcome);
        let refused = Answer { status: Err("connect"), after: Duration::ZERO };
        let outcome = Outcome { status: StatusCode::BAD_GATEWAY, answer: Some(refused), ..outcome };
        metrics.record(metrics.arrive(&Method::GET, Version::HTTP_11, (&HeaderMap::new()).into(), None), &outcome);
        let page = String::from_utf8(metrics.text()).unwrap();
        let has = |name: &str, labels: &[&str], value: &str| {
            let found = page.lines().any(|line| {
                let rest = line.strip_prefix(name).filter(|rest| rest.starts_with('{'));
                rest.is_some_and(|rest| labels.iter().all(|label| rest.contains(label)) && rest.ends_with(value))
            });
            assert!(found, "{name} {labels:?} {value}: {page}");
        };
        let ok = "http_response_status_code=\"200\"";
        has("http_client_request_duration_seconds_bucket", &[ok, "le=\"0.75\"", "server_port=\"8080\""], " 1");
        has("http_client_request_duration_seconds_bucket", &[ok, "le=\"0.5\""], " 0");
        has("http_client_request_duration_seconds_count", &["error_type=\"connect\""], " 1");
        has("http_server_request_body_size_bytes_sum", &[ok], " 7");
        has("revision_request_count", &["response_code=\"502\"", "code_class=\"5xx\"", "tag=\"DISABLED\""], " 1");
        has("revision_app_request_latencies_bucket", &["response_code=\"200\"", "le=\"1000\""], " 1");
        has("revision_app_request_latencies_bucket", &["response_code=\"200\"", "le=\"900\""], " 0");
        has("revision_queue_depth", &["container_name=\"queue-proxy\"", "revision_name=\"rev\""], " 0");
        let line =
            "kn_serving_invocation_duration_seconds_bucket{http_response_status_code=\"200\",kn_revision_name=\"rev\"";
        assert!(page.contains(&format!("{line},le=\"1\"}} 1")), "{page}");
        assert!(page.contains(&format!("{line},le=\"0.75\"}} 0")), "{page}");
    }
}
