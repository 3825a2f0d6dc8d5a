//! The whole system from the outside: `dormouse up`, the real kubectl, a real HTTP client.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test cannot do without has failed it"
)]

mod support;

use std::{fs, net::TcpListener, time::Duration};

use http::Method;
use support::{Up, command, folder, hello, processes_with};
use tokio::time::{Instant, sleep};

/// Sleep as soon as upstream's limits allow.
const SLEEPY: &[&str] =
    &["--set", "config-autoscaler.stable-window=6s", "--set", "config-autoscaler.scale-to-zero-grace-period=1s"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_goes_from_zero_to_one_to_many_to_zero_and_wakes_again() {
    let folder = folder();
    let up = Up::start(&folder.path().join("data"), SLEEPY).await;
    let applied = up.apply(&hello("hello", "World", "", "containerConcurrency: 1")).await;
    assert!(applied.contains("service.serving.knative.dev/hello created"), "{applied}");
    up.ready("hello").await;
    let host = "hello.default.example.com";
    assert_eq!(up.field("ksvc/hello", "{.status.url}").await, format!("http://{host}"));
    assert_eq!(up.ok(host, "/").await, "Hello World!");

    // More requests at once than one pod may have: it takes several.
    let many = async { futures::future::join_all((0..6).map(|_| up.ok(host, "/?sleep=3000"))).await };
    let (answers, pods) = tokio::join!(many, up.wait_pods("hello", |n| n >= 3));
    assert!(answers.iter().all(|a| a == "Hello World!") && pods >= 3);

    // Nobody calls: it sleeps, and that is told. The next request wakes it.
    up.wait_pods("hello", |n| n == 0).await;
    let until = Instant::now() + support::PATIENCE;
    while !up.log().contains("sleeps") {
        assert!(Instant::now() < until, "{}", up.log());
        sleep(Duration::from_millis(20)).await;
    }
    assert!(up.kubectl(&["get", "ksvc", "hello"]).await.contains("True"), "asleep and ready are no contradiction");
    assert_eq!(up.ok(host, "/").await, "Hello World!");
    assert!(up.pods("serving.knative.dev/service=hello").await >= 1);
    let log = up.log();
    assert!(log.contains("sleeps") && log.contains("wakes:") && log.contains("first byte"), "{log}");

    // The program's output, a request body, and the end of it all.
    let posted = up.request(Method::POST, host, "/", r#"{"msg":"good night"}"#).await;
    assert!(posted.status == 200 && posted.body.contains("good night") && posted.body.ends_with("success"));
    let pod = up.field("pods", "{.items[0].metadata.name}").await;
    let logs = up.kubectl(&["logs", &pod, "-c", "user-container"]).await;
    assert!(logs.contains("hello: serving on"), "{logs}");
    let answer = up.get("nobody.default.example.com", "/").await;
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("nobody.default.example.com"), "{}", answer.body);
    up.kubectl(&["delete", "ksvc", "hello"]).await;
    up.wait_pods("hello", |n| n == 0).await;
    let until = Instant::now() + support::PATIENCE;
    while up.get(host, "/").await.status != 404 {
        assert!(Instant::now() < until, "the route of a deleted service still answers");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(up.kubectl(&["get", "revisions,routes,configurations,podautoscalers", "-o", "name"]).await, "");
    up.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_splits_by_percent_by_tag_and_rolls_back() {
    let folder = folder();
    let up = Up::start(&folder.path().join("data"), &[]).await;
    up.apply(&hello("web", "one", "", "")).await;
    up.ready("web").await;
    up.apply(&hello("web", "two", "", "")).await;
    let host = "web.default.example.com";
    up.eventually(host, "Hello two!").await;

    let traffic = |one: u32, two: u32| {
        format!(
            r#"{{"spec":{{"traffic":[{{"revisionName":"web-00001","percent":{one},"tag":"old"}},{{"revisionName":"web-00002","percent":{two}}}]}}}}"#
        )
    };
    up.kubectl(&["patch", "ksvc", "web", "--type=merge", "-p", &traffic(50, 50)]).await;
    up.eventually("old-web.default.example.com", "Hello one!").await;
    up.ready("web").await;
    let mut ones = 0;
    for _ in 0..200 {
        ones += u32::from(up.ok(host, "/").await == "Hello one!");
    }
    // A fair coin stays within these bounds in all but one of 10^8 runs.
    assert!((60..=140).contains(&ones), "{ones} of 200 went to the half");

    up.kubectl(&["patch", "ksvc", "web", "--type=merge", "-p", &traffic(100, 0)]).await;
    up.ready("web").await;
    up.eventually(host, "Hello one!").await;
    for _ in 0..20 {
        assert_eq!(up.ok(host, "/").await, "Hello one!", "after the roll-back");
    }
    let status = up.field("ksvc/web", "{.status.traffic[?(@.tag=='old')].url}").await;
    assert_eq!(status, "http://old-web.default.example.com");
    let refused = up.try_kubectl(&["patch", "ksvc", "web", "--type=merge", "-p", &traffic(60, 60)]).await;
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && message.contains("sum"), "{message}");
    up.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_in_2018_runs() {
    let folder = folder();
    let up = Up::start(&folder.path().join("data"), &[]).await;
    let hello = include_str!("../../control/src/v1alpha1/manifests/hello.yaml");
    up.apply(hello).await;
    up.ready("helloworld-go").await;
    let host = "helloworld-go.default.example.com";
    assert_eq!(up.ok(host, "/").await, "Hello Go Sample v1!");
    let domain = up.field("services.v1alpha1.serving.knative.dev/helloworld-go", "{.status.domain}").await;
    assert_eq!(domain, host);
    // By hand: what was made stays, and is the user's.
    let by_hand = "apiVersion: serving.knative.dev/v1alpha1\nkind: Service\nmetadata: {name: helloworld-go}\n\
                   spec: {manual: {}}\n";
    up.apply(by_hand).await;
    let ready = "{.status.conditions[?(@.type=='Ready')].reason}";
    let until = Instant::now() + support::PATIENCE;
    while up.field("ksvc/helloworld-go", ready).await != "Manual" {
        assert!(Instant::now() < until, "{}", up.log());
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(up.ok(host, "/").await, "Hello Go Sample v1!");
    up.apply(&hello.replace("Sample v1", "Sample v2")).await;
    up.eventually(host, "Hello Go Sample v2!").await;

    up.apply(include_str!("../../control/src/v1alpha1/manifests/configuration-and-route.yaml")).await;
    up.eventually("route-example.default.example.com", "Hello World!").await;
    up.eventually("v2-route-example.default.example.com", "Hello World!").await;
    up.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_revision_gets_its_traffic_bit_by_bit() {
    let folder = folder();
    let up = Up::start(&folder.path().join("data"), &["--set", "config-network.rollout-duration=5"]).await;
    let host = "slow.default.example.com";
    up.apply(&hello("slow", "one", "", "")).await;
    up.ready("slow").await;
    up.apply(&hello("slow", "two", "", "")).await;
    let until = Instant::now() + support::PATIENCE;
    let mut seen = Vec::new();
    // One share, two shares that move, and one share again.
    while seen.last().is_none_or(|last| last != "slow-00002=100 ") || seen.len() < 3 {
        let range = "{range .status.traffic[*]}{.revisionName}={.percent} {end}";
        let traffic = up.field("route/slow", range).await;
        if seen.last() != Some(&traffic) {
            seen.push(traffic);
        }
        assert!(Instant::now() < until, "{seen:?}\n{}", up.log());
        sleep(Duration::from_millis(50)).await;
    }
    assert!(
        seen.iter().any(|traffic| traffic.starts_with("slow-00001=") && traffic.contains("slow-00002=")),
        "{seen:?}"
    );
    up.ready("slow").await;
    assert_eq!(up.ok(host, "/").await, "Hello two!");
    up.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_a_restart_and_no_process_outlives_up() {
    let folder = folder();
    let data = folder.path().join("data");
    let marker = data.to_str().unwrap().to_owned();
    let host = "hello.default.example.com";
    let up = Up::start(&data, &[]).await;
    up.apply(&hello("hello", "World", "", "")).await;
    up.ready("hello").await;
    assert_eq!(up.ok(host, "/").await, "Hello World!");
    let uid = up.field("ksvc/hello", "{.metadata.uid}").await;
    up.stop().await;
    assert_eq!(processes_with(&marker), [], "after SIGTERM");

    let up = Up::start(&data, &[]).await;
    assert_eq!(up.field("ksvc/hello", "{.metadata.uid}").await, uid);
    up.eventually(host, "Hello World!").await;
    up.kill().await;
    let until = Instant::now() + support::PATIENCE;
    while !processes_with(&marker).is_empty() {
        assert!(Instant::now() < until, "after SIGKILL: {:?}", processes_with(&marker));
        sleep(Duration::from_millis(20)).await;
    }

    let up = Up::start(&data, &[]).await;
    assert_eq!(up.field("ksvc/hello", "{.metadata.uid}").await, uid);
    up.eventually(host, "Hello World!").await;
    up.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_shown_where_the_user_looks() {
    let folder = folder();
    let crash = format!("ko.local/crash={} hello --no-such-flag", support::DORMOUSE);
    let missing = "ko.local/missing=/no/such/program";
    let up = Up::start(&folder.path().join("data"), &["--image", &crash, "--image", missing]).await;
    let service = |name: &str, image: &str| hello(name, "x", "", "").replace("dormouse.dev/hello", image);

    // A field that does not exist, and a value that cannot be.
    let file = folder.path().join("wrong.yaml");
    fs::write(&file, hello("wrong", "x", "", "containerConcurency: 1")).unwrap();
    let refused = up.try_kubectl(&["apply", "-f", file.to_str().unwrap()]).await;
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && message.contains("containerConcurency"), "{message}");
    fs::write(&file, hello("wrong", "x", "", "containerConcurrency: -1")).unwrap();
    let refused = up.try_kubectl(&["apply", "-f", file.to_str().unwrap()]).await;
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("spec.template.spec.containerConcurrency"), "{message}");
    assert!(!up.try_kubectl(&["get", "ksvc", "wrong"]).await.status.success(), "nothing of it is stored");

    // Images that cannot run, and one that ends at once: the Service says so.
    for (name, image, wanted) in [
        ("unmapped", "ko.local/unmapped", "--image"),
        ("missing", "ko.local/missing", "/no/such/program"),
        ("crash", "ko.local/crash", "no-such-flag"),
    ] {
        up.apply(&service(name, image)).await;
        let until = Instant::now() + support::PATIENCE;
        loop {
            let path = "{.status.conditions[?(@.status=='False')]}";
            let conditions = up.field(&format!("ksvc/{name}"), path).await;
            if conditions.contains(r#""type":"Ready""#) && conditions.to_lowercase().contains(wanted) {
                break;
            }
            assert!(Instant::now() < until, "{name}: {conditions}\n{}", up.log());
            sleep(Duration::from_millis(100)).await;
        }
    }

    // None of it hurts the others.
    up.apply(&hello("fine", "World", "", "")).await;
    up.ready("fine").await;
    assert_eq!(up.ok("fine.default.example.com", "/").await, "Hello World!");
    up.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_refuses_to_start_wrong_and_says_why() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let data = folder.path().join("data");
    let broken = folder.path().join("broken");
    fs::create_dir_all(&broken).unwrap();
    let running = Up::start(&data, &[]).await;
    let store =
        fs::read_dir(&data).unwrap().flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "redb"));
    let store = store.expect("the objects are in a redb file").file_name().unwrap().to_owned();
    fs::write(broken.join(store), "this is no database").unwrap();
    let fresh = folder.path().join("fresh");
    let file = folder.path().join("bad.yaml");
    fs::write(&file, "kind: [").unwrap();
    let bad_manifest = file.to_str().unwrap();
    let cases: &[(&std::path::Path, &[&str], &str)] = &[
        (&fresh, &["--set", "config-autoscaler.stable-window=soon"], "stable-window"),
        (&fresh, &["--set", "nonsense"], "CONFIGMAP.KEY=VALUE"),
        (&fresh, &["--image", "no-equals-sign"], "REF=COMMAND"),
        (&fresh, &["-f", bad_manifest], "bad.yaml"),
        (&fresh, &["-f", "/no/such/file.yaml"], "/no/such/file.yaml"),
        (&broken, &[], "broken"),
        (&data, &[], "data"),
    ];
    for (data_dir, arguments, wanted) in cases {
        let output = command(data_dir, arguments).output().await.unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?} started");
        assert!(message.contains(wanted), "{arguments:?}: {message}");
    }
    for flag in ["--http", "--api", "--console"] {
        let mut up = tokio::process::Command::new(support::DORMOUSE);
        up.arg("up").arg("--data-dir").arg(folder.path().join("ports"));
        for other in ["--http", "--api", "--console"] {
            up.args([other, if other == flag { taken.as_str() } else { "127.0.0.1:0" }]);
        }
        let output = up.kill_on_drop(true).output().await.unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && message.contains(flag) && message.contains(&taken), "{flag}: {message}");
    }
    running.stop().await;
    assert_eq!(
        fs::read_to_string(fs::read_dir(&broken).unwrap().flatten().next().unwrap().path()).unwrap(),
        "this is no database",
        "nothing of a broken data dir is lost"
    );
}
