//! The activator as a process of its own: upstream's drop-in.
//!
//! In this order, as upstream: command line and environment, the API server's version, the ConfigMaps and the Secret that
//! are read at the start, sockets, watches; nothing is answered before the first lists are in. An API server that is away is asked
//! again each second for a minute, which is said; after that the process ends with the reason.

mod version;

use std::fmt::Display;
use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use api::labels::networking::TRUST_BUNDLE;
use api::settings::{Data, InvalidSetting, Network};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use telemetry::logging::Log;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::flags::Flags;
use crate::config::{Config, ConfigError};
use crate::internal_tls::{InternalTls, SECRET};
use crate::live::LiveSettings;
use crate::observe::{self, ObserveError, Observing};
use crate::server::Activator;
use version::Version;

/// How long an API server that is away or too old is asked again, and how often.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);

const NETWORK: &str = "config-network";

/// Why the process cannot start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("{0}")]
    Environment(#[from] ConfigError),
    #[error("{0}")]
    Observe(#[from] ObserveError),
    #[error("{0}")]
    Version(#[from] version::VersionError),
    #[error("no way to the API server: {0}")]
    Kube(#[from] Box<dyn std::error::Error + Send + Sync>),
    #[error("{what} for {PATIENCE:?}: {last}")]
    Away { what: String, last: String },
    #[error("ConfigMap {namespace}/{name} cannot be read: {problem}")]
    ConfigMap { namespace: String, name: String, problem: String },
    #[error("ConfigMap {namespace}/{NETWORK} is missing; it says how pods are reached, and may be empty")]
    NoNetwork { namespace: String },
    #[error("{0}")]
    Setting(#[from] InvalidSetting),
    #[error("{NETWORK} asks for system-internal-tls; Secret {namespace}/{SECRET}: {problem}")]
    Secret { namespace: String, problem: String },
}

/// `main` of the binary: everything after the program's name is flags.
pub fn main_from_env() -> ExitCode {
    main_with(std::env::args().skip(1))
}

/// The same with these flags, for a program that has other commands too.
pub fn main_with(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let flags = match Flags::parse(arguments) {
        Ok(flags) => flags,
        Err(error) => {
            eprintln!("activator: {error}");
            return ExitCode::from(2);
        }
    };
    // In its final form once `config-logging` is read.
    let log = observe::start_log(&std::env::var("POD_NAME").unwrap_or_default());
    proxy::runtime::raise_file_limit();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve(flags, log)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(flags: Flags, log: Log) -> anyhow::Result<()> {
    use anyhow::Context;
    let shutdown = proxy::shutdown::token().context("cannot listen for signals")?;
    let config = tokio::select! {
        config = configure(flags, log) => config?,
        () = shutdown.cancelled() => return Ok(()),
    };
    Activator::bind(config).await?.run(shutdown).await?;
    Ok(())
}

/// From flags and environment to everything that an activator is told at its start.
async fn configure(flags: Flags, log: Log) -> Result<Config, StartError> {
    let mut config = Config::from_env()?;
    let oldest = match std::env::var("KUBERNETES_MIN_VERSION").ok().filter(|text| !text.is_empty()) {
        Some(text) => text.parse()?,
        None => version::OLDEST,
    };
    let client = client(flags).await?;
    patiently("the API server is away or too old", || check_version(&client, oldest)).await?;
    let maps = Maps { api: Api::namespaced(client.clone(), &config.system_namespace), config: &config };
    let mut live = LiveSettings::default();
    for name in [&config.config_maps.logging, &config.config_maps.observability] {
        if let Some(data) = maps.get(name).await? {
            live.apply(&config.config_maps, name, &data)?;
        } else {
            tracing::info!(name, "no such ConfigMap; defaults hold");
        }
    }
    log.shape(observe::log_settings(&live.logging));
    let network = maps.get(NETWORK).await?;
    let network = network.ok_or_else(|| StartError::NoNetwork { namespace: config.system_namespace.clone() })?;
    let network = Network::parse(&network)?;
    config.mesh = network.mesh_compatibility_mode;
    config.passthrough = network.enable_mesh_pod_addressability;
    if network.system_internal_tls {
        config.internal_tls = Some(Arc::new(internal_tls(&client, &config).await?));
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    config.observing = Observing::read(&live.observability, config.listen.ip(), variable)?;
    config.log = Some(log);
    let (sender, receiver) = watch::channel(live);
    config.live = receiver;
    config.live_sender = Some(sender);
    config.client = Some(client);
    Ok(config)
}

/// The way to the API server: a file or a URL that was named, else whatever a pod or a user has.
async fn client(flags: Flags) -> Result<Client, StartError> {
    let boxed = |error: Box<dyn std::error::Error + Send + Sync>| StartError::Kube(error);
    let file = flags.kubeconfig.or_else(|| std::env::var("KUBECONFIG").ok()).filter(|path| !path.is_empty());
    let mut found = match (file, &flags.server) {
        (Some(file), _) => {
            let options = KubeConfigOptions { cluster: flags.cluster, ..KubeConfigOptions::default() };
            let file = Kubeconfig::read_from(file).map_err(|error| boxed(error.into()))?;
            kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|error| boxed(error.into()))?
        }
        (None, Some(server)) => {
            kube::Config::new(server.parse().map_err(|error: http::uri::InvalidUri| boxed(error.into()))?)
        }
        (None, None) => kube::Config::infer().await.map_err(|error| boxed(error.into()))?,
    };
    if let Some(server) = flags.server {
        found.cluster_url = server.parse().map_err(|error: http::uri::InvalidUri| boxed(error.into()))?;
    }
    Client::try_from(found).map_err(|error| boxed(error.into()))
}

async fn check_version(client: &Client, oldest: Version) -> Result<(), String> {
    let info = client.apiserver_version().await.map_err(|error| error.to_string())?;
    let version: Version = info.git_version.parse().map_err(|error: version::VersionError| error.to_string())?;
    if version < oldest {
        return Err(format!("Kubernetes {version} is older than {oldest}, which KUBERNETES_MIN_VERSION asks for"));
    }
    tracing::info!(%version, "the API server answers");
    Ok(())
}

/// Certificate and authorities as they are now; [`crate::watch`] follows them.
async fn internal_tls(client: &Client, config: &Config) -> Result<InternalTls, StartError> {
    let namespace = &config.system_namespace;
    let wrong = |problem: String| StartError::Secret { namespace: namespace.clone(), problem };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = asked(|| secrets.get_opt(SECRET)).await?.map_err(|error| wrong(words(error)))?;
    let secret = secret.ok_or_else(|| wrong("missing".to_owned()))?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let labelled = ListParams::default().labels(TRUST_BUNDLE);
    let bundles = asked(|| maps.list(&labelled)).await?.map_err(|error| wrong(words(error)))?;
    InternalTls::new(&config.tls_options, &secret, bundles.items).map_err(|error| wrong(error.to_string()))
}

/// What the API server answers, also that it refuses; asked until it does answer.
async fn asked<T, F>(ask: impl Fn() -> F) -> Result<Result<T, kube::Error>, StartError>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    let ask = || async {
        match ask().await {
            // It will say the same again, unless it is busy or just starting.
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
                Ok(Err(kube::Error::Api(status)))
            }
            Err(error) => Err(error),
            Ok(found) => Ok(Ok(found)),
        }
    };
    patiently("the API server is away", ask).await
}

/// What an API server says without the frame it is in.
fn words(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message,
        other => other.to_string(),
    }
}

struct Maps<'a> {
    api: Api<ConfigMap>,
    config: &'a Config,
}

impl Maps<'_> {
    /// A ConfigMap's data; `None` if there is no such one.
    async fn get(&self, name: &str) -> Result<Option<Data>, StartError> {
        let found = asked(|| self.api.get_opt(name)).await?;
        let wrong = |error| StartError::ConfigMap {
            namespace: self.config.system_namespace.clone(),
            name: name.to_owned(),
            problem: words(error),
        };
        Ok(found.map_err(wrong)?.map(|map| map.data.unwrap_or_default()))
    }
}

