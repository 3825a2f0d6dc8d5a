//! From a CustomResourceDefinition to the kinds it serves.
//!
//! Pure. The server calls [`resources`] for the CRDs it was given, those on disk, and those created later.
use std::sync::Arc;

use serde_json::{Value, json};

use super::registry::{Conversion, Convert, Resource, ScalePaths, api_version};
use super::schema::Schema;
use super::table::{Column, age_column};

/// The kinds of a definition, one for each served version. `convert` stands for the webhook that it may name.
pub(crate) fn resources(crd: &Value, convert: Convert) -> Vec<Resource> {
    let spec = &crd["spec"];
    let conversion =
        if spec["conversion"]["strategy"] == "Webhook" { Conversion::Hook(convert) } else { Conversion::Rename };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (group, names) = (text(&spec["group"]), &spec["names"]);
    let (plural, kind) = (text(&names["plural"]), text(&names["kind"]));
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let storage = versions.iter().find(|version| version["storage"] == true).or(versions.first());
    let storage = storage.map(|version| text(&version["name"])).unwrap_or_default();
    versions
        .iter()
        .filter(|version| version["served"] != false)
        .map(|version| {
            let subresources = &version["subresources"];
            let scale = subresources["scale"].as_object().map(|scale| ScalePaths {
                spec_replicas: scale.get("specReplicasPath").map(text).unwrap_or_default(),
                status_replicas: scale.get("statusReplicasPath").map(text).unwrap_or_default(),
                selector: Some(scale.get("labelSelectorPath").map(text).unwrap_or_default()),
            });
            let mut columns: Vec<Column> = version["additionalPrinterColumns"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|column| {
                    Column::custom(&text(&column["name"]), &text(&column["type"]), &text(&column["jsonPath"]), column)
                })
                .collect();
            if columns.is_empty() {
                columns.push(age_column());
            }
            Resource {
                list_kind: names["listKind"].as_str().map_or_else(|| format!("{kind}List"), str::to_owned),
                singular: names["singular"].as_str().map_or_else(|| kind.to_lowercase(), str::to_owned),
                short_names: texts(&names["shortNames"]),
                categories: texts(&names["categories"]),
                namespaced: spec["scope"] != "Cluster",
                status: subresources["status"].is_object(),
                scale,
                generation: true,
                collection: format!("{group}/{plural}").into(),
                storage_api_version: api_version(&group, &storage),
                conversion,
                selectable: version["selectableFields"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|field| text(&field["jsonPath"]).trim_start_matches('.').to_owned())
                    .collect(),
                schema: Arc::new(Schema::of_crd(&version["schema"]["openAPIV3Schema"])),
                columns,
                custom: true,
                virtual_only: false,
                group: group.clone(),
                version: text(&version["name"]),
                kind: kind.clone(),
                plural: plural.clone(),
            }
        })
        .collect()
}

/// The status of a definition whose kinds are served: names accepted, established.
pub(crate) fn established(crd: &Value, now: &str) -> Value {
    let condition = |kind: &str, reason: &str, message: &str| json!({ "type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now });
    let versions: Vec<&Value> = crd["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|version| version["storage"] == true)
        .map(|version| &version["name"])
        .collect();
    json!({
        "acceptedNames": crd["spec"]["names"],
        "storedVersions": versions,
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
    })
}
