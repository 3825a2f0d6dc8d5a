//! `config-certmanager`: who issues certificates (upstream `pkg/reconciler/certificate/config/cert_manager.go`).

use serde::Deserialize;

use super::{Data, InvalidSetting, Reader};

const NAME: &str = "config-certmanager";

/// An issuer of cert-manager.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Issuer {
    /// Its name.
    pub name: String,
    /// `ClusterIssuer` or `Issuer`.
    pub kind: String,
    /// API group; empty = cert-manager's.
    pub group: String,
}

impl Default for Issuer {
    fn default() -> Self {
        Self { name: "knative-selfsigned-issuer".to_owned(), kind: "ClusterIssuer".to_owned(), group: String::new() }
    }
}

/// An issuer for each kind of host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertManager {
    /// Of hosts for the world.
    pub external: Issuer,
    /// Of hosts inside the cluster.
    pub cluster_local: Issuer,
    /// Of the system's own processes.
    pub system_internal: Issuer,
}

impl CertManager {
    /// Reads the ConfigMap's data; what an issuer does not say is the self-signed one's.
    pub fn parse(data: &Data) -> Result<Self, InvalidSetting> {
        let r = Reader { config_map: NAME, data };
        let issuer = |key: &str| match r.text(key) {
            None => Ok(Issuer::default()),
            Some(text) => serde_saphyr::from_str(text)
                .map_err(|e| r.problem(key, format!("want YAML such as `kind: ClusterIssuer` and `name: x`: {e}"))),
        };
        Ok(Self {
            external: issuer("issuerRef")?,
            cluster_local: issuer("clusterLocalIssuerRef")?,
            system_internal: issuer("systemInternalIssuerRef")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_are_yaml_and_self_signed_by_default() {
        let data = Data::from([("issuerRef".into(), "kind: ClusterIssuer\nname: letsencrypt-http01-issuer\n".into())]);
        let got = CertManager::parse(&data).unwrap();
        assert_eq!(
            (got.external.kind.as_str(), got.external.name.as_str()),
            ("ClusterIssuer", "letsencrypt-http01-issuer")
        );
        assert_eq!(got.cluster_local, Issuer::default());
        let error = CertManager::parse(&Data::from([("issuerRef".into(), "- a".into())])).unwrap_err();
        assert_eq!((error.config_map, error.key.as_str()), (NAME, "issuerRef"));
    }
}
