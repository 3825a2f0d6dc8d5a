//! JSON patch, RFC 6902: a list of operations, all or none.
use serde_json::Value;

use crate::apiserver::errors::ApiError;

/// How many operations a patch may have; the real server's limit.
const MAX_OPERATIONS: usize = 10_000;

/// Applies the operations.
pub(crate) fn apply(mut object: Value, patch: &Value) -> Result<Value, ApiError> {
    let operations: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    if operations.0.len() > MAX_OPERATIONS {
        return Err(ApiError::new(
            413,
            "RequestEntityTooLarge",
            format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}", operations.0.len()),
        ));
    }
    json_patch::patch(&mut object, &operations).map_err(|error| ApiError {
        details: Some(Box::new(serde_json::json!({}))),
        ..ApiError::new(
            422,
            "Invalid",
            format!("the server rejected our request due to an error in our request: {error}"),
        )
    })?;
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn operations() {
        let object = json!({ "spec": { "replicas": 1, "list": ["a"] } });
        let patch = json!([
            { "op": "test", "path": "/spec/replicas", "value": 1 },
            { "op": "replace", "path": "/spec/replicas", "value": 2 },
            { "op": "add", "path": "/spec/list/-", "value": "b" },
            { "op": "add", "path": "/metadata", "value": { "x~/y": 1 } },
            { "op": "copy", "from": "/spec/replicas", "path": "/metadata/x~0~1y" },
        ]);
        let want = json!({ "spec": { "replicas": 2, "list": ["a", "b"] }, "metadata": { "x~/y": 2 } });
        assert_eq!(apply(object.clone(), &patch).unwrap(), want);
        let failing = json!([{ "op": "test", "path": "/spec/replicas", "value": 7 }]);
        assert_eq!(apply(object, &failing).unwrap_err().code, 422);
    }
}
