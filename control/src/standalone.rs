//! Controller and webhook as processes of their own: environment in, work until SIGTERM or SIGINT.

use std::process::ExitCode;

use kube::Client;

use crate::{
    Config, ConfigError, Controller,
    webhook::{self, Webhook},
};

/// Runs the controller by the environment's settings until the process is told to stop.
pub fn main_from_env() -> ExitCode {
    main_of("controller", async {
        let shutdown = proxy::shutdown::token()?;
        Controller::bind(Config::from_env().await?).await?.run(shutdown).await?;
        Ok(())
    })
}

/// Runs the webhook by the environment's settings until the process is told to stop.
pub fn webhook_from_env() -> ExitCode {
    main_of("webhook", async {
        let shutdown = proxy::shutdown::token()?;
        Webhook::bind(webhook_config().await?)?.run(shutdown).await?;
        Ok(())
    })
}

/// `SYSTEM_NAMESPACE`, `CLUSTER_DOMAIN`, `WEBHOOK_NAME`, `WEBHOOK_PORT` as upstream; `DORMOUSE_WEBHOOK_URL`.
async fn webhook_config() -> Result<webhook::Config, ConfigError> {
    let mut config = webhook::Config::new(Client::try_from(kube::Config::infer().await?)?);
    let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let text = |name, default: &mut String| *default = var(name).unwrap_or_else(|| std::mem::take(default));
    text("SYSTEM_NAMESPACE", &mut config.system_namespace);
    text("CLUSTER_DOMAIN", &mut config.cluster_domain);
    text("WEBHOOK_NAME", &mut config.service);
    config.url = var("DORMOUSE_WEBHOOK_URL");
    if let Some(value) = var("WEBHOOK_PORT") {
        let port = value.parse().map_err(|error: std::num::ParseIntError| ConfigError::Variable {
            name: "WEBHOOK_PORT",
            value,
            problem: error.to_string(),
        })?;
        config.listen.set_port(port);
    }
    Ok(config)
}

fn main_of(name: &str, run: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).json().init();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{name}: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The errors say their causes themselves.
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
