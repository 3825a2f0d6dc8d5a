//! Configuration → the Revisions of it that go, since nobody has used them for long.
//!
//! Woken by the Configuration, its Revisions and the settings, and by the clock when the next one becomes stale.

pub mod stale;

use kube::ResourceExt;

use crate::{
    context::{Context, ReconcileError},
    engine::{queue::Outcome, world::Key},
};

/// Deletes what goes of one Configuration.
pub async fn reconcile(context: &Context, key: &Key) -> Result<Outcome, ReconcileError> {
    let configuration = context.world.configurations.get(&key.namespace, &key.name);
    let Some(configuration) = configuration.filter(|one| one.metadata.deletion_timestamp.is_none()) else {
        return Ok(Outcome::Settled);
    };
    let revisions = context.world.revisions.indexed(&configuration.uid().unwrap_or_default());
    let latest = configuration.status.as_ref().and_then(|status| status.latest_ready_revision_name.as_deref());
    let verdict = stale::judge(&revisions, latest, &context.settings.load().gc, Context::now());
    for revision in &verdict.go {
        match context.writer.delete(revision.as_ref()).await {
            Ok(()) => {
                tracing::info!(namespace = %key.namespace, revision = %revision.name_any(), "unused revision deleted");
            }
            // One that cannot be deleted keeps none of the others.
            Err(error) => tracing::warn!(%error, "an unused revision stays"),
        }
    }
    Ok(verdict.again_in.map_or(Outcome::Settled, Outcome::Again))
}
