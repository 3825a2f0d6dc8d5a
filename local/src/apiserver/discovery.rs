//! What is served: `/api`, `/apis`, each group and version; and all at once for clients that ask for the aggregated form.
use std::net::SocketAddr;

use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::errors::ApiError;
use super::handlers::{Reply, reply};
use super::registry::{Resource, Table, api_version};

const AGGREGATED: &str = "as=APIGroupDiscoveryList";

/// `/version`.
pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": "34", "gitVersion": concat!("v1.34.0+dormouse-", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": concat!("linux/", "amd64"),
    })
}

/// `/`.
pub(crate) fn paths(table: &Table) -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, versions) in table.groups() {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.extend(["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(str::to_owned));
    json!({ "paths": paths })
}

/// Answers `/api…` and `/apis…`.
pub(crate) fn answer(table: &Table, path: &str, accept: &str, address: SocketAddr) -> Result<Reply, ApiError> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let aggregated = accept.split(',').find(|offer| offer.contains(AGGREGATED));
    match (parts.as_slice(), aggregated) {
        (["api"], Some(offer)) => Ok(aggregate(&[group_discovery(table, "", &["v1"])], offer)),
        (["apis"], Some(offer)) => {
            let groups = table.groups();
            let groups: Vec<Value> =
                groups.iter().map(|(group, versions)| group_discovery(table, group, versions)).collect();
            Ok(aggregate(&groups, offer))
        }
        (["api"], None) => Ok(reply(
            200,
            &json!({
                "kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": address.to_string() }],
            }),
        )),
        (["apis"], None) => {
            let groups: Vec<Value> = table.groups().iter().map(|(group, versions)| group_of(group, versions)).collect();
            Ok(reply(200, &json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })))
        }
        (["apis", group], _) => {
            let groups = table.groups();
            let versions = groups.get(group).ok_or_else(ApiError::no_such_path)?;
            let mut found = group_of(group, versions);
            found["kind"] = "APIGroup".into();
            found["apiVersion"] = "v1".into();
            Ok(reply(200, &found))
        }
        (["api", version], _) => resource_list(table, "", version),
        (["apis", group, version], _) => resource_list(table, group, version),
        _ => Err(ApiError::no_such_path()),
    }
}

fn group_of(group: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({ "groupVersion": api_version(group, version), "version": version }))
        .collect();
    json!({ "name": group, "versions": versions, "preferredVersion": versions.first() })
}

fn verbs(resource: &Resource) -> Value {
    if resource.virtual_only {
        json!(["create"])
    } else {
        json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"])
    }
}

/// The subresources: name, group, version and kind of what they take, verbs.
fn subresources(resource: &Resource) -> Vec<(&'static str, Value, Value)> {
    let own = json!({ "group": resource.group, "version": resource.version, "kind": resource.kind });
    let mut found = Vec::new();
    if resource.is("", "pods") {
        found.push(("log", own.clone(), json!(["get"])));
    }
    if resource.scale.is_some() {
        let scale = json!({ "group": "autoscaling", "version": "v1", "kind": "Scale" });
        found.push(("scale", scale, json!(["get", "patch", "update"])));
    }
    if resource.status {
        found.push(("status", own, json!(["get", "patch", "update"])));
    }
    found
}

fn resource_list(table: &Table, group: &str, version: &str) -> Result<Reply, ApiError> {
    let mut resources = Vec::new();
    for resource in table.iter().filter(|resource| resource.group == group && resource.version == version) {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": verbs(resource),
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        resources.push(entry);
        for (name, takes, verbs) in subresources(resource) {
            let mut entry = json!({
                "name": format!("{}/{name}", resource.plural), "singularName": "", "namespaced": resource.namespaced,
                "kind": takes["kind"], "verbs": verbs,
            });
            if takes["group"] != resource.group {
                entry["group"] = takes["group"].clone();
                entry["version"] = takes["version"].clone();
            }
            resources.push(entry);
        }
    }
    if resources.is_empty() {
        return Err(ApiError::no_such_path());
    }
    Ok(reply(
        200,
        &json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version),
            "resources": resources,
        }),
    ))
}

fn group_discovery(table: &Table, group: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> = table
                .iter()
                .filter(|resource| resource.group == group && resource.version == *version)
                .map(|resource| discovered(resource))
                .collect();
            json!({ "version": version, "resources": resources, "freshness": "Current" })
        })
        .collect();
    let metadata = if group.is_empty() {
        json!({ "creationTimestamp": null })
    } else {
        json!({ "name": group, "creationTimestamp": null })
    };
    json!({ "metadata": metadata, "versions": versions })
}

fn discovered(resource: &Resource) -> Value {
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": { "group": resource.group, "version": resource.version, "kind": resource.kind },
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": verbs(resource),
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    let below: Vec<Value> = subresources(resource)
        .into_iter()
        .map(|(name, takes, verbs)| json!({ "subresource": name, "responseKind": takes, "verbs": verbs }))
        .collect();
    if !below.is_empty() {
        entry["subresources"] = below.into();
    }
    entry
}

/// The aggregated list, in the version of the form the client offered.
fn aggregate(groups: &[Value], offer: &str) -> Reply {
    let version = if offer.contains("v=v2beta1") { "v2beta1" } else { "v2" };
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": groups,
    });
    let mut answer = reply(200, &list);
    let content = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    if let Ok(value) = HeaderValue::from_str(&content) {
        answer.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    answer
}
