//! Revision → Deployment and PodAutoscaler; says whether its containers run, and if not, why.

pub mod autoscaler_sync;
pub mod desired;
pub mod metadata;
pub mod queue_container;
pub mod status;
pub mod user_containers;

#[cfg(test)]
mod desired_tests;
#[cfg(test)]
mod status_tests;

use std::sync::Arc;

use api::{
    autoscaling::PodAutoscaler,
    labels::autoscaling,
    serving::{ContainerStatus, Revision, RevisionStatus},
};
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Container};
use kube::ResourceExt;

use self::desired::{DEPLOYMENT_HASH, Surroundings};
use crate::{
    context::{Context, ReconcileError},
    engine::{
        queue::Outcome,
        status::{begin, finish},
        world::{Key, is_controlled_by, revision_index},
    },
    settings::Settings,
};

/// Brings one Revision's objects and status up to date.
pub async fn reconcile(context: &Context, key: &Key) -> Result<Outcome, ReconcileError> {
    let Some(revision) = context.world.revisions.get(&key.namespace, &key.name) else {
        context.forget(key);
        return Ok(Outcome::Settled);
    };
    if revision.metadata.deletion_timestamp.is_some() {
        return Ok(Outcome::Settled);
    }
    let now = Context::now();
    let settings = context.settings.load_full();
    let mut status = revision.status.clone().unwrap_or_default();
    begin(&mut status, status::CONDITIONS, revision.metadata.generation, now);
    let result = reconcile_children(context, &settings, &revision, &mut status, now).await;
    let before = revision.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    finish(&mut status, before, revision.metadata.generation);
    // Metadata may have moved on (routing state) while we wrote; a conflict brings us back with the newest.
    let written = context.write_status(key, revision.as_ref(), status).await?;
    result.map(|()| written)
}

async fn reconcile_children(
    context: &Context,
    settings: &Settings,
    revision: &Revision,
    status: &mut RevisionStatus,
    now: Timestamp,
) -> Result<(), ReconcileError> {
    let log_url = settings.log_url_template.replace("${REVISION_UID}", &revision.uid().unwrap_or_default());
    status.log_url = (!log_url.is_empty()).then_some(log_url);
    status.container_statuses = revision.spec.pod.containers.iter().map(named).collect();
    status.init_container_statuses = revision.spec.pod.init_containers.iter().flatten().map(named).collect();

    let (deployment, is_new) = match ensure_deployment(context, settings, revision).await {
        Err(ReconcileError::NotOwned(name)) => {
            status::not_owned(status, "Deployment", &name, now);
            return Err(ReconcileError::NotOwned(format!(
                "revision {} does not own Deployment {name}",
                revision.name_any()
            )));
        }
        other => other?,
    };
    if is_new {
        status::deploying(status, now);
    } else {
        let index = revision_index(&revision.namespace().unwrap_or_default(), &revision.name_any());
        let pods = context.world.pods.indexed(&index);
        let schedulable = settings.deployment.pod_is_always_schedulable;
        status::propagate_deployment(status, &deployment, &pods, schedulable, now);
    }
    // The PodAutoscaler's reachability depends on what we just found.
    let mut current = revision.clone();
    current.status = Some(status.clone());
    let autoscaler = match ensure_autoscaler(context, settings, &current, &deployment).await {
        Err(ReconcileError::NotOwned(name)) => {
            status::not_owned(status, "PodAutoscaler", &name, now);
            return Err(ReconcileError::NotOwned(format!("revision {name} does not own PodAutoscaler {name}")));
        }
        other => other?,
    };
    status::propagate_autoscaler(status, &autoscaler.status.clone().unwrap_or_default(), now);
    Ok(())
}

/// A container with the digest that its image names, if any: tags are not resolved (yet), as upstream does for
/// registries it skips.
fn named(container: &Container) -> ContainerStatus {
    ContainerStatus {
        name: Some(container.name.clone()),
        image_digest: container.image.clone().filter(|image| image.contains("@sha256:")),
    }
}

async fn ensure_deployment(
    context: &Context,
    settings: &Settings,
    revision: &Revision,
) -> Result<(Arc<Deployment>, bool), ReconcileError> {
    let around = Surroundings {
        settings,
        queue_sidecar_image: &context.queue_sidecar_image,
        system_namespace: &context.world.system_namespace,
    };
    let want = desired::deployment(revision, &around);
    let name = want.name_any();
    let Some(existing) = context.world.deployments.get(&revision.namespace().unwrap_or_default(), &name) else {
        return Ok((Arc::new(context.writer.create(&want).await?), true));
    };
    if !is_controlled_by(existing.as_ref(), revision) {
        return Err(ReconcileError::NotOwned(name));
    }
    if existing.labels().get(DEPLOYMENT_HASH) == want.labels().get(DEPLOYMENT_HASH) {
        return Ok((existing, false));
    }
    let mut changed = existing.as_ref().clone();
    changed.metadata.labels = want.metadata.labels;
    changed.metadata.annotations.get_or_insert_default().extend(want.metadata.annotations.unwrap_or_default());
    if let Some(mut spec) = want.spec {
        let had = changed.spec.take().unwrap_or_default();
        // How many there are is the autoscaler's; which pods they are cannot change.
        spec.replicas = had.replicas;
        spec.selector = had.selector;
        changed.spec = Some(spec);
    }
    Ok((Arc::new(context.writer.replace(&changed).await?), false))
}

async fn ensure_autoscaler(
    context: &Context,
    settings: &Settings,
    revision: &Revision,
    deployment: &Deployment,
) -> Result<Arc<PodAutoscaler>, ReconcileError> {
    let mut want = desired::pod_autoscaler(revision, Some(deployment));
    let Some(existing) = context.world.autoscalers.get(&revision.namespace().unwrap_or_default(), &want.name_any())
    else {
        // Admission does the same; without it (a cluster with our controller alone) nobody else would.
        let class = settings.autoscaler.pod_autoscaler_class.clone();
        want.annotations_mut().entry(autoscaling::CLASS.key.to_owned()).or_insert(class);
        return Ok(Arc::new(context.writer.create(&want).await?));
    };
    if !is_controlled_by(existing.as_ref(), revision) {
        return Err(ReconcileError::NotOwned(want.name_any()));
    }
    let annotations = autoscaler_sync::merged(existing.annotations(), want.annotations());
    if existing.spec == want.spec && *existing.annotations() == annotations {
        return Ok(existing);
    }
    let mut changed = existing.as_ref().clone();
    changed.spec = want.spec;
    changed.metadata.annotations = Some(annotations);
    Ok(Arc::new(context.writer.replace(&changed).await?))
}
