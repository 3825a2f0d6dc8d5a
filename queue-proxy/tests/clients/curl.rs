//! curl, by all protocols that it speaks without TLS.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use http::{Request, Response, Version};
use http_body_util::BodyExt;
use proxy::Body;

use crate::process::Process;
use crate::support::app;

/// An app on a thread of its own, since curl is waited for; it says what it was asked. Returns its port.
fn telling_app() -> u16 {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        proxy::runtime::block_on(async {
            tell.send(app(telling).port()).unwrap();
            std::future::pending::<()>().await;
        })
    });
    told.recv().unwrap()
}

async fn telling(request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    if parts.uri.path() == "/large" {
        return Response::new(Body::full(vec![b'x'; 8 << 20]));
    }
    let http = if parts.version == Version::HTTP_2 { "h2" } else { "h1" };
    let framing = match parts.headers.get("content-length") {
        Some(length) => format!("length {}", length.to_str().unwrap()),
        None if parts.headers.contains_key("transfer-encoding") => "chunked".into(),
        None => "none".into(),
    };
    let body = body.collect().await.unwrap().to_bytes();
    let sum = body.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    let said = format!("{} {} {http} {framing}; {} bytes, sum {sum}", parts.method, parts.uri.path(), body.len());
    Response::builder().status(203).header("x-app", "yes").body(Body::full(said)).unwrap()
}

/// Runs curl; it is fed this.
fn curl(arguments: &[&str], fed: &[u8]) -> Output {
    let mut child = Command::new("curl")
        .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "30"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("curl is missing: .ci/run installs it");
    let mut stdin = child.stdin.take().unwrap();
    let fed = fed.to_vec();
    let feeding = std::thread::spawn(move || {
        let _ = stdin.write_all(&fed);
    });
    let output = child.wait_with_output().unwrap();
    feeding.join().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn said(arguments: &[&str], fed: &[u8]) -> String {
    String::from_utf8(curl(arguments, fed).stdout).unwrap()
}

const STATUS: [&str; 2] = ["-w", " [%{http_code} %{http_version}]"];

#[test]
fn requests_by_each_protocol() {
    let pod = Process::start("127.78.1.1", telling_app(), &[]);
    let url = format!("http://{}/p", pod.at);
    let data = vec![7; 3_000_000];
    for (protocol, version, app) in
        [("--http1.1", "1.1", "h1"), ("--http1.0", "1.0", "h1"), ("--http2-prior-knowledge", "2", "h2")]
    {
        // What the sidecar says of itself to a 1.0 client is 1.1, as upstream does.
        let version = if version == "1.0" { "1.1" } else { version };
        let with = |more: &[&str], fed: &[u8]| said(&[&[protocol, &url][..], &STATUS, more].concat(), fed);
        assert_eq!(with(&[], b""), format!("GET /p {app} none; 0 bytes, sum 0 [203 {version}]"));
        assert_eq!(with(&["-d", "abc"], b""), format!("POST /p {app} length 3; 3 bytes, sum 294 [203 {version}]"));
        assert_eq!(
            with(&["--data-binary", "@-"], &data),
            format!("POST /p {app} length 3000000; 3000000 bytes, sum 21000000 [203 {version}]")
        );
        for method in ["DELETE", "OPTIONS", "TRACE", "PATCH", "PURGE", "PROPFIND", "m-search"] {
            // Where a body is usual the app is told that there is none.
            let told = with(&["-X", method], b"").replace(" length 0;", " none;");
            assert_eq!(told, format!("{method} /p {app} none; 0 bytes, sum 0 [203 {version}]"));
        }
        let head = with(&["--head"], b"");
        assert!(head.to_lowercase().contains("\r\nx-app: yes\r\n"), "{head}");
        assert!(head.ends_with(&format!("\r\n\r\n [203 {version}]")), "{head}");
    }
    // Nor has an answer of our own a body then.
    let pod = Process::start("127.78.1.5", 1, &[]);
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        let head = said(&[protocol, "--head", &format!("http://{}/p", pod.at)], b"");
        assert!(head.contains(" 502 ") && head.contains("reason=dial\r\n"), "{head}");
    }
}

#[test]
fn uploads_of_unknown_length() {
    let pod = Process::start("127.78.1.2", telling_app(), &[]);
    let url = format!("http://{}/p", pod.at);
    let data = vec![1; 2_000_000];
    for (protocol, expected) in [
        ("--http1.1", "PUT /p h1 chunked; 2000000 bytes, sum 2000000"),
        ("--http2-prior-knowledge", "PUT /p h2 none; 2000000 bytes, sum 2000000"),
    ] {
        assert_eq!(said(&[protocol, "-T", "-", &url], &data), expected);
        assert_eq!(said(&[protocol, "-T", "-", &url], b"").split("; ").last(), Some("0 bytes, sum 0"));
    }
}

#[test]
fn an_upload_that_waits_to_be_asked_is_asked_once() {
    let pod = Process::start("127.78.1.3", telling_app(), &[]);
    let url = format!("http://{}/p", pod.at);
    let data = vec![1; 1_500_000];
    for upload in ["@-", "-"] {
        let how = if upload == "-" { "-T" } else { "--data-binary" };
        let output = curl(
            &["--http1.1", "-v", "-H", "Expect: 100-continue", "--expect100-timeout", "25", how, upload, &url],
            &data,
        );
        let verbose = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(verbose.matches("< HTTP/1.1 100 Continue").count(), 1, "{verbose}");
        assert!(verbose.contains("< HTTP/1.1 203 "), "{verbose}");
        assert!(String::from_utf8(output.stdout).unwrap().ends_with("1500000 bytes, sum 1500000"));
    }
}

#[test]
fn connections_are_kept_and_downloads_are_whole() {
    let pod = Process::start("127.78.1.4", telling_app(), &[]);
    let large = format!("http://{}/large", pod.at);
    let several = [&large[..], "-o", "/dev/null", &large, "-o", "/dev/null", &large, "-o", "/dev/null"];
    let told = said(&[&["--http1.1", "-w", "%{num_connects} %{size_download}\n"], &several[..]].concat(), b"");
    assert_eq!(told, "1 8388608\n0 8388608\n0 8388608\n");
    let told = said(&[&["--http1.1", "-Z", "-w", "%{size_download} %{http_code}\n"], &several[..]].concat(), b"");
    assert_eq!(told, "8388608 200\n".repeat(3));
    // One each: curl 7.88 breaks its own h2 connections when it uses them again, before any server.
    for protocol in ["--http1.0", "--http2-prior-knowledge"] {
        let told = said(&[protocol, "-w", "%{size_download} %{http_code}", "-o", "/dev/null", &large], b"");
        assert_eq!(told, "8388608 200", "{protocol}");
    }
}
