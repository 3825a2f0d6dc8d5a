//! What there is to ask for the name of an image. Pure.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use oci_client::Reference as Parsed;

/// Registry of names without one.
const DEFAULT: &str = "index.docker.io";

/// What to do about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing: this is its digest, with its name; empty where a registry's tags are left as they are.
    Known(String),
    /// The registry knows.
    Ask(Reference),
}

/// An image by its tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    written: String,
    parsed: Parsed,
}

impl Reference {
    /// As the user wrote it.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// Host, with a port where there is one.
    pub fn registry(&self) -> &str {
        registry_of(&self.parsed)
    }

    /// Path inside the registry.
    pub fn repository(&self) -> &str {
        self.parsed.repository()
    }

    /// For the registry.
    pub fn parsed(&self) -> &Parsed {
        &self.parsed
    }

    /// The image by a digest, in full.
    pub fn with_digest(&self, digest: &str) -> String {
        format!("{}/{}@{digest}", self.registry(), self.repository())
    }

    /// Whether the registry may speak without TLS: on this machine, or in a network of its owner's (as upstream's
    /// library has it).
    pub fn may_be_plain(&self) -> bool {
        let registry = self.registry();
        if let Some(v6) = registry.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            return v6.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback());
        }
        let (host, port) = registry.split_once(':').map_or((registry, None), |(host, port)| (host, Some(port)));
        if let Ok(ip) = host.parse::<Ipv4Addr>() {
            return ip.is_loopback() || ip.is_private();
        }
        let top = host.rsplit_once('.').map(|(_, top)| top);
        host == "localhost" && port.is_some() || matches!(top, Some("local" | "localhost"))
    }
}

fn registry_of(parsed: &Parsed) -> &str {
    match parsed.registry() {
        "docker.io" => DEFAULT,
        other => other,
    }
}

/// What to do about an image, where the tags of some registries are left as they are.
pub fn wanted(image: &str, skipped: &BTreeSet<String>) -> Result<Wanted, String> {
    let parsed: Parsed =
        image.parse().map_err(|error| format!("failed to parse image name {image:?} into a tag: {error}"))?;
    if parsed.digest().is_some() {
        return Ok(Wanted::Known(image.to_owned()));
    }
    if skipped.contains(registry_of(&parsed)) {
        return Ok(Wanted::Known(String::new()));
    }
    Ok(Wanted::Ask(Reference { written: image.to_owned(), parsed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped() -> BTreeSet<String> {
        ["kind.local", "ko.local", "dev.local"].map(str::to_owned).into()
    }

    #[test]
    fn digests_and_skipped_registries_are_not_asked() {
        let digest = format!("registry.example.com/app@sha256:{}", "0".repeat(64));
        for (image, want) in [(digest.as_str(), digest.as_str()), ("dev.local/hello", ""), ("ko.local/a/b:v1", "")] {
            assert_eq!(wanted(image, &skipped()), Ok(Wanted::Known(want.to_owned())), "{image}");
        }
        let error = wanted("Upper/Case:x", &skipped()).unwrap_err();
        assert!(error.starts_with("failed to parse image name \"Upper/Case:x\" into a tag: "), "{error}");
        assert!(wanted("", &skipped()).is_err());
    }

    #[test]
    fn names_are_made_whole() {
        for (image, want) in [
            ("nginx", "index.docker.io/library/nginx@sha256:1"),
            ("nginx:1.27", "index.docker.io/library/nginx@sha256:1"),
            ("docker.io/dormouse/hello", "index.docker.io/dormouse/hello@sha256:1"),
            ("gcr.io/knative-samples/helloworld-go", "gcr.io/knative-samples/helloworld-go@sha256:1"),
            ("localhost:5000/a:b", "localhost:5000/a@sha256:1"),
        ] {
            let Ok(Wanted::Ask(reference)) = wanted(image, &skipped()) else { panic!("{image}") };
            assert_eq!((reference.with_digest("sha256:1").as_str(), reference.written()), (want, image));
        }
    }

    #[test]
    fn who_may_speak_without_tls() {
        for (image, want) in [
            ("localhost:5000/a", true),
            ("127.0.0.1:5000/a", true),
            ("10.1.2.3/a", true),
            ("172.16.0.1:80/a", true),
            ("192.168.1.1/a", true),
            ("registry.local:5000/a", true),
            ("registry.localhost/a", true),
            ("gcr.io/a/b", false),
            ("a/b", false),
            ("8.8.8.8:5000/a", false),
            ("172.32.0.1/a", false),
        ] {
            let Ok(Wanted::Ask(reference)) = wanted(image, &skipped()) else { panic!("{image}") };
            assert_eq!(reference.may_be_plain(), want, "{image}");
        }
    }
}
