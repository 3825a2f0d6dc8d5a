//! Which revisions this process decides about.
//!
//! One process owns all of them for now. Sharding by bucket and leases becomes another variant; everything else only
//! asks [`Ownership::owns`].

/// Answers "is it mine?".
#[derive(Debug, Clone, Default)]
pub enum Ownership {
    /// A single autoscaler: everything.
    #[default]
    All,
}

impl Ownership {
    /// Whether the revision `namespace/name` is decided here.
    pub fn owns(&self, _key: &str) -> bool {
        match self {
            Self::All => true,
        }
    }

    /// Whether reports addressed to `host` are for this process. A host that names a bucket is refused by a process
    /// that does not hold it, so that the sender looks for the one that does.
    pub fn accepts_host(&self, _host: &str) -> bool {
        match self {
            Self::All => true,
        }
    }
}
