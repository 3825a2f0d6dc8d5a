//! Which revisions this process decides about: all of them, or those of the buckets whose leases it holds (upstream
//! `cmd/autoscaler/leaderelection.go`, `pkg/autoscaler/bucket`).
//!
//! A revision's bucket follows from its name, the same in every replica. Which buckets are held changes; [`Held`] is the
//! set at a moment.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// What names of buckets, and Hosts that name one, begin with.
pub const BUCKET_PREFIX: &str = "autoscaler-bucket";

/// A set of buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held(pub u32);

impl Held {
    /// Whether the bucket is in it.
    pub fn has(self, bucket: u8) -> bool {
        self.0 & (1 << bucket) != 0
    }
}

/// Answers "is it mine?".
#[derive(Debug, Clone, Default)]
pub enum Ownership {
    /// A single autoscaler: everything.
    #[default]
    All,
    /// One of several.
    Buckets(Arc<Buckets>),
}

/// The buckets, and which of them are held here.
#[derive(Debug)]
pub struct Buckets {
    names: Vec<String>,
    held: AtomicU32,
}

impl Ownership {
    /// So many buckets of which none is held yet.
    pub fn of_leases(buckets: u32) -> Self {
        let buckets = buckets.clamp(1, api::settings::LeaderElection::MOST_BUCKETS);
        let names = (0..buckets).map(|ordinal| format!("{BUCKET_PREFIX}-{ordinal:02}-of-{buckets:02}")).collect();
        Self::Buckets(Arc::new(Buckets { names, held: AtomicU32::new(0) }))
    }

    /// Buckets with these names, of which the one at `ordinal` is held for good: a StatefulSet's.
    pub fn fixed(names: Vec<String>, ordinal: u8) -> Self {
        Self::Buckets(Arc::new(Buckets { names, held: AtomicU32::new(1 << ordinal) }))
    }

    /// Names of the buckets; none where there is only one process.
    pub fn names(&self) -> &[String] {
        match self {
            Self::All => &[],
            Self::Buckets(buckets) => &buckets.names,
        }
    }

    /// The bucket of the revision `namespace/name`.
    pub fn bucket(&self, key: &str) -> u8 {
        let Self::Buckets(buckets) = self else { return 0 };
        if buckets.names.len() == 1 {
            return 0;
        }
        let names: Vec<&str> = buckets.names.iter().map(String::as_str).collect();
        let chosen = api::hash::choose_subset(&names, 1, key).first().copied().unwrap_or_default();
        buckets.names.iter().position(|name| name == chosen).and_then(|nth| u8::try_from(nth).ok()).unwrap_or(0)
    }

    /// The buckets held now.
    pub fn held(&self) -> Held {
        match self {
            Self::All => Held(u32::MAX),
            Self::Buckets(buckets) => Held(buckets.held.load(Ordering::Relaxed)),
        }
    }

    /// A lease was won or lost; returns what is held then.
    pub fn set_held(&self, bucket: u8, held: bool) -> Held {
        if let Self::Buckets(buckets) = self {
            let bit = 1 << bucket;
            if held {
                buckets.held.fetch_or(bit, Ordering::Relaxed);
            } else {
                buckets.held.fetch_and(!bit, Ordering::Relaxed);
            }
        }
        self.held()
    }

    /// Whether reports addressed to `host` are for this process. A host that names a bucket is refused by a process
    /// that does not hold it, so that the sender looks for the one that does.
    pub fn accepts_host(&self, host: &str) -> bool {
        let Self::Buckets(buckets) = self else { return true };
        if !host.starts_with(BUCKET_PREFIX) {
            return true;
        }
        let name = host.split(['.', ':']).next().unwrap_or_default();
        let nth = buckets.names.iter().position(|bucket| bucket == name).and_then(|nth| u8::try_from(nth).ok());
        nth.is_some_and(|nth| self.held().has(nth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s69_names_of_buckets() {
        assert_eq!(Ownership::of_leases(1).names(), ["autoscaler-bucket-00-of-01"]);
        assert_eq!(Ownership::of_leases(10).names()[9], "autoscaler-bucket-09-of-10");
    }

    #[test]
    fn revisions_are_where_upstream_has_them() {
        for (key, buckets) in [
            ("default/hello-00001", [0, 1, 0, 0, 5]),
            ("default/hello-00002", [0, 1, 1, 1, 8]),
            ("prod/api-00007", [0, 1, 0, 4, 8]),
            ("a/b", [0, 0, 2, 4, 4]),
        ] {
            let got = [1, 2, 3, 5, 10].map(|n| Ownership::of_leases(n).bucket(key));
            assert_eq!(got, buckets, "{key}");
        }
    }

    #[test]
    fn s68_hosts_that_name_a_bucket_are_for_its_holder() {
        let two = Ownership::of_leases(2);
        two.set_held(1, true);
        assert!(two.accepts_host("autoscaler-bucket-01-of-02.knative-serving.svc.cluster.local:8080"));
        assert!(!two.accepts_host("autoscaler-bucket-00-of-02.knative-serving.svc.cluster.local:8080"));
        assert!(!two.accepts_host("autoscaler-bucket-05-of-09"));
        assert!(two.accepts_host("autoscaler.knative-serving:8080") && two.accepts_host("10.0.0.1"));
        assert!(Ownership::All.accepts_host("autoscaler-bucket-00-of-02"));
        two.set_held(1, false);
        assert_eq!(two.held(), Held(0));
    }
}
