//! OpenAPI, as far as clients ask: v3 documents by group-version (`kubectl explain`, `apply`'s field validation), and
//! for v2 a valid document without definitions, which makes clients use what they have built in.
//!
//! Documents are made on request: they are large, rarely wanted and cheap to make.
use http::{HeaderValue, header};
use serde_json::{Map, Value, json};

use super::builtin;
use super::errors::ApiError;
use super::handlers::{Reply, reply, reply_bytes};
use super::registry::{Resource, Table};
use super::store::{ObjectKey, Store};

/// `swagger: "2.0"` as gnostic's `openapi.v2.Document`, field 1.
const V2_PROTOBUF: &[u8] = b"\x0a\x032.0\x12\x17\x0a\x08Dormouse\x12\x0bunversioned";
const V2_PROTOBUF_TYPE: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Answers `/openapi/…`.
pub(crate) fn answer(table: &Table, store: &Store, path: &str, accept: &str) -> Result<Reply, ApiError> {
    match path.trim_start_matches("/openapi/") {
        "v2" if accept.contains("proto-openapi") => {
            let mut answer = reply_bytes(200, V2_PROTOBUF);
            answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(V2_PROTOBUF_TYPE));
            Ok(answer)
        }
        "v2" => Ok(reply(200, &json!({ "swagger": "2.0", "info": info(), "paths": {}, "definitions": {} }))),
        "v3" => Ok(reply(200, &index(table, store.resource_version()))),
        path => {
            let parts: Vec<&str> = path.split('/').collect();
            match parts.as_slice() {
                ["v3", "api", version] => document(table, store, "", version),
                ["v3", "apis", group, version] => document(table, store, group, version),
                _ => Err(ApiError::no_such_path()),
            }
        }
    }
}

fn info() -> Value {
    json!({ "title": "Dormouse", "version": "unversioned" })
}

fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn index(table: &Table, version: u64) -> Value {
    let mut paths = Map::new();
    for resource in table.iter() {
        let root = root(&resource.group, &resource.version);
        let url = format!("/openapi/v3/{root}?hash={version}");
        paths.insert(root, json!({ "serverRelativeURL": url }));
    }
    json!({ "paths": paths })
}

fn document(table: &Table, store: &Store, group: &str, version: &str) -> Result<Reply, ApiError> {
    let served: Vec<_> =
        table.iter().filter(|resource| resource.group == group && resource.version == version).collect();
    if served.is_empty() {
        return Err(ApiError::no_such_path());
    }
    // For a group of CRDs this is ObjectMeta and what it refers to.
    let mut schemas = builtin::definitions(group, version);
    let mut paths = Map::new();
    for resource in served {
        let own = json!([{ "group": resource.group, "version": resource.version, "kind": resource.kind }]);
        let name = if resource.custom {
            let name = custom_name(resource);
            schemas.insert(name.clone(), custom_schema(store, resource));
            name
        } else {
            builtin::schema_name(group, version, &resource.kind).unwrap_or_default().to_owned()
        };
        if let Some(schema) = schemas.get_mut(&name) {
            schema["x-kubernetes-group-version-kind"] = own.clone();
        }
        describe_paths(resource, &name, &own, &mut paths);
    }
    Ok(reply(200, &json!({ "openapi": "3.0.0", "info": info(), "paths": paths, "components": { "schemas": schemas } })))
}

/// `dev.knative.serving.v1.Service`.
fn custom_name(resource: &Resource) -> String {
    let mut parts: Vec<&str> = resource.group.rsplit('.').collect();
    parts.extend([resource.version.as_str(), resource.kind.as_str()]);
    parts.join(".")
}

fn custom_schema(store: &Store, resource: &Resource) -> Value {
    let definition = ObjectKey::new("", &format!("{}.{}", resource.plural, resource.group));
    let definition = store
        .get("apiextensions.k8s.io/customresourcedefinitions", &definition)
        .map(|stored| stored.value())
        .unwrap_or_default();
    let version = definition["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|version| version["name"] == resource.version.as_str());
    let mut schema = version.map(|version| version["schema"]["openAPIV3Schema"].clone()).unwrap_or_default();
    if !schema.is_object() {
        schema = json!({ "type": "object" });
    }
    let text = |description: &str| json!({ "type": "string", "description": description });
    schema["properties"]["apiVersion"] =
        text("APIVersion defines the versioned schema of this representation of an object.");
    schema["properties"]["kind"] =
        text("Kind is a string value representing the REST resource this object represents.");
    schema["properties"]["metadata"] = json!({
        "description": "Standard object's metadata.",
        "allOf": [{ "$ref": format!("#/components/schemas/{OBJECT_META}") }],
    });
    schema
}

/// The operations by which clients find a kind's schema and see that `fieldValidation` is understood.
fn describe_paths(resource: &Resource, schema: &str, kind: &Value, paths: &mut Map<String, Value>) {
    let root = root(&resource.group, &resource.version);
    let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let body = json!({ "$ref": format!("#/components/schemas/{schema}") });
    let ok = json!({ "200": { "description": "OK", "content": { "application/json": { "schema": body } } } });
    let parameters: Vec<Value> = ["dryRun", "fieldManager", "fieldValidation"]
        .iter()
        .map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string", "uniqueItems": true } }))
        .collect();
    let operation = |action: &str, parameters: &[Value], content: Option<&str>| {
        let mut operation = json!({
            "responses": ok, "x-kubernetes-action": action, "x-kubernetes-group-version-kind": kind[0],
            "parameters": parameters,
        });
        if let Some(content) = content {
            let mut map = Map::new();
            map.insert(content.to_owned(), json!({ "schema": body }));
            operation["requestBody"] = json!({ "content": map, "required": true });
        }
        operation
    };
    let create = operation("post", &parameters, Some("application/json"));
    if resource.virtual_only {
        paths.insert(format!("/{root}/{}", resource.plural), json!({ "post": create }));
        return;
    }
    let collection = json!({
        "get": operation("list", &[], None), "post": create, "delete": operation("deletecollection", &[], None),
    });
    let single = json!({
        "get": operation("get", &[], None),
        "put": operation("put", &parameters, Some("application/json")),
        // Strategic merge is understood but not offered here: clients then use the merge keys they have built in.
        "patch": operation("patch", &parameters, Some("application/apply-patch+yaml")),
        "delete": operation("delete", &[], None),
    });
    paths.insert(format!("/{root}{scope}/{}", resource.plural), collection);
    paths.insert(format!("/{root}{scope}/{}/{{name}}", resource.plural), single);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_custom_schemas() {
        let mut resource = Resource::unknown();
        resource.group = "serving.knative.dev".to_owned();
        resource.version = "v1".to_owned();
        resource.kind = "Service".to_owned();
        assert_eq!(custom_name(&resource), "dev.knative.serving.v1.Service");
    }
}
