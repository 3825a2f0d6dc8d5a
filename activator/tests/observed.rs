//! What the door says of its requests: spans as a collector gets them, metrics on the page and in a push, profiles.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../proxy/telemetry/tests/support/collector.rs"]
mod collector;
mod support;

use std::future::Future;
use std::net::SocketAddr;

use activator::live::LiveSettings;
use activator::observe::Observing;
use activator::{Change, Config};
use api::settings::{Data, Observability};
use collector::{Collector, hex, int, text};
use http::{Request, StatusCode};
use http_body_util::Full;
use opentelemetry_proto::tonic::metrics::v1::metric::Data as Points;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::json;
use support::{Answer, Door, PATIENCE, Pod, send, send_h2, until};
use tokio::sync::watch;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// Runs a test on the kind of runtime that the collector runs on; the door has its own threads.
fn on_runtime<F: Future>(test: F) -> F::Output {
    proxy::runtime::block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("test hung") }).unwrap()
}

fn settings(pairs: &[(&str, &str)]) -> Observability {
    let data: Data = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Observability::parse(&data).unwrap()
}

/// A door by `config-observability`, whose spans are sent at once and whose side ports are on loopback.
async fn door(pairs: &[(&str, &str)], live: Option<watch::Receiver<LiveSettings>>) -> Door {
    let env = [("POD_NAME", "act-1"), ("OTEL_BSP_SCHEDULE_DELAY", "1")];
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut observing = Observing::read(&settings(pairs), loopback.ip(), |name| {
        env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })
    .unwrap();
    if let Some(page) = &mut observing.page {
        page.listen = loopback;
    }
    let standard = Config::detached();
    let live = live.unwrap_or_else(|| standard.live.clone());
    let profiling_listen = Some(loopback);
    let config = Config { observing, live, profiling_listen, threads: 2, pod_name: "act-1".into(), ..standard };
    Door::open(config).await
}

async fn traced(collector: SocketAddr, protocol: &str) -> Door {
    let endpoint = format!("http://{collector}");
    door(&[("tracing-protocol", protocol), ("tracing-endpoint", &endpoint), ("tracing-sampling-rate", "1")], None).await
}

fn request(host: &str, path: &str, headers: &[(&str, &str)]) -> Request<Full<bytes::Bytes>> {
    let mut request = Request::get(path).header("host", host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).unwrap()
}

async fn page(door: &Door) -> String {
    send(door.metrics.unwrap(), request("m", "/metrics", &[])).await.body
}

/// The revision `hello` of a service and a configuration, on the host `hello.test`.
async fn service(door: &Door) {
    let object = json!({ "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
        "metadata": { "name": "hello", "namespace": "ns", "labels": {
            "serving.knative.dev/service": "svc", "serving.knative.dev/configuration": "conf" } },
        "spec": { "containers": [{ "image": "i" }], "containerConcurrency": 1 } });
    door.feed.revision(Change::Applied(serde_json::from_value(object).unwrap()));
    until("revision known", || door.get("hello").is_some()).await;
    door.route("hello.test", &[("hello", 100)]).await;
}

/// The header of a pod's request.
fn seen(pod: &Pod, name: &str) -> String {
    let seen = pod.does.seen.lock().unwrap();
    seen.last().and_then(|headers| headers.get(name)).map_or("", |value| value.to_str().unwrap()).to_owned()
}

/// Section 18 of the sheet: T69's spans, the four attributes, W3C only.
#[test]
fn t69_the_tree_is_upstreams_and_the_pod_is_its_last_leaf() {
    on_runtime(async {
        for protocol in ["grpc", "http/protobuf"] {
            let (collector, at) = Collector::start();
            let door = traced(at, protocol).await;
            service(&door).await;
            let pod = Pod::start("pod").await;
            door.pods("hello", &[pod.address], &[]);
            door.usable("hello", 1).await;
            let parent = format!("00-{TRACE}-{CALLER}-01");
            let b3 = format!("{TRACE}-{CALLER}-1");
            let headers = [("traceparent", parent.as_str()), ("tracestate", "a=1"), ("baggage", "b=2"), ("b3", &b3)];
            assert_eq!(send(door.address, request("hello.test", "/a", &headers)).await.status, StatusCode::OK);
            let spans = collector.spans(4).await;
            let [server, queued, proxied, client] =
                ["GET", "throttler_try", "activator_proxy", "GET /a"].map(|name| &spans[name]);
            assert_eq!(server.parent(), CALLER);
            assert_eq!([queued.parent(), proxied.parent(), client.parent()], [server.id(), server.id(), proxied.id()]);
            let kind = |span: &collector::Scoped| SpanKind::try_from(span.span.kind).unwrap();
            let kinds = [server, queued, proxied, client].map(kind);
            assert_eq!(kinds, [SpanKind::Server, SpanKind::Internal, SpanKind::Internal, SpanKind::Client]);
            assert!(queued.span.end_time_unix_nano <= proxied.span.start_time_unix_nano);
            for (name, value) in [
                ("kn.service.name", "svc"),
                ("kn.configuration.name", "conf"),
                ("kn.revision.name", "hello"),
                ("k8s.namespace.name", "ns"),
                ("url.path", "/a"),
            ] {
                assert_eq!(server.text(name), value, "{name}");
            }
            assert_eq!(server.int("http.response.status_code"), 200);
            assert_eq!(client.text("url.full"), format!("http://{}/a", pod.address));
            assert_eq!(proxied.scope, "knative.dev/serving/pkg/activator");
            for span in spans.values() {
                assert_eq!((hex(&span.span.trace_id), span.span.trace_state.as_str()), (TRACE.into(), "a=1"));
                assert_eq!(text(&span.resource, "service.name"), "activator");
                assert_eq!(text(&span.resource, "k8s.pod.name"), "act-1");
                assert!(!span.failed() && span.span.events.is_empty(), "{span:?}");
            }
            assert_eq!(seen(&pod, "traceparent"), format!("00-{TRACE}-{}-01", client.id()));
            assert_eq!((seen(&pod, "tracestate"), seen(&pod, "baggage")), ("a=1".into(), "b=2".into()));
            assert_eq!(seen(&pod, "b3"), b3, "not ours to touch");
            door.close().await;
        }
    });
}

