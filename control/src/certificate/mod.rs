//! Certificates of hosts. Routes and DomainMappings wish for one by a Certificate of ours ([`ensure`]); those of
//! cert-manager's class are fulfilled here: Certificate → cert-manager's Certificate, whose state comes back.
//!
//! [`namespaces`] wishes for those that a namespace shares: of all hosts of a domain, and of its sidecars.
//!
//! cert-manager need not be there, and is asked only for what somebody wishes for: its objects are read when they are
//! looked at, without a watch.

pub mod challenges;
pub mod desired;
pub mod namespaces;
pub mod status;

use std::{sync::Arc, time::Duration};

use api::{
    labels::networking,
    networking::{Certificate, CertificateStatus},
};
use jiff::Timestamp;
use kube::{
    Api, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

use crate::{
    context::{Context, ReconcileError},
    engine::{
        queue::Outcome,
        status::{begin, finish},
        world::{Key, is_controlled_by},
    },
    settings::Settings,
};

/// How soon a certificate that is on its way is looked at again.
const ON_ITS_WAY: Duration = Duration::from_secs(5);
/// How often one that is there is looked at: it is renewed some day.
const THERE: Duration = Duration::from_mins(10);

/// The Certificate as it is in the API now; none where one of that name is somebody else's.
pub async fn ensure<O: Resource<DynamicType = ()>>(
    context: &Context,
    owner: &O,
    want: Certificate,
) -> Result<Option<Arc<Certificate>>, ReconcileError> {
    let namespace = want.namespace().unwrap_or_default();
    let Some(existing) = context.world.certificates.get(&namespace, &want.name_any()) else {
        return Ok(Some(Arc::new(context.writer.create(&want).await?)));
    };
    if !is_controlled_by(existing.as_ref(), owner) {
        return Ok(None);
    }
    Ok(Some(context.writer.take_over(existing, want).await?))
}

/// Brings one Certificate of cert-manager's class up to date.
pub async fn reconcile(context: &Context, key: &Key) -> Result<Outcome, ReconcileError> {
    let Some(certificate) = context.world.certificates.get(&key.namespace, &key.name) else {
        context.forget(key);
        return Ok(Outcome::Settled);
    };
    let class = certificate.annotations().get(networking::CERTIFICATE_CLASS);
    let is_ours = class.is_some_and(|class| class == networking::CERT_MANAGER_CLASS);
    if !is_ours || certificate.metadata.deletion_timestamp.is_some() {
        return Ok(Outcome::Settled);
    }
    let now = Context::now();
    let settings = context.settings.load_full();
    let mut status = certificate.status.clone().unwrap_or_default();
    begin(&mut status, status::CONDITIONS, certificate.metadata.generation, now);
    let result = fulfil(context, &settings, &certificate, &mut status, now).await;
    if result.is_err() {
        status::not_reconciled(&mut status, now);
    }
    let before = certificate.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    finish(&mut status, before, certificate.metadata.generation);
    let there = status::is_ready(&status);
    context.write_status_now(certificate.as_ref(), status).await?;
    result.map(|()| Outcome::Again(if there { THERE } else { ON_ITS_WAY }))
}

async fn fulfil(
    context: &Context,
    settings: &Settings,
    certificate: &Certificate,
    status: &mut CertificateStatus,
    now: Timestamp,
) -> Result<(), ReconcileError> {
    let want = match desired::cert_manager(certificate, &settings.cert_manager) {
        Ok(want) => want,
        // Other settings, or another Certificate, wake us.
        Err(refused) => {
            status::failed(status, refused.reason, &refused.message, now);
            return Ok(());
        }
    };
    let name = certificate.name_any();
    let Some(theirs) = ensure_theirs(context, certificate, want).await? else {
        status::not_owned(status, &name, now);
        return Err(ReconcileError::NotOwned(format!("certificate {name} does not own cert-manager's of that name")));
    };
    if status::follow(status, &theirs, Timestamp::now(), now) == status::Proof::Wanted {
        status.http01_challenges = challenges::find(&context.client, certificate, &theirs).await?;
    } else {
        status.http01_challenges.clear();
    }
    Ok(())
}

/// Why cert-manager's objects cannot be read or written for a Certificate.
fn failed(verb: &'static str, certificate: &Certificate) -> impl FnOnce(kube::Error) -> ReconcileError + use<> {
    let name = certificate.name_any();
    move |source| ReconcileError::CertManager { verb, name, source: Box::new(source) }
}

/// cert-manager's Certificate as it is in the API now; none where one of that name is somebody else's.
async fn ensure_theirs(
    context: &Context,
    certificate: &Certificate,
    want: Value,
) -> Result<Option<Value>, ReconcileError> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("cert-manager.io", "v1", "Certificate"));
    let namespace = certificate.namespace().unwrap_or_default();
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &namespace, &kind);
    let failed = |verb| failed(verb, certificate);
    let existing = api.get_opt(&certificate.name_any()).await.map_err(failed("get"))?;
    let Some(existing) = existing else {
        let object = serde_json::from_value(want).map_err(kube::Error::SerdeError).map_err(failed("create"))?;
        let made = api.create(&PostParams::default(), &object).await.map_err(failed("create"))?;
        return Ok(Some(json!(made)));
    };
    if !is_controlled_by(&existing, certificate) {
        return Ok(None);
    }
    // It has more fields than we know; those of ours are to be as we want them.
    let have = &existing.data["spec"];
    if want["spec"].as_object().into_iter().flatten().all(|(field, value)| have[field] == *value) {
        return Ok(Some(json!(existing)));
    }
    let patch = Patch::Merge(json!({ "spec": want["spec"] }));
    let changed = api.patch(&certificate.name_any(), &PatchParams::default(), &patch).await.map_err(failed("patch"))?;
    Ok(Some(json!(changed)))
}
