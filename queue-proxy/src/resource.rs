//! Who this pod is, by OpenTelemetry's names.

use std::collections::BTreeMap;

use telemetry::otlp::resource;

use crate::config::Identity;

/// The attributes of a pod. `POD_NAME` or `HOSTNAME` name it better than the controller does; without a service it is
/// called as the first name there is.
pub(crate) fn of(identity: &Identity, env: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    let pod = env("POD_NAME").or_else(|| env("HOSTNAME")).unwrap_or_else(|| identity.pod.clone());
    let service = [&identity.service, &identity.configuration, &identity.revision, &pod];
    let service = service.into_iter().find(|name| !name.is_empty()).cloned().unwrap_or_default();
    let own = [
        ("container.name", "queue-proxy"),
        ("k8s.namespace.name", &identity.namespace),
        ("k8s.pod.name", &pod),
        ("kn.service.name", &identity.service),
        ("kn.configuration.name", &identity.configuration),
        ("kn.revision.name", &identity.revision),
        ("service.instance.id", &pod),
    ];
    resource::attributes(&service, &own, env)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(identity: &Identity, env: &[(&str, &str)]) -> BTreeMap<String, String> {
        of(identity, |name| env.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_string()))
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
            assert_eq!(named(&identity, env)["service.name"], name, "{env:?}");
        }
        let attributes = named(&identity("", "c", "r"), env);
        assert_eq!((attributes["team"].as_str(), attributes["k8s.pod.name"].as_str()), ("b c", "pod"));
        assert!(!attributes.contains_key("kn.service.name"));
    }
}