#[test]
fn a_wake_up_is_told_as_events_and_a_refusal_by_the_span_that_waited() {
    on_runtime(async {
        let (collector, at) = Collector::start();
        let door = traced(at, "grpc").await;
        service(&door).await;
        let held = door.get_request("hello.test", "/woken");
        door.waiting("hello", 1).await;
        let pod = Pod::start("pod").await;
        door.pods("hello", &[], &[pod.address]);
        assert_eq!(held.await.unwrap().status, StatusCode::OK);
        let spans = collector.spans(4).await;
        let events: Vec<_> = spans["GET"].span.events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(events, ["dormouse.queued", "dormouse.ready", "dormouse.first_byte"]);
        let times: Vec<_> = spans["GET"].span.events.iter().map(|event| event.time_unix_nano).collect();
        assert!(times.is_sorted() && times[0] >= spans["GET"].span.start_time_unix_nano, "{times:?}");

        // A host that nobody serves has a server span and no revision.
        let answer = send(door.address, request("nobody.test", "/", &[])).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        let lost = collector
            .until(|calls| {
                let all = collector::spans(calls);
                all.into_iter().find(|span| span.int("http.response.status_code") == 404)
            })
            .await;
        assert_eq!((lost.text("kn.revision.name"), lost.span.parent_span_id.len()), (String::new(), 0));
        assert_eq!(lost.int("http.response.body.size"), i64::try_from(answer.body.len()).unwrap());
        door.close().await;
    });
}

