//! What an object must pass before it is stored: its type, its kind's schema, its names, its namespace, admission.
use serde_json::Value;

use super::{Call, keep};
use crate::apiserver::admission::{AdmissionRequest, Operation};
use crate::apiserver::errors::{ApiError, Cause};
use crate::apiserver::patch::Kind;
use crate::apiserver::registry::Resource;
use crate::apiserver::request::FieldValidation;
use crate::apiserver::server::{Server, USER};
use crate::apiserver::store::ObjectKey;
use crate::apiserver::{names, strategy, validate};

/// Checks the body's `apiVersion` and `kind`; absent ones are filled in.
pub(crate) fn check_type(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    let resource = &call.resource;
    let want = resource.api_version();
    if !object.is_object() {
        return Err(ApiError::bad_request("the body must be one object"));
    }
    let (version, kind) = (object["apiVersion"].as_str(), object["kind"].as_str());
    if version.is_some_and(|version| version != want) || kind.is_some_and(|kind| kind != resource.kind) {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({}, Kind={}) does not match the expected API version ({want}, Kind={})",
            version.unwrap_or_default(),
            kind.unwrap_or_default(),
            resource.kind
        )));
    }
    object["apiVersion"] = want.into();
    object["kind"] = resource.kind.clone().into();
    Ok(())
}

/// Checks against the schema: unknown fields are dropped and, as asked, reported; wrong values are refused. What
/// admission may still put right (a required field with a default) is left to [`admitted`]. `resource` is the version
/// that the object is in.
pub(crate) fn checked(
    server: &Server,
    object: &mut Value,
    name: &str,
    call: &Call,
    resource: &Resource,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    let validation = call.options.field_validation;
    let mut findings = validate::check(object, &resource.schema);
    if !findings.unknown.is_empty() && validation != FieldValidation::Ignore {
        let texts: Vec<String> = findings.unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
        if validation == FieldValidation::Strict {
            let strict = format!("strict decoding error: {}", texts.join(", "));
            if Kind::of(&call.content_type).is_some() && call.path.name.is_some() {
                let body = String::from_utf8_lossy(&call.body);
                return Err(ApiError::invalid("", "", "", &[Cause::invalid("patch", &format!("{body:?}"), &strict)]));
            }
            return Err(ApiError::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: {strict}",
                resource.kind, resource.version, resource.kind
            )));
        }
        warnings.extend(texts);
    }
    if let Some(wrong) = findings.wrong_type.as_ref().filter(|_| !resource.custom) {
        let kind = &resource.kind;
        let go = |word: &str| match word {
            "boolean" => "bool".to_owned(),
            "integer" => "number".to_owned(),
            other => other.to_owned(),
        };
        let target = match wrong.wanted {
            "integer" => "int32",
            "boolean" => "bool",
            "object" => "map",
            other => other,
        };
        let why = format!(
            "json: cannot unmarshal {} into Go struct field {kind}.{} of type {target}",
            go(wrong.found),
            wrong.path
        );
        if Kind::of(&call.content_type).is_some() {
            let patched = object.to_string();
            return Err(ApiError::invalid("", "", "", &[Cause::invalid("patch", &format!("{patched:?}"), &why)]));
        }
        return Err(ApiError::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {kind}: {why}",
            resource.version
        )));
    }
    let main = call.path.subresource.as_deref() != Some("status");
    if main && server.admission.handles(&resource.group, &resource.kind) {
        findings.causes.retain(|cause| cause.reason == "FieldValueTypeInvalid");
    }
    refuse_causes(resource, name, &findings)
}

fn refuse_causes(resource: &Resource, name: &str, findings: &validate::Findings) -> Result<(), ApiError> {
    if findings.causes.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(&resource.group, &resource.kind, name, &findings.causes))
}

/// Checks names, labels and what built-in kinds require.
pub(crate) fn valid(resource: &Resource, object: &Value, name: &str) -> Result<(), ApiError> {
    let mut causes = names::check(resource, object);
    if !resource.custom {
        causes.extend(strategy::check(resource, object));
    }
    if causes.is_empty() { Ok(()) } else { Err(ApiError::invalid(&resource.group, &resource.kind, name, &causes)) }
}

/// Objects are created only in namespaces that exist and stay.
pub(crate) fn check_namespace(server: &Server, call: &Call, name: &str) -> Result<(), ApiError> {
    if !call.resource.namespaced {
        return Ok(());
    }
    let namespace = call.namespace();
    let namespaces = crate::apiserver::errors::GroupResource { group: "", plural: "namespaces" };
    let stored = server
        .store
        .get("/namespaces", &ObjectKey::new("", namespace))
        .ok_or_else(|| ApiError::not_found(&namespaces, namespace))?;
    if stored.meta.fields.first().is_some_and(|phase| &**phase == "Terminating") {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        return Err(ApiError::forbidden(&call.resource.group_resource(), name, &why));
    }
    Ok(())
}

/// Shows the object to admission, as it is stored.
pub(crate) fn admitted(
    server: &Server,
    call: &Call,
    resource: &Resource,
    name: &str,
    operation: Operation,
    old: Option<&Value>,
    new: Value,
) -> Result<Value, ApiError> {
    if !server.admission.handles(&resource.group, &resource.kind) {
        return Ok(new);
    }
    let metadata = new["metadata"].clone();
    let request = AdmissionRequest {
        group: resource.group.clone(),
        version: resource.version.clone(),
        kind: resource.kind.clone(),
        resource: resource.plural.clone(),
        subresource: String::new(),
        namespace: call.namespace().to_owned(),
        name: name.to_owned(),
        operation,
        old: old.cloned(),
        new: Some(new),
        user: USER.to_owned(),
        dry_run: call.options.dry_run,
    };
    let mut object = server.admission.admit(request).map_err(|denied| {
        let reason = if denied.code == 403 { "Forbidden" } else { "BadRequest" };
        ApiError::new(denied.code, reason, denied.to_string())
    })?;
    // Admission may not change who the object is.
    for field in ["name", "namespace", "uid", "creationTimestamp", "resourceVersion"] {
        keep(&mut object["metadata"], &metadata, field);
    }
    refuse_causes(resource, name, &validate::check(&mut object, &resource.schema))?;
    Ok(object)
}
