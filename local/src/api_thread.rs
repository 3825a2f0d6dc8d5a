//! The embedded API server on a thread of its own, with the control plane's admission rules inside it.

use std::{fs, net::SocketAddr, path::Path, sync::Arc, thread};

use anyhow::{Context, anyhow};
use arc_swap::ArcSwap;
use control::settings::Settings;
use kube::{Client, Config};
use tokio::{runtime, sync::oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::ControlPlane,
    apiserver::{self, ApiServer},
    cli::Up,
    state_file::StateFile,
};

/// The running server.
pub struct ApiThread {
    /// Where it listens.
    pub address: SocketAddr,
    thread: thread::JoinHandle<()>,
    ended: oneshot::Receiver<anyhow::Result<()>>,
}

impl ApiThread {
    /// Opens the data folder and serves until `stop`.
    pub async fn start(
        options: &Up,
        settings: Arc<ArcSwap<Settings>>,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let data_dir = options.data_dir.clone();
        fs::create_dir_all(&data_dir)
            .with_context(|| format!("--data-dir {}: cannot make this folder", data_dir.display()))?;
        let config = apiserver::Config {
            listen: options.api,
            ..apiserver::Config::new(data_dir.clone(), Arc::new(ControlPlane { settings }))
        };
        let folder = data_dir.clone();
        let (bound_sender, bound) = oneshot::channel();
        let (ended_sender, ended) = oneshot::channel();
        let serve = move || {
            let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(bound_sender.send(Err(error.into()))),
            };
            runtime.block_on(async {
                match ApiServer::bind(config).await {
                    Err(error) => drop(bound_sender.send(Err(explain(&error, &folder)))),
                    Ok(server) => {
                        let _ = bound_sender.send(Ok(server.local_addr()));
                        let _ = ended_sender.send(server.run(stop).await.map_err(Into::into));
                    }
                }
            });
        };
        let thread = thread::Builder::new().name("api".to_owned()).spawn(serve).context("cannot start a thread")?;
        let address = bound.await.map_err(|_| anyhow!("the API server broke while it started"))??;
        // The folder is ours now: nobody else has the store open.
        StateFile::remove_stale(&data_dir).context("cannot remove an old up.json")?;
        Ok(Self { address, thread, ended })
    }

    /// A client for the runtime it is called on.
    pub fn client(&self) -> anyhow::Result<Client> {
        let url = format!("http://{}", self.address).parse().context("the API server's own address")?;
        Client::try_from(Config::new(url)).context("cannot make a client of the API server")
    }

    /// Waits until everything is on disk.
    pub async fn join(self) -> anyhow::Result<()> {
        let result = self.ended.await.map_err(|_| anyhow!("the API server broke")).and_then(|r| r);
        self.thread.join().map_err(|_| anyhow!("the API server broke"))?;
        result.context("the API server failed")
    }
}

/// Says which flag would help.
fn explain(error: &apiserver::Error, data_dir: &Path) -> anyhow::Error {
    match error {
        apiserver::Error::Listen { address, source } => {
            anyhow!("--api {address}: {source}; choose another address, or port 0 for a free one")
        }
        apiserver::Error::Data(error) => anyhow!("--data-dir {}: {error}", data_dir.display()),
        other => anyhow!("{other}"),
    }
}
