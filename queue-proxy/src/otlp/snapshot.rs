//! The user's metrics as OTLP: the same series that the Prometheus page shows, under OpenTelemetry's names and units.
//! Pure.

use prometheus::proto::{LabelPair, Metric as Series, MetricFamily, MetricType};

use super::exporter::scope;
use super::messages::{CUMULATIVE, Data, Distribution, Gauge, Histogram, KeyValue, Metric, Number, ScopeMetrics};
use super::resource::{SCOPE, UPSTREAM_SCOPE};

/// Prometheus name, OpenTelemetry name, unit.
const NAMES: [(&str, &str, &str); 7] = [
    ("http_server_request_duration_seconds", "http.server.request.duration", "s"),
    ("http_server_request_body_size_bytes", "http.server.request.body.size", "By"),
    ("http_server_response_body_size_bytes", "http.server.response.body.size", "By"),
    ("http_client_request_duration_seconds", "http.client.request.duration", "s"),
    ("http_client_request_body_size_bytes", "http.client.request.body.size", "By"),
    ("kn_serving_invocation_duration_seconds", "kn.serving.invocation.duration", "s"),
    ("kn_serving_queue_depth", "kn.serving.queue.depth", "{request}"),
];

/// Prometheus label, OpenTelemetry attribute, whether it is a number. Labels that are not here name the pod, which is
/// the resource's part.
const LABELS: [(&str, &str, bool); 9] = [
    ("http_request_method", "http.request.method", false),
    ("http_response_status_code", "http.response.status_code", true),
    ("error_type", "error.type", false),
    ("network_protocol_name", "network.protocol.name", false),
    ("network_protocol_version", "network.protocol.version", false),
    ("url_scheme", "url.scheme", false),
    ("server_address", "server.address", false),
    ("server_port", "server.port", true),
    ("kn_route_tag", "kn.route.tag", false),
];

/// All metrics at a time. Both times are Unix nanoseconds.
pub(super) fn scopes(families: &[MetricFamily], started: u64, now: u64) -> Vec<ScopeMetrics> {
    let (mut own, mut http) = (Vec::new(), Vec::new());
    for family in families {
        let known = NAMES.iter().find(|(prometheus, ..)| *prometheus == family.name());
        let Some((_, name, unit)) = known else { continue };
        let series = family.get_metric().iter();
        let data = match family.get_field_type() {
            MetricType::GAUGE => Data::Gauge(Gauge { data_points: series.map(|series| number(series, now)).collect() }),
            MetricType::HISTOGRAM => Data::Histogram(Histogram {
                data_points: series.map(|series| distribution(series, started, now)).collect(),
                aggregation_temporality: CUMULATIVE,
            }),
            _ => continue,
        };
        let metric =
            Metric { name: (*name).into(), description: family.help().into(), unit: (*unit).into(), data: Some(data) };
        if name.starts_with("kn.") { own.push(metric) } else { http.push(metric) }
    }
    [(SCOPE, http), (UPSTREAM_SCOPE, own)]
        .into_iter()
        .filter(|(_, metrics)| !metrics.is_empty())
        .map(|(name, metrics)| ScopeMetrics { scope: Some(scope(name)), metrics })
        .collect()
}

/// How many data points there are.
pub(super) fn points(scopes: &[ScopeMetrics]) -> u64 {
    let metrics = scopes.iter().flat_map(|scope| &scope.metrics);
    let points = metrics.map(|metric| match &metric.data {
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        None => 0,
    });
    points.sum::<usize>() as u64
}

fn number(series: &Series, now: u64) -> Number {
    Number {
        time_unix_nano: now,
        as_double: Some(series.get_gauge().get_value()),
        attributes: attributes(series.get_label()),
    }
}

