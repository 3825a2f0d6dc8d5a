//! DomainMapping → Ingress for a host of the user's own, once its namespace has a claim to the host.
//!
//! The host leads to something that has a name inside the cluster (a Service, a Route, a Kubernetes Service of the same
//! namespace); the gateway rewrites the Host header to that name and routes once more. Claims are made here where
//! `autocreate-cluster-domain-claims` says so, and taken back with their DomainMapping.

pub mod desired;
pub mod status;

use std::sync::Arc;

use api::{
    networking::{ClusterDomainClaim, Ingress, IngressTls},
    serving::{Addressable, DomainMapping, DomainMappingStatus},
};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;

use self::desired::Unresolved;
use crate::{
    certificate::{
        self,
        desired::is_switched_off,
        status::{Standing, Verdict, standing},
    },
    context::{Context, ReconcileError},
    engine::{
        queue::Outcome,
        status::{begin, finish},
        world::{Key, is_controlled_by},
    },
    route::tls::{self, Tls},
    settings::Settings,
};

/// Keeps a DomainMapping until its claim was taken back (upstream's very name).
const FINALIZER: &str = "domainmappings.serving.knative.dev";

/// Brings one DomainMapping's objects and status up to date.
pub async fn reconcile(context: &Context, key: &Key) -> Result<Outcome, ReconcileError> {
    let Some(mapping) = context.world.domain_mappings.get(&key.namespace, &key.name) else {
        context.forget(key);
        return Ok(Outcome::Settled);
    };
    let settings = context.settings.load_full();
    if mapping.metadata.deletion_timestamp.is_some() {
        return finalize(context, &settings, &mapping).await;
    }
    if !mapping.finalizers().iter().any(|name| name == FINALIZER) {
        let kept: Vec<&str> = mapping.finalizers().iter().map(String::as_str).chain([FINALIZER]).collect();
        write_finalizers(context, &mapping, &kept).await?;
        // Its event brings us back.
        return Ok(Outcome::Settled);
    }
    let now = Context::now();
    let mut status = mapping.status.clone().unwrap_or_default();
    begin(&mut status, status::CONDITIONS, mapping.metadata.generation, now);
    if status.observed_generation != mapping.metadata.generation {
        // The Ingress in place speaks of the generation before.
        status::ingress_not_configured(&mut status, now);
    }
    let result = reconcile_children(context, &settings, &mapping, &mut status, now).await;
    let before = mapping.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    finish(&mut status, before, mapping.metadata.generation);
    let written = context.write_status(key, mapping.as_ref(), status).await?;
    result.map(|()| written)
}

async fn reconcile_children(
    context: &Context,
    settings: &Settings,
    mapping: &DomainMapping,
    status: &mut DomainMappingStatus,
    now: Timestamp,
) -> Result<(), ReconcileError> {
    let scheme = if mapping.spec.tls.is_some() { "https" } else { settings.network.default_external_scheme.as_str() };
    let url = Some(format!("{scheme}://{}", mapping.name_any()));
    status.address = Some(Addressable { url: url.clone() });
    status.url = url;
    if !claim(context, settings, mapping, status, now).await? {
        // Nothing to do until there is another claim, or the settings are others.
        return Ok(());
    }
    let tls = certificate(context, settings, mapping, status, now).await?;
    let host = match desired::resolve(mapping, &context.world, &settings.cluster_domain) {
        Ok(host) => host,
        // What it leads to wakes us when it is there.
        Err(unresolved) => {
            status::not_resolved(status, &unresolved, now);
            return Ok(());
        }
    };
    status::resolved(status, now);
    let mut ingress = desired::ingress(mapping, &host, settings);
    tls::add(&mut ingress, tls);
    let ingress = ensure_ingress(context, mapping, ingress).await?;
    match ingress {
        Some(ingress) => status::propagate_ingress(status, &ingress, now),
        None => status::ingress_not_owned(status, &desired::ingress_name(mapping), now),
    }
    Ok(())
}

