//! The ConfigMaps that the control plane obeys, as one snapshot.
//!
//! A bad ConfigMap is refused as a whole and the last good one stays; reconcilers and admission read the snapshot
//! through an `ArcSwap` and never see a half-changed one.

use api::settings::{
    Autoscaler, CertManager, Data, Defaults, Deployment, Domain, Features, Gc, InvalidSetting, Network, Observability,
};

/// All settings at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `config-autoscaler`
    pub autoscaler: Autoscaler,
    /// `config-certmanager`
    pub cert_manager: CertManager,
    /// `config-defaults`
    pub defaults: Defaults,
    /// `config-deployment`
    pub deployment: Deployment,
    /// `config-domain`
    pub domain: Domain,
    /// `config-features`
    pub features: Features,
    /// `config-gc`
    pub gc: Gc,
    /// `config-network`
    pub network: Network,
    /// `config-observability`
    pub observability: Observability,
    /// `logging.revision-url-template` of `config-observability`; empty = Revisions carry no log URL.
    pub log_url_template: String,
    /// `zap-logger-config` of `config-logging`, handed to queue-proxy.
    pub logging_config: String,
    /// `loglevel.queueproxy` of `config-logging`.
    pub queue_log_level: String,
    /// Domain of the cluster's DNS.
    pub cluster_domain: String,
}

impl Settings {
    /// The meaning of empty ConfigMaps.
    pub fn new(cluster_domain: &str) -> Self {
        Self {
            autoscaler: Autoscaler::default(),
            cert_manager: CertManager::default(),
            defaults: Defaults::default(),
            deployment: Deployment::default(),
            domain: Domain::cluster_only(cluster_domain),
            features: Features::default(),
            gc: Gc::default(),
            network: Network::default(),
            observability: Observability::default(),
            log_url_template: String::new(),
            logging_config: String::new(),
            queue_log_level: String::new(),
            cluster_domain: cluster_domain.to_owned(),
        }
    }

    /// Takes over one ConfigMap; others than ours change nothing.
    pub fn apply(&mut self, name: &str, data: &Data) -> Result<(), InvalidSetting> {
        match name {
            "config-autoscaler" => self.autoscaler = Autoscaler::parse(data)?,
            "config-certmanager" => self.cert_manager = CertManager::parse(data)?,
            "config-defaults" => self.defaults = Defaults::parse(data)?,
            "config-deployment" => self.deployment = Deployment::parse(data)?,
            "config-domain" => self.domain = Domain::parse(data, &self.cluster_domain)?,
            "config-features" => self.features = Features::parse(data)?,
            "config-gc" => self.gc = Gc::parse(data)?,
            "config-network" => self.network = Network::parse(data)?,
            "config-observability" => {
                self.observability = Observability::parse(data)?;
                self.log_url_template = text(data, "logging.revision-url-template");
            }
            "config-logging" => {
                self.logging_config = text(data, "zap-logger-config");
                self.queue_log_level = text(data, "loglevel.queueproxy");
            }
            _ => {}
        }
        Ok(())
    }
}

fn text(data: &Data, key: &str) -> String {
    data.get(key).map(|v| v.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_config_map_changes_nothing() {
        let mut settings = Settings::new("cluster.local");
        settings.apply("config-defaults", &Data::from([("container-concurrency".into(), "7".into())])).unwrap();
        let before = settings.clone();
        settings.apply("config-defaults", &Data::from([("container-concurrency".into(), "-7".into())])).unwrap_err();
        settings.apply("somebody-elses", &Data::from([("x".into(), "y".into())])).unwrap();
        assert_eq!(settings, before);
        assert_eq!(settings.defaults.container_concurrency, 7);
    }
}
