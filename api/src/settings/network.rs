//! `config-network` (upstream `networking/pkg/config/config.go`).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{
    Data, InvalidSetting, Reader,
    template::{Template, Values},
};

const NAME: &str = "config-network";
const ISTIO_CLASS: &str = "istio.ingress.networking.knative.dev";

/// How revisions behind a service mesh are reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MeshCompatibility {
    /// Find out.
    #[default]
    Auto,
    /// Always through the cluster IP.
    Enabled,
    /// Always the pods.
    Disabled,
}

/// What a Route's host name is made of.
#[derive(Debug, Clone, Copy)]
pub struct TemplateValues<'a> {
    /// Name of the Route, with the tag worked in by [`Network::tagged_name`].
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// From config-domain.
    pub domain: &'a str,
    /// Annotations of the Route.
    pub annotations: &'a BTreeMap<String, String>,
    /// Labels of the Route.
    pub labels: &'a BTreeMap<String, String>,
}

/// How Routes get their hosts and through which ingress.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Class of Ingresses of Routes that name none.
    pub ingress_class: String,
    /// Class of Certificates.
    pub certificate_class: String,
    /// Seconds in which a new revision takes over traffic; 0 = at once.
    pub rollout_duration_seconds: u32,
    /// Whether ClusterDomainClaims are made by themselves.
    pub autocreate_cluster_domain_claims: bool,
    /// Whether mesh pods can be reached directly.
    pub enable_mesh_pod_addressability: bool,
    /// See [`MeshCompatibility`].
    pub mesh_compatibility_mode: MeshCompatibility,
    /// `http` or `https`: scheme in `status.url` without external TLS.
    pub default_external_scheme: String,
    /// Namespaces that get one certificate for all hosts of a domain; none = no namespace.
    pub namespace_wildcard_cert_selector: Option<LabelSelector>,
    /// Whether external hosts get certificates.
    pub external_domain_tls: bool,
    /// Whether cluster-local hosts get certificates.
    pub cluster_local_domain_tls: bool,
    /// Whether activator and queue-proxy speak TLS.
    pub system_internal_tls: bool,
    /// Whether plain HTTP is redirected to https.
    pub http_redirected: bool,
    domain_template: Template,
    tag_template: Template,
}

impl Default for Network {
    fn default() -> Self {
        let field = |name: &str| Template::parse(name, &["Name", "Namespace", "Domain", "Tag"], &[]);
        Self {
            ingress_class: ISTIO_CLASS.to_owned(),
            certificate_class: crate::labels::networking::CERT_MANAGER_CLASS.to_owned(),
            rollout_duration_seconds: 0,
            autocreate_cluster_domain_claims: false,
            enable_mesh_pod_addressability: false,
            mesh_compatibility_mode: MeshCompatibility::Auto,
            default_external_scheme: "http".to_owned(),
            namespace_wildcard_cert_selector: None,
            external_domain_tls: false,
            cluster_local_domain_tls: false,
            system_internal_tls: false,
            http_redirected: false,
            // Both are constants that parse; an empty template could only come from a change here, and the test
            // below would show it.
            domain_template: field("{{.Name}}.{{.Namespace}}.{{.Domain}}").unwrap_or_else(|_| Template::empty()),
            tag_template: field("{{.Tag}}-{{.Name}}").unwrap_or_else(|_| Template::empty()),
        }
    }
}

