//! Who sends, by OpenTelemetry's names.

use std::collections::BTreeMap;

use super::messages::{KeyValue, Resource};

/// Version of everything that this process sends.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The attributes of a process: its service's name, its own attributes (empty ones are left out) and those that every
/// process has. The environment (`OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SERVICE_NAME`) has the last word.
pub fn attributes(
    service: &str,
    own: &[(&str, &str)],
    env: impl Fn(&str) -> Option<String>,
) -> BTreeMap<String, String> {
    let env = |name| env(name).filter(|value| !value.is_empty());
    let common = [
        ("service.name", service),
        ("service.version", VERSION),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.name", "dormouse"),
        ("telemetry.sdk.version", VERSION),
    ];
    let mut attributes: BTreeMap<String, String> = own
        .iter()
        .chain(&common)
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| ((*name).to_string(), (*value).to_string()))
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

    #[test]
    fn the_environment_has_the_last_word() {
        let of = |env: &[(&str, &str)]| {
            let env = |name: &str| env.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_string());
            attributes("s", &[("k8s.pod.name", "pod"), ("kn.service.name", "")], env)
        };
        let list = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,team=b%20c,junk");
        for (env, name) in [(&[][..], "s"), (&[list], "a"), (&[("OTEL_SERVICE_NAME", "o"), list], "o")] {
            assert_eq!(of(env)["service.name"], name, "{env:?}");
        }
        let attributes = of(&[list]);
        assert_eq!((attributes["team"].as_str(), attributes["k8s.pod.name"].as_str()), ("b c", "pod"));
        assert!(!attributes.contains_key("kn.service.name"), "empty is left out");
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
