//! Every way a request can fail, worded as the real server words it.
//!
//! An [`ApiError`] becomes a `v1 Status` object on the wire. Clients decide by `reason` and `code`, people read
//! `message`; both follow apimachinery's `errors` package, which `kubectl` and `kube` were written against.
use serde_json::{Value, json};

/// A failed request: the `Status` the client is sent.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    /// HTTP status code.
    pub(crate) code: u16,
    /// Machine-readable reason (`NotFound`, `Conflict`, …); empty when the real server leaves it out.
    pub(crate) reason: &'static str,
    /// What people read.
    pub(crate) message: String,
    /// `details` of the Status, when the reason has some.
    pub(crate) details: Option<Box<Value>>,
}

/// One field at fault, as listed in the causes of an `Invalid` Status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired`, `FieldValueNotSupported`, …
    pub(crate) reason: &'static str,
    /// Path of the field, `spec.template.spec.containers[0].image`.
    pub(crate) field: String,
    /// The message without the field in front.
    pub(crate) message: String,
}

impl Cause {
    /// `field: Invalid value: value: detail`.
    pub(crate) fn invalid(field: impl Into<String>, value: &str, detail: &str) -> Self {
        Self { reason: "FieldValueInvalid", field: field.into(), message: format!("Invalid value: {value}: {detail}") }
    }

    /// `field: Required value`.
    pub(crate) fn required(field: impl Into<String>) -> Self {
        Self { reason: "FieldValueRequired", field: field.into(), message: "Required value".to_owned() }
    }
}

impl ApiError {
    /// A failure without details.
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    /// 400: the request itself is wrong.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 404 for a path nothing serves.
    pub(crate) fn no_such_path() -> Self {
        Self {
            details: Some(Box::new(json!({}))),
            ..Self::new(404, "NotFound", "the server could not find the requested resource")
        }
    }

    /// 404 for an object: `services.serving.knative.dev "x" not found`.
    pub(crate) fn not_found(resource: &GroupResource<'_>, name: &str) -> Self {
        Self {
            details: Some(Box::new(resource.details(name))),
            ..Self::new(404, "NotFound", format!("{resource} {name:?} not found"))
        }
    }

    /// 409 on create: `pods "x" already exists`.
    pub(crate) fn already_exists(resource: &GroupResource<'_>, name: &str) -> Self {
        Self {
            details: Some(Box::new(resource.details(name))),
            ..Self::new(409, "AlreadyExists", format!("{resource} {name:?} already exists"))
        }
    }

    /// 409 on update from a stale copy.
    pub(crate) fn conflict(resource: &GroupResource<'_>, name: &str) -> Self {
        Self::conflict_because(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 with the given cause.
    pub(crate) fn conflict_because(resource: &GroupResource<'_>, name: &str, why: &str) -> Self {
        Self {
            details: Some(Box::new(resource.details(name))),
            ..Self::new(409, "Conflict", format!("Operation cannot be fulfilled on {resource} {name:?}: {why}"))
        }
    }

    /// 403 for an object.
    pub(crate) fn forbidden(resource: &GroupResource<'_>, name: &str, why: &str) -> Self {
        Self {
            details: Some(Box::new(resource.details(name))),
            ..Self::new(403, "Forbidden", format!("{resource} {name:?} is forbidden: {why}"))
        }
    }

    /// 405 for a verb the resource does not have.
    pub(crate) fn method_not_allowed() -> Self {
        Self {
            details: Some(Box::new(json!({}))),
            ..Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        }
    }

    /// 415 for a body type the verb does not take.
    pub(crate) fn unsupported_media(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 410: the history no longer reaches back to the resourceVersion asked for.
    pub(crate) fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    /// 413: body over the limit.
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }

    /// 429: too many of something; the client is to come back.
    pub(crate) fn too_many(message: impl Into<String>) -> Self {
        Self {
            details: Some(Box::new(json!({ "retryAfterSeconds": 1 }))),
            ..Self::new(429, "TooManyRequests", message)
        }
    }

    /// 500 with a cause of our own.
    pub(crate) fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    /// 422: `Service.serving.knative.dev "x" is invalid: …` with a cause for each field.
    pub(crate) fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut texts: Vec<String> = Vec::new();
        for cause in causes {
            let text = if cause.field.is_empty() {
                cause.message.clone()
            } else {
                format!("{}: {}", cause.field, cause.message)
            };
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let list = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let causes: Vec<Value> = causes
            .iter()
            .map(|cause| json!({ "reason": cause.reason, "message": cause.message, "field": cause.field }))
            .collect();
        let mut details = json!({ "causes": causes });
        for (field, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                details[field] = value.into();
            }
        }
        Self {
            details: Some(Box::new(details)),
            ..Self::new(422, "Invalid", format!("{qualified} {name:?} is invalid: {list}"))
        }
    }

    /// The `Status` object.
    pub(crate) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if let Some(details) = &self.details {
            status["details"] = (**details).clone();
        }
        status
    }
}

/// A resource as error messages name it: `pods`, `services.serving.knative.dev`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupResource<'a> {
    /// API group; empty for core.
    pub(crate) group: &'a str,
    /// Plural name.
    pub(crate) plural: &'a str,
}

impl GroupResource<'_> {
    fn details(&self, name: &str) -> Value {
        let mut details = json!({ "name": name, "kind": self.plural });
        if !self.group.is_empty() {
            details["group"] = self.group.into();
        }
        details
    }
}

impl std::fmt::Display for GroupResource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.group.is_empty() { f.write_str(self.plural) } else { write!(f, "{}.{}", self.plural, self.group) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_the_real_servers() {
        let services = GroupResource { group: "serving.knative.dev", plural: "services" };
        assert_eq!(ApiError::not_found(&services, "x").message, r#"services.serving.knative.dev "x" not found"#);
        let pods = GroupResource { group: "", plural: "pods" };
        assert_eq!(ApiError::already_exists(&pods, "x").message, r#"pods "x" already exists"#);
        assert_eq!(
            ApiError::conflict(&pods, "x").message,
            "Operation cannot be fulfilled on pods \"x\": the object has been modified; please apply your changes to \
             the latest version and try again"
        );
        let invalid = ApiError::invalid("g", "K", "n", &[Cause::required("spec.a"), Cause::required("spec.b")]);
        assert_eq!(invalid.message, r#"K.g "n" is invalid: [spec.a: Required value, spec.b: Required value]"#);
        assert_eq!(invalid.status()["details"]["causes"][1]["field"], "spec.b");
    }
}
