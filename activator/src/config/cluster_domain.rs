//! The domain of the cluster's DNS, as `resolv.conf` has it.

/// Where nothing is said.
const DEFAULT: &str = "cluster.local";

/// From this machine's `resolv.conf`.
pub fn find() -> String {
    let file = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    search_domain(&file).unwrap_or_else(|| DEFAULT.to_owned())
}

/// The first search domain that begins with `svc.`, less that and a dot at its end (upstream
/// `knative.dev/pkg/network/domain.go`).
fn search_domain(resolv_conf: &str) -> Option<String> {
    resolv_conf
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("search")).then_some(words)
        })
        .flatten()
        .find_map(|domain| domain.strip_prefix("svc."))
        .map(|domain| domain.strip_suffix('.').unwrap_or(domain).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_comes_from_the_search_list() {
        for (file, domain) in [
            ("nameserver 10.0.0.1\nsearch ns.svc.my.domain. svc.my.domain. my.domain.\n", Some("my.domain")),
            ("search\tsvc.abc.com", Some("abc.com")),
            ("search example.com\n", None),
            ("searching svc.abc.com\n", None),
            ("options ndots:5\n", None),
            ("", None),
        ] {
            assert_eq!(search_domain(file).as_deref(), domain, "{file:?}");
        }
    }
}
