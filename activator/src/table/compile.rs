//! One Ingress object → the entries of its hosts. Pure but for the slots it names; whatever makes no sense in an object
//! is left out and named.
//!
//! Facts: `ingress_types.go` and the conformance tests of `knative.dev/networking`; where those are silent, what
//! upstream's Kourier makes of an object.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use api::headers::{SERVING_NAMESPACE, SERVING_REVISION};
use api::networking::{
    HttpIngressPath, Ingress, IngressBackendSplit, IngressRule, IngressTls, VISIBILITY_CLUSTER_LOCAL,
    VISIBILITY_EXTERNAL, ingress_hash,
};
use http::{HeaderName, HeaderValue};
use kube::ResourceExt;

use super::{Backend, Entry, HostRoute, Names, PathRoute, Pattern, Source, Visibility};
use crate::certificates::SecretName;

/// `spec.httpOption`: plain requests are sent to https.
const REDIRECTED: &str = "Redirected";
/// `spec.httpOption`: plain requests are served.
const ENABLED: &str = "Enabled";

/// Why a part of an Ingress is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Skipped {
    /// A header of the object is no HTTP header.
    #[error("ingress {ingress}: {name:?} with value {value:?} is no header")]
    Header {
        /// `namespace/name`.
        ingress: String,
        /// Header name.
        name: String,
        /// Header value.
        value: String,
    },
    /// Two Ingresses want the same host.
    #[error("ingress {ingress}: host {host} is already served by an older ingress")]
    HostTaken {
        /// `namespace/name` of the one that does not get it.
        ingress: String,
        /// The host.
        host: String,
    },
    /// An Ingress names a host in two rules, of which the first counts.
    #[error("ingress {ingress}: host {host} stands in an earlier rule already")]
    HostTwice {
        /// `namespace/name`.
        ingress: String,
        /// The host.
        host: String,
    },
    /// A host that no request could name.
    #[error("ingress {ingress}: {host:?} is no host; it must be a name, `*.` and a name, or `*`")]
    Host {
        /// `namespace/name`.
        ingress: String,
        /// What stands there.
        host: String,
    },
    /// A field has a value we do not know.
    #[error("ingress {ingress}: unknown {field} {value:?}; {instead}")]
    Unknown {
        /// `namespace/name`.
        ingress: String,
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is done.
        instead: &'static str,
    },
    /// A Secret of another namespace, which whoever made the Ingress may not be allowed to read.
    #[error("ingress {ingress}: secret {secret} is not in the namespace of the ingress; its hosts have no certificate")]
    ForeignSecret {
        /// `namespace/name`.
        ingress: String,
        /// `namespace/name` of the Secret.
        secret: String,
    },
    /// A path without any backend that gets requests.
    #[error("ingress {ingress}: path {path:?} has no backend")]
    NoBackend {
        /// `namespace/name`.
        ingress: String,
        /// The prefix.
        path: String,
    },
}

/// The hosts of an Ingress; those of one rule follow each other and share their route. The caller owes the
/// revisions of each route one `unname` per backend, and each entry's certificate one.
pub(super) fn ingress(ingress: &Ingress, names: Names<'_>, skipped: &mut Vec<Skipped>) -> (Arc<Source>, Vec<Entry>) {
    let source = Source {
        created: ingress.creation_timestamp().map(|time| time.0.as_second()),
        namespace: names.revisions.namespace(ingress.metadata.namespace.as_deref().unwrap_or_default()),
        name: ingress.name_any().into(),
        version: ingress_hash(ingress).into(),
    };
    let mut compiler =
        Compiler { name: source.to_string(), source: Arc::new(source), redirected: false, names, skipped };
    compiler.redirected = compiler.redirected(ingress.spec.http_option.as_deref());
    let tls: Vec<(Hosts, SecretName)> = ingress.spec.tls.iter().filter_map(|tls| compiler.tls(tls)).collect();
    let mut seen = HashSet::new();
    let mut entries = Vec::new();
    for rule in &ingress.spec.rules {
        let hosts = compiler.hosts(rule, &mut seen);
        if hosts.is_empty() {
            continue; // Before its revisions are named.
        }
        let route = Arc::new(compiler.route(rule));
        for pattern in hosts {
            let secret = tls.iter().find(|(hosts, _)| route.visibility == Visibility::External && hosts.have(&pattern));
            let certificate = secret.map(|(_, secret)| names.certificates.name(secret));
            entries.push(Entry { pattern, route: Arc::clone(&route), certificate });
        }
    }
    (compiler.source, entries)
}

struct Compiler<'a> {
    /// `namespace/name`.
    name: String,
    source: Arc<Source>,
    redirected: bool,
    names: Names<'a>,
    skipped: &'a mut Vec<Skipped>,
}