impl Network {
    /// Reads the ConfigMap's data.
    pub fn parse(data: &Data) -> Result<Self, InvalidSetting> {
        let r = Reader { config_map: NAME, data };
        let d = Self::default();
        let text = |keys: [&str; 2], default: &str| {
            keys.iter().find_map(|k| r.text(k)).map_or_else(|| default.to_owned(), str::to_owned)
        };
        let enabled = |key: &str| r.text(key).is_some_and(|v| v.eq_ignore_ascii_case("enabled"));
        let template = |keys: [&str; 2], default: Template, fields: &[&str], maps: &[&str]| {
            keys.iter()
                .find_map(|k| r.text(k).map(|v| (*k, v)))
                .map_or(Ok(default), |(k, v)| Template::parse(v, fields, maps).map_err(|problem| r.problem(k, problem)))
        };
        let system_internal_tls = match r.text("system-internal-tls") {
            Some(v) if v.eq_ignore_ascii_case("enabled") => true,
            Some(v) if !v.eq_ignore_ascii_case("disabled") => {
                return Err(r.problem("system-internal-tls", "want enabled or disabled"));
            }
            _ => r.boolean("internal-encryption", false)?,
        };
        Ok(Self {
            ingress_class: text(["ingress-class", "ingress.class"], &d.ingress_class),
            certificate_class: text(["certificate-class", "certificate.class"], &d.certificate_class),
            rollout_duration_seconds: r.number("rollout-duration", d.rollout_duration_seconds)?,
            autocreate_cluster_domain_claims: r
                .boolean("autocreate-cluster-domain-claims", d.autocreate_cluster_domain_claims)?,
            enable_mesh_pod_addressability: r
                .boolean("enable-mesh-pod-addressability", d.enable_mesh_pod_addressability)?,
            mesh_compatibility_mode: match r.text("mesh-compatibility-mode") {
                Some(v) if v.eq_ignore_ascii_case("enabled") => MeshCompatibility::Enabled,
                Some(v) if v.eq_ignore_ascii_case("disabled") => MeshCompatibility::Disabled,
                _ => MeshCompatibility::Auto,
            },
            default_external_scheme: text(
                ["default-external-scheme", "defaultExternalScheme"],
                &d.default_external_scheme,
            ),
            namespace_wildcard_cert_selector: r
                .text("namespace-wildcard-cert-selector")
                .map(serde_saphyr::from_str)
                .transpose()
                .map_err(|error| {
                    r.problem("namespace-wildcard-cert-selector", format!("want a label selector: {error}"))
                })?,
            external_domain_tls: enabled("external-domain-tls")
                || r.text("external-domain-tls").is_none() && enabled("auto-tls"),
            cluster_local_domain_tls: enabled("cluster-local-domain-tls"),
            system_internal_tls,
            http_redirected: r.text("http-protocol").is_some_and(|v| v.eq_ignore_ascii_case("redirected")),
            domain_template: template(
                ["domain-template", "domainTemplate"],
                d.domain_template,
                &["Name", "Namespace", "Domain"],
                &["Annotations", "Labels"],
            )?,
            tag_template: template(["tag-template", "tagTemplate"], d.tag_template, &["Name", "Tag"], &[])?,
        })
    }

    /// Host of a Route.
    pub fn domain_name(&self, v: &TemplateValues<'_>) -> String {
        self.domain_template.render(&Values {
            fields: &[("Name", v.name), ("Namespace", v.namespace), ("Domain", v.domain)],
            maps: &[("Annotations", v.annotations), ("Labels", v.labels)],
        })
    }

    /// Name of a Route's target with a tag; the name itself for the empty tag.
    pub fn tagged_name(&self, name: &str, tag: &str) -> String {
        if tag.is_empty() {
            return name.to_owned();
        }
        self.tag_template.render(&Values { fields: &[("Name", name), ("Tag", tag)], maps: &[] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(network: &Network) -> String {
        let labels = BTreeMap::from([("team".to_owned(), "blue".to_owned())]);
        network.domain_name(&TemplateValues {
            name: &network.tagged_name("hello", "v1"),
            namespace: "default",
            domain: "example.com",
            annotations: &BTreeMap::new(),
            labels: &labels,
        })
    }

    fn parse(key: &str, value: &str) -> Result<Network, InvalidSetting> {
        Network::parse(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn default_hosts_are_upstreams() {
        assert_eq!(host(&Network::default()), "v1-hello.default.example.com");
        assert_eq!(Network::parse(&Data::new()).unwrap(), Network::default());
    }

    #[test]
    fn templates_may_look_into_labels() {
        let network = parse("domain-template", r#"{{.Name}}.{{index .Labels "team"}}.{{.Domain}}"#).unwrap();
        assert_eq!(host(&network), "v1-hello.blue.example.com");
    }

    #[test]
    fn bad_values_name_their_key() {
        for (key, value) in [
            ("domain-template", "{{.Nope}}"),
            ("domain-template", "{{.Name"),
            ("tag-template", "{{if .Tag}}x{{end}}"),
            ("system-internal-tls", "maybe"),
            ("rollout-duration", "-1"),
        ] {
            assert_eq!(parse(key, value).unwrap_err().key, key);
        }
    }
}
