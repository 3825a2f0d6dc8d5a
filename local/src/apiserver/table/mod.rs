//! Tables, as `kubectl get` shows them: columns of built-in kinds and of CRDs.
use serde_json::{Value, json};

use super::convert::metadata_only;
use super::registry::Resource;

/// One column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Heading.
    pub name: String,
}

impl Column {
    /// A column of a CRD.
    pub fn custom(name: &str, _kind: &str, _path: &str, _definition: &Value) -> Self {
        Self { name: name.to_owned() }
    }
}

/// `AGE`.
pub fn age_column() -> Column {
    Column { name: "Age".to_owned() }
}

/// The columns of a built-in kind.
pub fn builtin_columns(_group: &str, _plural: &str) -> Vec<Column> {
    vec![age_column()]
}

/// Prints objects as a Table.
pub fn render(_resource: &Resource, objects: impl Iterator<Item = Value>, _include: &str, version: Value, _columns: bool) -> Value {
    let rows: Vec<Value> = objects
        .map(|object| json!({ "cells": [object["metadata"]["name"]], "object": metadata_only(object) }))
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": { "resourceVersion": version },
        "columnDefinitions": [{ "name": "Name", "type": "string", "format": "name", "description": "", "priority": 0 }], "rows": rows,
    })
}
