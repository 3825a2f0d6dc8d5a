//! Defaults and validation of what users write: pure, one code for the embedded API server (in process) and for the
//! webhook on a cluster.
//!
//! [`default_and_validate`] is called before an object is stored; it gives back the object with [`defaults`] filled
//! in, or every problem at once, in upstream's field paths and words ([`field_error`]). Unknown fields and wrong types
//! are the API server's to find (strict decoding), not ours.
pub mod annotations;
pub mod defaults;
pub mod field_error;
pub mod go_duration;
pub mod json;
pub mod mask;
pub mod pod_spec;
pub mod probes;
pub mod quantity;
mod rules;
pub mod syntax;
pub mod traffic;
pub mod volumes;

#[cfg(test)]
mod tests;

use serde_json::Value;

use self::field_error::Errors;
use crate::settings::Settings;

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

/// One object on its way into the store.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// API group.
    pub group: &'a str,
    /// Kind.
    pub kind: &'a str,
    /// The operation.
    pub operation: Operation,
    /// `status` for a status update, else empty.
    pub subresource: &'a str,
    /// The object as stored; none on create.
    pub old: Option<&'a Value>,
    /// The object as asked for.
    pub new: Value,
    /// Who asks; empty when nobody is known.
    pub user: &'a str,
}

/// Why admission says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("admission webhook {webhook:?} denied the request: {message}")]
pub struct Denied {
    /// Name of the webhook that says so in an upstream cluster.
    pub webhook: &'static str,
    /// `validation failed: …`
    pub message: String,
}

/// Who judges objects.
pub const VALIDATION: &str = "validation.webhook.serving.knative.dev";
/// Who judges ConfigMaps.
pub const CONFIGURATION: &str = "config.webhook.serving.knative.dev";

/// Whether objects of this kind are judged here.
pub fn handles(group: &str, kind: &str) -> bool {
    matches!(
        (group, kind),
        ("serving.knative.dev", "Service" | "Configuration" | "Revision" | "Route" | "DomainMapping")
            | ("autoscaling.internal.knative.dev", "PodAutoscaler")
            | ("", "ConfigMap")
    )
}

/// The object with defaults, or what is wrong with it.
pub fn default_and_validate(request: Request<'_>, settings: &Settings) -> Result<Value, Denied> {
    if request.operation == Operation::Delete {
        return Ok(request.new);
    }
    if request.group.is_empty() {
        return config_map(request, settings);
    }
    let deleting = json::has(json::get(&request.new, &["metadata"]), "deletionTimestamp");
    let mut object = request.new;
    let context = rules::Context {
        operation: request.operation,
        old: request.old,
        user: request.user,
        in_status: !request.subresource.is_empty(),
        settings,
    };
    // A status update cannot change spec or metadata, and what is being deleted needs no judgement: settings may have
    // become stricter since it was made.
    if context.in_status || deleting {
        return Ok(object);
    }
    let errors = match request.kind {
        "Service" => rules::service(&mut object, &context),
        "Configuration" => rules::configuration(&mut object, &context),
        "Revision" => rules::revision(&mut object, &context),
        "Route" => rules::route(&mut object, &context),
        "DomainMapping" => rules::domain_mapping(&mut object, &context),
        "PodAutoscaler" => rules::pod_autoscaler(&mut object, &context),
        _ => Errors::none(),
    };
    if errors.is_empty() {
        return Ok(object);
    }
    Err(Denied { webhook: VALIDATION, message: format!("validation failed: {errors}") })
}

/// A ConfigMap of the system must parse: a bad one would be ignored in silence.
fn config_map(request: Request<'_>, settings: &Settings) -> Result<Value, Denied> {
    let metadata = json::get(&request.new, &["metadata"]);
    if json::text(metadata, "namespace") == api::labels::SYSTEM_NAMESPACE {
        let data = json::texts(&request.new, &["data"]);
        let mut trial = settings.clone();
        if let Err(error) = trial.apply(json::text(metadata, "name"), &data) {
            return Err(Denied { webhook: CONFIGURATION, message: format!("validation failed: {error}") });
        }
    }
    Ok(request.new)
}