/// Asks until it works, for [`PATIENCE`]; the first failure is said at once, the last one is the error.
async fn patiently<T, E, F>(what: &str, ask: impl Fn() -> F) -> Result<T, StartError>
where
    F: Future<Output = Result<T, E>>,
    E: Display,
{
    let start = Instant::now();
    let mut said = false;
    loop {
        let error = match tokio::time::timeout(PATIENCE, ask()).await {
            Ok(Ok(result)) => return Ok(result),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        if start.elapsed() + PAUSE > PATIENCE {
            return Err(StartError::Away { what: what.to_owned(), last: error });
        }
        if !said {
            tracing::warn!(error, "{what}; asking again each second for {PATIENCE:?}");
            said = true;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test(start_paused = true)]
    async fn what_is_away_is_asked_each_second_for_a_minute() {
        let asked = Cell::new(0);
        let never = || async {
            asked.set(asked.get() + 1);
            Err::<(), _>("refused")
        };
        let start = Instant::now();
        let error = patiently("it is away", never).await.unwrap_err();
        assert_eq!(error.to_string(), "it is away for 60s: refused");
        assert_eq!((asked.get(), start.elapsed()), (61, PATIENCE));

        asked.set(0);
        let third = || async {
            asked.set(asked.get() + 1);
            if asked.get() == 3 { Ok(()) } else { Err("not yet") }
        };
        patiently("it is away", third).await.unwrap();
        assert_eq!(asked.get(), 3);
    }
}
