//! Tables, as `kubectl get` shows them.
//!
//! Pure but for the clock that ages are measured by. Columns of built-in kinds are functions ([`builtin`]); those of
//! CRDs are paths ([`jsonpath`]).
mod age;
mod builtin;
mod jsonpath;
mod pods;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::convert::metadata_only;
use super::registry::Resource;
pub(crate) use builtin::builtin_columns;
use jsonpath::JsonPath;

/// One column after the name.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
    source: Source,
}

/// Makes a cell of an object; the time is now.
type Cell = fn(&Value, Timestamp) -> Value;

#[derive(Debug, Clone)]
enum Source {
    /// A path that could not be parsed shows nothing.
    Path(Option<JsonPath>),
    Cell(Cell),
}

impl Column {
    /// A column of a CRD: heading, type, path, and the rest of its definition.
    pub(crate) fn custom(name: &str, kind: &str, path: &str, definition: &Value) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            format: definition["format"].as_str().unwrap_or_default().to_owned(),
            description: definition["description"].as_str().unwrap_or_default().to_owned(),
            priority: definition["priority"].as_i64().unwrap_or(0),
            source: Source::Path(JsonPath::parse(path)),
        }
    }

    fn builtin(name: &str, kind: &str, priority: i64, cell: Cell) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            format: String::new(),
            description: String::new(),
            priority,
            source: Source::Cell(cell),
        }
    }

    fn definition(&self) -> Value {
        json!({
            "name": self.name, "type": self.kind, "format": self.format, "description": self.description,
            "priority": self.priority,
        })
    }

    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        match &self.source {
            Source::Cell(cell) => cell(object, now),
            Source::Path(None) => Value::Null,
            Source::Path(Some(path)) => {
                path.find(object).first().map_or(Value::Null, |value| custom_cell(&self.kind, value, now))
            }
        }
    }
}

fn custom_cell(kind: &str, value: &Value, now: Timestamp) -> Value {
    match (kind, value) {
        ("string", Value::String(_)) | ("integer" | "number", Value::Number(_)) | ("boolean", Value::Bool(_)) => {
            value.clone()
        }
        ("string", Value::Null) => Value::Null,
        ("string", other) => other.to_string().into(),
        ("date", Value::String(time)) => age::of(time, now).into(),
        _ => Value::Null,
    }
}

/// `AGE`, by the creation of the object.
pub(crate) fn age_column() -> Column {
    Column::builtin("Age", "string", 0, |object, now| match object["metadata"]["creationTimestamp"].as_str() {
        Some(time) => age::of(time, now).into(),
        None => "<unknown>".into(),
    })
}

/// Prints objects as a Table. `include` is `includeObject`: `None`, `Metadata` or `Object`.
pub(crate) fn render(
    resource: &Resource,
    objects: impl Iterator<Item = Value>,
    include: &str,
    version: &Value,
    columns: bool,
) -> Value {
    let now = Timestamp::now();
    // Events are told by what happened; their names come last, in the wide form.
    let named = &*resource.collection != "/events";
    let rows: Vec<Value> = objects
        .map(|object| {
            let mut cells = Vec::with_capacity(resource.columns.len() + 1);
            if named {
                cells.push(object["metadata"]["name"].clone());
            }
            cells.extend(resource.columns.iter().map(|column| column.cell(&object, now)));
            let mut row = Map::new();
            row.insert("cells".to_owned(), cells.into());
            match include {
                "None" => {
                    row.insert("object".to_owned(), Value::Null);
                }
                "Object" => {
                    row.insert("object".to_owned(), object);
                }
                _ => {
                    row.insert("object".to_owned(), metadata_only(object));
                }
            }
            Value::Object(row)
        })
        .collect();
    let mut definitions = Vec::new();
    if named {
        definitions.push(json!({
            "name": "Name", "type": "string", "format": "name", "description": "Name must be unique within a namespace.",
            "priority": 0,
        }));
    }
    definitions.extend(resource.columns.iter().map(Column::definition));
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": { "resourceVersion": version },
        "columnDefinitions": if columns { definitions.into() } else { Value::Null }, "rows": rows,
    })
}
