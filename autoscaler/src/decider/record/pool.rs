//! Values that many revisions have in common, kept once.

use std::{collections::HashSet, hash::Hash, sync::Arc};

use super::{Annotations, conditions::Saying, pod_autoscaler::PaSpec, serverless_service::SksSpec};

/// Values that many revisions have in common.
#[derive(Debug)]
pub(in crate::decider) struct Pool<T> {
    pub(super) values: HashSet<Arc<T>>,
    /// Size at which values that nobody holds any more are thrown out.
    sweep_at: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { values: HashSet::new(), sweep_at: 64 }
    }
}

impl<T: Eq + Hash> Pool<T> {
    pub(in crate::decider) fn share(&mut self, value: T) -> Arc<T> {
        if let Some(known) = self.values.get(&value) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.sweep_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = (2 * self.values.len()).max(64);
        }
        let value = Arc::new(value);
        self.values.insert(Arc::clone(&value));
        value
    }
}

/// All pools.
#[derive(Debug, Default)]
pub(in crate::decider) struct Shared {
    pub(super) annotations: Pool<Annotations>,
    pub(super) pa_specs: Pool<PaSpec>,
    pub(super) sks_specs: Pool<SksSpec>,
    pub(super) conditions: Pool<Vec<Saying>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_nobody_holds_are_thrown_out() {
        let mut pool = Pool::default();
        let held = pool.share(0u32);
        for value in 1..10_000 {
            pool.share(value);
        }
        assert!(pool.values.len() <= 64, "{}", pool.values.len());
        assert!(Arc::ptr_eq(&held, &pool.share(0)));
    }
}
