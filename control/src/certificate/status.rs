//! How a Certificate is, from what cert-manager says of its own (upstream `pkg/reconciler/certificate`). Pure.

use api::{
    conditions::{self, ConditionSet, Editor, READY},
    networking::{Certificate, CertificateStatus},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde_json::Value;

/// The conditions of a Certificate.
pub const CONDITIONS: ConditionSet = ConditionSet { dependents: &[] };
/// Another certificate is on its way while this one is still good.
pub const RENEWING: &str = "Renewing";
/// The condition of those who wait for certificates.
pub const PROVISIONED: &str = "CertificateProvisioned";
/// Reasons of cert-manager for what will be well by itself.
const ON_ITS_WAY: [&str; 3] = ["InProgress", "Pending", "TemporaryCertificate"];

/// Whether somebody has to be shown that the hosts are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It may be asked for.
    Wanted,
    /// All is well.
    NotWanted,
}

/// cert-manager will not be asked.
pub fn failed(status: &mut CertificateStatus, reason: &str, message: &str, now: Timestamp) {
    edit(status, now).mark_false(READY, reason, message);
}

/// cert-manager's Certificate of our name is somebody else's.
pub fn not_owned(status: &mut CertificateStatus, name: &str, now: Timestamp) {
    let message = crate::owner::not_owned_message("CertManagerCertificate", name);
    edit(status, now).mark_false(READY, "NotOwned", &message);
}

/// It was not worked through; what is known to be wrong stays.
pub fn not_reconciled(status: &mut CertificateStatus, now: Timestamp) {
    if !conditions::get(&status.conditions, READY).is_some_and(conditions::Condition::is_false) {
        let message = "Cert-Manager certificate has not yet been reconciled.";
        edit(status, now).mark_unknown(READY, "ReconcileFailed", message);
    }
}

/// Takes over what cert-manager says. `clock` is compared with the time of renewal, `now` goes into conditions.
pub fn follow(status: &mut CertificateStatus, theirs: &Value, clock: Timestamp, now: Timestamp) -> Proof {
    let said = &theirs["status"];
    let time = |field: &str| said[field].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    status.not_after = time("notAfter").map(Time);
    let ready = said["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == READY);
    let Some(ready) = ready else {
        let message = "The ready condition of Cert Manager Certificate does not exist.";
        edit(status, now).mark_unknown(READY, "NoCertManagerCertCondition", message);
        return Proof::Wanted;
    };
    let (reason, message) = (text(&ready["reason"]), text(&ready["message"]));
    let mut editor = edit(status, now);
    match text(&ready["status"]) {
        "True" if time("renewalTime").is_some_and(|renewal| clock > renewal) => {
            editor.mark_true(RENEWING);
            return Proof::Wanted;
        }
        "True" => {
            editor.clear(RENEWING).mark_true(READY);
            return Proof::NotWanted;
        }
        "False" if !ON_ITS_WAY.contains(&reason) => editor.mark_false(READY, reason, message),
        _ => editor.mark_unknown(READY, reason, message),
    };
    Proof::Wanted
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The certificate is in its Secret.
pub fn is_ready(status: &CertificateStatus) -> bool {
    conditions::is_true(&status.conditions, READY)
}

/// How a Certificate stands to those who wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Its Secret has it.
    Ready,
    /// It is on its way.
    Awaited,
    /// There will be none.
    Failed,
}

/// What is said of the newest generation.
pub fn standing(certificate: &Certificate) -> Standing {
    let status = certificate.status.as_ref().filter(|s| s.observed_generation == certificate.metadata.generation);
    match status.and_then(|status| conditions::get(&status.conditions, READY)) {
        Some(ready) if ready.is_true() => Standing::Ready,
        Some(ready) if ready.is_false() => Standing::Failed,
        _ => Standing::Awaited,
    }
}

/// What the worst of their certificates means for those whose hosts they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It is served.
    Ready,
    /// Plain HTTP is served until it is there.
    Downgraded,
    /// It is waited for.
    Awaited,
    /// There will be none.
    Failed,
}

impl Verdict {
    /// Says so of the certificate of this name; what is said while it is waited for, and where there will be none, is
    /// theirs.
    pub fn mark(self, editor: &mut Editor<'_>, name: &str, awaited: &str, failed: &str) {
        match self {
            Self::Ready => editor.mark_true(PROVISIONED),
            Self::Downgraded => {
                let message = format!("Certificate {name} is not ready downgrade HTTP.");
                editor.mark_true_with_reason(PROVISIONED, "HTTPDowngrade", &message)
            }
            Self::Awaited => editor.mark_unknown(PROVISIONED, "CertificateNotReady", awaited),
            Self::Failed => editor.mark_false(PROVISIONED, "CertificateProvisionFailed", failed),
        };
    }
}

/// A Certificate of the name that they want is somebody else's.
pub fn not_ours(editor: &mut Editor<'_>, name: &str) {
    let message = format!("There is an existing certificate {name} that we don't own.");
    editor.mark_false(PROVISIONED, "CertificateNotOwned", &message);
}

/// The reason of its Ready condition, and its name: for the messages of those who wait.
pub fn told(certificate: &Certificate) -> (String, String) {
    let conditions = certificate.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let reason = conditions::get(conditions, READY).and_then(|ready| ready.reason.clone());
    (certificate.name_any(), reason.unwrap_or_default())
}

fn edit(status: &mut CertificateStatus, now: Timestamp) -> Editor<'_> {
    CONDITIONS.manage(&mut status.conditions, now)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Upstream's cases: cert-manager's condition, and what becomes of it.
    #[test]
    fn what_cert_manager_says_is_taken_over() {
        let (past, future) = ("2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z");
        let cases = [
            (json!(null), past, "Unknown", "NoCertManagerCertCondition", Proof::Wanted, false),
            (json!({ "status": "True" }), future, "True", "", Proof::NotWanted, false),
            (json!({ "status": "True" }), past, "True", "", Proof::Wanted, true),
            (json!({ "status": "Unknown", "reason": "R" }), future, "Unknown", "R", Proof::Wanted, false),
            (json!({ "status": "False", "reason": "Pending" }), future, "Unknown", "Pending", Proof::Wanted, false),
            (
                json!({ "status": "False", "reason": "InProgress" }),
                future,
                "Unknown",
                "InProgress",
                Proof::Wanted,
                false,
            ),
            (json!({ "status": "False", "reason": "Denied" }), future, "False", "Denied", Proof::Wanted, false),
        ];
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (mut ready, renewal, want, reason, proof, renewing) in cases {
            let mut conditions = json!([]);
            if !ready.is_null() {
                ready["type"] = READY.into();
                conditions = json!([ready]);
            }
            let theirs = json!({ "status": { "conditions": conditions, "renewalTime": renewal, "notAfter": future } });
            let mut status = CertificateStatus::default();
            edit(&mut status, now).initialize();
            assert_eq!(follow(&mut status, &theirs, now, now), proof, "{theirs}");
            let got = conditions::get(&status.conditions, READY).unwrap();
            assert_eq!((got.status.as_str(), got.reason.as_deref().unwrap_or_default()), (want, reason), "{theirs}");
            assert_eq!(conditions::is_true(&status.conditions, RENEWING), renewing);
            assert_eq!(status.not_after.as_ref().map(|t| t.0.to_string()).as_deref(), Some(future));
        }
    }
}