#[test]
fn a_pod_that_is_not_there_is_an_event_and_a_retry() {
    on_runtime(async {
        let (collector, at) = Collector::start();
        let endpoint = format!("http://{at}");
        let pairs = [
            ("tracing-protocol", "grpc"),
            ("tracing-endpoint", &*endpoint),
            ("tracing-sampling-rate", "1"),
            ("metrics-protocol", "prometheus"),
        ];
        let door = door(&pairs, None).await;
        service(&door).await;
        let (gone, good) = (Pod::start("gone").await, Pod::start("good").await);
        door.pods("hello", &[gone.address], &[]);
        door.usable("hello", 1).await;
        gone.die().await;
        let request = door.get_request("hello.test", "/");
        until("set aside", || door.get("hello").is_some_and(|revision| revision.throttle.waiting() == 1)).await;
        door.pods("hello", &[good.address], &[]);
        assert_eq!(request.await.unwrap().body.trim(), "good");
        let spans = collector.spans(4).await;
        let retries: Vec<_> = spans["GET"].span.events.iter().filter(|event| event.name == "dormouse.retry").collect();
        assert_eq!(text(&retries[0].attributes, "detail"), gone.address.to_string());
        assert_eq!(spans["GET /"].int("server.port"), i64::from(good.address.port()), "the one that answered");
        let text = page(&door).await;
        assert!(text.contains(r#"dormouse_activator_retries_total{reason="unsent"} 1"#), "{text}");
        door.close().await;
    });
}

#[test]
fn without_tracing_headers_pass_as_they_are() {
    on_runtime(async {
        let door = door(&[], None).await;
        assert_eq!(door.metrics, None);
        service(&door).await;
        let pod = Pod::start("pod").await;
        door.pods("hello", &[pod.address], &[]);
        let parent = format!("00-{TRACE}-{CALLER}-00");
        send(door.address, request("hello.test", "/", &[("traceparent", &parent), ("tracestate", "a=1")])).await;
        assert_eq!((seen(&pod, "traceparent"), seen(&pod, "tracestate")), (parent, "a=1".into()));
        door.close().await;
    });
}

#[test]
fn series_of_the_page_come_with_requests_and_go_with_their_revision() {
    on_runtime(async {
        let door = door(&[("metrics-protocol", "prometheus")], None).await;
        service(&door).await;
        let pod = Pod::start("pod").await;
        door.pods("hello", &[pod.address], &[]);
        for _ in 0..3 {
            assert_eq!(send(door.address, request("hello.test", "/", &[])).await.status, StatusCode::OK);
        }
        let answer: Answer = send_h2(door.address, request_h2("hello.test")).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(send(door.address, request("nobody.test", "/", &[])).await.status, StatusCode::NOT_FOUND);
        // Probes are not requests.
        assert_eq!(
            send(door.address, request("x", "/", &[("k-network-probe", "activator")])).await.status,
            StatusCode::OK
        );
        let counts = |text: &str, labels: &[&str]| -> f64 {
            let lines = text.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count"));
            let lines = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
            lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
        };
        // A request is counted with the end of its answer, which its client sees a moment before.
        let mut text = page(&door).await;
        while counts(&text, &[]) < 5.0 {
            text = page(&door).await;
        }
        let one = r#"network_protocol_version="1.1""#;
        assert_eq!(counts(&text, &[one, r#"kn_revision_name="hello""#, r#"kn_service_name="svc""#]), 3.0, "{text}");
        assert_eq!(counts(&text, &[r#"network_protocol_version="2""#, r#"http_response_status_code="200""#]), 1.0);
        assert_eq!(counts(&text, &[r#"http_response_status_code="404""#]), 1.0);
        assert_eq!(counts(&text, &[]), 5.0);
        assert!(text.contains(r#"dormouse_activator_faults_total{reason="unknown-host"} 1"#), "{text}");
        assert!(text.contains(r#"kn_revision_request_active{k8s_namespace_name="ns",kn_revision_name="hello"} 0"#));
        let old = r#"activator_request_count{configuration_name="conf",container_name="activator",namespace_name="ns",pod_name="act-1",response_code="200",response_code_class="2xx",revision_name="hello",service_name="svc"} 4"#;
        assert!(text.contains(old), "{text}");

        let object = json!({ "apiVersion": "serving.knative.dev/v1", "kind": "Revision",
            "metadata": { "name": "hello", "namespace": "ns" }, "spec": { "containers": [{ "image": "i" }] } });
        door.feed.revision(Change::Deleted(serde_json::from_value(object).unwrap()));
        door.feed.ingress(Change::Listed(Vec::new()));
        // Whoever reports its load holds it until it has been idle for a period.
        while text.contains("hello") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            text = page(&door).await;
        }
        door.close().await;
    });
}

fn request_h2(host: &str) -> Request<Full<bytes::Bytes>> {
    Request::get(format!("http://{host}/")).body(Full::default()).unwrap()
}

#[test]
fn metrics_are_pushed_with_what_is_left_at_the_end() {
    on_runtime(async {
        let (collector, at) = Collector::start();
        let endpoint = format!("http://{at}");
        let pairs = [
            ("metrics-protocol", "http/protobuf"),
            ("metrics-endpoint", &*endpoint),
            ("metrics-export-interval", "1h"),
        ];
        let door = door(&pairs, None).await;
        service(&door).await;
        let pod = Pod::start("pod").await;
        door.pods("hello", &[pod.address], &[]);
        assert_eq!(send(door.address, request("hello.test", "/", &[])).await.status, StatusCode::OK);
        assert!(collector.calls().is_empty(), "too early");
        door.close().await;
        let pushed = collector::metrics(&collector.calls());
        let all = pushed.iter().flat_map(|push| &push.resource_metrics);
        let all: Vec<_> = all.flat_map(|metrics| &metrics.scope_metrics).flat_map(|scope| &scope.metrics).collect();
        let find = |name: &str| all.iter().find(|metric| metric.name == name).and_then(|metric| metric.data.clone());
        let Some(Points::Sum(active)) = find("kn.revision.request.active") else { panic!("{all:?}") };
        assert!(!active.is_monotonic && active.aggregation_temporality == 2);
        assert_eq!(text(&active.data_points[0].attributes, "kn.revision.name"), "hello");
        let Some(Points::Histogram(duration)) = find("http.server.request.duration") else { panic!("{all:?}") };
        assert_eq!(int(&duration.data_points[0].attributes, "http.response.status_code"), 200);
        assert_eq!(duration.data_points[0].count, 1);
        let Some(Points::Sum(errors)) = find("kn.activator.stats.conn.errors") else { panic!("{all:?}") };
        assert!(errors.is_monotonic);
        assert!(find("process.cpu.time").is_some());
    });
}

#[test]
fn profiles_are_given_while_they_are_switched_on() {
    on_runtime(async {
        let (tell, live) = watch::channel(LiveSettings::default());
        let door = door(&[], Some(live)).await;
        let profiles = door.profiles.unwrap();
        let status = || async { send(profiles, request("p", "/debug/pprof/", &[])).await.status };
        assert_eq!(status().await, StatusCode::NOT_FOUND);
        for (on, expected) in [("enabled", StatusCode::OK), ("disabled", StatusCode::NOT_FOUND)] {
            tell.send_modify(|live| live.observability = settings(&[("runtime-profiling", on)]));
            while status().await != expected {
                tokio::task::yield_now().await;
            }
        }
        door.close().await;
    });
}
