//! Access reviews: everything is allowed to whoever reaches the loopback port, and clients that ask are told so.
use serde_json::{Value, json};

use super::{Call, Reply, reply};
use crate::apiserver::errors::ApiError;

/// Answers a review.
pub(crate) fn review(call: &Call) -> Result<Reply, ApiError> {
    let mut review = call.json()?;
    review["apiVersion"] = call.resource.api_version().into();
    review["kind"] = call.resource.kind.clone().into();
    if !review["metadata"].is_object() {
        review["metadata"] = Value::Object(serde_json::Map::new());
    }
    review["status"] = if call.resource.kind == "SelfSubjectRulesReview" {
        json!({
            "incomplete": false,
            "resourceRules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }],
            "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
        })
    } else {
        json!({ "allowed": true, "reason": "everything is allowed on this server" })
    };
    Ok(reply(201, &review))
}
