//! `config-deployment`: how pods are made (upstream `pkg/deployment/config.go`).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Data, InvalidSetting, Reader};

const NAME: &str = "config-deployment";
const DEFAULT_QUEUE_CPU_REQUEST: &str = "25m";

/// Settings of every revision's Deployment.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// Image of the sidecar; empty = the one the controller was told on its command line.
    pub queue_sidecar_image: String,
    /// How long a Deployment may take to make progress; whole seconds.
    pub progress_deadline: Duration,
    /// How long resolving a tag may take.
    pub digest_resolution_timeout: Duration,
    /// Registries whose tags are left as they are.
    pub registries_skipping_tag_resolving: BTreeSet<String>,
    /// Sidecar requests by resource name, only those that are set.
    pub queue_requests: BTreeMap<&'static str, String>,
    /// Sidecar limits by resource name, only those that are set.
    pub queue_limits: BTreeMap<&'static str, String>,
    /// Audiences of tokens mounted into the sidecar.
    pub queue_token_audiences: BTreeSet<String>,
    /// PEM for sidecar extensions.
    pub queue_root_ca: String,
    /// Sidecar TLS settings, handed on as they are.
    pub queue_tls: BTreeMap<&'static str, String>,
    /// Whether an unschedulable pod is an error (false) or expected to wait (true).
    pub pod_is_always_schedulable: bool,
}

impl Default for Deployment {
    fn default() -> Self {
        Self {
            queue_sidecar_image: String::new(),
            progress_deadline: Duration::from_secs(600),
            digest_resolution_timeout: Duration::from_secs(10),
            registries_skipping_tag_resolving: ["kind.local", "ko.local", "dev.local"].map(str::to_owned).into(),
            queue_requests: BTreeMap::from([("cpu", DEFAULT_QUEUE_CPU_REQUEST.to_owned())]),
            queue_limits: BTreeMap::new(),
            queue_token_audiences: BTreeSet::new(),
            queue_root_ca: String::new(),
            queue_tls: BTreeMap::new(),
            pod_is_always_schedulable: false,
        }
    }
}

impl Deployment {
    /// Reads the ConfigMap's data. Old camelCase keys are read where the new one is absent.
    pub fn parse(data: &Data) -> Result<Self, InvalidSetting> {
        let r = Reader { config_map: NAME, data };
        let d = Self::default();
        let list = |key: &str| -> BTreeSet<String> {
            r.text(key)
                .map(|v| v.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect())
                .unwrap_or_default()
        };
        let resources = |what: &str| -> BTreeMap<&'static str, String> {
            ["cpu", "memory", "ephemeral-storage"]
                .into_iter()
                .filter_map(|name| Some((name, r.text(&format!("queue-sidecar-{name}-{what}"))?.to_owned())))
                .collect()
        };
        let mut queue_requests = resources("request");
        queue_requests.entry("cpu").or_insert_with(|| DEFAULT_QUEUE_CPU_REQUEST.to_owned());
        let skipping = ["registries-skipping-tag-resolving", "registriesSkippingTagResolving"]
            .into_iter()
            .find(|k| data.contains_key(*k));
        let deadline_key = if r.text("progress-deadline").is_some() { "progress-deadline" } else { "progressDeadline" };
        let c = Self {
            queue_sidecar_image: ["queue-sidecar-image", "queueSidecarImage"]
                .iter()
                .find_map(|k| r.text(k))
                .unwrap_or_default()
                .to_owned(),
            progress_deadline: r.duration(deadline_key, d.progress_deadline)?,
            digest_resolution_timeout: r.duration("digest-resolution-timeout", d.digest_resolution_timeout)?,
            registries_skipping_tag_resolving: skipping.map_or(d.registries_skipping_tag_resolving, list),
            queue_requests,
            queue_limits: resources("limit"),
            queue_token_audiences: list("queue-sidecar-token-audiences"),
            queue_root_ca: r.text("queue-sidecar-rootca").unwrap_or_default().to_owned(),
            queue_tls: ["min-version", "max-version", "cipher-suites", "curve-preferences"]
                .into_iter()
                .filter_map(|name| Some((name, r.text(&format!("queue-sidecar-tls-{name}"))?.to_owned())))
                .collect(),
            pod_is_always_schedulable: r.boolean("pod-is-always-schedulable", false)?,
        };
        let deadline = c.progress_deadline;
        r.check(
            deadline_key,
            deadline > Duration::ZERO && deadline.subsec_nanos() == 0,
            "want a positive duration in whole seconds",
        )?;
        r.check("digest-resolution-timeout", c.digest_resolution_timeout > Duration::ZERO, "want a positive duration")?;
        Ok(c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Deployment, InvalidSetting> {
        Deployment::parse(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn empty_means_defaults() {
        assert_eq!(parse(&[]).unwrap(), Deployment::default());
    }

    #[test]
    fn old_keys_are_read() {
        let d = parse(&[("queueSidecarImage", "q:1"), ("progressDeadline", "30s")]).unwrap();
        assert_eq!((d.queue_sidecar_image.as_str(), d.progress_deadline.as_secs()), ("q:1", 30));
        let d = parse(&[("registries-skipping-tag-resolving", "a.b, c.d,")]).unwrap();
        assert_eq!(d.registries_skipping_tag_resolving.len(), 2);
    }

    #[test]
    fn bad_values_name_their_key() {
        for (key, value) in
            [("progress-deadline", "0s"), ("progress-deadline", "1.5s"), ("digest-resolution-timeout", "x")]
        {
            assert_eq!(parse(&[(key, value)]).unwrap_err().key, key);
        }
    }
}
