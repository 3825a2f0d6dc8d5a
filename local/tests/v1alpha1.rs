//! Manifests of 2018, by kubectl, on the embedded API server and on a real one that asks the webhook for versions: the
//! same story to both, and the same answers.
//!
//! The real server is found as in `real_server.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "real_server/cluster.rs"]
mod cluster;

use std::{fmt::Write as _, fs, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use cluster::Cluster;
use control::{
    settings::Settings,
    webhook::{self, Webhook},
};
use local::{
    admission::ControlPlane,
    apiserver::{ApiServer, Config},
    kubeconfig, system,
};
use tempfile::TempDir;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

const HELLO: &str = include_str!("../../control/src/v1alpha1/manifests/hello.yaml");
const RELEASE: &str = include_str!("../../control/src/v1alpha1/manifests/release.yaml");
const OTHERS: [&str; 4] = [
    include_str!("../../control/src/v1alpha1/manifests/pinned.yaml"),
    include_str!("../../control/src/v1alpha1/manifests/manual.yaml"),
    include_str!("../../control/src/v1alpha1/manifests/configuration-and-route.yaml"),
    include_str!("../../control/src/v1alpha1/manifests/revision.yaml"),
];
/// The kind in its two versions.
const OLD: &str = "services.v1alpha1.serving.knative.dev";
const NEW: &str = "services.v1.serving.knative.dev";

struct Kubectl {
    folder: TempDir,
    kubeconfig: PathBuf,
    story: String,
}

impl Kubectl {
    fn new(kubeconfig: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("kubeconfig");
        fs::write(&path, kubeconfig).unwrap();
        Self { folder, kubeconfig: path, story: String::new() }
    }

    async fn output(&self, arguments: &[&str]) -> (bool, String) {
        let mut kubectl = Command::new("kubectl");
        kubectl.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments).env("HOME", self.folder.path());
        let output = kubectl.output().await.expect("kubectl is on PATH");
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.success(), said)
    }

    /// Runs it and notes what it said; a file is named as it is not on another machine.
    async fn run(&mut self, arguments: &[&str]) -> String {
        let (good, said) = self.output(arguments).await;
        let said = said.replace(&self.folder.path().display().to_string(), "FOLDER");
        let told: Vec<String> =
            arguments.iter().map(|a| a.replace(&self.folder.path().display().to_string(), "FOLDER")).collect();
        writeln!(self.story, "$ kubectl {}\n{}{said}", told.join(" "), if good { "" } else { "(refused) " }).unwrap();
        said
    }

    async fn apply(&mut self, manifest: &str) -> String {
        let file = self.folder.path().join("manifest.yaml");
        fs::write(&file, manifest).unwrap();
        self.run(&["apply", "-f", file.to_str().unwrap()]).await
    }

    async fn field(&mut self, kind: &str, name: &str, path: &str) -> String {
        self.run(&["get", kind, name, "-o", &format!("jsonpath={path}{{\"\\n\"}}")]).await
    }
}

