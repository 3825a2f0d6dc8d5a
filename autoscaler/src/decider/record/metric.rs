//! A Metric, as it is kept.

use api::autoscaling::{Metric, MetricSpec};

use super::{
    PaRecord,
    metadata::{Controller, Generation, controller, metadata, uid_hash, version},
    name::Name,
};
use crate::key::Key;

/// A Metric.
#[derive(Debug)]
pub(in crate::decider) struct MetricRecord {
    version: u64,
    uid: u64,
    controller: Option<Controller>,
    windows: (i64, i64),
    scrape_target: Name,
}

impl MetricRecord {
    pub(in crate::decider) fn of(key: &Key, metric: Metric) -> Self {
        let Metric { metadata, spec, .. } = metric;
        Self {
            version: version(&metadata),
            uid: uid_hash(&metadata),
            controller: controller(&metadata),
            windows: (spec.stable_window, spec.panic_window),
            scrape_target: Name::of(Some(spec.scrape_target.as_str()).filter(|name| !name.is_empty()), key),
        }
    }

    /// The object, as far as it is kept.
    pub(in crate::decider) fn object(&self, key: &Key, pa: &PaRecord) -> Metric {
        Metric {
            metadata: metadata(key, self.version, self.controller, pa, Generation::of(None)),
            spec: MetricSpec {
                stable_window: self.windows.0,
                panic_window: self.windows.1,
                scrape_target: self.scrape_target(key),
            },
            status: None,
        }
    }

    /// The private Service, or nothing.
    pub(in crate::decider) fn scrape_target(&self, key: &Key) -> String {
        self.scrape_target.text(key).unwrap_or_default()
    }

    /// Whether this is an older state of the same object than `known`.
    pub(in crate::decider) fn is_older_than(&self, known: &Self) -> bool {
        self.uid == known.uid && self.version < known.version
    }
}
