//! Checks an object against its kind's [`Schema`]: unknown fields (found and dropped), wrong values (reported),
//! absent fields with defaults (filled in).
//!
//! Pure. One walk does all three, because every write pays for it.
use serde_json::Value;

use super::errors::Cause;
use super::schema::{Schema, Shape};

/// How many faults are collected before the walk stops looking for more.
const MAX_FAULTS: usize = 32;

/// What the walk found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Paths of fields the schema does not know; they were removed from the object.
    pub(crate) unknown: Vec<String>,
    /// Values the schema does not allow.
    pub(crate) causes: Vec<Cause>,
    /// The first value of a wrong type, for the wording built-in kinds use.
    pub(crate) wrong_type: Option<WrongType>,
}

/// A value of a wrong type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrongType {
    /// Where.
    pub(crate) path: String,
    /// What is there: `string`, `number`, …
    pub(crate) found: &'static str,
    /// What should be.
    pub(crate) wanted: &'static str,
}

/// Walks the object; see [`Findings`].
pub(crate) fn check(object: &mut Value, schema: &Schema) -> Findings {
    let mut findings = Findings::default();
    walk(object, schema, &mut String::new(), &mut findings);
    findings
}

fn walk(value: &mut Value, schema: &Schema, path: &mut String, findings: &mut Findings) {
    let schema = schema.resolved();
    if schema.nullable && value.is_null() {
        return;
    }
    match (&schema.shape, &mut *value) {
        (Shape::Object { properties, additional, open }, Value::Object(map)) => {
            // A null field is an absent field, except where the schema says that null is a value.
            map.retain(|name, child| {
                !child.is_null() || properties.get(&**name).is_none_or(|schema| schema.resolved().nullable)
            });
            let mut unknown = Vec::new();
            for (name, child) in map.iter_mut() {
                let length = path.len();
                push_field(path, name);
                match properties.get(name.as_str()).or(additional.as_deref()) {
                    Some(schema) => walk(child, schema, path, findings),
                    None if *open
                        || (schema.embedded && matches!(name.as_str(), "apiVersion" | "kind" | "metadata")) => {}
                    None => {
                        if findings.unknown.len() < MAX_FAULTS {
                            findings.unknown.push(path.clone());
                        }
                        unknown.push(name.clone());
                    }
                }
                path.truncate(length);
            }
            for name in unknown {
                map.remove(&name);
            }
            for (name, property) in properties {
                if let Some(default) = &property.default
                    && !map.contains_key(&**name)
                {
                    map.insert(name.to_string(), (**default).clone());
                }
            }
            for name in &schema.required {
                if !map.contains_key(&**name) {
                    let length = path.len();
                    push_field(path, name);
                    findings.cause(Cause::required(path.clone()));
                    path.truncate(length);
                }
            }
        }
        (Shape::Array(items), Value::Array(list)) => {
            for (index, item) in list.iter_mut().enumerate() {
                let length = path.len();
                path.push('[');
                path.push_str(&index.to_string());
                path.push(']');
                walk(item, items, path, findings);
                path.truncate(length);
            }
            let length = list.len() as u64;
            if schema.length.1.is_some_and(|most| length > most) {
                let most = schema.length.1.unwrap_or_default();
                findings.cause(Cause {
                    reason: "FieldValueTooMany",
                    field: path.clone(),
                    message: format!("Too many: {length}: must have at most {most} items"),
                });
            }
            if schema.length.0.is_some_and(|least| length < least) {
                let least = schema.length.0.unwrap_or_default();
                let detail = format!("{path} in body should have at least {least} items");
                findings.cause(Cause::invalid(path.clone(), &length.to_string(), &detail));
            }
        }
        (Shape::String, Value::String(text)) => {
            let length = text.chars().count() as u64;
            if schema.length.0.is_some_and(|least| length < least) {
                let detail =
                    format!("{path} in body should be at least {} chars long", schema.length.0.unwrap_or_default());
                findings.cause(Cause::invalid(path.clone(), &format!("{text:?}"), &detail));
            }
            if schema.length.1.is_some_and(|most| length > most) {
                findings.cause(Cause {
                    reason: "FieldValueTooLong",
                    field: path.clone(),
                    message: format!("Too long: may not be more than {} bytes", schema.length.1.unwrap_or_default()),
                });
            }
        }
        (Shape::Any | Shape::Named(_), _)
        | (Shape::Boolean, Value::Bool(_))
        | (Shape::IntOrString, Value::String(_) | Value::Number(_)) => {}
        (Shape::Integer, Value::Number(number))
            if !number.is_f64() || number.as_f64().is_some_and(|n| n.fract() == 0.0) =>
        {
            bounds(number.as_f64(), schema, path, findings);
        }
        (Shape::Number, Value::Number(number)) => bounds(number.as_f64(), schema, path, findings),
        (shape, other) => {
            let (found, wanted) = (type_name(other), shape_name(shape));
            let shown = match other {
                Value::Object(_) | Value::Array(_) | Value::Null => format!("{found:?}"),
                Value::String(_) => "\"string\"".to_owned(),
                scalar => format!("{:?}", type_name(scalar)),
            };
            let detail = format!("{path} in body must be of type {wanted}: {shown}");
            if findings.wrong_type.is_none() {
                findings.wrong_type = Some(WrongType { path: path.clone(), found, wanted });
            }
            findings.cause(Cause { reason: "FieldValueTypeInvalid", ..Cause::invalid(path.clone(), &shown, &detail) });
        }
    }
    if !schema.allowed.is_empty() && !value.is_null() && !schema.allowed.contains(value) {
        let supported: Vec<String> = schema.allowed.iter().map(Value::to_string).collect();
        findings.cause(Cause {
            reason: "FieldValueNotSupported",
            field: path.clone(),
            message: format!("Unsupported value: {value}: supported values: {}", supported.join(", ")),
        });
    }
}

