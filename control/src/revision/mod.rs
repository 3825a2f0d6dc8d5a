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

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api::{
    autoscaling::PodAutoscaler,
    labels::autoscaling,
    names,
    serving::{ContainerStatus, Revision, RevisionStatus},
};
use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Container};
use kube::ResourceExt;

use self::desired::{DEPLOYMENT_HASH, Surroundings};
use crate::{
    certificate::namespaces,
    context::{Context, ReconcileError},
    digest::ledger::Answer,
    engine::{
        queue::Outcome,
        status::{begin, finish},
        world::{Key, Kind, is_controlled_by, revision_index},
    },
    settings::Settings,
};

/// How soon it is looked for a certificate that is on its way.
const CERTIFICATE_COMES: Duration = Duration::from_secs(1);

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
    Ok(written.or_after(result?))
}

async fn reconcile_children(
    context: &Context,
    settings: &Settings,
    revision: &Revision,
    status: &mut RevisionStatus,
    now: Timestamp,
) -> Result<Option<Duration>, ReconcileError> {
    let log_url = settings.log_url_template.replace("${REVISION_UID}", &revision.uid().unwrap_or_default());
    status.log_url = (!log_url.is_empty()).then_some(log_url);
    match images(context, settings, revision, status) {
        Images::Known => {}
        Images::Awaited(again) => {
            status::resolving(status, now);
            return Ok(again);
        }
        Images::Missing(why, again) => {
            status::image_missing(status, &why, now);
            return Ok(Some(again));
        }
    }
    if settings.network.system_internal_tls
        && let Some(why) = sidecars_lack(context, settings, revision).await?
    {
        status::sidecar_certificate_missing(status, &why, now);
        return Ok(Some(CERTIFICATE_COMES));
    }
    // The images of the Deployment are those of the status.
    let mut current = revision.clone();
    current.status = Some(status.clone());

    let (deployment, is_new) = match ensure_deployment(context, settings, &current).await {
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
        tell_caches(context, &current).await;
        status::deploying(status, now);
    } else {
        let index = revision_index(&revision.namespace().unwrap_or_default(), &revision.name_any());
        let pods = context.world.pods.indexed(&index);
        let schedulable = settings.deployment.pod_is_always_schedulable;
        status::propagate_deployment(status, &deployment, &pods, schedulable, now);
    }
    // The PodAutoscaler's reachability depends on what we just found.
    current.status = Some(status.clone());
    let autoscaler = match ensure_autoscaler(context, settings, &current, &deployment).await {
        Err(ReconcileError::NotOwned(name)) => {
            status::not_owned(status, "PodAutoscaler", &name, now);
            return Err(ReconcileError::NotOwned(format!("revision {name} does not own PodAutoscaler {name}")));
        }
        other => other?,
    };
    status::propagate_autoscaler(status, &autoscaler.status.clone().unwrap_or_default(), now);
    Ok(None)
}

/// Sees to the certificate of the sidecars; says why the first of a Revision's pods cannot be yet. The sidecars of those
/// that are there follow their Secret.
async fn sidecars_lack(
    context: &Context,
    settings: &Settings,
    revision: &Revision,
) -> Result<Option<String>, ReconcileError> {
    let namespace = revision.namespace().unwrap_or_default();
    let lack = namespaces::for_sidecars(context, settings, &namespace, revision.annotations()).await?;
    if lack.is_some() || context.world.deployments.has(&namespace, &names::deployment(&revision.name_any())) {
        return Ok(lack);
    }
    Ok(namespaces::missing(context, &namespace).await)
}

/// Whether it is known what the containers run.
enum Images {
    /// The status says so.
    Known,
    /// Asked for; to be looked at again after this time, if no answer comes before.
    Awaited(Option<Duration>),
    /// Not to be had, for this reason; to be asked for again after this time.
    Missing(String, Duration),
}

/// Notes in the status which image each container runs. What was noted once stays: all pods of a Revision run the same.
fn images(context: &Context, settings: &Settings, revision: &Revision, status: &mut RevisionStatus) -> Images {
    let pod = &revision.spec.pod;
    let inits = pod.init_containers.as_deref().unwrap_or_default();
    let key =
        Key { kind: Kind::Revision, namespace: revision.namespace().unwrap_or_default(), name: revision.name_any() };
    let noted = revision.status.as_ref().map_or(0, |s| s.container_statuses.len() + s.init_container_statuses.len());
    if noted == inits.len() + pod.containers.len() {
        if let Some(digests) = &context.digests {
            digests.forget(&key);
        }
        return Images::Known;
    }
    let known = match &context.digests {
        None => BTreeMap::new(),
        Some(digests) => match digests.of(&key, revision, settings) {
            Answer::Known(known) => known,
            Answer::Asked => return Images::Awaited(None),
            Answer::Paused(again) => return Images::Awaited(Some(again)),
            Answer::Failed { why, again } => return Images::Missing(why, again),
        },
    };
    let status_of = |container: &Container| {
        let image = container.image.as_deref().unwrap_or_default();
        let digest = known.get(image).map_or(image, String::as_str);
        // A tag that is left as it is has none.
        let image_digest = digest.contains("@sha256:").then(|| digest.to_owned());
        ContainerStatus { name: Some(container.name.clone()), image_digest }
    };
    status.init_container_statuses = inits.iter().map(status_of).collect();
    status.container_statuses = pod.containers.iter().map(status_of).collect();
    Images::Known
}

/// Tells caches of images which ones will be run. Nothing here depends on them: what fails is not tried again.
async fn tell_caches(context: &Context, revision: &Revision) {
    if context.digests.is_none() {
        return;
    }
    for image in desired::images(revision) {
        if let Err(error) = context.writer.make(&image).await {
            tracing::warn!(%error, "caches are not told of an image");
        }
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