fn distribution(series: &Series, started: u64, now: u64) -> Distribution {
    let histogram = series.get_histogram();
    let (mut bounds, mut counts, mut below) = (Vec::new(), Vec::new(), 0);
    for bucket in histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite()) {
        bounds.push(bucket.upper_bound());
        counts.push(bucket.cumulative_count().saturating_sub(below));
        below = bucket.cumulative_count();
    }
    let count = histogram.get_sample_count();
    counts.push(count.saturating_sub(below));
    Distribution {
        start_time_unix_nano: started,
        time_unix_nano: now,
        count,
        sum: Some(histogram.get_sample_sum()),
        bucket_counts: counts,
        explicit_bounds: bounds,
        attributes: attributes(series.get_label()),
    }
}

fn attributes(labels: &[LabelPair]) -> Vec<KeyValue> {
    let attribute = |label: &LabelPair| {
        let (_, name, number) = LABELS.iter().find(|(prometheus, ..)| *prometheus == label.name())?;
        match (label.value(), number) {
            ("", _) => None,
            (value, true) => value.parse::<i64>().ok().map(|value| KeyValue::int(name, value)),
            (value, false) => Some(KeyValue::text(name, value)),
        }
    };
    labels.iter().filter_map(attribute).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Identity;
    use crate::metrics::{Answer, Metrics, Outcome, Settings};
    use http::{HeaderMap, Method, StatusCode, Version};
    use std::time::Duration;

    #[test]
    fn every_series_of_the_page_is_there() {
        let identity = Identity { revision: "rev".into(), ..Identity::default() };
        let metrics = Metrics::new(&Settings { identity: &identity, user_port: 8080, old_names: false }).unwrap();
        let second = Duration::from_secs(1);
        let outcome = |status, answer| Outcome {
            status,
            bytes: 3,
            total: second,
            invocation: Some(second),
            answer: Some(Answer { status: answer, after: Duration::from_secs(20) }),
        };
        for outcome in [outcome(StatusCode::OK, Ok(StatusCode::OK)), outcome(StatusCode::BAD_GATEWAY, Err("connect"))] {
            metrics.record(metrics.arrive(&Method::GET, Version::HTTP_11, &HeaderMap::new(), Some(7)), &outcome);
        }
        metrics.queue_depth(2);
        let families = metrics.families();
        let scopes = scopes(&families, 1, 2);
        let all: Vec<_> = scopes.iter().flat_map(|scope| &scope.metrics).collect();
        assert_eq!(all.len(), families.len(), "a metric has no OpenTelemetry name");
        let labels = families.iter().flat_map(MetricFamily::get_metric).flat_map(Series::get_label);
        let unknown: Vec<_> = labels
            .map(LabelPair::name)
            .filter(|name| *name != "kn_revision_name" && !LABELS.iter().any(|(known, ..)| known == name))
            .collect();
        assert!(unknown.is_empty(), "labels without an OpenTelemetry name: {unknown:?}");
        assert_eq!(scopes.iter().map(|scope| scope.metrics.len()).collect::<Vec<_>>(), [5, 2]);
        assert_eq!(points(&scopes), 2 * 6 + 1);

        let find = |name: &str| all.iter().find(|metric| metric.name == name).unwrap();
        let Some(Data::Histogram(duration)) = &find("http.client.request.duration").data else { panic!() };
        assert_eq!(duration.aggregation_temporality, CUMULATIVE);
        let status = KeyValue::int("http.response.status_code", 200);
        let ok = duration.data_points.iter().find(|point| point.attributes.contains(&status)).unwrap();
        assert_eq!((ok.count, ok.bucket_counts.len(), ok.explicit_bounds.len()), (1, 15, 14));
        assert_eq!(ok.bucket_counts.last(), Some(&1), "above the last bound");
        assert_eq!((ok.sum, ok.start_time_unix_nano, ok.time_unix_nano), (Some(20.0), 1, 2));
        assert!(ok.attributes.contains(&KeyValue::int("server.port", 8080)));
        assert!(!ok.attributes.iter().any(|attribute| attribute.key == "error.type"), "empty is left out");
        let Some(Data::Gauge(depth)) = &find("kn.serving.queue.depth").data else { panic!() };
        assert_eq!(depth.data_points[0].as_double, Some(2.0));
        assert!(depth.data_points[0].attributes.is_empty(), "the pod is the resource");
    }
}
