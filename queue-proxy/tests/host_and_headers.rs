//! Which headers reach the app, with and without a concurrency limit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use queue_proxy::Config;
use support::*;

#[test]
fn the_asked_host_comes_back_with_a_limit_and_without() {
    on_runtime(async {
        for container_concurrency in [0, 1] {
            let pod = Pod::start(Config { container_concurrency, ..config(mirror().await) }).await;
            let request = "GET / HTTP/1.1\r\nHost: pod\r\nK-Original-Host: asked.example\r\nK-Proxy-Request: activator\r\nConnection: close\r\n\r\n";
            let answer = pod.say(request).await;
            let seen = body(&answer);
            assert!(seen.contains("Host: asked.example\r\n") && !seen.contains("Original-Host"), "{seen}");
            let empty = pod.say(&request.replace("asked.example", "")).await;
            assert!(body(&empty).contains("Host: pod\r\n") && !body(&empty).contains("Original-Host"), "{empty}");
            // A kubelet's request goes by the pod's address and stays as it is.
            let kubelet = pod.say(&request.replace("K-Proxy-Request", "K-Kubelet-Probe")).await;
            assert!(body(&kubelet).contains("Host: pod\r\n"), "{kubelet}");
        }
    });
}

#[test]
fn what_is_not_listed_passes_and_nothing_is_invented() {
    on_runtime(async {
        let pod = Pod::before(mirror().await).await;
        let kept = [
            "User-Agent: mine/1",
            "K-Passthrough-Lb: true",
            "K-Network-Hash: abc",
            "K-Network-Probe: other",
            "Knative-Serving-Tag: blue",
            "Knative-Serving-Default-Route: true",
            "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "Tracestate: a=1",
            "Baggage: b=2",
            "X-B3-Traceid: 80f198ee56343ba864fe8b2a57d3eff7",
            "X-Forwarded-Host: h",
            "X-User: kept",
            "X-Latin: caf\u{e9}",
        ];
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\nConnection: close\r\n\r\n", kept.join("\r\n"));
        let answer = pod.say(&request).await;
        for line in kept {
            assert_eq!(body(&answer).matches(&format!("\r\n{line}\r\n")).count(), 1, "{line} in {answer}");
        }
        let bare = pod.say("GET / HTTP/1.1\r\nHost: a\r\nUser-Agent:\r\nConnection: close\r\n\r\n").await;
        let mut seen: Vec<&str> = body(&bare).trim_end().lines().skip(1).collect();
        seen.sort_unstable();
        assert_eq!(seen, ["Host: a", "X-Forwarded-For: 127.0.0.1"]);
    });
}

#[test]
fn forwarded_is_built_from_what_came_and_not_from_the_own_peer() {
    on_runtime(async {
        let pod = Pod::before(mirror().await).await;
        for (lines, forwarded) in [
            (
                "X-Forwarded-For: 127.0.0.1, ::1\r\nX-Forwarded-Host: h\r\nX-Forwarded-Proto: p\r\n",
                Some("for=127.0.0.1;host=h;proto=p, for=\"[::1]\""),
            ),
            ("Forwarded: for=x\r\nX-Forwarded-Proto: p\r\n", Some("for=x")),
            ("Forwarded:\r\nX-Forwarded-Proto: p\r\n", Some("proto=p")),
            ("X-Forwarded-By: z\r\n", None),
        ] {
            let answer = pod.say(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}Connection: close\r\n\r\n")).await;
            let seen: Vec<&str> = body(&answer).lines().filter_map(|line| line.strip_prefix("Forwarded: ")).collect();
            assert_eq!(seen, forwarded.into_iter().collect::<Vec<_>>(), "{lines}");
        }
    });
}
