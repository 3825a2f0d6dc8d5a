use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::Empty;
use proxy::deadline::Limits;
use telemetry::otlp::messages::Data;
use telemetry::otlp::snapshot::scopes;

use super::*;
use crate::revision::Protocol;

fn metrics(old_names: bool) -> Metrics {
    Metrics::new(Wanted { threads: 2, requests: true, old_names, pod: "act-1".into() }).unwrap()
}

fn revision(metrics: &Metrics, name: &str) -> Arc<RevisionMetrics> {
    let settings = Settings {
        container_concurrency: 0,
        protocol: Protocol::Http1,
        limits: Limits::default(),
        trust_early_probe: true,
        policy: None,
        service: "hello".into(),
        configuration: "conf".into(),
    };
    metrics.revision(&RevisionKey::new("default", name), &settings)
}

fn measure(status: StatusCode, pod: Option<Result<StatusCode, &'static str>>) -> (Measure, Instant) {
    let start = Instant::now();
    let request = Request::get("/").body(Empty::<bytes::Bytes>::new()).unwrap();
    let mut measure = Measure::arrive(&request, false, start);
    if let Some(answer) = pod {
        measure.asks(start);
        measure.pod_answers(answer, start + Duration::from_millis(20));
    }
    measure.answers(status);
    measure.data(11);
    (measure, start + Duration::from_millis(30))
}

/// Everything that can be counted, once.
fn busy(metrics: &Metrics) -> Arc<RevisionMetrics> {
    let revision = revision(metrics, "hello-00001");
    let shard = Shard(1);
    let cells = revision.at(shard);
    cells.queued.up();
    cells.active.up();
    cells.set_aside.add(1);
    cells.queue_full.add(1);
    revision.concurrency(1.5);
    let (served, now) = measure(StatusCode::OK, Some(Ok(StatusCode::OK)));
    metrics.record(Shard(0), Some(&revision), &served, now);
    metrics.record(shard, Some(&revision), &served, now);
    let (failed, now) = measure(StatusCode::BAD_GATEWAY, Some(Err("connect")));
    metrics.record(shard, Some(&revision), &failed, now);
    let (lost, now) = measure(StatusCode::NOT_FOUND, None);
    metrics.record(shard, None, &lost, now);
    metrics.fault(shard, "unknown-revision");
    metrics.retry(shard, "unsent");
    metrics.woken(Phases { to_ready: Duration::from_millis(800), to_first_byte: Duration::from_millis(3) });
    metrics.autoscaler_reachable.set(1);
    revision
}

/// The value of the one series of a name with some labels.
fn value(text: &str, name: &str, labels: &[&str]) -> f64 {
    let mut found = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let of_name = series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        (of_name && labels.iter().all(|label| series.contains(label))).then(|| value.parse().unwrap())
    });
    let value = found.next().unwrap_or_else(|| panic!("{name} {labels:?} is not in\n{text}"));
    assert_eq!(found.next(), None, "{name} {labels:?} is there twice");
    value
}

/// Names and kinds of the sheet, section 17, and ours; nothing else.
#[test]
fn the_page_has_the_names_of_the_contract() {
    let metrics = metrics(true);
    let _revision = busy(&metrics);
    let text = metrics.text().unwrap();
    let mut kinds: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    kinds.sort_unstable();
    let mut expected = vec![
        "kn_revision_request_concurrency gauge",
        "kn_revision_request_queued gauge",
        "kn_revision_request_active gauge",
        "kn_activator_stats_conn_reachable gauge",
        "kn_activator_stats_conn_errors_total counter",
        "http_server_request_duration_seconds histogram",
        "http_server_request_body_size_bytes histogram",
        "http_server_response_body_size_bytes histogram",
        "http_client_request_duration_seconds histogram",
        "http_client_request_body_size_bytes histogram",
        "activator_request_concurrency gauge",
        "activator_request_count counter",
        "activator_request_latencies histogram",
        "dormouse_activator_wake_seconds histogram",
        "dormouse_activator_faults_total counter",
        "dormouse_activator_retries_total counter",
        "dormouse_activator_queue_full_total counter",
        "dormouse_activator_pods_set_aside_total counter",
        "dormouse_activator_hosts gauge",
        "dormouse_activator_revisions gauge",
        "process_cpu_seconds_total counter",
        "process_resident_memory_bytes gauge",
        "process_open_fds gauge",
        "process_threads gauge",
        "process_start_time_seconds gauge",
    ];
    expected.sort_unstable();
    assert_eq!(kinds, expected);
}

