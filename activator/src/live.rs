//! Settings that may change while the process runs: `config-logging` and `config-observability`, as parsed values.
//!
//! Read once at the start and then watched ([`crate::watch`]); whoever obeys them holds a
//! `tokio::sync::watch::Receiver<LiveSettings>` ([`crate::Config::live`]). A ConfigMap that does not parse, or that is
//! deleted, changes nothing: the last good one stays.

use api::settings::{Data, InvalidSetting, Observability};

/// The ConfigMaps' names, which the environment may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// `CONFIG_LOGGING_NAME`.
    pub logging: String,
    /// `CONFIG_OBSERVABILITY_NAME`.
    pub observability: String,
}

impl Default for Names {
    fn default() -> Self {
        Self { logging: "config-logging".to_owned(), observability: "config-observability".to_owned() }
    }
}

/// What `config-logging` says to an activator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logging {
    /// `zap-logger-config`: a zap configuration in JSON, as it is; empty = none.
    pub zap: String,
    /// `loglevel.activator`: wins over the level in [`Logging::zap`]; empty = none.
    pub level: String,
}

/// Both of them at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LiveSettings {
    /// `config-logging`.
    pub logging: Logging,
    /// `config-observability`.
    pub observability: Observability,
}

impl LiveSettings {
    /// Takes over one ConfigMap; whether anything is different now. ConfigMaps of other names change nothing.
    pub fn apply(&mut self, names: &Names, name: &str, data: &Data) -> Result<bool, InvalidSetting> {
        let mut next = self.clone();
        if name == names.logging {
            let text = |key: &str| data.get(key).map(|value| value.trim().to_owned()).unwrap_or_default();
            next.logging = Logging { zap: text("zap-logger-config"), level: text("loglevel.activator") };
        } else if name == names.observability {
            next.observability = Observability::parse(data)?;
        }
        let changed = next != *self;
        *self = next;
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(key: &str, value: &str) -> Data {
        Data::from([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn the_last_good_values_stay() {
        let names = Names { observability: "mine".to_owned(), ..Names::default() };
        let mut live = LiveSettings::default();
        assert_eq!(live.apply(&names, "config-logging", &data("loglevel.activator", " debug ")), Ok(true));
        assert_eq!(live.apply(&names, "mine", &data("logging.enable-request-log", "true")), Ok(true));
        assert_eq!(live.apply(&names, "mine", &data("logging.enable-request-log", "true")), Ok(false), "no news");
        let before = live.clone();
        assert!(live.apply(&names, "mine", &data("tracing-sampling-rate", "2")).is_err());
        assert_eq!(live.apply(&names, "config-observability", &data("runtime-profiling", "enabled")), Ok(false));
        assert_eq!(live, before);
        assert_eq!(live.logging.level, "debug");
        assert!(live.observability.enable_request_log);
    }
}
