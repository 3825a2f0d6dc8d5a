//! The span tree as a collector gets it, and the trace as the app sees it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../proxy/telemetry/tests/support/collector.rs"]
mod collector;
mod support;

use std::net::SocketAddr;

use collector::{Collector, Scoped, hex, text};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use support::{Pod, Raw, body, config_with, get, mirror, nobody, on_runtime, raw_app, status};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A pod that traces, and sends at once.
async fn pod(app: SocketAddr, tracing: &str, more: &[(&str, &str)]) -> Pod {
    let observability = format!(r#"{{"tracing":{tracing}}}"#);
    let mut environment = vec![("OBSERVABILITY_CONFIG", observability.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "1")];
    environment.extend(more);
    Pod::start(config_with(app, &environment)).await
}

fn over(protocol: &str, collector: SocketAddr) -> String {
    format!(r#"{{"protocol":"{protocol}","endpoint":"http://{collector}","samplingRate":1}}"#)
}

async fn say(pod: &Pod, lines: &str) -> String {
    pod.say(&format!("GET /a%2f?b=c HTTP/1.1\r\nHost: app.example:8012\r\n{lines}Connection: close\r\n\r\n")).await
}

/// A header as the app saw it; `mirror` answers with them all.
fn seen(answer: &str, name: &str) -> String {
    let lines = body(answer).lines().filter_map(|line| line.split_once(": "));
    let mut values = lines.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_string());
    let first = values.next().unwrap_or_default();
    assert_eq!(values.next(), None, "{name} twice");
    first
}

fn kind(span: &Scoped) -> SpanKind {
    SpanKind::try_from(span.span.kind).unwrap()
}

#[test]
fn the_tree_is_upstreams_and_the_app_is_its_last_leaf() {
    on_runtime(async {
        for protocol in ["grpc", "http/protobuf"] {
            let (collector, at) = Collector::start();
            let app = mirror().await;
            let limit = [
                ("CONTAINER_CONCURRENCY", "1"),
                ("SERVING_SERVICE", "svc"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x"),
            ];
            let pod = pod(app, &over(protocol, at), &limit).await;
            let lines = format!(
                "traceparent: 00-{TRACE}-{CALLER}-00\r\ntracestate: a=1\r\nbaggage: b=2\r\nUser-Agent: test\r\nX-Forwarded-For: 192.0.2.7, 192.0.2.8\r\n"
            );
            let answer = say(&pod, &lines).await;
            let spans = collector.spans(4).await;
            let [server, proxy, wait, client] =
                ["GET", "kn.queueproxy.proxy", "kn.queueproxy.wait", "HTTP GET"].map(|name| &spans[name]);

            assert_eq!(server.parent(), CALLER);
            assert_eq!([proxy.parent(), wait.parent(), client.parent()], [server.id(), proxy.id(), wait.id()]);
            let kinds = [server, proxy, wait, client].map(kind);
            assert_eq!(kinds, [SpanKind::Server, SpanKind::Internal, SpanKind::Internal, SpanKind::Client]);
            for span in spans.values() {
                assert_eq!((hex(&span.span.trace_id), span.span.trace_state.as_str()), (TRACE.into(), "a=1"));
                assert!(span.span.start_time_unix_nano <= span.span.end_time_unix_nano);
                assert!(!span.failed());
                assert_eq!(text(&span.resource, "service.name"), "svc");
                assert_eq!(text(&span.resource, "kn.revision.name"), "rev");
            }
            assert_eq!(
                (proxy.scope.as_str(), wait.scope.as_str()),
                ("knative.dev/serving/pkg/queue", "knative.dev/serving/pkg/queue")
            );

            // The app is told the client span's name, though the caller was not sampled: a rate of 1 is final.
            assert_eq!(seen(&answer, "traceparent"), format!("00-{TRACE}-{}-01", client.id()));
            assert_eq!((seen(&answer, "tracestate"), seen(&answer, "baggage")), ("a=1".into(), "b=2".into()));
            assert_eq!(seen(&answer, "b3"), "");

            for (name, value) in [
                ("http.request.method", "GET"),
                ("url.scheme", "http"),
                ("url.path", "/a%2f"),
                ("server.address", "app.example"),
                ("user_agent.original", "test"),
                ("client.address", "192.0.2.7"),
                ("network.peer.address", "127.0.0.1"),
                ("network.protocol.version", "1.1"),
                ("kn.route.tag", "kn:disabled"),
            ] {
                assert_eq!(server.text(name), value, "{name}");
            }
            assert_eq!((server.int("http.response.status_code"), server.int("server.port")), (200, 8012));
            assert_eq!(server.int("http.response.body.size"), i64::try_from(body(&answer).len()).unwrap());
            assert_eq!(client.text("url.full"), format!("http://{app}/a%2f?b=c"));
            assert_eq!(
                (client.text("server.address"), client.int("server.port")),
                ("127.0.0.1".into(), i64::from(app.port()))
            );
            assert_eq!(client.int("http.response.status_code"), 200);

            let call = &collector.calls()[0];
            assert_eq!(call.headers["authorization"], "Bearer x");
            let (path, content_type) = if protocol == "grpc" {
                ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", "application/grpc")
            } else {
                ("/v1/traces", "application/x-protobuf")
            };
            assert_eq!((call.path.as_str(), call.headers["content-type"].to_str().unwrap()), (path, content_type));
        }
    });
}

#[test]
fn without_a_limit_nobody_waits_and_without_a_caller_a_trace_begins() {
    on_runtime(async {
        let (collector, at) = Collector::start();
        let pod = pod(mirror().await, &over("grpc", at), &[]).await;
        let answer = say(&pod, "tracestate: stale=1\r\ntraceparent: junk\r\n").await;
        let spans = collector.spans(3).await;
        let [server, proxy, client] = ["GET", "kn.queueproxy.proxy", "HTTP GET"].map(|name| &spans[name]);
        assert_eq!([server.parent(), proxy.parent(), client.parent()], [String::new(), server.id(), proxy.id()]);
        assert_eq!(seen(&answer, "traceparent"), format!("00-{}-{}-01", hex(&server.span.trace_id), client.id()));
        assert_eq!(seen(&answer, "tracestate"), "");
    });
}

#[test]
fn b3_is_a_trace_too_and_goes_on_as_it_came() {
    on_runtime(async {
        let (collector, at) = Collector::start();
        let pod = pod(mirror().await, &over("grpc", at), &[]).await;
        let answer = say(&pod, &format!("b3: {TRACE}-{CALLER}-1\r\n")).await;
        let spans = collector.spans(3).await;
        let (server, proxy, client) = (&spans["GET"], &spans["kn.queueproxy.proxy"], &spans["HTTP GET"]);
        assert_eq!((hex(&server.span.trace_id), server.parent()), (TRACE.into(), CALLER.into()));
        assert_eq!(seen(&answer, "b3"), format!("{TRACE}-{}-1-{}", client.id(), proxy.id()));
        assert_eq!(seen(&answer, "traceparent"), format!("00-{TRACE}-{}-01", client.id()));

        let short = &TRACE[16..];
        let answer = say(&pod, &format!("X-B3-TraceId: {short}\r\nX-B3-SpanId: {CALLER}\r\nX-B3-Sampled: 1\r\n")).await;
        let spans = collector.spans(6).await;
        let client = &spans["HTTP GET"];
        assert_eq!(hex(&client.span.trace_id), format!("{:016}{short}", 0));
        assert_eq!((seen(&answer, "x-b3-traceid"), seen(&answer, "x-b3-spanid")), (short.into(), client.id()));
        assert_eq!(seen(&answer, "x-b3-sampled"), "1");
        assert!(seen(&answer, "traceparent").ends_with(&format!("{short}-{}-01", client.id())));
        assert_eq!(seen(&answer, "b3"), "");
    });
}

#[test]
fn what_is_not_traced_passes_and_the_app_comes_to_the_same_decision() {
    on_runtime(async {
        let (collector, at) = Collector::start();
        let rate = |rate: &str| format!(r#"{{"protocol":"grpc","endpoint":"http://{at}","samplingRate":{rate}}}"#);
        let rarely = pod(mirror().await, &rate("1e-15"), &[]).await;
        let parent = format!("00-{TRACE}-{CALLER}-00");
        assert_eq!(seen(&say(&rarely, &format!("traceparent: {parent}\r\n")).await, "traceparent"), parent);
        let answer = say(&rarely, "").await;
        assert!(seen(&answer, "traceparent").ends_with("-00"), "{answer}");
        let answer = say(&rarely, &format!("b3: {TRACE}-{CALLER}-0\r\n")).await;
        assert_eq!(seen(&answer, "b3"), format!("{TRACE}-{CALLER}-0"));
        assert_eq!(seen(&answer, "traceparent"), parent);

        // Off: nothing is touched and nothing is made.
        for off in [rate("0"), r#"{"protocol":"none"}"#.into()] {
            let off = pod(mirror().await, &off, &[]).await;
            let sampled = format!("00-{TRACE}-{CALLER}-01");
            assert_eq!(seen(&say(&off, &format!("traceparent: {sampled}\r\n")).await, "traceparent"), sampled);
            assert_eq!(seen(&say(&off, "").await, "traceparent"), "");
        }

        // Somebody upstream has decided for us.
        say(&rarely, &format!("traceparent: 00-{TRACE}-{CALLER}-01\r\n")).await;
        assert_eq!(collector.spans(3).await["GET"].parent(), CALLER);
        assert_eq!(collector.calls().len(), 1);
    });
}

#[test]
fn probes_and_their_stray_headers_are_not_traced() {
    on_runtime(async {
        let (collector, at) = Collector::start();
        let pod = pod(mirror().await, &over("grpc", at), &[]).await;
        for stray in ["K-Network-Probe: queue", "K-Kubelet-Probe: x"] {
            assert_eq!(seen(&say(&pod, &format!("{stray}\r\n")).await, "traceparent"), "", "{stray}");
        }
        assert!(say(&pod, "User-Agent: kube-probe/1\r\nK-Network-Probe: queue\r\n").await.ends_with("queue"));
        say(&pod, "").await;
        collector.spans(3).await;
        pod.shutdown.cancel();
        pod.ended.await.unwrap();
        assert_eq!(collector.spans(3).await.len(), 3);
    });
}

#[test]
fn failures_are_told_where_they_happen() {
    on_runtime(async {
        let (collector, at) = Collector::start();
        let pod = pod(nobody(), &over("grpc", at), &[]).await;
        assert_eq!(status(&say(&pod, "").await), 502);
        let spans = collector.spans(3).await;
        assert_eq!((spans["GET"].failed(), spans["GET"].int("http.response.status_code")), (true, 502));
        assert_eq!((spans["HTTP GET"].failed(), spans["HTTP GET"].text("error.type")), (true, "connect".into()));

        let breaks = raw_app(|mut raw: Raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        })
        .await;
        let (collector, at) = Collector::start();
        let pod = self::pod(breaks, &over("grpc", at), &[]).await;
        say(&pod, "").await;
        let spans = collector.spans(3).await;
        let server = &spans["GET"];
        // What was sent and that it broke off, both.
        assert_eq!((server.failed(), server.int("http.response.status_code")), (true, 200));
        assert_eq!(spans["HTTP GET"].text("error.type"), "broken");
    });
}

#[test]
fn a_refused_request_never_reaches_the_client_span() {
    on_runtime(async {
        let (collector, at) = Collector::start();
        let waits = raw_app(|mut raw: Raw| async move {
            raw.until("\r\n\r\n").await;
            std::future::pending::<()>().await;
        })
        .await;
        let pod = pod(waits, &over("http/protobuf", at), &[("CONTAINER_CONCURRENCY", "1")]).await;
        let mut held = Vec::new();
        for _ in 0..11 {
            let mut raw = pod.connect().await;
            raw.send(&get("/")).await;
            held.push(raw);
        }
        let refused = loop {
            // The eleven before it may still be on their way in.
            let mut raw = pod.connect().await;
            raw.send(&get("/")).await;
            match tokio::time::timeout(std::time::Duration::from_millis(100), raw.rest()).await {
                Ok(answer) => break answer,
                Err(_) => held.push(raw),
            }
        };
        assert_eq!(status(&refused), 503);
        let spans = collector.spans(3).await;
        assert!(spans["GET"].failed() && spans.contains_key("kn.queueproxy.wait"), "{:?}", spans.keys());
        assert!(!spans.contains_key("HTTP GET"));
    });
}

#[test]
fn the_span_of_a_tunnel_ends_with_it() {
    on_runtime(async {
        let (collector, at) = Collector::start();
        let app = raw_app(|mut raw: Raw| async move {
            raw.until("\r\n\r\n").await;
            raw.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").await;
            raw.until("bye").await;
        })
        .await;
        let pod = pod(app, &over("grpc", at), &[]).await;
        let mut raw = pod.connect().await;
        raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").await;
        raw.until("101").await;
        assert!(collector.calls().is_empty());
        raw.send("bye").await;
        raw.rest().await;
        drop(raw);
        let spans = collector.spans(3).await;
        assert_eq!(spans["GET"].int("http.response.status_code"), 101);
        assert!(!spans["GET"].failed() && !spans["HTTP GET"].failed());
    });
}
