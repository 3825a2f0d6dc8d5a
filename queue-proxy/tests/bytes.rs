//! Junk from outside: whatever bytes come, nothing panics, and the next caller is served. `fuzz/` has the same
//! properties for longer runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::HashMap;

use api::stat::Stat;
use http::{HeaderMap, HeaderValue, Response, Version};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config as Runs, TestRunner};
use prost::Message;
use proxy::Body;
use proxy::headers::Present;
use queue_proxy::Config;
use queue_proxy::readiness::Readiness;
use support::{Pod, Raw, app, on_runtime};
use tokio::io::AsyncWriteExt;

/// JSON that looks like probes and settings do, with anything at any place.
fn json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let key = prop_oneof![
        Just("httpGet"),
        Just("tcpSocket"),
        Just("grpc"),
        Just("exec"),
        Just("port"),
        Just("path"),
        Just("host"),
        Just("scheme"),
        Just("httpHeaders"),
        Just("name"),
        Just("value"),
        Just("periodSeconds"),
        Just("timeoutSeconds"),
        Just("successThreshold"),
        Just("service"),
        Just("tracing"),
        Just("protocol"),
        Just("requestMetrics"),
        Just("endpoint"),
        Just("enableRequestLog"),
        Just("requestLogTemplate"),
        Just("encoderConfig"),
        Just("levelEncoder"),
        Just("sampling"),
        Just("initial"),
        Just("outputPaths"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop_oneof![Just("prometheus".to_string()), Just("HTTP".to_string()), ".{0,12}"].prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().map(|(k, v)| (k.to_string(), v)).collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_a_stat_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(stat) = Stat::decode(bytes.as_slice()) {
            let once = stat.encode_to_vec();
            prop_assert_eq!(Stat::decode(once.as_slice()).unwrap().encode_to_vec(), once);
        }
    }

    #[test]
    fn a_damaged_stat_is_no_panic(name in ".{0,40}", load in any::<f64>(), at in any::<usize>(), byte in any::<u8>()) {
        let stat = Stat { pod_name: name, average_concurrent_requests: load, ..Stat::default() };
        let mut bytes = stat.encode_to_vec();
        prop_assert!(Stat::decode(bytes.as_slice()).is_ok());
        if !bytes.is_empty() {
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Stat::decode(bytes.as_slice());
            let _ = Stat::decode(&bytes[..at]);
        }
    }

    #[test]
    fn any_text_is_a_probe_or_an_error(text in ".{0,200}", auto_detect in any::<bool>()) {
        let _ = Readiness::parse(&text, auto_detect);
    }

    #[test]
    fn any_json_is_a_probe_and_a_setting_or_an_error(json in json(), auto_detect in any::<bool>()) {
        let text = json.to_string();
        let _ = Readiness::parse(&text, auto_detect);
        let environment = HashMap::from([
            ("CONTAINER_CONCURRENCY", "0"), ("QUEUE_SERVING_PORT", "0"), ("QUEUE_SERVING_TLS_PORT", ""),
            ("USER_PORT", "1"), ("REVISION_TIMEOUT_SECONDS", "300"), ("SERVING_NAMESPACE", ""),
            ("SERVING_CONFIGURATION", ""), ("SERVING_REVISION", ""), ("SERVING_POD", ""), ("SERVING_POD_IP", ""),
            ("SERVING_LOGGING_CONFIG", &text), ("SERVING_LOGGING_LEVEL", &text), ("OBSERVABILITY_CONFIG", &text),
        ]);
        if let Err(error) = Config::from_lookup(|name| environment.get(name).map(ToString::to_string)) {
            prop_assert!(error.to_string().contains("OBSERVABILITY_CONFIG"), "{}", error);
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_a_template_or_an_error(text in "([a-zA-Z .|()\"`%\\\\-]|\\{\\{|\\}\\}|if |end|else|\\.Request\\.Header|js |printf |index |é){0,24}") {
        let _ = telemetry::request_log::sample(&text);
    }

    #[test]
    fn what_ends_here_does_not_go_on(lines in proptest::collection::vec((header_name(), "[ -~]{0,24}"), 0..8)) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::try_from(value).unwrap());
        }
        let present = Present::of(&headers);
        let _ = queue_proxy::probe::classify((&headers).into(), present);
        let _ = proxy::headers::check(Version::HTTP_11, &headers, false);
        let _ = queue_proxy::forwarded::of((&headers).into(), present);
        let upgrade = proxy::headers::upgrade_token(&headers).is_some();
        proxy::headers::remove_hop_by_hop(&mut headers, present);
        prop_assert!(!headers.contains_key("transfer-encoding"));
        prop_assert!(upgrade || !headers.contains_key("connection"));
        let forwarded = proxy::headers::forwarded_for((&headers).into(), present, &HeaderValue::from_static("192.0.2.1"));
        prop_assert!(forwarded.as_bytes().ends_with(b"192.0.2.1"));
    }
}

fn header_name() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("connection"),
        Just("upgrade"),
        Just("transfer-encoding"),
        Just("te"),
        Just("host"),
        Just("forwarded"),
        Just("x-forwarded-for"),
        Just("x-forwarded-proto"),
        Just("user-agent"),
        Just("k-network-probe"),
        Just("k-network-hash"),
        Just("dormouse-hold"),
        Just("x-a"),
    ]
}

/// A good request with some bytes replaced, inserted or cut.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let good = prop_oneof![
        Just(&b"GET /a?b HTTP/1.1\r\nHost: app\r\nUser-Agent: x\r\n\r\n"[..]),
        Just(&b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\nhello"[..]),
        Just(&b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"[..]),
        Just(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"[..]),
    ];
    let damage = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..6);
    (good, damage).prop_map(|(good, damage)| {
        let mut bytes = good.to_vec();
        for (at, byte, what) in damage {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match what {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => bytes.truncate(at),
            }
        }
        bytes
    })
}

#[test]
fn damaged_requests_leave_the_sidecar_serving() {
    on_runtime(async {
        let app = app(|_| async { Response::new(Body::full("ok")) });
        let pod = Pod::before(app).await;
        let mut runner = TestRunner::new(Runs::with_cases(200));
        for _ in 0..200 {
            let bytes = damaged().new_tree(&mut runner).unwrap().current();
            let mut raw = Raw::connect(pod.at.serving).await;
            let _ = raw.0.write_all(&bytes).await;
            let _ = raw.0.shutdown().await;
            raw.rest().await;
        }
        assert!(pod.get("/").await.ends_with("ok"));
    });
}