#[test]
fn series_have_the_labels_and_bounds_of_the_contract() {
    let metrics = metrics(true);
    let _revision = busy(&metrics);
    let text = metrics.text().unwrap();
    let two = r#"{k8s_namespace_name="default",kn_revision_name="hello-00001"} "#;
    for line in [
        format!("kn_revision_request_queued{two}1"),
        format!("kn_revision_request_active{two}1"),
        format!("dormouse_activator_queue_full_total{two}1"),
        concat!(
            r#"kn_revision_request_concurrency{k8s_namespace_name="default",kn_configuration_name="conf","#,
            r#"kn_revision_name="hello-00001",kn_service_name="hello"} 1.5"#
        )
        .to_owned(),
        r#"kn_activator_stats_conn_reachable{peer="autoscaler"} 1"#.to_owned(),
        r#"dormouse_activator_faults_total{reason="unknown-revision"} 1"#.to_owned(),
        concat!(
            r#"http_server_request_duration_seconds_bucket{http_request_method="GET",http_response_status_code="200","#,
            r#"k8s_namespace_name="default",kn_configuration_name="conf",kn_revision_name="hello-00001","#,
            r#"kn_service_name="hello",network_protocol_name="http",network_protocol_version="1.1",url_scheme="http","#,
            r#"le="0.05"} 2"#
        )
        .to_owned(),
    ] {
        assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
    }
    let ok = r#"http_response_status_code="200""#;
    assert_eq!(value(&text, "http_server_request_duration_seconds_bucket", &[ok, r#"le="0.025""#]), 0.0);
    assert_eq!(value(&text, "http_server_request_duration_seconds_count", &[ok]), 2.0, "both threads");
    assert_eq!(value(&text, "http_server_response_body_size_bytes_sum", &[ok]), 22.0);
    let lost = r#"http_response_status_code="404""#;
    assert_eq!(value(&text, "http_server_request_duration_seconds_count", &[lost]), 1.0);
    let of_lost = text.lines().find(|line| line.contains(lost)).unwrap();
    assert!(!of_lost.contains("kn_"), "no revision's: {of_lost}");
    assert_eq!(value(&text, "http_client_request_duration_seconds_count", &[r#"error_type="connect""#]), 1.0);
    assert_eq!(value(&text, "http_client_request_duration_seconds_bucket", &[ok, r#"le="0.025""#]), 2.0);
    assert!(!text.contains("server_address"), "hosts are not bounded");
    let bad = [
        r#"response_code="502""#,
        r#"response_code_class="5xx""#,
        r#"container_name="activator""#,
        r#"pod_name="act-1""#,
    ];
    assert_eq!(value(&text, "activator_request_count", &bad), 1.0);
    let fine = r#"response_code="200""#;
    assert_eq!(value(&text, "activator_request_latencies_bucket", &[fine, r#"le="40""#]), 2.0);
    assert_eq!(value(&text, "activator_request_latencies_bucket", &[fine, r#"le="20""#]), 0.0);
    assert_eq!(value(&text, "activator_request_latencies_sum", &[fine]), 60.0);
    assert_eq!(value(&text, "activator_request_concurrency", &[r#"namespace_name="default""#]), 1.5);
    for (name, bounds) in [("http_server_request_duration_seconds", 14 + 1), ("activator_request_latencies", 26 + 1)] {
        let line = |line: &&str| line.starts_with(&format!("{name}_bucket")) && line.contains("code=\"200\"");
        assert_eq!(text.lines().filter(line).count(), bounds, "{name}");
    }
    assert!(!self::metrics(false).text().unwrap().contains("activator_request_"), "only if wanted");
}

#[test]
fn series_of_a_revision_vanish_with_it_and_two_of_one_name_are_one() {
    let metrics = metrics(true);
    let old = busy(&metrics);
    let new = revision(&metrics, "hello-00001");
    new.at(Shard(0)).queued.up();
    let text = metrics.text().unwrap();
    assert_eq!(value(&text, "kn_revision_request_queued", &[]), 2.0);
    drop(old);
    assert_eq!(value(&metrics.text().unwrap(), "kn_revision_request_queued", &[]), 1.0);
    drop(new);
    let text = metrics.text().unwrap();
    assert!(!text.contains("hello-00001"), "{text}");
    for n in 0..1000 {
        revision(&metrics, &format!("r{n}"));
    }
    let alive = metrics.alive.lock().unwrap();
    assert!(alive.revisions.len() <= 64, "{} dead revisions are remembered", alive.revisions.len());
}

#[test]
fn every_series_has_its_name_and_kind_in_a_push() {
    let metrics = metrics(true);
    let _revision = busy(&metrics);
    let families = metrics.families();
    assert_eq!(CATALOG.unknown(&families), Vec::<&str>::new());
    assert_eq!(CATALOG.names.len(), families.len(), "a name without a metric");
    let scopes = scopes(&CATALOG, &families, 1, 2);
    let find = |name: &str| {
        let metric = scopes.iter().flat_map(|scope| &scope.metrics).find(|metric| metric.name == name).unwrap();
        (metric.unit.as_str(), metric.data.clone().unwrap())
    };
    for name in ["kn.revision.request.queued", "kn.revision.request.active"] {
        let ("{request}", Data::Sum(sum)) = find(name) else { panic!("{name}") };
        assert!(!sum.is_monotonic, "{name} goes up and down");
    }
    let ("{error}", Data::Sum(errors)) = find("kn.activator.stats.conn.errors") else { panic!() };
    assert!(errors.is_monotonic);
    let ("{reachable}", Data::Gauge(_)) = find("kn.activator.stats.conn.reachable") else { panic!() };
    let ("{request}", Data::Gauge(concurrency)) = find("kn.revision.request.concurrency") else { panic!() };
    assert_eq!(concurrency.data_points[0].as_double, Some(1.5));
    let ("s", Data::Histogram(duration)) = find("http.server.request.duration") else { panic!() };
    assert_eq!(duration.data_points[0].explicit_bounds.len(), 14);
    let names: Vec<&str> = scopes.iter().filter_map(|scope| scope.scope.as_ref()).map(|scope| &*scope.name).collect();
    assert_eq!(names, ["dormouse/activator", "knative.dev/serving/pkg/activator"]);
}

#[test]
fn nobody_reads_nobody_counts() {
    let metrics = Metrics::new(Wanted { threads: 1, requests: false, old_names: true, pod: String::new() }).unwrap();
    let revision = revision(&metrics, "r");
    let (measure, now) = measure(StatusCode::OK, Some(Ok(StatusCode::OK)));
    metrics.record(Shard(0), Some(&revision), &measure, now);
    assert!(!metrics.text().unwrap().contains("http_server"));
}
