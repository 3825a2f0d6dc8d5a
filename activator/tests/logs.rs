//! The process's log and the request log, as a reader of both streams gets them: the test runs itself as the process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::process::{Command, Stdio};

use activator::live::{LiveSettings, Logging};
use activator::{Config, observe};
use api::settings::{Data, Observability};
use http::{Request, StatusCode};
use http_body_util::Full;
use support::{Door, Pod, send, until};
use tokio::sync::watch;

/// Set for the process that is looked at.
const INSIDE: &str = "LOGS_TEST_INSIDE";

fn request_log(template: &str) -> Observability {
    let data = [("logging.enable-request-log", "true"), ("logging.request-log-template", template)];
    let data: Data = data.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    Observability::parse(&data).unwrap()
}

/// What the process does: requests under one template, under another, and without; then at a finer level.
#[tokio::test(flavor = "multi_thread")]
async fn inside() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let log = observe::start_log("act-1");
    let template = "log one {{.Request.Method}} {{.Request.URL}} {{.Response.Code}} {{.Revision.Namespace}}/{{.Revision.Name}} <{{.Revision.PodName}}{{.TraceID}}>";
    let (tell, live) = watch::channel(LiveSettings { observability: request_log(template), ..<_>::default() });
    let door = Door::open(Config { live, log: Some(log.clone()), threads: 2, ..Config::detached() }).await;
    door.service("hello", 0).await;
    let pod = Pod::start("pod").await;
    door.pods("hello", &[pod.address], &[]);
    let get = |path: &str, headers: &[(&str, &str)]| {
        let mut request = Request::get(path).header("host", "hello.test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(door.address, request.body(Full::default()).unwrap())
    };
    assert_eq!(get("/a?b=c", &[("traceparent", "00-abc-def-01")]).await.status, StatusCode::OK);
    // Neither probes nor what reached no revision are logged.
    get("/probe", &[("k-network-probe", "activator")]).await;
    let lost = Request::get("/lost").header("host", "nobody.test").body(Full::default()).unwrap();
    assert_eq!(send(door.address, lost).await.status, StatusCode::NOT_FOUND);

    let now = || door.shared.switches.request_log();
    let before = now().unwrap();
    tell.send_modify(|live| live.observability = request_log("log two {{.Response.Size}}"));
    until("the new template", || now().is_some_and(|log| !std::sync::Arc::ptr_eq(&log, &before))).await;
    get("/b", &[]).await;
    tell.send_modify(|live| live.observability = Observability::default());
    until("no log", || now().is_none()).await;
    get("/c", &[]).await;

    tell.send_modify(|live| {
        live.logging = Logging { level: "debug".into(), zap: r#"{"encoderConfig":{"messageKey":"msg"}}"#.into() };
    });
    until("debug", || log.level() == tracing::level_filters::LevelFilter::DEBUG).await;
    tracing::debug!(target: "activator::test", "fine");
    drop(before);
    door.close().await;
}

#[test]
fn both_logs_say_what_they_are_asked_for() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "inside", "--nocapture", "--test-threads=1"]).env(INSIDE, "1");
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let (said, logged) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{said}\n{logged}");
    let lines: Vec<&str> = said.lines().filter_map(|line| line.find("log ").map(|at| &line[at..])).collect();
    assert_eq!(lines, ["log one GET /a?b=c 200 ns/hello <>", "log two 4"], "{said}");

    let lines: Vec<serde_json::Value> = logged.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let first = lines.first().unwrap_or_else(|| panic!("nothing in\n{logged}"));
    assert_eq!((&first["severity"], &first["logger"]), (&"INFO".into(), &"activator".into()), "{logged}");
    assert_eq!(first["knative.dev/pod"], "act-1");
    assert!(first["message"].is_string() && first["timestamp"].is_string() && first["caller"].is_string(), "{first}");
    assert!(lines.iter().any(|line| line["severity"] == "DEBUG" && line["msg"] == "fine"), "{logged}");
    let early = lines.iter().position(|line| line["msg"] == "log level changed").unwrap();
    assert!(lines[..early].iter().all(|line| line["severity"] != "DEBUG"), "{logged}");
}
