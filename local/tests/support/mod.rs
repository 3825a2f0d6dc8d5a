//! What the end-to-end tests share: a real `dormouse up` in a folder of its own, the real kubectl, a real HTTP client.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::sleep,
};

/// The program under test.
pub(crate) const DORMOUSE: &str = env!("CARGO_BIN_EXE_dormouse");
/// How long anything may take before the test calls it hung. Generous: the machine may be busy; nothing is timed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A running `dormouse up`.
pub(crate) struct Up {
    child: Child,
    pub(crate) data_dir: PathBuf,
    pub(crate) http: SocketAddr,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) pid: u32,
}

/// An answer to one request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// A folder for one test.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// `dormouse up` on free ports, not yet started.
pub(crate) fn command(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(DORMOUSE);
    command.args(["up", "--http", "127.0.0.1:0", "--api", "127.0.0.1:0", "--console", "127.0.0.1:0"]);
    command.arg("--data-dir").arg(data_dir).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

impl Up {
    /// Starts it and waits until it says where it listens.
    pub(crate) async fn start(data_dir: &Path, arguments: &[&str]) -> Self {
        fs::create_dir_all(data_dir).unwrap();
        let log = fs::OpenOptions::new().create(true).append(true).open(data_dir.with_extension("log")).unwrap();
        let mut child =
            command(data_dir, arguments).stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("up starts");
        let pid = child.id().unwrap();
        let state_file = data_dir.join("up.json");
        let started = Instant::now();
        let state: serde_json::Value = loop {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("up ended with {status}:\n{}", read_log(data_dir));
            }
            // A run that was killed may have left its own behind.
            let state = fs::read(&state_file).ok().and_then(|b| serde_json::from_slice::<serde_json::Value>(&b).ok());
            if let Some(state) = state.filter(|s| s["pid"] == pid) {
                break state;
            }
            assert!(started.elapsed() < PATIENCE, "no up.json:\n{}", read_log(data_dir));
            sleep(Duration::from_millis(5)).await;
        };
        let address = |key: &str| state[key].as_str().unwrap().parse().unwrap();
        Self {
            child,
            data_dir: data_dir.to_owned(),
            http: address("http"),
            kubeconfig: PathBuf::from(state["kubeconfig"].as_str().unwrap()),
            pid,
        }
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        read_log(&self.data_dir)
    }

    /// Runs kubectl against it.
    pub(crate) async fn try_kubectl(&self, arguments: &[&str]) -> Output {
        Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .env("HOME", &self.data_dir)
            .stdin(Stdio::null())
            .output()
            .await
            .expect("kubectl is installed")
    }

    /// Runs kubectl, which must succeed, and returns what it printed.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.try_kubectl(arguments).await;
        assert!(
            output.status.success(),
            "kubectl {arguments:?}: {}\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Applies a manifest with kubectl.
    pub(crate) async fn apply(&self, manifest: &str) -> String {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        fs::write(file.path(), manifest).unwrap();
        self.kubectl(&["apply", "-f", file.path().to_str().unwrap()]).await
    }

    /// One field by jsonpath; empty when it is not there.
    pub(crate) async fn field(&self, object: &str, path: &str) -> String {
        let output = self.try_kubectl(&["get", object, "-o", &format!("jsonpath={path}")]).await;
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until the service is ready.
    pub(crate) async fn ready(&self, service: &str) {
        self.kubectl(&["wait", "--for=condition=Ready", &format!("ksvc/{service}"), "--timeout=90s"]).await;
    }

    /// Pods of a revision or service, by label, that are not on their way out.
    pub(crate) async fn pods(&self, selector: &str) -> usize {
        let names = self
            .kubectl(&[
                "get",
                "pods",
                "-l",
                selector,
                "-o",
                "jsonpath={range .items[*]}{.metadata.name}:{.metadata.deletionTimestamp}{\"\\n\"}{end}",
            ])
            .await;
        names.lines().filter(|l| l.ends_with(':')).count()
    }

    /// Waits until a service has this many pods.
    pub(crate) async fn wait_pods(&self, service: &str, wanted: impl Fn(usize) -> bool) -> usize {
        let started = Instant::now();
        loop {
            let n = self.pods(&format!("serving.knative.dev/service={service}")).await;
            if wanted(n) {
                return n;
            }
            assert!(started.elapsed() < PATIENCE, "{service} has {n} pods\n{}", self.log());
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// One request to the gateway.
    pub(crate) async fn request(&self, method: Method, host: &str, path: &str, body: &str) -> Answer {
        let stream = TcpStream::connect(self.http).await.expect("the gateway listens");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", host)
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .unwrap();
        let response = tokio::time::timeout(PATIENCE, sender.send_request(request))
            .await
            .unwrap_or_else(|_| panic!("no answer from {host}{path}\n{}", self.log()))
            .unwrap_or_else(|e| panic!("{host}{path}: {e}\n{}", self.log()));
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Answer { status: parts.status.as_u16(), body: String::from_utf8_lossy(&body).into_owned() }
    }

    /// One GET.
    pub(crate) async fn get(&self, host: &str, path: &str) -> Answer {
        self.request(Method::GET, host, path, "").await
    }

    /// One GET that must be answered with 200; returns the body.
    pub(crate) async fn ok(&self, host: &str, path: &str) -> String {
        let answer = self.get(host, path).await;
        assert_eq!(answer.status, 200, "{host}{path}: {answer:?}\n{}", self.log());
        answer.body
    }

    /// Asks until the answer is this one.
    pub(crate) async fn eventually(&self, host: &str, body: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.get(host, "/").await;
            if answer.status == 200 && answer.body == body {
                return;
            }
            assert!(Instant::now() < until, "{host}: {answer:?}, wanted {body}\n{}", self.log());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops it as Ctrl-C does and waits for its end.
    pub(crate) async fn stop(mut self) {
        kill_process(pid(self.pid), Signal::TERM).unwrap();
        let status = tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("up does not end on SIGTERM\n{}", read_log(&self.data_dir)))
            .unwrap();
        assert!(status.success(), "{status}\n{}", read_log(&self.data_dir));
    }

    /// Kills it outright.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

fn pid(raw: u32) -> Pid {
    Pid::from_raw(raw.try_into().unwrap()).unwrap()
}

fn read_log(data_dir: &Path) -> String {
    fs::read_to_string(data_dir.with_extension("log")).unwrap_or_default()
}

/// Every living process that has `needle` in its environment or command line, but for this one.
pub(crate) fn processes_with(needle: &str) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        if pid == std::process::id() {
            continue;
        }
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let text = [read("cmdline"), read("environ")].concat();
        let cwd = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        let text = format!("{} {}", String::from_utf8_lossy(&text), cwd.display());
        if text.contains(needle) {
            found.push((pid, text.replace('\0', " ").chars().take(200).collect()));
        }
    }
    found
}

/// A service that runs the built-in hello program.
pub(crate) fn hello(name: &str, target: &str, annotations: &str, extra: &str) -> String {
    format!(
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  template:\n    metadata:\n      \
         annotations: {{{annotations}}}\n    spec:\n      {extra}\n      containers:\n      - image: dormouse.dev/hello\n        \
         env: [{{name: TARGET, value: {target}}}]\n"
    )
}
