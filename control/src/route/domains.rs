//! Hosts of a Route: the one for the world, and the short and long names inside the cluster (upstream
//! `pkg/reconciler/route/{domains,visibility}`).

use std::collections::{BTreeMap, BTreeSet};

use api::{
    labels::networking::{CLUSTER_LOCAL, VISIBILITY},
    serving::Route,
    settings::TemplateValues,
};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use crate::settings::Settings;

/// Longest DNS name and longest label.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// A template made something that is no DNS name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("domain name error: invalid domain name {0:?}")]
pub struct InvalidDomain(pub String);

/// Name of the placeholder Service of a tag, and first part of its hosts.
pub fn host_name(route: &Route, tag: &str, settings: &Settings) -> String {
    settings.network.tagged_name(&route.name_any(), tag)
}

/// The host of a tag: outside by the cluster's template, inside always `name.namespace.svc.DOMAIN`.
pub fn domain_name(
    route: &Route,
    tag: &str,
    cluster_local: bool,
    settings: &Settings,
) -> Result<String, InvalidDomain> {
    let name = host_name(route, tag, settings);
    let namespace = route.namespace().unwrap_or_default();
    let mut labels = route.labels().clone();
    labels.remove(VISIBILITY);
    if cluster_local {
        labels.insert(VISIBILITY.to_owned(), CLUSTER_LOCAL.to_owned());
    }
    let domain = settings.domain.lookup(&labels);
    let host = if cluster_local {
        format!("{name}.{namespace}.{domain}")
    } else {
        settings.network.domain_name(&TemplateValues {
            name: &name,
            namespace: &namespace,
            domain: &domain,
            annotations: route.annotations(),
            labels: &labels,
        })
    };
    if is_domain_name(&host) { Ok(host) } else { Err(InvalidDomain(host)) }
}

/// Every name by which a host is known inside the cluster.
pub fn expanded(host: &str, cluster_domain: &str) -> BTreeSet<String> {
    let mut hosts = BTreeSet::from([host.to_owned()]);
    // `hello.ns.svc.cluster.local` is also found as `hello.ns.svc` and `hello.ns`, by the search list of every pod.
    for suffix in [format!(".{cluster_domain}"), format!(".svc.{cluster_domain}")] {
        if let Some(short) = host.strip_suffix(&suffix) {
            hosts.insert(short.to_owned());
        }
    }
    // A name that ends in a number reads as an address: proxies refuse it.
    hosts.retain(|h| h.rsplit('.').next().is_some_and(|last| !last.bytes().all(|b| b.is_ascii_digit())));
    hosts
}

/// For each tag whether only the cluster may reach it: the Route's domain is the cluster's own, or the placeholder
/// Service of the tag says so.
pub fn visibility(route: &Route, placeholders: &[impl AsRef<Service>], settings: &Settings) -> BTreeMap<String, bool> {
    let route_local = settings.domain.lookup(route.labels()) == format!("svc.{}", settings.cluster_domain);
    let tags = route.spec.traffic.iter().filter_map(|t| t.tag.clone()).chain([String::new()]);
    tags.map(|tag| {
        let name = host_name(route, &tag, settings);
        let service_local = placeholders
            .iter()
            .map(AsRef::as_ref)
            .filter(|s| s.name_any() == name)
            .any(|s| s.labels().get(VISIBILITY).is_some_and(|v| v == CLUSTER_LOCAL));
        (tag, route_local || service_local)
    })
    .collect()
}

fn is_domain_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.contains('.')
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= MAX_LABEL
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use api::settings::Data;
    use serde_json::json;

    use super::*;

    fn settings(domains: &[(&str, &str)], template: Option<&str>) -> Settings {
        let mut settings = Settings::new("cluster.local");
        let data: Data = domains.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        settings.apply("config-domain", &data).unwrap();
        if let Some(template) = template {
            settings.apply("config-network", &Data::from([("domain-template".into(), template.into())])).unwrap();
        }
        settings
    }

    #[allow(clippy::needless_pass_by_value)] // reads best with literals
    fn route(labels: serde_json::Value) -> Route {
        serde_json::from_value(json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Route",
            "metadata": {"name": "hello", "namespace": "ns", "labels": labels},
            "spec": {"traffic": [{"tag": "v1", "percent": 100}]},
        }))
        .unwrap()
    }

    #[test]
    fn hosts_follow_the_templates() {
        let plain = settings(&[("example.com", "")], None);
        let dashed = settings(&[("example.com", "")], Some("{{.Name}}-{{.Namespace}}.{{.Domain}}"));
        let r = route(json!({}));
        let cases = [
            (&plain, "", false, "hello.ns.example.com"),
            (&plain, "v1", false, "v1-hello.ns.example.com"),
            (&plain, "", true, "hello.ns.svc.cluster.local"),
            (&plain, "v1", true, "v1-hello.ns.svc.cluster.local"),
            (&dashed, "", false, "hello-ns.example.com"),
            (&dashed, "", true, "hello.ns.svc.cluster.local"),
        ];
        for (settings, tag, local, want) in cases {
            assert_eq!(domain_name(&r, tag, local, settings).unwrap(), want);
        }
        let bad = settings_with_bad_template();
        assert!(domain_name(&r, "", false, &bad).is_err());
    }

    fn settings_with_bad_template() -> Settings {
        settings(&[("example.com", "")], Some("{{.Name}}_{{.Namespace}}.{{.Domain}}"))
    }

    #[test]
    fn inside_the_cluster_a_host_has_three_names() {
        let got: Vec<String> = expanded("hello.ns.svc.cluster.local", "cluster.local").into_iter().collect();
        assert_eq!(got, ["hello.ns", "hello.ns.svc", "hello.ns.svc.cluster.local"]);
        assert_eq!(expanded("hello.ns.example.com", "cluster.local").len(), 1);
    }

    #[test]
    fn the_narrowest_visibility_wins() {
        let settings = settings(&[("example.com", "")], None);
        let service = |name: &str, local: bool| {
            let mut s = Service::default();
            s.metadata.name = Some(name.into());
            if local {
                s.labels_mut().insert(VISIBILITY.into(), CLUSTER_LOCAL.into());
            }
            std::sync::Arc::new(s)
        };
        let open = [service("hello", false), service("v1-hello", true)];
        let got = visibility(&route(json!({})), &open, &settings);
        assert_eq!((got[""], got["v1"]), (false, true));
        let got = visibility(&route(json!({VISIBILITY: CLUSTER_LOCAL})), &open, &settings);
        assert_eq!((got[""], got["v1"]), (true, true));
    }
}
