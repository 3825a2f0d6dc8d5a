//! The user's metrics in OpenTelemetry's names, for the push.

use telemetry::otlp::snapshot::{Catalog, Label, Name};

use crate::traces::{SCOPE, UPSTREAM_SCOPE};

/// See the module. Labels that are not here name the pod, which is the resource's part.
pub(crate) static CATALOG: Catalog = Catalog {
    names: &[
        Name::new("http_server_request_duration_seconds", "http.server.request.duration", "s"),
        Name::new("http_server_request_body_size_bytes", "http.server.request.body.size", "By"),
        Name::new("http_server_response_body_size_bytes", "http.server.response.body.size", "By"),
        Name::new("http_client_request_duration_seconds", "http.client.request.duration", "s"),
        Name::new("http_client_request_body_size_bytes", "http.client.request.body.size", "By"),
        Name::new("kn_serving_invocation_duration_seconds", "kn.serving.invocation.duration", "s"),
        Name::new("kn_serving_queue_depth", "kn.serving.queue.depth", "{request}"),
    ],
    labels: &[
        Label::text("http_request_method", "http.request.method"),
        Label::number("http_response_status_code", "http.response.status_code"),
        Label::text("error_type", "error.type"),
        Label::text("network_protocol_name", "network.protocol.name"),
        Label::text("network_protocol_version", "network.protocol.version"),
        Label::text("url_scheme", "url.scheme"),
        Label::text("server_address", "server.address"),
        Label::number("server_port", "server.port"),
        Label::text("kn_route_tag", "kn.route.tag"),
    ],
    http_scope: SCOPE,
    own_scope: UPSTREAM_SCOPE,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Identity;
    use crate::metrics::{Answer, Metrics, Outcome, Settings};
    use http::{HeaderMap, Method, StatusCode, Version};
    use std::time::Duration;
    use telemetry::otlp::messages::{CUMULATIVE, Data, KeyValue};
    use telemetry::otlp::snapshot::scopes;

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
            metrics
                .record(metrics.arrive(&Method::GET, Version::HTTP_11, (&HeaderMap::new()).into(), Some(7)), &outcome);
        }
        metrics.queue_depth(2);
        let families = metrics.families();
        assert!(CATALOG.unknown(&families).iter().all(|label| *label == "kn_revision_name"), "without a name");
        let scopes = scopes(&CATALOG, &families, 1, 2);
        let all: Vec<_> = scopes.iter().flat_map(|scope| &scope.metrics).collect();
        assert_eq!(scopes.iter().map(|scope| scope.metrics.len()).collect::<Vec<_>>(), [5, 2]);

        let find = |name: &str| all.iter().find(|metric| metric.name == name).unwrap();
        let Some(Data::Histogram(duration)) = &find("http.client.request.duration").data else { panic!() };
        assert_eq!(duration.aggregation_temporality, CUMULATIVE);
        let status = KeyValue::int("http.response.status_code", 200);
        let ok = duration.data_points.iter().find(|point| point.attributes.contains(&status)).unwrap();
        assert_eq!((ok.count, ok.bucket_counts.len(), ok.explicit_bounds.len()), (1, 15, 14));
        assert_eq!(ok.bucket_counts.last(), Some(&1), "above the last bound");
        assert!(ok.attributes.contains(&KeyValue::int("server.port", 8080)));
        assert!(!ok.attributes.iter().any(|attribute| attribute.key == "error.type"), "empty is left out");
        let Some(Data::Gauge(depth)) = &find("kn.serving.queue.depth").data else { panic!() };
        assert_eq!(depth.data_points[0].as_double, Some(2.0));
        assert!(depth.data_points[0].attributes.is_empty(), "the pod is the resource");
    }
}
