//! `dormouse up`: starts the whole system in one process, in order, and stops it in the opposite order.
//!
//! Three kinds of threads: this one runs the controllers, the autoscaler, the node and what the user sees; the API
//! server has its own, so that nobody's reconciling delays an answer; the activator has its own for requests. The
//! parts speak to each other as on a cluster: HTTP to the API server, a websocket from activator to autoscaler, real
//! sockets to the pods.

use std::{fs, io::IsTerminal, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use activator::Activator;
use anyhow::{Context, anyhow, bail};
use api::timeline::Observer;
use arc_swap::ArcSwap;
use autoscaler::Autoscaler;
use control::{Controller, config::Gateway, settings::Settings};
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{
    api_thread::ApiThread,
    board::Board,
    cli::{Runtime, Up},
    cluster,
    console::Console,
    demo, kubeconfig,
    manifests::{self, Manifest},
    node::{self, Node},
    observe,
    screen::Screen,
    state_file::StateFile,
    system,
};

/// How long requests under way and pods may take to end once `up` is asked to stop.
const DRAIN: Duration = Duration::from_secs(30);

/// Runs until SIGTERM or Ctrl-C.
pub async fn run(options: Up) -> anyhow::Result<()> {
    // One way to run containers so far; a second one must be thought of here.
    let Runtime::Process = options.runtime;
    // What can be wrong on the command line is found before anything starts.
    let images = options
        .images
        .iter()
        .map(|text| text.parse::<node::images::Mapping>().map_err(|e| anyhow!("--image {text}: {e}")))
        .collect::<anyhow::Result<Vec<_>>>()?;
    system::check_settings(&options.settings)?;
    let manifests = manifests::read(&options.manifests)?;
    for (flag, address) in [("--api", options.api), ("--console", options.console)] {
        if !address.ip().is_loopback() {
            bail!("{flag} {address}: it asks nobody who they are, so it listens on loopback only, such as 127.0.0.1:0");
        }
    }
    start_logging();
    let terminated = proxy::shutdown::signal().context("cannot listen for signals")?;

    let board = Arc::new(Board::new(Screen::stdout()));
    let (observer, show_marks) = observe::marks(board.clone());
    tokio::spawn(show_marks);
    let stop = Stop::default();
    let settings = Arc::new(ArcSwap::from_pointee(Settings::new(system::CLUSTER_DOMAIN)));
    let api = ApiThread::start(&options, settings.clone(), stop.api.clone()).await?;
    // From here on the API server must be stopped in order, so that all it was told is on disk.
    let result = Box::pin(async {
        let mut system = System::bind(&options, &api, settings, images, &board, observer).await?;
        let state_file = system.publish(&options, &api)?;
        system.spawn(&stop, board.clone());
        let client = system.client.clone();
        let started = start_services(&client, &board, &manifests, options.demo, system.http);
        let result = tokio::select! {
            failed = system.failed() => Err(failed),
            () = terminated => Ok(()),
            // Once the services are started there is nothing left to do but to serve.
            error = async { match started.await { Ok(()) => std::future::pending().await, Err(e) => e } } => Err(error),
        };
        board.screen().line("\nstopping: requests under way end, then the pods, then the API server");
        state_file.remove();
        system.stop(&stop).await;
        result
    })
    .await;
    stop.api.cancel();
    api.join().await?;
    result
}

/// Who is told to stop, in this order: requests end while pods still run; pods end while the API still answers.
#[derive(Default)]
struct Stop {
    requests: CancellationToken,
    control: CancellationToken,
    pods: CancellationToken,
    api: CancellationToken,
}

/// The parts, bound to their sockets and not yet running.
struct Bound {
    activator: Activator,
    autoscaler: Autoscaler,
    console: Console,
    controller: Controller,
    node: Node,
}

/// The parts of the system and the addresses they have.
struct System {
    client: Client,
    http: SocketAddr,
    console: SocketAddr,
    bound: Option<Bound>,
    requests: Parts,
    control: Parts,
    pods: Parts,
}

/// Running parts by name; each ends when told to, or with an error that ends everything.
type Parts = JoinSet<(&'static str, anyhow::Result<()>)>;

impl System {
    /// Binds everything from the bottom up: each part finds what it needs already listening.
    async fn bind(
        options: &Up,
        api: &ApiThread,
        settings: Arc<ArcSwap<Settings>>,
        images: Vec<node::images::Mapping>,
        board: &Arc<Board>,
        observer: Observer,
    ) -> anyhow::Result<Self> {
        let client = api.client()?;
        let autoscaler = autoscaler::Config { observer: observer.clone(), ..autoscaler::Config::local(client.clone()) };
        let autoscaler = Autoscaler::bind(autoscaler).await.context("cannot start the autoscaler")?;
        let activator = activator::Config {
            listen: options.http,
            autoscaler_url: format!("ws://{}", autoscaler.local_addr()),
            observer: observer.clone(),
            ..activator::Config::local(client.clone())
        };
        let activator = Activator::bind(activator)
            .await
            .with_context(|| format!("--http {}: cannot serve there; choose another, or port 0", options.http))?;
        let http = activator.local_addr();
        let console = Console::bind(options.console, board.clone())
            .await
            .with_context(|| format!("--console {}: cannot serve there; choose another, or port 0", options.console))?;
        system::prepare(&client, http, &options.settings).await?;
        let controller = control::Config {
            // Images are programs of this machine, not of a registry.
            resolve_digests: false,
            gateway: Gateway::At(vec![http]),
            settings,
            queue_sidecar_image: system::QUEUE_IMAGE.to_owned(),
            cluster_domain: system::CLUSTER_DOMAIN.to_owned(),
            ..control::Config::new(client.clone())
        };
        let controller = Controller::bind(controller).await.context("cannot start the controller")?;
        let exe = std::env::current_exe().context("cannot find the dormouse program itself")?;
        let node = node::Config {
            images,
            observer,
            queue_image: system::QUEUE_IMAGE.to_owned(),
            ..node::Config::new(client.clone(), options.data_dir.clone(), exe)
        };
        let node = Node::bind(node).await.context("cannot start the node")?;
        Ok(Self {
            client,
            http,
            console: console.local_addr()?,
            bound: Some(Bound { activator, autoscaler, console, controller, node }),
            requests: Parts::new(),
            control: Parts::new(),
            pods: Parts::new(),
        })
    }

    /// Tells people and programs where everything is.
    fn publish(&self, options: &Up, api: &ApiThread) -> anyhow::Result<StateFile> {
        let kubeconfig = options.kubeconfig.clone().unwrap_or_else(|| options.data_dir.join("kubeconfig"));
        kubeconfig::write(&kubeconfig, api.address).map_err(|e| anyhow!("--kubeconfig: {e}"))?;
        let kubeconfig = fs::canonicalize(&kubeconfig).unwrap_or(kubeconfig);
        let state = serde_json::json!({
            "http": self.http.to_string(),
            "api": api.address.to_string(),
            "console": self.console.to_string(),
            "kubeconfig": kubeconfig.display().to_string(),
            "pid": std::process::id(),
        });
        let file = StateFile::write(&options.data_dir, &state)?;
        println!("{}", greeting(self.http, api.address, self.console, &kubeconfig));
        Ok(file)
    }

    /// Starts everything that was bound.
    fn spawn(&mut self, stop: &Stop, board: Arc<Board>) {
        let Some(bound) = self.bound.take() else { return };
        let client = self.client.clone();
        let (requests, control, pods) = (stop.requests.clone(), stop.control.clone(), stop.pods.clone());
        self.requests.spawn(async move { ("the activator", bound.activator.run(requests).await.map_err(Into::into)) });
        let token = control.clone();
        self.control.spawn(async move { ("the autoscaler", bound.autoscaler.run(token).await.map_err(Into::into)) });
        let token = control.clone();
        self.control.spawn(async move { ("the controller", bound.controller.run(token).await.map_err(Into::into)) });
        let (token, api) = (control.clone(), client.clone());
        self.control.spawn(async move {
            cluster::run(api, token).await;
            ("the deployment and endpoints controllers", Ok(()))
        });
        let (token, shown) = (control.clone(), board);
        self.control.spawn(async move {
            observe::watch(client, shown, token).await;
            ("the screen", Ok(()))
        });
        self.control.spawn(async move {
            bound.console.run(control).await;
            ("the console", Ok(()))
        });
        self.pods.spawn(async move { ("the node", bound.node.run(pods).await.map_err(Into::into)) });
    }

    /// Returns when a part ends that nobody asked to.
    async fn failed(&mut self) -> anyhow::Error {
        let ended = tokio::select! {
            Some(ended) = self.requests.join_next() => ended,
            Some(ended) = self.control.join_next() => ended,
            Some(ended) = self.pods.join_next() => ended,
        };
        match ended {
            Ok((part, Ok(()))) => anyhow!("{part} ended by itself"),
            Ok((part, Err(error))) => error.context(format!("{part} failed")),
            Err(panic) => anyhow!("a part of the system broke: {panic}"),
        }
    }

    /// Stops in order. What does not end in time is left to die with the process; the keeper sees to the pods.
    async fn stop(&mut self, stop: &Stop) {
        for (token, parts) in
            [(&stop.requests, &mut self.requests), (&stop.control, &mut self.control), (&stop.pods, &mut self.pods)]
        {
            token.cancel();
            let all = async { while parts.join_next().await.is_some() {} };
            if tokio::time::timeout(DRAIN, all).await.is_err() {
                tracing::warn!(seconds = DRAIN.as_secs(), "a part does not end; going on without it");
            }
        }
    }
}

/// What goes wrong inside is told on stderr; the screen is for what happens. `RUST_LOG` asks for more.
fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    // Somebody who runs `up` inside a program of their own may have set it already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
}

/// Applies what `-f` and `--demo` ask for.
async fn start_services(
    client: &Client,
    board: &Board,
    manifests: &[Manifest],
    demo: bool,
    http: SocketAddr,
) -> anyhow::Result<()> {
    for manifest in manifests {
        let applied = manifests::apply(client, manifest).await?;
        board.screen().line(&format!("{applied} applied ({})", manifest.origin));
    }
    if demo {
        demo::run(client, board, http).await.context("--demo")?;
    }
    Ok(())
}

fn greeting(http: SocketAddr, api: SocketAddr, console: SocketAddr, kubeconfig: &Path) -> String {
    format!(
        "dormouse is up\n  services  http://{http}   (by Host: NAME.NAMESPACE.example.com)\n  \
         api       http://{api}   export KUBECONFIG={}\n  console   http://{console}\n",
        kubeconfig.display()
    )
}
