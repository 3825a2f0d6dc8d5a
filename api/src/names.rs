//! How the name of one object follows from another's.

use md5::{Digest, Md5};

pub use crate::networking::ingress_hash;

/// Longest name of a Kubernetes object that must be a DNS label.
const MAX: usize = 63;
const MD5_HEX: usize = 32;

/// `parent + suffix` where that fits a DNS label; else the head of `parent`, its md5 in hex, and the suffix
/// (upstream `knative.dev/pkg/kmeta/names.go`). Deterministic, so that every component finds the same object.
pub fn child_name(parent: &str, suffix: &str) -> String {
    if parent.len() + suffix.len() <= MAX {
        return format!("{parent}{suffix}");
    }
    let head = (MAX - MD5_HEX).saturating_sub(suffix.len());
    let digest: String = Md5::digest(parent.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    // Names are ASCII; on anything else cut at a character boundary instead of panicking.
    let head = parent.char_indices().take_while(|(i, c)| i + c.len_utf8() <= head).map(|(_, c)| c).collect::<String>();
    format!("{head}{digest}{suffix}")
}

/// The Deployment of a revision.
pub fn deployment(revision: &str) -> String {
    child_name(revision, "-deployment")
}

/// The Service that selects a revision's pods.
pub fn private_service(revision: &str) -> String {
    child_name(revision, "-private")
}

/// The revision of a configuration at a generation: `hello-00001`.
pub fn revision(configuration: &str, generation: i64) -> String {
    child_name(configuration, &format!("-{generation:05}"))
}

/// `name.namespace.svc.DOMAIN`.
pub fn service_host(name: &str, namespace: &str, cluster_domain: &str) -> String {
    format!("{name}.{namespace}.svc.{cluster_domain}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn child_names_match_upstream_vectors() {
        let a = |n| "a".repeat(n);
        assert_eq!(child_name(&a(55), "-private"), format!("{}-private", a(55)));
        assert_eq!(child_name(&a(56), "-private"), format!("{}3b0c8ac703f828b04c6c197006d17218-private", a(23)));
        assert_eq!(child_name(&a(60), "-private"), format!("{}cc7ed669cf88f201c3297c6a91e1d18d-private", a(23)));
    }

    #[test]
    fn revision_names_count_in_five_digits() {
        assert_eq!(revision("hello", 1), "hello-00001");
        assert_eq!(revision("hello", 123_456), "hello-123456");
    }

    proptest::proptest! {
        #[test]
        fn child_names_fit_a_label_and_keep_the_suffix(parent in ".{0,200}", suffix in "-[a-z]{1,20}") {
            let name = child_name(&parent, &suffix);
            proptest::prop_assert!(name.len() <= MAX);
            proptest::prop_assert!(name.ends_with(&suffix));
        }
    }
}
