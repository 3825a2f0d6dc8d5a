//! The `scale` subresource: how many, as one small object of its own.
use std::sync::Arc;

use serde_json::{Value, json};

use super::write::{Outcome, modify, patch_kind, patched};
use super::{Call, Reply, reply};
use crate::apiserver::convert;
use crate::apiserver::errors::ApiError;
use crate::apiserver::patch::Kind;
use crate::apiserver::registry::ScalePaths;
use crate::apiserver::server::Server;

/// Reads the scale.
pub(crate) fn get(server: &Server, call: &Call) -> Result<Reply, ApiError> {
    let paths = paths(call)?;
    let stored = server.store.get(&call.resource.collection, &call.key()).ok_or_else(|| call.not_found())?;
    Ok(reply(200, &scale_of(paths, &convert::value(&call.resource, &stored))))
}

/// Writes the scale: a whole Scale, or a patch of one.
pub(crate) fn write(server: &Arc<Server>, call: &Call, patching: bool) -> Result<Reply, ApiError> {
    let paths = paths(call)?;
    let body = call.json()?;
    let kind = if patching { Some(patch_kind(call)?) } else { None };
    let mut warnings = Vec::new();
    let outcome = modify(server, call, &mut warnings, |current, _| {
        let scale = scale_of(paths, current);
        let wanted = match kind {
            Some(Kind::Json) => patched(Kind::Json, &scale, &body, &call.resource)?,
            Some(_) => patched(Kind::Merge, &scale, &body, &call.resource)?,
            None => body.clone(),
        };
        let replicas = match &wanted["spec"]["replicas"] {
            Value::Null => 0,
            number => number.as_i64().ok_or_else(|| {
                ApiError::bad_request(format!(
                    "Scale in version \"v1\" cannot be handled as a Scale: spec.replicas must be a number, got {number}"
                ))
            })?,
        };
        if replicas < 0 {
            let cause = crate::apiserver::errors::Cause::invalid(
                "spec.replicas",
                &replicas.to_string(),
                "must be greater than or equal to 0",
            );
            return Err(ApiError::invalid("autoscaling", "Scale", call.name(), &[cause]));
        }
        let mut next = current.clone();
        if let Some(version) = wanted["metadata"]["resourceVersion"].as_str() {
            next["metadata"]["resourceVersion"] = version.into();
        }
        set(&mut next, &paths.spec_replicas, replicas.into());
        Ok(next)
    })?;
    let object = match outcome {
        Outcome::Stored(stored) => convert::value(&call.resource, &stored),
        Outcome::Dry(object) => object,
    };
    Ok(reply(200, &scale_of(paths, &object)))
}

fn paths(call: &Call) -> Result<&ScalePaths, ApiError> {
    call.resource.scale.as_ref().ok_or_else(ApiError::no_such_path)
}

fn at<'v>(object: &'v Value, path: &str) -> &'v Value {
    path.trim_start_matches('.').split('.').fold(object, |value, part| &value[part])
}

fn set(object: &mut Value, path: &str, value: Value) {
    let place = path.trim_start_matches('.').split('.').fold(object, |place, part| &mut place[part]);
    *place = value;
}

fn scale_of(paths: &ScalePaths, object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut status = json!({ "replicas": at(object, &paths.status_replicas).as_i64().unwrap_or(0) });
    let selector = match &paths.selector {
        None => labels_of(&object["spec"]["selector"]),
        Some(path) if path.is_empty() => String::new(),
        Some(path) => at(object, path).as_str().unwrap_or_default().to_owned(),
    };
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    let mut own = json!({
        "name": metadata["name"], "uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"],
        "creationTimestamp": metadata["creationTimestamp"],
    });
    if metadata["namespace"].is_string() {
        own["namespace"] = metadata["namespace"].clone();
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": own,
        "spec": { "replicas": at(object, &paths.spec_replicas).as_i64().unwrap_or(0) }, "status": status,
    })
}

/// A LabelSelector in the one-line form.
fn labels_of(selector: &Value) -> String {
    let mut parts: Vec<String> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let values = values.join(",");
        parts.push(match expression["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    parts.join(",")
}
