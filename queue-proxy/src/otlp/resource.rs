//! Who this pod is, by OpenTelemetry's names.

use std::collections::BTreeMap;

use super::messages::{KeyValue, Resource};
use crate::config::Identity;

/// Name and version under which the sidecar measures.
pub const SCOPE: &str = "dormouse/queue-proxy";
/// The name that upstream's own spans and metrics carry.
pub const UPSTREAM_SCOPE: &str = "knative.dev/serving/pkg/queue";
/// Version of both.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The attributes of a pod; the environment has the last word.
pub(super) fn attributes(identity: &Identity, env: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let pod = env("POD_NAME").or_else(|| env("HOSTNAME")).unwrap_or_else(|| identity.pod.clone());
    let service = [&identity.service, &identity.configuration, &identity.revision, &pod];
    let service = service.into_iter().find(|name| !name.is_empty()).cloned().unwrap_or_default();
    let mut attributes: BTreeMap<String, String> = [
        ("container.name", "queue-proxy"),
        ("k8s.namespace.name", &identity.namespace),
        ("k8s.pod.name", &pod),
        ("kn.service.name", &identity.service),
        ("kn.configuration.name", &identity.configuration),
        ("kn.revision.name", &identity.revision),
        ("service.instance.id", &pod),
        ("service.name", &service),
        ("service.version", VERSION),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.name", "dormouse"),
        ("telemetry.sdk.version", VERSION),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(name, value)| (name.to_string(), value.to_string()))
    .collect();
    if let Some(list) = env("OTEL_RESOURCE_ATTRIBUTES") {
        attributes.extend(pairs(&list).flatten());
    }
    if let Some(name) = env("OTEL_SERVICE_NAME") {
        attributes.insert("service.name".into(), name);
    }
    attributes
}

/// The message.
pub(super) fn message(attributes: &BTreeMap<String, String>) -> Resource {
    let attributes = attributes.iter().map(|(name, value)| KeyValue::text(name, value)).collect();
    Resource { attributes }
}

/// `name=value,name=value`, percent-encoded, as W3C baggage writes it; `None` for a part that is no pair.
pub(super) fn pairs(list: &str) -> impl Iterator<Item = Option<(String, String)>> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| {
        let (name, value) = part.split_once('=')?;
        let name = percent_decoded(name.trim())?;
        (!name.is_empty()).then_some((name, percent_decoded(value.trim())?))
    })
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(identity: &Identity, env: &[(&str, &str)]) -> BTreeMap<String, String> {
        attributes(identity, |name| env.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_string()))
    }

    #[test]
    fn the_service_is_named_by_the_first_name_there_is() {
        let identity = |service: &str, configuration: &str, revision: &str| Identity {
            service: service.into(),
            configuration: configuration.into(),
            revision: revision.into(),
            pod: "pod".into(),
            ..Identity::default()
        };
        let env: &[(&str, &str)] = &[("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,team=b%20c,junk")];
        for (identity, env, name) in [
            (identity("s", "c", "r"), &[][..], "s"),
            (identity("", "c", "r"), &[], "c"),
            (identity("", "", "r"), &[], "r"),
            (identity("", "", ""), &[], "pod"),
            (identity("", "", ""), &[("HOSTNAME", "h"), ("POD_NAME", "p")], "p"),
            (identity("s", "", ""), env, "a"),
            (identity("s", "", ""), &[("OTEL_SERVICE_NAME", "o"), env[0]], "o"),
        ] {
            assert_eq!(of(&identity, env)["service.name"], name, "{env:?}");
        }
        let attributes = of(&identity("", "c", "r"), env);
        assert_eq!((attributes["team"].as_str(), attributes["k8s.pod.name"].as_str()), ("b c", "pod"));
        assert!(!attributes.contains_key("kn.service.name"));
    }

    #[test]
    fn pairs_are_percent_encoded() {
        let read = |list: &str| pairs(list).collect::<Vec<_>>();
        let pair = |name: &str, value: &str| Some((name.to_string(), value.to_string()));
        assert_eq!(read("a=b, c=%20d=e%2C ,,"), [pair("a", "b"), pair("c", " d=e,")]);
        assert_eq!(read("=b"), [None]);
        for junk in ["a", "a=%", "a=%2", "a=%+1", "a=%ff", "%é=1"] {
            assert_eq!(read(junk), [None], "{junk}");
        }
    }
}
