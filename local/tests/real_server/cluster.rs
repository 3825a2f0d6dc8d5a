//! A real kube-apiserver with an etcd of its own, or one that somebody else runs.
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use kube::config::AuthInfo;
use kube::{Client, Config};
use tempfile::TempDir;

/// A server to compare with; what was started here ends with it.
pub(crate) struct Cluster {
    config: Config,
    kubeconfig: String,
    _processes: Option<(Process, Process, TempDir)>,
}

/// A process that ends when this is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Cluster {
    /// Starts one from `KUBEBUILDER_ASSETS`, else takes that of `KUBECONFIG`.
    pub(crate) async fn find() -> Self {
        let this = match (std::env::var_os("KUBEBUILDER_ASSETS"), std::env::var_os("KUBECONFIG")) {
            (Some(assets), _) => Self::start(Path::new(&assets)),
            (None, Some(file)) => Self {
                config: Config::infer().await.unwrap(),
                kubeconfig: fs::read_to_string(file).unwrap(),
                _processes: None,
            },
            (None, None) => panic!(
                "no Kubernetes API server to compare with: set KUBEBUILDER_ASSETS to a folder with kube-apiserver and etcd \
                 (.ci/kubernetes/build makes one), or KUBECONFIG to a server that may be written to"
            ),
        };
        let client = this.client();
        for _ in 0..600 {
            if namespace_is_there(&client).await {
                return this;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("the Kubernetes API server did not come up within two minutes");
    }

    fn start(assets: &Path) -> Self {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        let [client_port, peer_port, port] = free_ports();
        let etcd_url = format!("http://127.0.0.1:{client_port}");
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        let etcd = start(
            &assets.join("etcd"),
            &path("etcd.log"),
            &[
                format!("--data-dir={}", path("etcd").display()),
                format!("--listen-client-urls={etcd_url}"),
                format!("--advertise-client-urls={etcd_url}"),
                format!("--listen-peer-urls={peer_url}"),
                format!("--initial-advertise-peer-urls={peer_url}"),
                format!("--initial-cluster=default={peer_url}"),
                // Nothing of this is to outlive the test.
                "--unsafe-no-fsync".to_owned(),
            ],
        );
        let pair = rcgen::KeyPair::generate().unwrap();
        let (key, public) = (path("accounts.key"), path("accounts.pub"));
        fs::write(&key, pair.serialize_pem()).unwrap();
        fs::write(&public, pair.public_key_pem()).unwrap();
        let token = uuid::Uuid::new_v4().to_string();
        fs::write(path("tokens.csv"), format!("{token},admin,admin,system:masters\n")).unwrap();
        let server = start(
            &assets.join("kube-apiserver"),
            &path("kube-apiserver.log"),
            &[
                format!("--etcd-servers={etcd_url}"),
                format!("--cert-dir={}", path("certificates").display()),
                format!("--secure-port={port}"),
                "--bind-address=127.0.0.1".to_owned(),
                "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
                "--service-account-issuer=https://127.0.0.1".to_owned(),
                format!("--service-account-key-file={}", public.display()),
                format!("--service-account-signing-key-file={}", key.display()),
                format!("--token-auth-file={}", path("tokens.csv").display()),
                "--authorization-mode=RBAC".to_owned(),
                // No controller makes the account that this one asks for.
                "--disable-admission-plugins=ServiceAccount".to_owned(),
            ],
        );
        let url = format!("https://127.0.0.1:{port}");
        let kubeconfig = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": url, "insecure-skip-tls-verify": true } }],
            "users": [{ "name": "u", "user": { "token": token } }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        });
        let mut config = Config::new(url.parse().unwrap());
        config.accept_invalid_certs = true;
        config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
        Self { config, kubeconfig: kubeconfig.to_string(), _processes: Some((server, etcd, folder)) }
    }

    /// Applies the manifests under `deploy/` with kubectl; returns what it said.
    #[allow(dead_code, reason = "shared with tests that need no manifests")]
    pub(crate) async fn apply_manifests(&self, dry_run: &str) -> String {
        let folder = TempDir::new().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        fs::write(&kubeconfig, &self.kubeconfig).unwrap();
        let mut kubectl = tokio::process::Command::new("kubectl");
        let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        kubectl.arg("--kubeconfig").arg(&kubeconfig).args(["apply", "--server-side"]);
        let output = kubectl.arg(format!("--dry-run={dry_run}")).arg("-k").arg(manifests).output().await;
        let output = output.expect("kubectl is on PATH");
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success(), "{said}");
        said
    }

    /// For kubectl.
    #[allow(dead_code, reason = "shared with tests that need no kubectl")]
    pub(crate) fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    /// A client with the rights of an account of the system's namespace.
    #[allow(dead_code, reason = "shared with tests that need no accounts")]
    pub(crate) fn client_of(&self, account: &str) -> Client {
        let mut config = self.config.clone();
        config.auth_info.impersonate = Some(format!("system:serviceaccount:knative-serving:{account}"));
        let groups = ["system:serviceaccounts", "system:serviceaccounts:knative-serving", "system:authenticated"];
        config.auth_info.impersonate_groups = Some(groups.map(str::to_owned).to_vec());
        Client::try_from(config).unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        Client::try_from(self.config.clone()).unwrap()
    }
}

async fn namespace_is_there(client: &Client) -> bool {
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    namespaces.get("default").await.is_ok()
}

/// Makes the kinds known that the embedded server has from the start.
pub(crate) async fn install_crds(client: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in api::crds::all() {
        match crds.create(&PostParams::default(), &crd).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            made => drop(made.unwrap()),
        }
    }
    for crd in api::crds::all() {
        let name = crd.metadata.name.unwrap();
        for attempt in 0.. {
            let status = crds.get(&name).await.unwrap().status.unwrap_or_default();
            if status.conditions.iter().flatten().any(|one| one.type_ == "Established" && one.status == "True") {
                break;
            }
            assert!(attempt < 300, "{name} was not established: {status:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Ports that nobody has at this moment.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn start(program: &PathBuf, log: &Path, arguments: &[String]) -> Process {
    let log = fs::File::create(log).unwrap();
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    Process(child)
}
