//! Ingress objects → [`Table`]. Pure; whatever makes no sense in an object is left out and named.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use api::headers::{SERVING_NAMESPACE, SERVING_REVISION};
use api::labels::networking::INGRESS_CLASS;
use api::networking::{HttpIngressPath, Ingress, IngressBackendSplit, VISIBILITY_CLUSTER_LOCAL, ingress_hash};
use http::{HeaderName, HeaderValue};
use kube::ResourceExt;

use super::{Backend, HostRoute, PathRoute, Table, Visibility, normalize};
use crate::revision::RevisionKey;

/// Why a part of an Ingress is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Skipped {
    /// A header of the object is no HTTP header.
    #[error("ingress {ingress}: {name:?} with value {value:?} is no header")]
    Header {
        /// `namespace/name`.
        ingress: String,
        /// Header name.
        name: String,
        /// Header value.
        value: String,
    },
    /// Two Ingresses want the same host.
    #[error("ingress {ingress}: host {host} is already served by another ingress")]
    HostTaken {
        /// `namespace/name`.
        ingress: String,
        /// The host.
        host: String,
    },
    /// A path without any backend that gets requests.
    #[error("ingress {ingress}: path {path:?} has no backend")]
    NoBackend {
        /// `namespace/name`.
        ingress: String,
        /// The prefix.
        path: String,
    },
}

/// Builds the table of all Ingresses of a class. Of two that want one host, the older serves it.
pub fn table<'a>(ingresses: impl IntoIterator<Item = &'a Ingress>, class: &str) -> (Table, Vec<Skipped>) {
    let mut ours: Vec<&Ingress> = ingresses
        .into_iter()
        .filter(|ingress| ingress.annotations().get(INGRESS_CLASS).is_some_and(|have| have == class))
        .collect();
    // By age, then by name, so that the outcome does not depend on the order of arrival.
    ours.sort_by_cached_key(|ingress| {
        (ingress.creation_timestamp().map(|time| time.0), ingress.namespace(), ingress.name_any())
    });
    let mut table = Table::default();
    let mut skipped = Vec::new();
    for ingress in ours {
        add(&mut table, ingress, &mut skipped);
    }
    (table, skipped)
}

fn add(table: &mut Table, ingress: &Ingress, skipped: &mut Vec<Skipped>) {
    let name = format!("{}/{}", ingress.namespace().unwrap_or_default(), ingress.name_any());
    let hash = HeaderValue::try_from(ingress_hash(ingress)).unwrap_or(HeaderValue::from_static("unknown"));
    // Hosts this object has added: it may name one in several rules, of which the first counts.
    let mut added: HashSet<String> = HashSet::new();
    for rule in &ingress.spec.rules {
        let visibility = match rule.visibility.as_deref() {
            Some(VISIBILITY_CLUSTER_LOCAL) => Visibility::ClusterLocal,
            _ => Visibility::External,
        };
        let paths = rule.http.iter().flat_map(|http| &http.paths);
        let mut paths: Vec<PathRoute> = paths.filter_map(|path| path_route(&name, ingress, path, skipped)).collect();
        // Stable: at equal length and number of headers the object's order counts.
        paths.sort_by_key(|path| std::cmp::Reverse((path.prefix.len(), path.headers.len())));
        let route = Arc::new(HostRoute { visibility, hash: hash.clone(), paths });
        for host in &rule.hosts {
            let host = normalize(host).into_owned();
            let (map, key) = match host.strip_prefix("*.") {
                Some(suffix) => (&mut table.wildcard, suffix),
                None => (&mut table.exact, host.as_str()),
            };
            if map.contains_key(key) {
                if !added.contains(&host) {
                    skipped.push(Skipped::HostTaken { ingress: name.clone(), host });
                }
                continue;
            }
            map.insert(key.into(), Arc::clone(&route));
            added.insert(host);
        }
    }
}

fn path_route(
    ingress_name: &str,
    ingress: &Ingress,
    path: &HttpIngressPath,
    skipped: &mut Vec<Skipped>,
) -> Option<PathRoute> {
    let prefix = path.path.clone().unwrap_or_default();
    let wanted: BTreeMap<String, String> =
        path.headers.iter().map(|(name, want)| (name.clone(), want.exact.clone().unwrap_or_default())).collect();
    let matches = headers(ingress_name, &wanted, skipped);
    if matches.len() != wanted.len() {
        return None; // A condition that cannot be checked must not be taken as met.
    }
    let splits: Vec<Backend> =
        path.splits.iter().filter_map(|split| backend(ingress_name, ingress, split, skipped)).collect();
    if splits.is_empty() {
        skipped.push(Skipped::NoBackend { ingress: ingress_name.to_owned(), path: prefix });
        return None;
    }
    Some(PathRoute {
        prefix: prefix.into_boxed_str(),
        headers: matches,
        rewrite_host: path.rewrite_host.as_ref().and_then(|host| HeaderValue::from_str(host).ok()),
        set_headers: headers(ingress_name, &path.append_headers, skipped),
        total_weight: splits.iter().map(|split| split.weight).sum(),
        splits,
    })
}

fn backend(
    ingress_name: &str,
    ingress: &Ingress,
    split: &IngressBackendSplit,
    skipped: &mut Vec<Skipped>,
) -> Option<Backend> {
    let weight = u64::try_from(split.percent.unwrap_or(100)).unwrap_or(0);
    if weight == 0 {
        return None;
    }
    // The identity headers name the revision; the Service is named alike.
    let mut namespace = split.service_namespace.clone();
    let mut revision = split.service_name.clone();
    let mut others = BTreeMap::new();
    for (name, value) in &split.append_headers {
        if name.eq_ignore_ascii_case(SERVING_NAMESPACE.as_str()) {
            namespace.clone_from(value);
        } else if name.eq_ignore_ascii_case(SERVING_REVISION.as_str()) {
            revision.clone_from(value);
        } else {
            others.insert(name.clone(), value.clone());
        }
    }
    if namespace.is_empty() {
        namespace = ingress.namespace().unwrap_or_default();
    }
    let set_headers = headers(ingress_name, &others, skipped);
    Some(Backend { revision: RevisionKey::new(&namespace, &revision), weight, set_headers })
}

fn headers(
    ingress: &str,
    pairs: &BTreeMap<String, String>,
    skipped: &mut Vec<Skipped>,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut parsed = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str())) {
            parsed.push((name, value));
        } else {
            let ingress = ingress.to_owned();
            skipped.push(Skipped::Header { ingress, name: name.clone(), value: value.clone() });
        }
    }
    parsed
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
