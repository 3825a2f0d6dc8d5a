//! Route → notes on the Configurations and Revisions it uses.
//!
//! Notes are added as soon as a target is named and removed only when the Route has settled, so that during a change
//! of traffic both sides stay alive. A deleted Route's notes are removed too.

pub mod desired;

use std::{collections::BTreeSet, sync::Arc};

use api::{
    conditions::{self, READY},
    serving::{Configuration, Revision, Route},
};
use kube::ResourceExt;

use crate::{
    context::{Context, ReconcileError},
    engine::{
        queue::Outcome,
        world::{Key, Known, World, controller_of, note_index},
    },
};

/// Brings the notes of one Route up to date.
pub async fn reconcile(context: &Context, key: &Key) -> Result<Outcome, ReconcileError> {
    let route = context.world.routes.get(&key.namespace, &key.name);
    let route = route.filter(|r| r.metadata.deletion_timestamp.is_none());
    let used = route.as_deref().map(|r| used_by(&context.world, r)).unwrap_or_default();
    let settled = route.as_deref().is_none_or(is_settled);
    for name in &used.revisions {
        if let Some(revision) = context.world.revisions.get(&key.namespace, name) {
            note(context, revision.as_ref(), &key.name, false, true).await?;
        }
    }
    for name in &used.configurations {
        if let Some(configuration) = context.world.configurations.get(&key.namespace, name) {
            note(context, configuration.as_ref(), &key.name, false, false).await?;
        }
    }
    if settled {
        for revision in noted::<Revision>(context, key) {
            if !used.revisions.contains(&revision.name_any()) {
                note(context, revision.as_ref(), &key.name, true, true).await?;
            }
        }
        for configuration in noted::<Configuration>(context, key) {
            if !used.configurations.contains(&configuration.name_any()) {
                note(context, configuration.as_ref(), &key.name, true, false).await?;
            }
        }
    }
    Ok(Outcome::Settled)
}

#[derive(Default)]
struct Used {
    revisions: BTreeSet<String>,
    configurations: BTreeSet<String>,
}

/// What spec and status of the Route name, directly or through each other.
fn used_by(world: &World, route: &Route) -> Used {
    let namespace = route.namespace().unwrap_or_default();
    let mut used = Used::default();
    let status = route.status.as_ref().map(|s| s.traffic.as_slice()).unwrap_or_default();
    for target in status.iter().chain(&route.spec.traffic) {
        let mut configuration = target.configuration_name.clone().filter(|n| !n.is_empty());
        if let Some(name) = target.revision_name.as_deref().filter(|n| !n.is_empty()) {
            let Some(revision) = world.revisions.get(&namespace, name) else { continue };
            used.revisions.insert(name.to_owned());
            if let Some(owner) = controller_of(revision.as_ref()).filter(|o| o.kind == "Configuration") {
                configuration = Some(owner.name.clone());
            }
        }
        let Some(name) = configuration else { continue };
        let Some(configuration) = world.configurations.get(&namespace, &name) else { continue };
        used.configurations.insert(name);
        // The one on its way counts too: it must not be asleep when traffic comes to it.
        let latest = configuration.status.as_ref().and_then(|s| s.latest_created_revision_name.clone());
        if target.latest_revision == Some(true) {
            used.revisions.extend(latest);
        }
    }
    used
}

fn is_settled(route: &Route) -> bool {
    route.status.as_ref().is_some_and(|s| {
        s.observed_generation == route.metadata.generation
            && conditions::get(&s.conditions, READY).is_some_and(|c| !c.is_unknown())
    })
}

/// Objects of the Route's namespace on which it is noted.
fn noted<K: Known>(context: &Context, key: &Key) -> Vec<Arc<K>> {
    K::store(&context.world).indexed(&note_index(&key.namespace, &key.name))
}

async fn note<K: Known>(
    context: &Context,
    object: &K,
    route: &str,
    remove: bool,
    routing_state: bool,
) -> Result<(), ReconcileError> {
    let patch = desired::patch(object.labels(), object.annotations(), route, remove, routing_state, Context::now());
    let Some(patch) = patch else { return Ok(()) };
    match context.writer.merge(object, &patch).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_gone() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
