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
        self.parsed.registry()
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

/// Longest tag, and longest path in a registry.
const TAG: usize = 128;
const REPOSITORY: usize = 255;

/// What to do about an image, where the tags of some registries are left as they are. Names are read by the rules of
/// upstream's library; that of the client below has a regular expression for them, which takes 16 MB.
pub fn wanted(image: &str, skipped: &BTreeSet<String>) -> Result<Wanted, String> {
    let wrong = |why: String| format!("failed to parse image name {image:?} into a tag: {why}");
    if let Some((name, digest)) = image.split_once('@') {
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong(format!("want sha256: and 64 hexadecimal digits, not {digest:?}")));
        }
        split(name).map_err(wrong)?;
        return Ok(Wanted::Known(image.to_owned()));
    }
    let (registry, repository, tag) = split(image).map_err(wrong)?;
    if skipped.contains(registry) {
        return Ok(Wanted::Known(String::new()));
    }
    let parsed = Parsed::with_tag(registry.to_owned(), repository, tag.to_owned());
    Ok(Wanted::Ask(Reference { written: image.to_owned(), parsed }))
}

/// Registry, path and tag of a name.
fn split(name: &str) -> Result<(&str, String, &str), String> {
    // A colon before a slash is that of a port.
    let (base, tag) = match name.rsplit_once(':') {
        Some((base, tag)) if !tag.contains('/') => (base, tag),
        _ => (name, "latest"),
    };
    if tag.is_empty() || tag.len() > TAG || !tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b)) {
        return Err(format!("want a tag of 1 to {TAG} letters, digits and _-., not {tag:?}"));
    }
    let (registry, path) = match base.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (DEFAULT, base),
    };
    let registry = if registry == "docker.io" { DEFAULT } else { registry };
    let path = if registry == DEFAULT && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-./".contains(&b);
    if path.is_empty() || path.ends_with('/') || path.len() > REPOSITORY || !path.bytes().all(known) {
        return Err(format!("want a path of 1 to {REPOSITORY} small letters, digits and _-./, not {path:?}"));
    }
    if registry.contains(|c: char| c.is_whitespace() || "@?#%\\".contains(c)) {
        return Err(format!("want a host, with or without a port, not {registry:?}"));
    }
    Ok((registry, path, tag))
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
        let bad = [
            "",
            ":",
            "a:",
            "a:b c",
            "a@sha256:12",
            "a/",
            "gcr.io/",
            "gcr.io/A",
            "gcr.io/a:b:c",
            "x y.io/a",
            "a?b.io/c",
        ];
        for image in bad {
            assert!(wanted(image, &skipped()).is_err(), "{image:?}");
        }
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
