//! `kn`, Knative's own client, against `dormouse up`: the commands of its users' days.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test cannot do without has failed it"
)]

#[allow(dead_code, reason = "shared with tests that need more of it")]
mod support;

use std::process::Stdio;

use support::{Up, folder};
use tokio::process::Command;

const IMAGE: &str = "dormouse.dev/hello";

/// Runs kn: whether it succeeded, and all that it said.
async fn kn(up: &Up, line: &str) -> (bool, String) {
    let output = Command::new("kn")
        .args(line.split_whitespace())
        .args(["--kubeconfig".as_ref(), up.kubeconfig.as_os_str()])
        .env("HOME", &up.data_dir)
        .stdin(Stdio::null())
        .output()
        .await
        .expect("kn is on PATH (.ci/kn/build makes one)");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), said)
}

/// Runs kn, which must succeed and say all of this.
async fn says(up: &Up, line: &str, parts: &[&str]) {
    let (good, said) = kn(up, line).await;
    assert!(good, "kn {line}: {said}\n{}", up.log());
    for part in parts {
        assert!(said.contains(part), "kn {line}: no {part:?} in\n{said}");
    }
}

/// Runs kn, which must fail and say this.
async fn refuses(up: &Up, line: &str, part: &str) {
    let (good, said) = kn(up, line).await;
    assert!(!good && said.contains(part), "kn {line}: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_revisions_routes_and_traffic() {
    let folder = folder();
    let up = Up::start(&folder.path().join("data"), &[]).await;
    let url = "http://hello.default.example.com";
    let ready = "Ready to serve.";
    says(
        &up,
        &format!("service create hello --image {IMAGE} --env TARGET=one"),
        &[ready, "created to latest revision 'hello-00001'", url],
    )
    .await;
    refuses(&up, &format!("service create hello --image {IMAGE}"), "already exists").await;
    says(&up, "service list", &["hello", url, "hello-00001", "3 OK / 3", "True"]).await;
    says(&up, "service describe hello", &["100%  @latest (hello-00001)", "++ RoutesReady"]).await;

    says(
        &up,
        "service update hello --env TARGET=two --concurrency-limit 5 --scale-max 3 --annotation team=a --label part=b",
        &[ready, "updated to latest revision 'hello-00002'"],
    )
    .await;
    assert_eq!(up.ok("hello.default.example.com", "/").await, "Hello two!");
    says(&up, "service update hello --tag hello-00001=old --traffic old=100", &[ready]).await;
    says(&up, "service describe hello", &["100%  hello-00001 #old"]).await;
    assert_eq!(up.ok("old-hello.default.example.com", "/").await, "Hello one!");
    says(&up, "service update hello --traffic @latest=40,old=60", &[ready]).await;
    says(&up, "service update hello --untag old --traffic @latest=100", &[ready]).await;
    says(&up, "revision list", &["hello-00001", "hello-00002", "100%", "4 OK / 4"]).await;
    says(&up, "revision describe hello-00002", &["Env:", "TARGET=two", "Service:", "hello", "++ Ready"]).await;
    says(&up, "route list", &["hello", url, "True"]).await;
    says(&up, "route describe hello", &["100%  @latest (hello-00002)"]).await;
    refuses(&up, "service update hello --concurrency-limit -1", "concurrency").await;

    says(&up, &format!("service apply second --image {IMAGE} --env TARGET=1"), &["second-00001"]).await;
    says(&up, &format!("service apply second --image {IMAGE} --env TARGET=2"), &[ready, "second-00002"]).await;
    says(&up, &format!("service apply second --image {IMAGE} --env TARGET=2"), &["unchanged"]).await;
    says(&up, "service export second -o yaml", &["kind: Service", "value: \"2\""]).await;
    // A host of one's own.
    let host = "shop.example.org";
    says(&up, &format!("domain create {host} --ref ksvc:hello"), &[&format!("'{host}' created")]).await;
    up.eventually(host, "Hello two!").await;
    up.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", &format!("domainmapping/{host}")]).await;
    says(&up, "domain list", &[host, &format!("http://{host}"), "True"]).await;
    says(&up, &format!("domain describe {host}"), &["URL:", "hello", "++ Ready", "++ DomainClaimed"]).await;
    says(&up, &format!("domain update {host} --ref ksvc:second"), &["updated"]).await;
    up.eventually(host, "Hello 2!").await;
    refuses(&up, "domain create shop --ref ksvc:hello", "should be a domain with at least two segments").await;
    refuses(&up, "domain create a.cluster.local --ref ksvc:hello", "must not be a subdomain of cluster local").await;
    says(&up, &format!("domain delete {host}"), &["deleted"]).await;
    says(&up, "domain list", &["No domain mapping found."]).await;

    says(&up, "revision delete hello-00001 --wait", &["hello-00001", "deleted"]).await;
    says(&up, "service delete hello second --wait", &["'hello' successfully deleted", "'second' successfully deleted"])
        .await;
    says(&up, "service list", &["No services found."]).await;
    up.stop().await;
}
