//! The hook by which the control plane's defaults and checks run inside the server, without a webhook.
use serde_json::Value;

use super::registry::Convert;

/// What is being done to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It is being created.
    Create,
    /// It is being changed.
    Update,
    /// It is being deleted.
    Delete,
}

impl Operation {
    /// As AdmissionReview spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// One object on its way into the store; the fields of an AdmissionReview request.
#[derive(Debug, Clone)]
pub struct AdmissionRequest {
    /// API group.
    pub group: String,
    /// API version of `new` and `old`.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Plural name.
    pub resource: String,
    /// `status` for a status update, else empty.
    pub subresource: String,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The operation.
    pub operation: Operation,
    /// The object as stored; none on create.
    pub old: Option<Value>,
    /// The object as asked for; none on delete.
    pub new: Option<Value>,
    /// Who asks.
    pub user: String,
    /// Nothing will be stored.
    pub dry_run: bool,
}

/// Why admission says no.
#[derive(Debug, Clone, thiserror::Error)]
#[error("admission webhook {webhook:?} denied the request: {message}")]
pub struct AdmissionDenied {
    /// Name of the webhook a cluster would have, `validation.webhook.serving.knative.dev`.
    pub webhook: String,
    /// `validation failed: …`.
    pub message: String,
    /// HTTP code of the answer; Knative's webhooks give 400.
    pub code: u16,
}

/// Defaults, checks and versions. Called on the request's path, so it must not block.
pub trait Admission: Send + Sync {
    /// Whether objects of a kind are to be shown to [`Admission::admit`]; others are not even parsed for it.
    fn handles(&self, group: &str, kind: &str) -> bool {
        let _ = (group, kind);
        true
    }

    /// Gives back the object with defaults filled in (anything on delete), or says why not.
    fn admit(&self, request: AdmissionRequest) -> Result<Value, AdmissionDenied>;

    /// Between the versions of a kind whose definition names a webhook for that.
    fn convert(&self) -> Convert {
        |object, _| Ok(object)
    }
}

/// Admits everything as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct AdmitAll;

impl Admission for AdmitAll {
    fn handles(&self, _: &str, _: &str) -> bool {
        false
    }

    fn admit(&self, request: AdmissionRequest) -> Result<Value, AdmissionDenied> {
        Ok(request.new.unwrap_or_default())
    }
}
