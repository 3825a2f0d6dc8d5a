//! The activator's metrics in OpenTelemetry's names, for the push.

use telemetry::otlp::snapshot::{Catalog, Label, Name};
use telemetry::process;

use crate::traces::{SCOPE, UPSTREAM_SCOPE};

/// See the module.
pub static CATALOG: Catalog = Catalog {
    names: &[
        Name::new("kn_revision_request_concurrency", "kn.revision.request.concurrency", "{request}"),
        Name::up_down("kn_revision_request_queued", "kn.revision.request.queued", "{request}"),
        Name::up_down("kn_revision_request_active", "kn.revision.request.active", "{request}"),
        Name::new("kn_activator_stats_conn_reachable", "kn.activator.stats.conn.reachable", "{reachable}"),
        Name::new("kn_activator_stats_conn_errors_total", "kn.activator.stats.conn.errors", "{error}"),
        Name::new("http_server_request_duration_seconds", "http.server.request.duration", "s"),
        Name::new("http_server_request_body_size_bytes", "http.server.request.body.size", "By"),
        Name::new("http_server_response_body_size_bytes", "http.server.response.body.size", "By"),
        Name::new("http_client_request_duration_seconds", "http.client.request.duration", "s"),
        Name::new("http_client_request_body_size_bytes", "http.client.request.body.size", "By"),
        Name::new("dormouse_activator_wake_seconds", "dormouse.activator.wake", "s"),
        Name::new("dormouse_activator_faults_total", "dormouse.activator.faults", "{response}"),
        Name::new("dormouse_activator_retries_total", "dormouse.activator.retries", "{request}"),
        Name::new("dormouse_activator_queue_full_total", "dormouse.activator.queue_full", "{request}"),
        Name::new("dormouse_activator_pods_set_aside_total", "dormouse.activator.pods_set_aside", "{pod}"),
        Name::up_down("dormouse_activator_hosts", "dormouse.activator.hosts", "{host}"),
        Name::up_down("dormouse_activator_revisions", "dormouse.activator.revisions", "{revision}"),
        process::NAMES[0],
        process::NAMES[1],
        process::NAMES[2],
        process::NAMES[3],
        process::NAMES[4],
    ],
    labels: &[
        Label::text("k8s_namespace_name", "k8s.namespace.name"),
        Label::text("kn_service_name", "kn.service.name"),
        Label::text("kn_configuration_name", "kn.configuration.name"),
        Label::text("kn_revision_name", "kn.revision.name"),
        Label::text("http_request_method", "http.request.method"),
        Label::number("http_response_status_code", "http.response.status_code"),
        Label::text("error_type", "error.type"),
        Label::text("network_protocol_name", "network.protocol.name"),
        Label::text("network_protocol_version", "network.protocol.version"),
        Label::text("url_scheme", "url.scheme"),
        Label::text("otel_metric_overflow", "otel.metric.overflow"),
        Label::text("peer", "peer"),
        Label::text("phase", "phase"),
        Label::text("reason", "reason"),
    ],
    http_scope: SCOPE,
    own_scope: UPSTREAM_SCOPE,
};
