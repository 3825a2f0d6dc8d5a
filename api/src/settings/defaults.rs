//! `config-defaults`: what admission fills in (upstream `pkg/apis/config/defaults.go`).

use std::collections::BTreeMap;

use super::{
    Data, InvalidSetting, Reader,
    template::{Template, Values},
};

const NAME: &str = "config-defaults";

/// Defaults of a Revision's fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Defaults {
    /// `timeoutSeconds` where none is given.
    pub revision_timeout_seconds: i64,
    /// Largest `timeoutSeconds` allowed.
    pub max_revision_timeout_seconds: i64,
    /// `responseStartTimeoutSeconds` where none is given and this is below the timeout.
    pub revision_response_start_timeout_seconds: i64,
    /// `idleTimeoutSeconds` where none is given; 0 = off.
    pub revision_idle_timeout_seconds: i64,
    /// Resource requests by name (`cpu`, `memory`, `ephemeral-storage`), only those that are set.
    pub requests: BTreeMap<&'static str, String>,
    /// Resource limits by name, only those that are set.
    pub limits: BTreeMap<&'static str, String>,
    /// `containerConcurrency` where none is given.
    pub container_concurrency: i64,
    /// Largest `containerConcurrency` allowed.
    pub container_concurrency_max_limit: i64,
    /// Whether `containerConcurrency: 0` is allowed.
    pub allow_container_concurrency_zero: bool,
    /// `enableServiceLinks` where none is given; `None` = leave it to Kubernetes.
    pub enable_service_links: Option<bool>,
    container_name: Template,
    init_container_name: Template,
}

impl Default for Defaults {
    fn default() -> Self {
        let plain = |name: &str| Template::parse(name, &[], &[]).unwrap_or_else(|_| Template::empty());
        Self {
            revision_timeout_seconds: 300,
            max_revision_timeout_seconds: 600,
            revision_response_start_timeout_seconds: 300,
            revision_idle_timeout_seconds: 0,
            requests: BTreeMap::new(),
            limits: BTreeMap::new(),
            container_concurrency: 0,
            container_concurrency_max_limit: 1000,
            allow_container_concurrency_zero: true,
            enable_service_links: Some(false),
            container_name: plain("user-container"),
            init_container_name: plain("init-container"),
        }
    }
}

impl Defaults {
    /// Reads the ConfigMap's data.
    pub fn parse(data: &Data) -> Result<Self, InvalidSetting> {
        let r = Reader { config_map: NAME, data };
        let d = Self::default();
        let revision_timeout_seconds = r.number("revision-timeout-seconds", d.revision_timeout_seconds)?;
        let resources = |what: &str| {
            ["cpu", "memory", "ephemeral-storage"]
                .into_iter()
                .filter_map(|name| Some((name, r.text(&format!("revision-{name}-{what}"))?.to_owned())))
                .collect()
        };
        let name = |key: &str, default: Template| {
            r.text(key).map_or(Ok(default), |v| {
                Template::parse(v, &["Name", "Namespace"], &["Annotations", "Labels"]).map_err(|p| r.problem(key, p))
            })
        };
        let c = Self {
            revision_timeout_seconds,
            max_revision_timeout_seconds: r.number("max-revision-timeout-seconds", d.max_revision_timeout_seconds)?,
            revision_response_start_timeout_seconds: r
                .number("revision-response-start-timeout-seconds", revision_timeout_seconds)?,
            revision_idle_timeout_seconds: r
                .number("revision-idle-timeout-seconds", d.revision_idle_timeout_seconds)?,
            requests: resources("request"),
            limits: resources("limit"),
            container_concurrency: r.number("container-concurrency", d.container_concurrency)?,
            container_concurrency_max_limit: r
                .number("container-concurrency-max-limit", d.container_concurrency_max_limit)?,
            allow_container_concurrency_zero: r
                .boolean("allow-container-concurrency-zero", d.allow_container_concurrency_zero)?,
            enable_service_links: match r.text("enable-service-links") {
                None => d.enable_service_links,
                Some(v) if v.eq_ignore_ascii_case("true") => Some(true),
                Some(v) if v.eq_ignore_ascii_case("false") => Some(false),
                Some(_) => None,
            },
            container_name: name("container-name-template", d.container_name)?,
            init_container_name: name("init-container-name-template", d.init_container_name)?,
        };
        r.check(
            "revision-timeout-seconds",
            c.revision_timeout_seconds <= c.max_revision_timeout_seconds,
            "must not be greater than max-revision-timeout-seconds",
        )?;
        r.check(
            "revision-response-start-timeout-seconds",
            c.revision_response_start_timeout_seconds <= c.revision_timeout_seconds,
            "must not be greater than revision-timeout-seconds",
        )?;
        r.check(
            "revision-idle-timeout-seconds",
            c.revision_idle_timeout_seconds <= c.revision_timeout_seconds,
            "must not be greater than revision-timeout-seconds",
        )?;
        r.check("container-concurrency-max-limit", c.container_concurrency_max_limit >= 1, "want at least 1")?;
        r.check(
            "container-concurrency",
            (0..=c.container_concurrency_max_limit).contains(&c.container_concurrency),
            "want 0 to container-concurrency-max-limit",
        )?;
        Ok(c)
    }

    /// Name of the container that serves, where the user gave none. `name` and `namespace` are the parent's.
    pub fn user_container_name(&self, name: &str, namespace: &str) -> String {
        self.container_name.render(&Values { fields: &[("Name", name), ("Namespace", namespace)], maps: &[] })
    }

    /// The same for an init container.
    pub fn init_container_name(&self, name: &str, namespace: &str) -> String {
        self.init_container_name.render(&Values { fields: &[("Name", name), ("Namespace", namespace)], maps: &[] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Defaults, InvalidSetting> {
        Defaults::parse(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn empty_means_defaults() {
        assert_eq!(parse(&[]).unwrap(), Defaults::default());
        assert_eq!(Defaults::default().user_container_name("x", "y"), "user-container");
    }

    #[test]
    fn response_start_follows_the_timeout_unless_given() {
        let d = parse(&[("revision-timeout-seconds", "120")]).unwrap();
        assert_eq!(d.revision_response_start_timeout_seconds, 120);
    }

    #[test]
    fn bad_values_name_their_key() {
        for (key, value) in [
            ("revision-timeout-seconds", "601"),
            ("revision-response-start-timeout-seconds", "301"),
            ("revision-idle-timeout-seconds", "301"),
            ("container-concurrency", "1001"),
            ("container-concurrency", "-1"),
            ("container-concurrency-max-limit", "0"),
            ("allow-container-concurrency-zero", "perhaps"),
            ("container-name-template", "{{.Nope}}"),
        ] {
            assert_eq!(parse(&[(key, value)]).unwrap_err().key, key, "{key}={value}");
        }
    }
}
