//! ServerlessService → private Service (selects the pods), public Service, and the public Service's Endpoints:
//! activators or pods.

pub mod desired;
pub mod status;

use api::{
    names,
    networking::{ServerlessService, ServerlessServiceStatus},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Endpoints, Service, ServicePort};
use kube::ResourceExt;

use crate::{
    context::{Context, ReconcileError},
    engine::{
        queue::Outcome,
        status::{begin, finish},
        world::{ACTIVATOR_SERVICE, Key, is_controlled_by},
    },
    owner::Map,
};

/// Brings one ServerlessService's objects and status up to date.
pub async fn reconcile(context: &Context, key: &Key) -> Result<Outcome, ReconcileError> {
    let Some(sks) = context.world.serverless_services.get(&key.namespace, &key.name) else {
        context.forget(key);
        return Ok(Outcome::Settled);
    };
    if sks.metadata.deletion_timestamp.is_some() {
        return Ok(Outcome::Settled);
    }
    let now = Context::now();
    let mut status = sks.status.clone().unwrap_or_default();
    begin(&mut status, status::CONDITIONS, sks.metadata.generation, now);
    let result = reconcile_children(context, &sks, &mut status, now).await;
    let before = sks.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    finish(&mut status, before, sks.metadata.generation);
    let written = match &sks.status {
        // Pods that are there at once make it ready within milliseconds: then the first status says so.
        None => context.write_status(key, sks.as_ref(), status).await?,
        // The autoscaler counts from what this status says of the path: no detail of it is put off.
        Some(_) => context.write_status_now(sks.as_ref(), status).await?,
    };
    result.map(|()| written)
}

async fn reconcile_children(
    context: &Context,
    sks: &ServerlessService,
    status: &mut ServerlessServiceStatus,
    now: Timestamp,
) -> Result<(), ReconcileError> {
    let namespace = sks.namespace().unwrap_or_default();
    let target = sks.spec.object_ref.name.clone().unwrap_or_default();
    // Without its Deployment there is nothing to select; the Deployment's coming wakes us.
    let Some(deployment) = context.world.deployments.get(&namespace, &target) else { return Ok(()) };
    let selector = deployment.spec.as_ref().and_then(|s| s.selector.match_labels.clone()).unwrap_or_default();

    let private_name = names::private_service(&sks.name_any());
    let (want_private, want_public) = (desired::private_service(sks, selector), desired::public_service(sks));
    let (private, public) =
        tokio::join!(ensure_service(context, sks, want_private), ensure_service(context, sks, want_public));
    for result in [private, public] {
        if let Err(ReconcileError::NotOwned(name)) = &result {
            status::not_owned(status, "Service", name, now);
        }
        result?;
    }
    status.private_service_name = Some(private_name.clone());
    status.service_name = Some(sks.name_any());

    let private = context.world.endpoints.get(&namespace, &private_name);
    let activators = context.world.endpoints.get(&context.world.system_namespace, ACTIVATOR_SERVICE);
    let backing = desired::backing(sks, private.as_deref(), activators.as_deref());
    let (has_pods, by_activator) = (backing.has_pods, backing.by_activator);
    if let Err(error) = ensure_endpoints(context, sks, backing).await {
        if let ReconcileError::NotOwned(name) = &error {
            status::not_owned(status, "Endpoints", name, now);
        }
        return Err(error);
    }
    status::backed(status, has_pods, by_activator, now);
    Ok(())
}

async fn ensure_service(context: &Context, sks: &ServerlessService, want: Service) -> Result<(), ReconcileError> {
    let name = want.name_any();
    let Some(existing) = context.world.core_services.get(&sks.namespace().unwrap_or_default(), &name) else {
        context.writer.create(&want).await?;
        return Ok(());
    };
    if !is_controlled_by(existing.as_ref(), sks) {
        return Err(ReconcileError::NotOwned(name));
    }
    let Some(want) = want.spec else { return Ok(()) };
    let have = existing.spec.clone().unwrap_or_default();
    let no_selector = Map::new();
    let same_selector =
        have.selector.as_ref().unwrap_or(&no_selector) == want.selector.as_ref().unwrap_or(&no_selector);
    if same_selector && same_ports(have.ports.as_deref(), want.ports.as_deref()) {
        return Ok(());
    }
    let mut changed = existing.as_ref().clone();
    let spec = changed.spec.get_or_insert_default();
    spec.ports = want.ports;
    spec.selector = want.selector;
    context.writer.replace(&changed).await?;
    Ok(())
}

/// Equal in what we say of them; node ports are the cluster's.
pub(crate) fn same_ports(have: Option<&[ServicePort]>, want: Option<&[ServicePort]>) -> bool {
    let said = |p: &ServicePort| (p.name.clone(), p.port, p.target_port.clone(), p.app_protocol.clone());
    let (have, want) = (have.unwrap_or_default(), want.unwrap_or_default());
    have.len() == want.len() && have.iter().zip(want).all(|(h, w)| said(h) == said(w))
}

async fn ensure_endpoints(
    context: &Context,
    sks: &ServerlessService,
    backing: desired::Backing,
) -> Result<(), ReconcileError> {
    let want = desired::public_endpoints(sks, backing.subsets);
    let name = want.name_any();
    let Some(existing) = context.world.endpoints.get(&sks.namespace().unwrap_or_default(), &name) else {
        context.writer.create(&want).await?;
        return Ok(());
    };
    if !is_controlled_by::<Endpoints, _>(existing.as_ref(), sks) {
        return Err(ReconcileError::NotOwned(name));
    }
    let none = Vec::new();
    if existing.subsets.as_ref().unwrap_or(&none) == want.subsets.as_ref().unwrap_or(&none) {
        return Ok(());
    }
    let mut changed = existing.as_ref().clone();
    changed.subsets = want.subsets;
    context.writer.replace(&changed).await?;
    Ok(())
}
