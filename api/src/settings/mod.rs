//! The ConfigMaps of the system namespace, parsed once into types that cannot be wrong.
//!
//! One file a ConfigMap; names, defaults and ranges as upstream (`config/core/configmaps`, `pkg/*/config.go`). Each
//! type has `parse(&Data)`, which refuses a bad value with a message that names the key, and `Default`, which is the
//! meaning of an empty ConfigMap. Unknown keys are ignored, as upstream does, so that newer manifests still load.
//! Whoever watches a ConfigMap keeps the last good value when a new one does not parse.

mod autoscaler;
mod cert_manager;
mod defaults;
mod deployment;
mod domain;
mod features;
mod gc;
mod leader_election;
mod network;
mod observability;
mod template;

use std::{collections::BTreeMap, fmt::Display, str::FromStr, time::Duration};

pub use autoscaler::Autoscaler;
pub use cert_manager::{CertManager, Issuer};
pub use defaults::Defaults;
pub use deployment::Deployment;
pub use domain::{Domain, DomainSelector};
pub use features::{Feature, Features};
pub use gc::Gc;
pub use leader_election::LeaderElection;
pub use network::{MeshCompatibility, Network, TemplateValues};
pub use observability::{DEFAULT_REQUEST_LOG_TEMPLATE, Metrics, Observability, Runtime, Tracing};

/// `data` of a ConfigMap.
pub type Data = BTreeMap<String, String>;

/// Why a ConfigMap is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{config_map}: {key} = {value:?}: {problem}")]
pub struct InvalidSetting {
    /// Name of the ConfigMap.
    pub config_map: &'static str,
    /// The key.
    pub key: String,
    /// What it says.
    pub value: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// A truth value in one of the spellings of Go's `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Reads the keys of one ConfigMap.
struct Reader<'a> {
    config_map: &'static str,
    data: &'a Data,
}

impl Reader<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.data.get(key).map(|v| v.trim()).filter(|v| !v.is_empty())
    }

    fn problem(&self, key: &str, problem: impl Display) -> InvalidSetting {
        InvalidSetting {
            config_map: self.config_map,
            key: key.to_owned(),
            value: self.data.get(key).cloned().unwrap_or_default(),
            problem: problem.to_string(),
        }
    }

    fn number<T: FromStr<Err: Display>>(&self, key: &str, default: T) -> Result<T, InvalidSetting> {
        self.text(key).map_or(Ok(default), |v| v.parse().map_err(|e| self.problem(key, e)))
    }

    /// A float that is a number: `NaN` parses in both languages and would switch every comparison off.
    fn float(&self, key: &str, default: f64) -> Result<f64, InvalidSetting> {
        let value: f64 = self.number(key, default)?;
        if value.is_finite() { Ok(value) } else { Err(self.problem(key, "want a finite number")) }
    }

    fn boolean(&self, key: &str, default: bool) -> Result<bool, InvalidSetting> {
        let Some(text) = self.text(key) else { return Ok(default) };
        parse_bool(text).ok_or_else(|| self.problem(key, "want true or false"))
    }

    fn duration(&self, key: &str, default: Duration) -> Result<Duration, InvalidSetting> {
        self.text(key).map_or(Ok(default), |v| crate::duration::parse(v).map_err(|e| self.problem(key, e)))
    }

    fn check(&self, key: &str, good: bool, problem: impl Display) -> Result<(), InvalidSetting> {
        if good { Ok(()) } else { Err(self.problem(key, problem)) }
    }
}