fn bounds(number: Option<f64>, schema: &Schema, path: &str, findings: &mut Findings) {
    let Some(number) = number else { return };
    if let Some(least) = schema.minimum.filter(|least| number < *least) {
        let detail = format!("{path} in body should be greater than or equal to {least}");
        findings.cause(Cause::invalid(path, &number.to_string(), &detail));
    }
    if let Some(most) = schema.maximum.filter(|most| number > *most) {
        let detail = format!("{path} in body should be less than or equal to {most}");
        findings.cause(Cause::invalid(path, &number.to_string(), &detail));
    }
}

impl Findings {
    fn cause(&mut self, cause: Cause) {
        if self.causes.len() < MAX_FAULTS {
            self.causes.push(cause);
        }
    }
}

fn push_field(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn shape_name(shape: &Shape) -> &'static str {
    match shape {
        Shape::Object { .. } => "object",
        Shape::Array(_) => "array",
        Shape::String => "string",
        Shape::Integer | Shape::IntOrString => "integer",
        Shape::Number => "number",
        Shape::Boolean => "boolean",
        Shape::Any | Shape::Named(_) => "any",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Schema {
        Schema::of_crd(&json!({
            "type": "object",
            "properties": { "spec": {
                "type": "object", "required": ["image"],
                "properties": {
                    "image": { "type": "string", "minLength": 1 },
                    "replicas": { "type": "integer", "minimum": 0, "default": 1 },
                    "mode": { "type": "string", "enum": ["Proxy", "Serve"] },
                    "port": { "x-kubernetes-int-or-string": true },
                    "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                    "map": { "type": "object", "additionalProperties": { "type": "string" } },
                    "list": { "type": "array", "items": { "type": "object", "properties": { "a": { "type": "string" } } } },
                }
            } }
        }))
    }

    #[test]
    fn unknown_fields_are_named_and_dropped() {
        let mut object = json!({ "spec": {
            "image": "x", "foo": 1, "free": { "any": 1 }, "map": { "k": "v" }, "list": [{ "a": "1", "b": 2 }], "port": "http"
        } });
        let findings = check(&mut object, &schema());
        assert_eq!(findings.unknown, ["spec.foo", "spec.list[0].b"]);
        assert!(findings.causes.is_empty());
        assert_eq!(object["spec"]["foo"], Value::Null);
        assert_eq!(object["spec"]["free"]["any"], 1);
        assert_eq!(object["spec"]["replicas"], 1, "default");
    }

    #[test]
    fn wrong_values_are_causes() {
        let cases = [
            (
                json!({ "image": 1 }),
                "spec.image: Invalid value: \"integer\": spec.image in body must be of type string: \"integer\"",
            ),
            (json!({}), "spec.image: Required value"),
            (
                json!({ "image": "x", "mode": "No" }),
                "spec.mode: Unsupported value: \"No\": supported values: \"Proxy\", \"Serve\"",
            ),
            (
                json!({ "image": "x", "replicas": -1 }),
                "spec.replicas: Invalid value: -1: spec.replicas in body should be greater than or equal to 0",
            ),
            (
                json!({ "image": "x", "replicas": "3" }),
                "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
            ),
        ];
        for (spec, want) in cases {
            let mut object = json!({ "spec": spec });
            let findings = check(&mut object, &schema());
            let texts: Vec<_> = findings.causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
            assert_eq!(texts, [want]);
        }
    }
}