impl Compiler<'_> {
    fn redirected(&mut self, option: Option<&str>) -> bool {
        match option {
            Some(REDIRECTED) => return true,
            None | Some("" | ENABLED) => {}
            Some(other) => self.unknown("httpOption", other, "plain requests are served"),
        }
        false
    }

    fn tls(&mut self, tls: &IngressTls) -> Option<(Hosts, SecretName)> {
        let own = &*self.source.namespace;
        let namespace = if tls.secret_namespace.is_empty() { own } else { tls.secret_namespace.as_str() };
        let secret = SecretName::new(namespace, &tls.secret_name);
        if namespace != own {
            self.skipped.push(Skipped::ForeignSecret { ingress: self.name.clone(), secret: secret.to_string() });
            return None;
        }
        Some((Hosts(tls.hosts.iter().filter_map(|host| Pattern::parse(host)).collect()), secret))
    }

    /// The hosts of a rule that no earlier rule had. A rule without any is for every host.
    fn hosts(&mut self, rule: &IngressRule, seen: &mut HashSet<Pattern>) -> Vec<Pattern> {
        let catch_all = [String::from("*")];
        let named = if rule.hosts.is_empty() { &catch_all[..] } else { &rule.hosts[..] };
        let mut hosts = Vec::with_capacity(named.len());
        for host in named {
            let (ingress, host) = (self.name.clone(), host.clone());
            match Pattern::parse(&host) {
                None => self.skipped.push(Skipped::Host { ingress, host }),
                Some(pattern) if seen.insert(pattern.clone()) => hosts.push(pattern),
                Some(_) => self.skipped.push(Skipped::HostTwice { ingress, host }),
            }
        }
        hosts
    }

    fn route(&mut self, rule: &IngressRule) -> HostRoute {
        let visibility = match rule.visibility.as_deref() {
            Some(VISIBILITY_CLUSTER_LOCAL) => Visibility::ClusterLocal,
            None | Some("" | VISIBILITY_EXTERNAL) => Visibility::External,
            Some(other) => {
                // What is meant for fewer must not be shown to all.
                self.unknown("visibility", other, "served inside the cluster only");
                Visibility::ClusterLocal
            }
        };
        let paths = rule.http.iter().flat_map(|http| &http.paths);
        let mut paths: Vec<PathRoute> = paths.filter_map(|path| self.path(path)).collect();
        // Stable: at equal length and number of headers the object's order counts.
        paths.sort_by_key(|path| std::cmp::Reverse((path.prefix.len(), path.headers.len())));
        HostRoute {
            visibility,
            to_https: self.redirected && visibility == Visibility::External,
            source: Arc::clone(&self.source),
            paths: paths.into(),
        }
    }

    fn path(&mut self, path: &HttpIngressPath) -> Option<PathRoute> {
        let prefix = path.path.clone().unwrap_or_default();
        let mut headers = Vec::with_capacity(path.headers.len());
        for (name, wanted) in &path.headers {
            let wanted = wanted.exact.as_deref().unwrap_or_default();
            // A condition that cannot be checked must not be taken as met.
            let (name, value) = self.header(name, wanted)?;
            headers.push((name, (!wanted.is_empty()).then_some(value)));
        }
        let rewrite_host = match path.rewrite_host.as_deref().filter(|host| !host.is_empty()) {
            Some(host) => Some(Box::new(self.header("rewriteHost", host)?.1)),
            None => None,
        };
        // Absent stands for all of it only if there is one split (upstream's defaults).
        let alone = path.splits.len() == 1;
        let splits: Vec<&IngressBackendSplit> = path.splits.iter().filter(|split| weight(split, alone) > 0).collect();
        if splits.is_empty() {
            self.skipped.push(Skipped::NoBackend { ingress: self.name.clone(), path: prefix });
            return None;
        }
        let splits: Box<[Backend]> =
            splits.into_iter().map(|split| self.backend(split, weight(split, alone))).collect();
        Some(PathRoute {
            prefix: prefix.into_boxed_str(),
            headers: headers.into(),
            rewrite_host,
            set_headers: self.headers(&path.append_headers),
            total_weight: splits.iter().map(|split| split.weight).sum(),
            splits,
        })
    }

    /// The identity headers name the revision; without them the Service does, which is named alike.
    fn backend(&mut self, split: &IngressBackendSplit, weight: u64) -> Backend {
        let mut namespace = split.service_namespace.as_str();
        let mut revision = split.service_name.as_str();
        let mut others = BTreeMap::new();
        for (name, value) in &split.append_headers {
            if name.eq_ignore_ascii_case(SERVING_NAMESPACE.as_str()) {
                namespace = value;
            } else if name.eq_ignore_ascii_case(SERVING_REVISION.as_str()) {
                revision = value;
            } else {
                others.insert(name.clone(), value.clone());
            }
        }
        if namespace.is_empty() {
            namespace = &self.source.namespace;
        }
        let slot = self.names.revisions.name(namespace, revision);
        Backend { slot, weight, set_headers: self.headers(&others) }
    }

    fn headers(&mut self, pairs: &BTreeMap<String, String>) -> Box<[(HeaderName, HeaderValue)]> {
        pairs.iter().filter_map(|(name, value)| self.header(name, value)).collect()
    }

    fn header(&mut self, name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            return Some((name, value));
        }
        let (ingress, name, value) = (self.name.clone(), name.to_owned(), value.to_owned());
        self.skipped.push(Skipped::Header { ingress, name, value });
        None
    }

    fn unknown(&mut self, field: &'static str, value: &str, instead: &'static str) {
        let (ingress, value) = (self.name.clone(), value.to_owned());
        self.skipped.push(Skipped::Unknown { ingress, field, value, instead });
    }
}

/// The hosts of a certificate; none named = all of the Ingress.
struct Hosts(Vec<Pattern>);

impl Hosts {
    fn have(&self, pattern: &Pattern) -> bool {
        let covers = |own: &Pattern| own == pattern || (!pattern.is_wildcard() && own.covers(pattern.name()));
        self.0.is_empty() || self.0.iter().any(covers)
    }
}

/// The share of a split; what is negative is none.
fn weight(split: &IngressBackendSplit, alone: bool) -> u64 {
    match split.percent {
        None | Some(0) if alone => 100,
        percent => u64::try_from(percent.unwrap_or(0)).unwrap_or(0),
    }
}