/// What is done to a server; all that was said ends up in the story.
async fn tell(kubectl: &mut Kubectl) {
    assert!(kubectl.apply(HELLO).await.ends_with("/helloworld-go created\n"), "{}", kubectl.story);
    // What is applied again is found unchanged: it is shown as it was written.
    assert!(kubectl.apply(HELLO).await.ends_with("/helloworld-go unchanged\n"), "{}", kubectl.story);
    let shown = kubectl.field(OLD, "helloworld-go", "{.spec}").await;
    assert!(shown.starts_with("{\"runLatest\":{\"configuration\":{\"revisionTemplate\":"), "{shown}");
    kubectl.field(NEW, "helloworld-go", "{.spec}").await;
    kubectl.field(NEW, "helloworld-go", "{.metadata.annotations.serving\\.dormouse\\.dev/v1alpha1}").await;
    kubectl.apply(&HELLO.replace("Sample v1", "Sample v2")).await;
    kubectl.field(OLD, "helloworld-go", "{.spec}").await;
    assert_eq!(kubectl.field(NEW, "helloworld-go", "{.metadata.generation}").await, "2\n");
    for manifest in OTHERS {
        kubectl.apply(manifest).await;
        kubectl.apply(manifest).await;
    }
    kubectl.field(NEW, "by-hand", "{.spec}").await;

    // By the newest and back, by hand and back.
    kubectl.apply(RELEASE).await;
    kubectl
        .run(&["patch", OLD, "blue-green-demo", "--type=merge", "-p", r#"{"spec":{"release":{"rolloutPercent":50}}}"#])
        .await;
    kubectl.field(NEW, "blue-green-demo", "{.spec.traffic}").await;
    kubectl.field(OLD, "blue-green-demo", "{.spec.release.rolloutPercent}").await;
    let by_hand = "apiVersion: serving.knative.dev/v1alpha1\nkind: Service\nmetadata: {name: helloworld-go}\nspec: {manual: {}}\n";
    kubectl.apply(by_hand).await;
    assert_eq!(kubectl.field(OLD, "helloworld-go", "{.spec}").await, "{\"manual\":{}}\n");
    kubectl.apply(HELLO).await;
    kubectl.field(OLD, "helloworld-go", "{.spec}").await;

    // What v1 has changed cannot be said as it was.
    let split = r#"{"spec":{"traffic":[{"latestRevision":true,"percent":90},{"revisionName":"helloworld-go-00001","percent":10}]}}"#;
    kubectl.run(&["patch", NEW, "helloworld-go", "--type=merge", "-p", split]).await;
    kubectl.field(OLD, "helloworld-go", "{.spec.traffic}").await;

    // Applied by the server.
    let applied = kubectl.folder.path().join("applied.yaml");
    let server_side = ["apply", "--server-side", "-f", &applied.display().to_string()];
    for target in ["Sample v1", "Sample v1", "Sample v2"] {
        fs::write(&applied, HELLO.replace("helloworld-go", "applied").replace("Sample v1", target)).unwrap();
        assert!(kubectl.run(&server_side).await.contains("serverside-applied"), "{}", kubectl.story);
    }
    kubectl.field(OLD, "applied", "{.spec}").await;
    kubectl.field(NEW, "applied", "{.spec}").await;
    kubectl.field(NEW, "applied", "{.metadata.generation}").await;

    // Slips.
    for (from, to) in [
        ("concurrencyModel: Single", "concurrencyModel: Some"),
        ("runLatest:", "runlatest:"),
        ("image: ", "env: [] #"),
        ("maxScale: \"5\"", "maxScale: \"many\""),
    ] {
        let manifest = HELLO.replace(from, to).replace("helloworld-go", "slip");
        assert!(!kubectl.apply(&manifest).await.contains("created"), "{}", kubectl.story);
    }
    kubectl.run(&["get", OLD, "-o", "name"]).await;
    kubectl
        .run(&["get", "routes.v1alpha1.serving.knative.dev,configurations.v1alpha1.serving.knative.dev", "-o", "name"])
        .await;
    kubectl.run(&["delete", OLD, "helloworld-go"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_of_2018_are_taken_and_shown_as_they_were_written() {
    let folder = TempDir::new().unwrap();
    let settings = Arc::new(ArcSwap::from_pointee(Settings::new(system::CLUSTER_DOMAIN)));
    let admission = Arc::new(ControlPlane { settings });
    let embedded = ApiServer::bind(Config::new(folder.path().join("data"), admission)).await.unwrap();
    let mut ours = Kubectl::new(&kubeconfig::render(embedded.local_addr()));
    let stop = CancellationToken::new();
    let serving = tokio::spawn(embedded.run(stop.clone()));
    tell(&mut ours).await;
    let told = ours.story.len();
    // What neither version knows is found here by the description of the one that is stored; a real server leaves
    // that to admission.
    let said = ours.apply(&HELLO.replace("image: ", "imagee: ")).await;
    assert!(said.contains("unknown field \"spec.template.spec.containers[0].imagee\""), "{said}");
    ours.story.truncate(told);
    stop.cancel();
    serving.await.unwrap().unwrap();

    let real = Cluster::find().await;
    real.apply_manifests("none").await;
    cluster::install_crds(&real.client()).await;
    system::prepare(&real.client(), "10.9.9.9:8012".parse().unwrap(), &[]).await.unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let webhook = Webhook::bind(webhook::Config {
        listen: ([127, 0, 0, 1], port).into(),
        url: Some(format!("https://127.0.0.1:{port}")),
        every: Duration::from_millis(100),
        ..webhook::Config::new(real.client_of("webhook"))
    })
    .unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(webhook.run(stop.clone()));
    let mut theirs = Kubectl::new(real.kubeconfig());
    // Until the API server has heard of the webhook.
    let probe = theirs.folder.path().join("probe.yaml");
    fs::write(&probe, HELLO.replace("image: ", "imagee: ")).unwrap();
    let mut said = String::new();
    for _ in 0..600 {
        said = theirs.output(&["create", "--dry-run=server", "-f", probe.to_str().unwrap()]).await.1;
        if said.contains("missing field(s)") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(said.contains("missing field(s)"), "{said}");
    tell(&mut theirs).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    if ours.story != theirs.story {
        for (ours, theirs) in ours.story.lines().zip(theirs.story.lines()).filter(|(a, b)| a != b) {
            eprintln!("ours:   {ours}\ntheirs: {theirs}\n");
        }
        panic!("told differently");
    }
}
