//! The API of 2018, `serving.knative.dev/v1alpha1`: read, and shown, as v1. Pure.
//!
//! [`convert`] is called for every object that is spoken of in another version than it is kept in, which is v1: by
//! the embedded API server in process, on a cluster by the webhook. [`upgrade`] goes to v1, [`downgrade`] back.
//!
//! Going back restores what the user wrote (`kubectl apply` compares it with its manifest): how an object was written
//! is noted in an annotation, [`Form`], and is used as long as it can say what the object says in v1. What has no
//! meaning any more is read and left out: `generation`, and `servingState`, which the system set.

mod downgrade;
mod form;
#[cfg(test)]
mod tests;
mod upgrade;

use api::serving::Service;
use kube::ResourceExt;
use serde_json::Value;

pub use form::{FORM, Form, Mode};

use crate::admission::{
    field_error::Errors,
    json::{get, list, text},
};

/// What is stored.
pub const STORED: &str = "serving.knative.dev/v1";
/// What is converted.
pub const OLD: &str = "serving.knative.dev/v1alpha1";

/// Why an object has no counterpart in another version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such pair of versions.
    #[error("cannot convert {kind} from {from:?} to {to:?}: want {OLD} and {STORED}")]
    Version {
        /// Kind of the object.
        kind: String,
        /// Its version.
        from: String,
        /// The version wanted.
        to: String,
    },
    /// It says nothing that v1 could say.
    #[error("{0}")]
    Fields(Errors),
}

/// The object in another version. `to` is group and version.
pub fn convert(object: Value, to: &str) -> Result<Value, Error> {
    let (from, kind) = (text(&object, "apiVersion").to_owned(), text(&object, "kind").to_owned());
    match (from.as_str(), to) {
        (from, to) if from == to => Ok(object),
        (OLD, STORED) => upgrade::object(object).map_err(Error::Fields),
        (STORED, OLD) => Ok(downgrade::object(object)),
        _ => Err(Error::Version { kind, from, to: to.to_owned() }),
    }
}

/// Whether a Service leaves its Configuration and its Route to the user: written as `manual`, it has no template.
pub fn is_manual(service: &Service) -> bool {
    let note = service.annotations().get(FORM).map(String::as_str).unwrap_or_default();
    Form::read(note).is_manual(&service.spec.template.spec.pod.containers)
}

/// The same of a Service (in v1) that is not read yet.
pub fn is_manual_object(service: &Value) -> bool {
    Form::of(service).is_manual(list(get(service, &["spec", "template", "spec"]), "containers"))
}
