//! `get` and `list`.
use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Call, Reply, Shape, reply, reply_bytes, shaped};
use crate::apiserver::convert;
use crate::apiserver::errors::ApiError;
use crate::apiserver::selector::Filter;
use crate::apiserver::server::Server;
use crate::apiserver::store::ObjectKey;
use crate::apiserver::table;

/// How many objects one page may have when the client does not say.
const MAX_PAGE: usize = 50_000;

/// One object.
pub(crate) fn get(server: &Server, call: &Call) -> Result<Reply, ApiError> {
    let stored = server.store.get(&call.resource.collection, &call.key()).ok_or_else(|| call.not_found())?;
    if call.shape == Shape::Object {
        return Ok(reply_bytes(200, convert::json(&call.resource, &stored)));
    }
    Ok(shaped(call, 200, convert::value(&call.resource, &stored)))
}

/// A page of a collection.
pub(crate) fn list(server: &Server, call: &Call) -> Result<Reply, ApiError> {
    let resource = &call.resource;
    let options = &call.options;
    let filter = Filter::parse(
        call.path.namespace.clone(),
        &options.label_selector,
        &options.field_selector,
        &resource.selectable,
    )?;
    if !options.resource_version_match.is_empty() && options.resource_version.is_empty() {
        return Err(ApiError::invalid(
            "meta.k8s.io",
            "ListOptions",
            "",
            &[crate::apiserver::errors::Cause {
                reason: "FieldValueForbidden",
                field: "resourceVersionMatch".to_owned(),
                message: "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided".to_owned(),
            }],
        ));
    }
    let after = read_token(&options.continue_token)?;
    let limit = if options.limit == 0 { MAX_PAGE } else { options.limit.min(MAX_PAGE) };
    let page = server.store.list(&resource.collection, &filter, after.as_ref(), limit);
    let mut metadata = json!({ "resourceVersion": page.resource_version.to_string() });
    if page.remaining > 0
        && let Some(last) = page.items.last()
    {
        metadata["continue"] = write_token(page.resource_version, &last.meta.key).into();
        // Of a selection nobody counts.
        if options.label_selector.is_empty() && options.field_selector.is_empty() {
            metadata["remainingItemCount"] = page.remaining.into();
        }
    }
    match call.shape {
        Shape::Table => {
            let include = options.get("includeObject").unwrap_or("Metadata");
            let objects = page.items.iter().map(|stored| convert::value(resource, stored));
            let mut table = table::render(resource, objects, include, &Value::Null, true);
            table["metadata"] = metadata;
            Ok(reply(200, &table))
        }
        Shape::Metadata => {
            let items: Vec<Value> =
                page.items.iter().map(|stored| convert::metadata_only(convert::value(resource, stored))).collect();
            let list = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items,
            });
            Ok(reply(200, &list))
        }
        Shape::Object => {
            let head = format!(
                r#"{{"kind":"{}","apiVersion":"{}","metadata":{metadata},"items":["#,
                resource.list_kind,
                resource.api_version()
            );
            let mut pieces = VecDeque::with_capacity(page.items.len() * 2 + 2);
            pieces.push_back(Bytes::from(head));
            for (index, stored) in page.items.iter().enumerate() {
                if index > 0 {
                    pieces.push_back(Bytes::from_static(b","));
                }
                pieces.push_back(convert::json(resource, stored));
            }
            pieces.push_back(Bytes::from_static(b"]}\n"));
            Ok(reply_bytes(200, crate::apiserver::body::Body::Whole(pieces)))
        }
    }
}

/// A continue token is the key of the last object sent: pages go on from there in what is there then.
fn write_token(version: u64, key: &ObjectKey) -> String {
    format!("{version}/{}/{}", key.namespace, key.name)
}

fn read_token(token: &str) -> Result<Option<ObjectKey>, ApiError> {
    if token.is_empty() {
        return Ok(None);
    }
    let mut parts = token.splitn(3, '/');
    match (parts.next().and_then(|version| version.parse::<u64>().ok()), parts.next(), parts.next()) {
        (Some(_), Some(namespace), Some(name)) => Ok(Some(ObjectKey::new(namespace, name))),
        _ => Err(ApiError::bad_request("continue key is not valid: illegal token")),
    }
}
