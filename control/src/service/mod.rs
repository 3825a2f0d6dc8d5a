//! Service → Configuration and Route of the same name; its status is theirs put together.

pub mod desired;
pub mod status;

use std::sync::Arc;

use api::serving::{Configuration, Route, Service};
use kube::ResourceExt;

use crate::{
    configuration::name::{NameCheck, check_name},
    context::{Context, ReconcileError},
    engine::{
        queue::Outcome,
        status::{begin, finish},
        world::{Key, is_controlled_by},
    },
    v1alpha1::is_manual,
};

/// Brings one Service's objects and status up to date.
pub async fn reconcile(context: &Context, key: &Key) -> Result<Outcome, ReconcileError> {
    let Some(service) = context.world.services.get(&key.namespace, &key.name) else {
        context.forget(key);
        return Ok(Outcome::Settled);
    };
    if service.metadata.deletion_timestamp.is_some() {
        return Ok(Outcome::Settled);
    }
    let now = Context::now();
    let mut status = service.status.clone().unwrap_or_default();
    begin(&mut status, status::CONDITIONS, service.metadata.generation, now);
    let result = reconcile_children(context, &service, &mut status, now).await;
    let before = service.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    finish(&mut status, before, service.metadata.generation);
    let written = context.write_status(key, service.as_ref(), status).await?;
    result.map(|()| written)
}

async fn reconcile_children(
    context: &Context,
    service: &Service,
    status: &mut api::serving::ServiceStatus,
    now: jiff::Timestamp,
) -> Result<(), ReconcileError> {
    if is_manual(service) {
        status::manual(status, now);
        return Ok(());
    }
    let configuration = match ensure_configuration(context, service).await {
        Err(ReconcileError::NotOwned(why)) => {
            status::configuration_not_owned(status, &service.name_any(), now);
            return Err(ReconcileError::NotOwned(why));
        }
        other => other?,
    };
    let template_name = configuration.spec.template.metadata.as_ref().and_then(|m| m.name.clone());
    let current = status::propagate_configuration(status, &configuration, now);
    if let Some(name) = template_name.filter(|n| !n.is_empty()) {
        // With a name of the user's own, traffic moves only after the Configuration has taken the name.
        if !current {
            return Ok(());
        }
        let named = context.world.revisions.get(&service.namespace().unwrap_or_default(), &name);
        if check_name(&configuration, named.as_deref()) == NameCheck::Taken {
            status::revision_name_taken(status, &name, now);
            return Ok(());
        }
    }
    let route = match ensure_route(context, service).await {
        Err(ReconcileError::NotOwned(why)) => {
            status::route_not_owned(status, &service.name_any(), now);
            return Err(ReconcileError::NotOwned(why));
        }
        other => other?,
    };
    status::propagate_route(status, &route, now);
    status::check_migrated(status, &configuration, &route, now);
    Ok(())
}

async fn ensure_configuration(context: &Context, service: &Service) -> Result<Arc<Configuration>, ReconcileError> {
    let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
    let Some(existing) = context.world.configurations.get(&namespace, &name) else {
        return Ok(Arc::new(context.writer.create(&desired::configuration(service, None)).await?));
    };
    if !is_controlled_by(existing.as_ref(), service) {
        return Err(ReconcileError::NotOwned(format!("service {name:?} does not own configuration {name:?}")));
    }
    let want = desired::configuration(service, Some(&existing));
    Ok(context.writer.take_over(existing, want).await?)
}

async fn ensure_route(context: &Context, service: &Service) -> Result<Arc<Route>, ReconcileError> {
    let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
    let want = desired::route(service);
    let Some(existing) = context.world.routes.get(&namespace, &name) else {
        return Ok(Arc::new(context.writer.create(&want).await?));
    };
    if !is_controlled_by(existing.as_ref(), service) {
        return Err(ReconcileError::NotOwned(format!("service {name:?} does not own route {name:?}")));
    }
    Ok(context.writer.take_over(existing, want).await?)
}
