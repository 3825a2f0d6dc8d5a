//! What each verb does. Handlers are plain functions over [`Server`]; only watches and logs outlive their call.
pub(crate) mod access;
mod check;
pub(crate) mod delete;
pub(crate) mod log;
pub(crate) mod read;
pub(crate) mod scale;
pub(crate) mod watch;
pub(crate) mod write;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use serde_json::Value;

use super::body::Body;
use super::errors::ApiError;
use super::registry::Resource;
use super::request::{Options, ResourcePath};
use super::server::Server;
use super::store::ObjectKey;

/// An answer.
pub(crate) type Reply = Response<Body>;

/// In which shape the client wants objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As they are.
    #[default]
    Object,
    /// `as=Table`.
    Table,
    /// `as=PartialObjectMetadata` or its list.
    Metadata,
}

/// One call on a resource, taken apart.
#[derive(Debug)]
pub(crate) struct Call {
    /// The kind.
    pub(crate) resource: Arc<Resource>,
    /// What the path names.
    pub(crate) path: ResourcePath,
    /// The query.
    pub(crate) options: Options,
    /// The shape of the answer.
    pub(crate) shape: Shape,
    /// `Content-Type` of the body.
    pub(crate) content_type: String,
    /// First word of `User-Agent`: the field manager when none is given.
    pub(crate) agent: String,
    /// The body.
    pub(crate) body: Bytes,
}

impl Call {
    /// The namespace of the path; empty for cluster-scoped kinds.
    pub(crate) fn namespace(&self) -> &str {
        self.path.namespace.as_deref().unwrap_or_default()
    }

    /// The name of the path.
    pub(crate) fn name(&self) -> &str {
        self.path.name.as_deref().unwrap_or_default()
    }

    /// Where the object lives.
    pub(crate) fn key(&self) -> ObjectKey {
        ObjectKey::new(self.namespace(), self.name())
    }

    /// Who is recorded as the manager of what changes.
    pub(crate) fn manager(&self) -> &str {
        if self.options.field_manager.is_empty() { &self.agent } else { &self.options.field_manager }
    }

    /// 404 for the object of the path.
    pub(crate) fn not_found(&self) -> ApiError {
        ApiError::not_found(&self.resource.group_resource(), self.name())
    }

    /// The body as JSON; YAML when the content type says so.
    pub(crate) fn json(&self) -> Result<Value, ApiError> {
        if self.content_type.contains("protobuf") {
            return super::protobuf::read(&self.body).map_err(|error| {
                ApiError::unsupported_media(format!("the body of the request was in an unknown format: {error}"))
            });
        }
        let yaml = self.content_type.contains("yaml");
        if !(yaml || self.content_type.is_empty() || self.content_type.contains("json")) {
            return Err(ApiError::unsupported_media(
                "the body of the request was in an unknown format - accepted media types include: application/json, \
                 application/yaml, application/vnd.kubernetes.protobuf",
            ));
        }
        match serde_json::from_slice(&self.body) {
            Ok(value) => Ok(value),
            Err(_) if yaml => std::str::from_utf8(&self.body)
                .map_err(|error| error.to_string())
                .and_then(|text| serde_saphyr::from_str::<Value>(text).map_err(|error| error.to_string()))
                .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}"))),
            Err(error) => Err(ApiError::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse \
                 error: {error}",
                self.resource.kind
            ))),
        }
    }
}

/// An answer with a JSON value.
pub(crate) fn reply(code: u16, value: &Value) -> Reply {
    reply_bytes(code, serde_json::to_vec(value).unwrap_or_default())
}

/// An answer with JSON that is already bytes.
pub(crate) fn reply_bytes(code: u16, json: impl Into<Body>) -> Reply {
    let mut reply = Response::new(json.into());
    *reply.status_mut() = http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// The answer to a failed request.
pub(crate) fn refuse(error: &ApiError) -> Reply {
    let mut reply = reply(error.code, &error.status());
    if error.code == 429 {
        reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    reply
}

/// Adds a `Warning` header for each text.
pub(crate) fn warn(headers: &mut HeaderMap, texts: &[String]) {
    for text in texts {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            headers.append(header::WARNING, value);
        }
    }
}

/// One object in the shape asked for.
pub(crate) fn shaped(call: &Call, code: u16, object: Value) -> Reply {
    match call.shape {
        Shape::Object => reply(code, &object),
        Shape::Metadata => reply(code, &super::convert::metadata_only(object)),
        Shape::Table => {
            let version = object["metadata"]["resourceVersion"].clone();
            let include = call.options.get("includeObject").unwrap_or("Metadata");
            let table = super::table::render(&call.resource, [object].into_iter(), include, &version, true);
            reply(code, &table)
        }
    }
}

/// Whether the server serves what the call asks of the resource.
pub(crate) fn check_scope(server: &Server, call: &Call) -> Result<(), ApiError> {
    let _ = server;
    if call.resource.namespaced {
        if call.path.namespace.is_none() && call.path.name.is_some() {
            return Err(ApiError::no_such_path());
        }
    } else if call.path.namespace.is_some() {
        return Err(ApiError::no_such_path());
    }
    Ok(())
}

/// Takes a field over from another object: its value there, or its absence.
pub(crate) fn keep(to: &mut Value, from: &Value, field: &str) {
    match (from.get(field), to.as_object_mut()) {
        (Some(value), Some(map)) => {
            map.insert(field.to_owned(), value.clone());
        }
        (None, Some(map)) => {
            map.remove(field);
        }
        _ => {}
    }
}