/// Sees to the certificate of the host, where it is not the user's own, and says in the status how it is.
async fn certificate(
    context: &Context,
    settings: &Settings,
    mapping: &DomainMapping,
    status: &mut DomainMappingStatus,
    now: Timestamp,
) -> Result<Tls, ReconcileError> {
    let wanted = settings.network.external_domain_tls && !is_switched_off(mapping.annotations());
    if mapping.spec.tls.is_some() || !wanted {
        status::certificate_given(status, mapping.spec.tls.is_some(), now);
        return Ok(Tls::default());
    }
    let want = desired::certificate(mapping, settings);
    let (name, hosts) = (want.name_any(), want.spec.dns_names.clone());
    let certificate = match certificate::ensure(context, mapping, want).await {
        Ok(Some(certificate)) => certificate,
        Ok(None) => {
            status::certificate_not_owned(status, &name, now);
            return Err(ReconcileError::NotOwned(format!(
                "domain mapping {} does not own Certificate {name}",
                mapping.name_any()
            )));
        }
        Err(error) => {
            status::certificate(status, Verdict::Failed, &name, now);
            return Err(error);
        }
    };
    let verdict = match standing(&certificate) {
        Standing::Ready => Verdict::Ready,
        Standing::Awaited | Standing::Failed if !settings.network.http_redirected => Verdict::Downgraded,
        Standing::Awaited | Standing::Failed => Verdict::Awaited,
    };
    status::certificate(status, verdict, &name, now);
    let scheme = if verdict == Verdict::Downgraded { "http" } else { "https" };
    let url = Some(format!("{scheme}://{}", mapping.name_any()));
    status.address = Some(Addressable { url: url.clone() });
    status.url = url;
    if verdict == Verdict::Ready {
        let namespace = mapping.namespace().unwrap_or_default();
        let tls = IngressTls { hosts, secret_name: certificate.spec.secret_name.clone(), secret_namespace: namespace };
        return Ok(Tls { tls: vec![tls], challenges: Vec::new() });
    }
    let mut challenges = certificate.status.clone().unwrap_or_default().http01_challenges;
    challenges.sort_by(|a, b| a.url.cmp(&b.url));
    Ok(Tls { tls: Vec::new(), challenges })
}

/// Whether the namespace has the host; a claim is made if there is none and it may be.
async fn claim(
    context: &Context,
    settings: &Settings,
    mapping: &DomainMapping,
    status: &mut DomainMappingStatus,
    now: Timestamp,
) -> Result<bool, ReconcileError> {
    let claim = match context.world.domain_claims.get("", &mapping.name_any()) {
        Some(claim) => claim,
        None if settings.network.autocreate_cluster_domain_claims => {
            Arc::new(context.writer.create(&desired::claim(mapping)).await?)
        }
        None => {
            status::not_claimed(status, now);
            return Ok(false);
        }
    };
    let ours = is_of(&claim, mapping);
    if ours {
        status::claimed(status, now);
    } else {
        status::not_claimed(status, now);
    }
    Ok(ours)
}

fn is_of(claim: &ClusterDomainClaim, mapping: &DomainMapping) -> bool {
    Some(&claim.spec.namespace) == mapping.namespace().as_ref()
}

/// The Ingress as it is in the API now; none where one of that name is somebody else's.
async fn ensure_ingress(
    context: &Context,
    mapping: &DomainMapping,
    want: Ingress,
) -> Result<Option<Arc<Ingress>>, ReconcileError> {
    let Some(existing) = context.world.ingresses.get(&mapping.namespace().unwrap_or_default(), &want.name_any()) else {
        return Ok(Some(Arc::new(context.writer.create(&want).await?)));
    };
    if !is_controlled_by(existing.as_ref(), mapping) {
        return Ok(None);
    }
    Ok(Some(context.writer.take_over(existing, want).await?))
}

/// It is going: its claim goes first, if claims are ours to make.
async fn finalize(context: &Context, settings: &Settings, mapping: &DomainMapping) -> Result<Outcome, ReconcileError> {
    if !mapping.finalizers().iter().any(|name| name == FINALIZER) {
        return Ok(Outcome::Settled);
    }
    let claim = context.world.domain_claims.get("", &mapping.name_any());
    if let Some(claim) = claim.filter(|claim| is_of(claim, mapping))
        && settings.network.autocreate_cluster_domain_claims
    {
        context.writer.delete(claim.as_ref()).await?;
    }
    let kept: Vec<&str> = mapping.finalizers().iter().map(String::as_str).filter(|name| *name != FINALIZER).collect();
    write_finalizers(context, mapping, &kept).await?;
    Ok(Outcome::Settled)
}

async fn write_finalizers(context: &Context, mapping: &DomainMapping, all: &[&str]) -> Result<(), ReconcileError> {
    // With the version: somebody else's finalizer that came in between must not be lost.
    let patch = json!({ "metadata": { "finalizers": all, "resourceVersion": mapping.metadata.resource_version } });
    context.writer.merge(mapping, &patch).await?;
    Ok(())
}
