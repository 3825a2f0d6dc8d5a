//! `config-domain`: which domain a Route's host lies under (upstream `pkg/reconciler/route/config/domain.go`).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Data, InvalidSetting};
use crate::labels::networking;

const NAME: &str = "config-domain";

/// Labels that a Route must have for a domain to apply.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct DomainSelector {
    /// All of these; empty = every Route.
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
    /// `wildcard`: namespaces may have one certificate for all of its hosts. So may those of a domain without a selector.
    #[serde(default, rename = "type")]
    pub type_: String,
}

impl DomainSelector {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.iter().all(|(k, v)| labels.get(k) == Some(v))
    }
}

/// The domains with their selectors; always has one that fits every Route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    domains: BTreeMap<String, DomainSelector>,
    cluster_domain: String,
}

impl Domain {
    /// The meaning of an empty ConfigMap: the cluster's own domain.
    pub fn cluster_only(cluster_domain: &str) -> Self {
        let domains = BTreeMap::from([(format!("svc.{cluster_domain}"), DomainSelector::default())]);
        Self { domains, cluster_domain: cluster_domain.to_owned() }
    }

    /// Reads the ConfigMap's data. Without a domain for every Route, `svc.CLUSTER_DOMAIN` is it.
    pub fn parse(data: &Data, cluster_domain: &str) -> Result<Self, InvalidSetting> {
        let mut domains = BTreeMap::new();
        for (domain, text) in data.iter().filter(|(k, _)| *k != "_example") {
            let selector = if text.trim().is_empty() {
                DomainSelector::default()
            } else {
                serde_saphyr::from_str(text).map_err(|e| InvalidSetting {
                    config_map: NAME,
                    key: domain.clone(),
                    value: text.clone(),
                    problem: format!("want nothing, or YAML such as `selector: {{app: web}}`: {e}"),
                })?
            };
            domains.insert(domain.clone(), selector);
        }
        if domains.values().all(|s| !s.selector.is_empty()) {
            domains.insert(format!("svc.{cluster_domain}"), DomainSelector::default());
        }
        Ok(Self { domains, cluster_domain: cluster_domain.to_owned() })
    }

    /// Domains of which a namespace may have one certificate for all hosts; the cluster's own is none.
    pub fn wildcards(&self) -> impl Iterator<Item = &str> {
        let own = format!("svc.{}", self.cluster_domain);
        let all = self.domains.iter().filter(|(_, one)| one.selector.is_empty() || one.type_ == "wildcard");
        all.map(|(domain, _)| domain.as_str()).filter(move |domain| *domain != own)
    }

    /// The domain of a Route with these labels: cluster-local ones get the cluster's; else the most specific
    /// selector that fits wins, and among equals the first in alphabet.
    pub fn lookup(&self, labels: &BTreeMap<String, String>) -> String {
        let cluster = || format!("svc.{}", self.cluster_domain);
        if labels.get(networking::VISIBILITY).is_some_and(|v| v == networking::CLUSTER_LOCAL) {
            return cluster();
        }
        self.domains
            .iter()
            .filter(|(_, s)| s.matches(labels))
            // `max_by_key` takes the last of equals; reversed, that is the first in alphabet.
            .rev()
            .max_by_key(|(_, s)| s.selector.len())
            .map_or_else(cluster, |(domain, _)| domain.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_most_specific_selector_wins() {
        let data = map(&[
            ("example.com", ""),
            ("web.example.com", "selector:\n  app: web"),
            ("blue.example.com", "selector:\n  app: web\n  team: blue"),
            ("also.example.com", "selector:\n  app: web"),
        ]);
        let domain = Domain::parse(&data, "cluster.local").unwrap();
        for (labels, want) in [
            (map(&[]), "example.com"),
            (map(&[("app", "web")]), "also.example.com"),
            (map(&[("app", "web"), ("team", "blue")]), "blue.example.com"),
            (map(&[("app", "web"), (networking::VISIBILITY, "cluster-local")]), "svc.cluster.local"),
        ] {
            assert_eq!(domain.lookup(&labels), want);
        }
    }

    #[test]
    fn without_a_general_domain_the_clusters_is_used() {
        let domain = Domain::parse(&map(&[("x.org", "selector: {a: b}")]), "c.local").unwrap();
        assert_eq!(domain.lookup(&map(&[])), "svc.c.local");
        assert_eq!(Domain::parse(&map(&[("x.org", "][")]), "c").unwrap_err().key, "x.org");
    }
}
