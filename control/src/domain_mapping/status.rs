//! How a DomainMapping is (upstream `domainmapping_lifecycle.go`).

use api::{
    conditions::{ConditionSet, Editor},
    networking::Ingress,
    serving::DomainMappingStatus,
};
use jiff::Timestamp;

use super::Unresolved;
use crate::certificate::status::{PROVISIONED, Verdict, not_ours};

const DOMAIN_CLAIMED: &str = "DomainClaimed";
const REFERENCE_RESOLVED: &str = "ReferenceResolved";
const INGRESS_READY: &str = "IngressReady";

/// The conditions of a DomainMapping.
pub const CONDITIONS: ConditionSet =
    ConditionSet { dependents: &[DOMAIN_CLAIMED, REFERENCE_RESOLVED, INGRESS_READY, PROVISIONED] };

/// The Ingress does not yet say anything of this generation.
pub fn ingress_not_configured(status: &mut DomainMappingStatus, now: Timestamp) {
    edit(status, now).mark_unknown(INGRESS_READY, "IngressNotConfigured", "Ingress has not yet been reconciled.");
}

/// The namespace has the host.
pub fn claimed(status: &mut DomainMappingStatus, now: Timestamp) {
    edit(status, now).mark_true(DOMAIN_CLAIMED);
}

/// Another namespace has it, or nobody may.
pub fn not_claimed(status: &mut DomainMappingStatus, now: Timestamp) {
    let message = "The domain name is already in use by another DomainMapping";
    edit(status, now).mark_false(DOMAIN_CLAIMED, "DomainAlreadyClaimed", message);
}

/// Its certificate is the user's, or none is asked for.
pub fn certificate_given(status: &mut DomainMappingStatus, given: bool, now: Timestamp) {
    let (reason, message) = if given {
        ("CertificateExternallyProvided", "TLS certificate was provided externally")
    } else {
        ("TLSNotEnabled", "external-domain-tls is not enabled")
    };
    edit(status, now).mark_true_with_reason(PROVISIONED, reason, message);
}

/// How the certificate of this name is that is got for the host.
pub fn certificate(status: &mut DomainMappingStatus, verdict: Verdict, name: &str, now: Timestamp) {
    let awaited = format!("Certificate {name} is not ready.");
    let failed = format!("Certificate {name} failed to be provisioned.");
    verdict.mark(&mut edit(status, now), name, &awaited, &failed);
}

/// A Certificate of our name is somebody else's.
pub fn certificate_not_owned(status: &mut DomainMappingStatus, name: &str, now: Timestamp) {
    not_ours(&mut edit(status, now), name);
}

/// It leads somewhere.
pub fn resolved(status: &mut DomainMappingStatus, now: Timestamp) {
    edit(status, now).mark_true(REFERENCE_RESOLVED);
}

/// It leads nowhere.
pub fn not_resolved(status: &mut DomainMappingStatus, why: &Unresolved, now: Timestamp) {
    edit(status, now).mark_false(REFERENCE_RESOLVED, "ResolveFailed", &why.to_string());
}

/// An Ingress of our name is somebody else's.
pub fn ingress_not_owned(status: &mut DomainMappingStatus, name: &str, now: Timestamp) {
    let message = crate::owner::not_owned_message("Ingress", name);
    edit(status, now).mark_false(INGRESS_READY, "NotOwned", &message);
}

/// Takes over what the Ingress says of its newest generation.
pub fn propagate_ingress(status: &mut DomainMappingStatus, ingress: &Ingress, now: Timestamp) {
    match crate::ingress::status::said(ingress) {
        Some(ready) => {
            edit(status, now).follow(INGRESS_READY, ready);
        }
        None => ingress_not_configured(status, now),
    }
}

fn edit(status: &mut DomainMappingStatus, now: Timestamp) -> Editor<'_> {
    CONDITIONS.manage(&mut status.conditions, now)
}
