//! The command line of `dormouse`, as typed values. What the commands do is in [`crate::up`] and in the crates of
//! the single processes.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Puts HTTP services to sleep at zero and wakes them on the next request.
#[derive(Debug, Parser)]
#[command(name = "dormouse", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole system on this machine: API server, node, controller, autoscaler and activator in one process.
    Up(Box<Up>),
    /// The demo server: `$PORT`, `$TARGET`; GET / says hello, POST / echoes; `?sleep=ms`, `?bytes=n`.
    Hello,
    /// Run the activator alone, as on a cluster (settings from the environment and upstream's flags).
    Activator {
        /// Upstream's flags, such as `--kubeconfig`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAG")]
        flags: Vec<String>,
    },
    /// Run the queue-proxy sidecar alone, as in a pod (settings from the environment).
    QueueProxy,
    /// Run the autoscaler alone, as on a cluster (settings from the environment).
    Autoscaler,
    /// Run the controller alone, as on a cluster (settings from the environment).
    Controller,
    /// Run the admission webhook alone, as on a cluster (settings from the environment).
    Webhook,
    /// Print the CustomResourceDefinitions, as `deploy/crds.yaml` has them.
    Crds,
    /// Repeat the decisions of a saved decision log (GET /debug/decisions/NAMESPACE/REVISION of an autoscaler) and show
    /// the first that comes out otherwise.
    Replay {
        /// The log.
        file: PathBuf,
    },
    /// Owns the processes of `up`'s pods, so that none outlives it. Started by `up`.
    #[command(name = "__keeper", hide = true)]
    Keeper,
}

/// How containers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Runtime {
    /// Each container is a process on this machine.
    Process,
}

/// `dormouse up`.
#[derive(Debug, Args)]
pub struct Up {
    /// Manifest to apply once the system is up; a folder means every .yaml, .yml and .json in it. May be repeated.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR")]
    pub manifests: Vec<PathBuf>,
    /// Also deploy the built-in hello service, show how to call it, and say when it sleeps again.
    #[arg(long)]
    pub demo: bool,
    /// Where requests to services come in. Port 0 picks a free one.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    pub http: SocketAddr,
    /// Where the Kubernetes-style API is served; loopback only, as it asks nobody who they are.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:6443")]
    pub api: SocketAddr,
    /// Where the web console is served; loopback only.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8081")]
    pub console: SocketAddr,
    /// Objects, logs and the kubeconfig live here and survive a restart.
    #[arg(long, value_name = "DIR", default_value = ".dormouse")]
    pub data_dir: PathBuf,
    /// Where to write the kubeconfig. Default: DATA_DIR/kubeconfig.
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// Run image REF as COMMAND. `*` in REF matches anything and its match replaces `*` in COMMAND. May be repeated.
    #[arg(long = "image", value_name = "REF=COMMAND")]
    pub images: Vec<String>,
    /// Set a key of a ConfigMap at start, such as config-autoscaler.stable-window=6s. May be repeated.
    #[arg(long = "set", value_name = "CONFIGMAP.KEY=VALUE", value_parser = parse_setting)]
    pub settings: Vec<Setting>,
    /// How containers run.
    #[arg(long, value_enum, default_value_t = Runtime::Process)]
    pub runtime: Runtime,
}

/// One `--set`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// ConfigMap in the system namespace.
    pub config_map: String,
    /// Key in it.
    pub key: String,
    /// New value.
    pub value: String,
}

/// ConfigMap names have no dot, keys may: the first dot ends the name, the first `=` the key.
pub fn parse_setting(text: &str) -> Result<Setting, String> {
    let parsed = text.split_once('=').and_then(|(path, value)| {
        let (config_map, key) = path.split_once('.')?;
        (!config_map.is_empty() && !key.is_empty()).then(|| Setting {
            config_map: config_map.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
        })
    });
    parsed.ok_or_else(|| "want CONFIGMAP.KEY=VALUE, such as config-autoscaler.stable-window=6s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn settings_split_at_the_first_dot_and_equals_sign() {
        let set = parse_setting("config-features.kubernetes.podspec-fieldref=a=b").unwrap();
        assert_eq!(
            (set.config_map.as_str(), set.key.as_str(), set.value.as_str()),
            ("config-features", "kubernetes.podspec-fieldref", "a=b")
        );
        for bad in ["", "a.b", "a=b", ".b=c", "a.=c"] {
            assert!(parse_setting(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn up_has_the_documented_defaults() {
        let Command::Up(up) = Cli::parse_from(["dormouse", "up"]).command else { panic!("not up") };
        assert_eq!((up.http.port(), up.api.port(), up.console.port()), (8080, 6443, 8081));
        assert!(up.http.ip().is_loopback() && !up.demo);
        assert_eq!(up.runtime, Runtime::Process);
    }
}
