//! A running server with a data directory of its own, and `kubectl` pointed at it.
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kube::config::Config as ClientConfig;
use local::apiserver::{Admission, AdmissionDenied, AdmissionRequest, ApiServer, Config, Error, Operation};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Names the container as Knative's defaults do; denies Services with the annotation `deny`.
pub(crate) struct Named;

impl Admission for Named {
    fn handles(&self, group: &str, _: &str) -> bool {
        group == "serving.knative.dev"
    }

    fn admit(&self, request: AdmissionRequest) -> Result<Value, AdmissionDenied> {
        let Some(mut object) = request.new else { return Ok(Value::Null) };
        if request.operation != Operation::Delete && !object["metadata"]["annotations"]["deny"].is_null() {
            return Err(AdmissionDenied {
                webhook: "validation.webhook.serving.knative.dev".to_owned(),
                message: "validation failed: must not set the field(s): metadata.annotations.deny".to_owned(),
                code: 400,
            });
        }
        if let Some(container) = object.pointer_mut("/spec/template/spec/containers/0")
            && container["name"].is_null()
        {
            container["name"] = json!("user-container");
        }
        Ok(object)
    }
}

/// A server under test.
pub(crate) struct Running {
    pub(crate) dir: TempDir,
    pub(crate) url: String,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

pub(crate) fn config(dir: &Path) -> Config {
    Config::new(dir.join("data"), Arc::new(Named))
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::on(TempDir::new().unwrap()).await
    }

    /// Starts on what an earlier server left.
    pub(crate) async fn on(dir: TempDir) -> Self {
        let server = ApiServer::bind(config(dir.path())).await.unwrap();
        let url = format!("http://{}", server.local_addr());
        let stop = CancellationToken::new();
        let task = tokio::spawn(server.run(stop.clone()));
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "dormouse",
            "clusters": [{ "name": "dormouse", "cluster": { "server": url } }],
            "contexts": [{ "name": "dormouse", "context": { "cluster": "dormouse", "user": "dormouse" } }],
            "users": [{ "name": "dormouse", "user": {} }],
        });
        std::fs::write(dir.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
        Self { dir, url, stop, task }
    }

    /// Stops cleanly and gives back what it left.
    pub(crate) async fn stop(self) -> TempDir {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.expect("stops").unwrap().unwrap();
        self.dir
    }

    pub(crate) fn client(&self) -> kube::Client {
        let mut config = ClientConfig::new(self.url.parse().unwrap());
        "default".clone_into(&mut config.default_namespace);
        kube::Client::try_from(config).unwrap()
    }

    /// `kubectl` with the arguments, not yet started.
    pub(crate) fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("kubectl");
        command
            .args(arguments)
            .env("KUBECONFIG", self.dir.path().join("kubeconfig"))
            .env("HOME", self.dir.path())
            .env("KUBECACHEDIR", self.dir.path().join("cache"))
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    async fn output(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self.command(arguments).spawn().expect("kubectl is on PATH");
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await.expect("kubectl ends").unwrap()
    }

    /// What `kubectl` prints; it must succeed.
    pub(crate) async fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        let output = self.output(arguments, input).await;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "kubectl {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap() + &errors
    }

    /// What `kubectl` complains; it must fail.
    pub(crate) async fn kubectl_fails(&self, arguments: &[&str], input: &str) -> String {
        let output = self.output(arguments, input).await;
        assert!(!output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }
}

/// A Knative Service as users write it.
pub(crate) const HELLO: &str = "
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: hello
spec:
  template:
    spec:
      containers:
      - image: ko.local/hello
        env:
        - name: TARGET
          value: world
";

/// Waits until a condition holds; the condition is what is tested, not the time.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(tokio::time::Instant::now() < end, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
