//! Collectors that are slow, away, refuse, come back, or want TLS; metrics push; the flush at the end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../proxy/telemetry/tests/support/collector.rs"]
mod collector;
mod support;

use std::net::{Ipv4Addr, SocketAddr};

use collector::{Collector, int, metrics, text};
use http::Response;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, number_data_point};
use proxy::{Body, ServerConfig};
use support::{Pod, Raw, app, config_with, nobody, on_runtime, raw_app, status};

async fn pod(observability: &str, more: &[(&str, &str)]) -> Pod {
    let app = app(|_| async { Response::new(Body::full("done")) });
    let mut environment = vec![("OBSERVABILITY_CONFIG", observability), ("OTEL_BSP_SCHEDULE_DELAY", "1")];
    environment.extend(more);
    Pod::start(config_with(app, &environment)).await
}

fn traces(protocol: &str, url: &str) -> String {
    format!(r#"{{"tracing":{{"protocol":"{protocol}","endpoint":"{url}","samplingRate":1}}}}"#)
}

#[test]
fn a_collector_that_is_away_at_the_start_is_found_when_it_comes() {
    on_runtime(async {
        for protocol in ["grpc", "http/protobuf"] {
            let at = nobody();
            let pod = pod(&traces(protocol, &format!("http://{at}")), &[]).await;
            assert_eq!(status(&pod.get("/first").await), 200);
            let collector = Collector::default();
            collector.listen(at, ServerConfig::default());
            assert_eq!(collector.spans(3).await["GET"].text("url.path"), "/first");
        }
    });
}

#[test]
fn a_connection_that_the_collector_has_closed_is_replaced_at_once() {
    on_runtime(async {
        for protocol in ["grpc", "http/protobuf"] {
            let (collector, at) = Collector::start();
            // A front that closes after each answer, as an idle timeout would.
            let front = raw_app(move |Raw(mut client)| async move {
                let mut server = tokio::net::TcpStream::connect(at).await.unwrap();
                let relay = tokio::io::copy_bidirectional(&mut client, &mut server);
                let _ = tokio::time::timeout(std::time::Duration::from_millis(150), relay).await;
            })
            .await;
            let pod = pod(&traces(protocol, &format!("http://{front}")), &[]).await;
            for n in 1..=3 {
                assert_eq!(status(&pod.get("/").await), 200);
                collector.spans(3).await;
                collector.until(|calls| (calls.len() >= n).then_some(())).await;
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            }
        }
    });
}

#[test]
fn what_may_go_well_later_is_sent_again_and_what_may_not_is_given_up() {
    on_runtime(async {
        // Unavailable, then invalid argument, in the words of each protocol.
        for (protocol, later, never) in [("grpc", 14, 3), ("http/protobuf", 503, 400)] {
            let (collector, at) = Collector::start();
            let pod = pod(&traces(protocol, &format!("http://{at}")), &[]).await;
            collector.fail_with(later);
            pod.get("/again").await;
            collector.until(|calls| (calls.len() == 1).then_some(())).await;
            collector.fail_with(0);
            assert_eq!(collector.spans(3).await["GET"].text("url.path"), "/again");

            collector.fail_with(never);
            pod.get("/lost").await;
            collector.until(|calls| (calls.len() == 3).then_some(())).await;
            collector.fail_with(0);
            pod.get("/after").await;
            assert_eq!(collector.spans(6).await["GET"].text("url.path"), "/after");
            assert_eq!(collector.calls().len(), 4, "once refused, once given up");
        }
    });
}

#[test]
fn a_collector_that_never_answers_delays_nobody() {
    on_runtime(async {
        let silent = raw_app(|raw: Raw| async move {
            let _held = raw;
            std::future::pending::<()>().await;
        })
        .await;
        let pod = pod(&traces("grpc", &format!("http://{silent}")), &[("OTEL_EXPORTER_OTLP_TIMEOUT", "200")]).await;
        for _ in 0..50 {
            assert_eq!(status(&pod.get("/").await), 200);
        }
        // Nor the end: it was away before, so it gets one more attempt and that is all.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        pod.shutdown.cancel();
        pod.ended.await.unwrap();
    });
}

#[test]
fn what_is_kept_is_sent_before_the_end() {
    on_runtime(async {
        let (collector, at) = Collector::start();
        let push = format!(r#""requestMetrics":{{"protocol":"grpc","endpoint":"http://{at}"}}"#);
        let tracing = traces("grpc", &format!("http://{at}"));
        let both = format!("{},{push}}}", tracing.strip_suffix('}').unwrap());
        let pod = pod(&both, &[("OTEL_BSP_SCHEDULE_DELAY", "3600000")]).await;
        for _ in 0..20 {
            assert_eq!(status(&pod.get("/").await), 200);
        }
        assert!(collector.calls().is_empty(), "too early");
        pod.shutdown.cancel();
        pod.ended.await.unwrap();
        let spans = collector.calls().iter().filter(|call| call.path.contains("TraceService")).count();
        assert_eq!(spans, 1);
        let last = metrics(&collector.calls());
        assert_eq!(last.len(), 1);
        assert_eq!(
            requests(&find(&last[0].resource_metrics[0].scope_metrics[0].metrics, "http.server.request.duration")),
            20
        );
    });
}

fn find(metrics: &[Metric], name: &str) -> Metric {
    metrics.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("no {name}")).clone()
}

fn requests(metric: &Metric) -> u64 {
    let Some(Data::Histogram(histogram)) = &metric.data else { panic!("{metric:?}") };
    assert_eq!(histogram.aggregation_temporality, 2, "cumulative");
    histogram.data_points.iter().map(|point| point.count).sum()
}

#[test]
fn metrics_are_pushed_cumulatively_in_both_protocols() {
    on_runtime(async {
        for (protocol, path) in [
            ("grpc", "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"),
            ("http/protobuf", "/v1/metrics"),
        ] {
            let (collector, at) = Collector::start();
            let push = format!(
                r#"{{"requestMetrics":{{"protocol":"{protocol}","endpoint":"http://{at}","exportInterval":20000000}}}}"#
            );
            let pod = pod(&push, &[("CONTAINER_CONCURRENCY", "1"), ("OTEL_RESOURCE_ATTRIBUTES", "team=a%20b")]).await;
            assert_eq!(pod.at.user_metrics, None, "pushed, not served");
            for expected in [1, 2] {
                assert_eq!(status(&pod.get("/").await), 200);
                let (of_http, of_us, resource) = collector
                    .until(|calls| {
                        let last = metrics(calls).pop()?.resource_metrics.pop()?;
                        let [of_http, of_us] = <[_; 2]>::try_from(last.scope_metrics).ok()?;
                        let duration =
                            of_http.metrics.iter().find(|each| each.name == "http.server.request.duration")?;
                        (requests(duration) == expected).then_some((of_http, of_us, last.resource.unwrap()))
                    })
                    .await;
                assert_eq!(of_us.scope.unwrap().name, "knative.dev/serving/pkg/queue");
                assert_eq!(requests(&find(&of_us.metrics, "kn.serving.invocation.duration")), expected);
                assert_eq!(
                    (text(&resource.attributes, "team"), text(&resource.attributes, "container.name")),
                    ("a b".into(), "queue-proxy".into())
                );
                let duration = find(&of_http.metrics, "http.server.request.duration");
                let Some(Data::Histogram(histogram)) = &duration.data else { panic!() };
                let point = &histogram.data_points[0];
                assert_eq!(
                    (duration.unit.as_str(), point.explicit_bounds.len(), point.bucket_counts.len()),
                    ("s", 14, 15)
                );
                assert_eq!(point.bucket_counts.iter().sum::<u64>(), expected);
                assert!(point.start_time_unix_nano > 0 && point.start_time_unix_nano <= point.time_unix_nano);
                assert_eq!(int(&point.attributes, "http.response.status_code"), 200);
                assert_eq!(text(&point.attributes, "http.request.method"), "GET");
                let Some(Data::Gauge(depth)) = find(&of_us.metrics, "kn.serving.queue.depth").data else { panic!() };
                assert_eq!(depth.data_points[0].value, Some(number_data_point::Value::AsDouble(0.0)));
            }
            assert!(collector.calls().iter().all(|call| call.path == path));
        }
    });
}

#[test]
fn https_is_verified_by_the_roots_that_are_named() {
    let (certificate, key) = (include_str!("certificates/collector.crt"), include_str!("certificates/collector.key"));
    on_runtime(async {
        let folder = tempfile::tempdir().unwrap();
        let roots = folder.path().join("roots.pem");
        std::fs::write(&roots, certificate).unwrap();
        let strangers = folder.path().join("strangers.pem");
        std::fs::write(&strangers, include_str!("certificates/first.crt")).unwrap();
        for protocol in ["grpc", "http/protobuf"] {
            let collector = Collector::default();
            let tls =
                proxy::tls::Tls::new(&proxy::tls::Options::default(), certificate.as_bytes(), key.as_bytes()).unwrap();
            let config = ServerConfig { tls: Some(tls), ..ServerConfig::default() };
            let at = collector.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), config);
            // No scheme is https.
            let tracing = traces(protocol, &at.to_string());
            let trusted = [("OTEL_EXPORTER_OTLP_CERTIFICATE", roots.to_str().unwrap())];
            let distrusted = pod(&tracing, &[("OTEL_EXPORTER_OTLP_CERTIFICATE", strangers.to_str().unwrap())]).await;
            assert_eq!(status(&distrusted.get("/to-a-stranger").await), 200);
            distrusted.shutdown.cancel();
            distrusted.ended.await.unwrap();
            assert!(collector.calls().is_empty());
            let pod = pod(&tracing, &trusted).await;
            assert_eq!(status(&pod.get("/trusted").await), 200);
            assert_eq!(collector.spans(3).await["GET"].text("url.path"), "/trusted");
        }
    });
}
