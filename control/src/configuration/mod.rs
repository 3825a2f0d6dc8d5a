//! Configuration → one Revision a generation; remembers the latest made and the latest ready.

pub mod desired;
pub mod name;
pub mod status;

use std::sync::Arc;

use api::{
    labels::serving,
    serving::{Configuration, ConfigurationStatus, Revision},
};
use jiff::Timestamp;
use kube::ResourceExt;

use self::name::{NameCheck, check_name, template_name};
use crate::{
    context::{Context, ReconcileError},
    engine::{
        queue::Outcome,
        status::{begin, finish},
        world::Key,
    },
};

/// Brings one Configuration's Revision and status up to date.
pub async fn reconcile(context: &Context, key: &Key) -> Result<Outcome, ReconcileError> {
    let Some(configuration) = context.world.configurations.get(&key.namespace, &key.name) else {
        context.forget(key);
        return Ok(Outcome::Settled);
    };
    if configuration.metadata.deletion_timestamp.is_some() {
        return Ok(Outcome::Settled);
    }
    let now = Context::now();
    let mut status = configuration.status.clone().unwrap_or_default();
    begin(&mut status, status::CONDITIONS, configuration.metadata.generation, now);
    let result = follow_revisions(context, &configuration, &mut status, now).await;
    let before = configuration.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    finish(&mut status, before, configuration.metadata.generation);
    let written = context.write_status(key, configuration.as_ref(), status).await?;
    result.map(|()| written)
}

async fn follow_revisions(
    context: &Context,
    configuration: &Configuration,
    status: &mut ConfigurationStatus,
    now: Timestamp,
) -> Result<(), ReconcileError> {
    let created = match find_created(context, configuration) {
        Found::Taken(name) => {
            let why = format!("revisions.serving.knative.dev {name:?} already exists");
            status::creation_failed(status, &why, now);
            return Ok(());
        }
        Found::Revision(revision) => revision,
        Found::Missing => {
            let want = desired::revision(configuration, now);
            match context.writer.create(&want).await {
                Ok(made) => {
                    tracing::info!(namespace = ?made.namespace(), revision = %made.name_any(), "revision created");
                    Arc::new(made)
                }
                Err(error) => {
                    // "Already exists" is our own view being late; the next look finds it.
                    if !error.is_conflict() {
                        status::creation_failed(status, &error.source.to_string(), now);
                    }
                    return Err(error.into());
                }
            }
        }
    };
    status::latest_created(status, &created, now);
    let revisions = context.world.revisions.indexed(&configuration.uid().unwrap_or_default());
    status::latest_ready(status, configuration, &revisions, now);
    Ok(())
}

enum Found {
    Revision(Arc<Revision>),
    Missing,
    Taken(String),
}

fn find_created(context: &Context, configuration: &Configuration) -> Found {
    let namespace = configuration.namespace().unwrap_or_default();
    if let Some(name) = template_name(configuration) {
        let named = context.world.revisions.get(&namespace, name);
        return match (check_name(configuration, named.as_deref()), named) {
            (NameCheck::Taken, _) => Found::Taken(name.to_owned()),
            (_, Some(revision)) => Found::Revision(revision),
            (_, None) => Found::Missing,
        };
    }
    if let Some(revision) = context.world.revisions.get(&namespace, &desired::revision_name(configuration))
        && crate::engine::world::is_controlled_by(revision.as_ref(), configuration)
    {
        return Found::Revision(revision);
    }
    // Revisions made under another naming scheme are found by their labels.
    let generation = configuration.metadata.generation.unwrap_or_default().to_string();
    context
        .world
        .revisions
        .indexed(&configuration.uid().unwrap_or_default())
        .into_iter()
        .find(|r| r.labels().get(serving::CONFIGURATION_GENERATION) == Some(&generation))
        .map_or(Found::Missing, Found::Revision)
}
