//! The binary: what it says to a wrong environment, and how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/process.rs"]
mod process;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use process::sidecar;

#[test]
fn one_line_names_what_is_wrong() {
    let mut wrong = sidecar(8012, "127.0.0.1");
    wrong.env("CONTAINER_CONCURRENCY", "many");
    let mut missing = sidecar(8012, "127.0.0.1");
    missing.env_remove("SERVING_POD");
    for (mut command, name) in [(wrong, "CONTAINER_CONCURRENCY"), (missing, "SERVING_POD")] {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.lines().count() == 1 && said.contains(name), "{said}");
    }
}

#[test]
fn a_port_in_use_ends_it() {
    // An address of its own in 127/8, so that the fixed side ports are free.
    let taken = std::net::TcpListener::bind("127.77.12.1:0").unwrap();
    let output = sidecar(taken.local_addr().unwrap().port(), "127.77.12.1").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cannot listen on 127.77.12.1:"));
}

#[test]
fn it_logs_in_the_keys_and_to_the_stream_of_a_zap_configuration() {
    let taken = std::net::TcpListener::bind("127.77.12.4:0").unwrap();
    let mut command = sidecar(taken.local_addr().unwrap().port(), "127.77.12.4");
    let zap = r#"{"level":"info","outputPaths":["stdout"],"encoderConfig":{"messageKey":"msg","levelKey":"lvl","levelEncoder":""}}"#;
    let output = command.env("SERVING_LOGGING_CONFIG", zap).stdout(Stdio::piped()).output().unwrap();
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&line["lvl"], &line["logger"]), (&"error".into(), &"queueproxy".into()), "{line}");
    assert_eq!((&line["knative.dev/key"], &line["knative.dev/pod"]), (&"ns/rev".into(), &"pod1".into()), "{line}");
    assert!(line["error"].as_str().unwrap().starts_with("cannot listen on 127.77.12.4:"), "{line}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

fn answer(child: &mut Child, address: &str) -> String {
    loop {
        assert!(child.try_wait().unwrap().is_none(), "ended early");
        if let Ok(mut stream) = TcpStream::connect(address) {
            let probe = "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1\r\nK-Network-Probe: queue\r\nConnection: close\r\n\r\n";
            stream.write_all(probe.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            return answer;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn it_serves_and_a_signal_ends_it_cleanly() {
    let mut child = sidecar(8012, "127.77.12.2").spawn().unwrap();
    assert!(answer(&mut child, "127.77.12.2:8012").ends_with("queue"));
    let killed = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once_whichever_the_two_are() {
    for (n, signals) in [["-TERM", "-TERM"], ["-INT", "-TERM"]].into_iter().enumerate() {
        let address = format!("127.77.12.{}", 10 + n);
        // The quiet period would hold it up for half a minute.
        let mut child = sidecar(8012, &address).env("DORMOUSE_DRAIN_QUIET_MS", "30000").spawn().unwrap();
        assert!(answer(&mut child, &format!("{address}:8012")).ends_with("queue"));
        let signal = |signal: &str| {
            let pid = child.id().to_string();
            assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        };
        signal(signals[0]);
        let probe =
            "GET / HTTP/1.1\r\nHost: a\r\nK-Network-Probe: probe\r\nK-Network-Hash: x\r\nConnection: close\r\n\r\n";
        let mut refused = String::new();
        while !refused.starts_with("HTTP/1.1 503 ") {
            let mut stream = TcpStream::connect(format!("{address}:8012")).unwrap();
            stream.write_all(probe.as_bytes()).unwrap();
            refused.clear();
            stream.read_to_string(&mut refused).unwrap();
        }
        assert!(refused.ends_with("shutting down\n"), "{refused}");
        signal(signals[1]);
        assert_eq!(child.wait().unwrap().code(), Some(1));
    }
}

#[test]
fn a_request_is_logged_on_stdout_and_the_line_is_out_before_the_end() {
    let mut command = sidecar(8012, "127.77.12.3");
    let log = r#"{"enableRequestLog":true,"requestLogTemplate":"{{.Request.RequestURI}} {{.Response.Code}} {{.Revision.Name}}"}"#;
    command.env("OBSERVABILITY_CONFIG", log).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    assert!(answer(&mut child, "127.77.12.3:8012").ends_with("queue"));
    // Nobody listens at port 1.
    let mut stream = TcpStream::connect("127.77.12.3:8012").unwrap();
    stream.write_all(b"GET /x?y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "/x?y 502 rev\n");
}

#[test]
fn spans_are_printed_on_stdout_and_are_out_before_the_end() {
    let mut command = sidecar(8012, "127.77.12.4");
    // A rate of zero, but whoever asks for stdout wants to see.
    command.env("OBSERVABILITY_CONFIG", r#"{"tracing":{"protocol":"stdout"}}"#).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    assert!(answer(&mut child, "127.77.12.4:8012").ends_with("queue"));
    let mut stream = TcpStream::connect("127.77.12.4:8012").unwrap();
    stream.write_all(b"GET /x?y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    stream.read_to_string(&mut String::new()).unwrap();
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let spans: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = spans.iter().map(|span| span["Name"].as_str().unwrap()).collect();
    assert_eq!(names, ["GET", "HTTP GET", "kn.queueproxy.proxy"]);
    assert_eq!(spans[1]["Parent"]["SpanID"], spans[2]["SpanContext"]["SpanID"]);
    assert_eq!(spans[0]["Status"]["Code"], "Error");
}

#[test]
fn a_collector_that_is_away_is_said_once_and_what_was_lost_at_the_end() {
    let mut command = sidecar(8012, "127.77.12.5");
    let tracing = r#"{"tracing":{"protocol":"grpc","endpoint":"http://127.77.12.5:1","samplingRate":1}}"#;
    command
        .env("OBSERVABILITY_CONFIG", tracing)
        .env("OTEL_BSP_SCHEDULE_DELAY", "1")
        .env("SERVING_LOGGING_LEVEL", "info");
    let mut child = command.spawn().unwrap();
    assert!(answer(&mut child, "127.77.12.5:8012").ends_with("queue"));
    for _ in 0..3 {
        let mut stream = TcpStream::connect("127.77.12.5:8012").unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        stream.read_to_string(&mut String::new()).unwrap();
    }
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let said = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert_eq!(said.matches("telemetry cannot be sent").count(), 1, "{said}");
    assert_eq!(said.matches("telemetry was lost").count(), 1, "{said}");
    assert!(said.contains(r#""lost":9"#), "{said}");
}
