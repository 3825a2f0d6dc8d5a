//! Reading JSON as Go reads it into structs: absent, null and empty are one, numbers default to zero.
//!
//! Admission works on the object as it came and not on our types, so that what it lets through is exactly what the
//! user wrote plus defaults.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A field; null where absent.
pub fn get<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(value, |v, key| v.get(*key).unwrap_or(&Value::Null))
}

/// Text; empty where absent.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    get(value, &[key]).as_str().unwrap_or_default()
}

/// A number; zero where absent.
pub fn number(value: &Value, key: &str) -> i64 {
    get(value, &[key]).as_i64().unwrap_or_default()
}

/// A number that may be absent.
pub fn some_number(value: &Value, key: &str) -> Option<i64> {
    get(value, &[key]).as_i64()
}

/// A list; empty where absent.
pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    get(value, &[key]).as_array().map(Vec::as_slice).unwrap_or_default()
}

/// There, and not null: a pointer that is set.
pub fn has(value: &Value, key: &str) -> bool {
    !get(value, &[key]).is_null()
}

/// A map of texts; empty where absent.
pub fn texts(value: &Value, path: &[&str]) -> BTreeMap<String, String> {
    let map = get(value, path).as_object();
    map.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

/// Says something: not what Go would leave out.
pub fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(_) => true,
    }
}

/// Changes the value as an object; anything else is replaced by one (the schema refuses it elsewhere).
pub fn edit(value: &mut Value, change: impl FnOnce(&mut Map<String, Value>)) {
    let mut map = match value.take() {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    change(&mut map);
    *value = Value::Object(map);
}

/// Changes the object inside a field, made where absent.
pub fn edit_field(map: &mut Map<String, Value>, key: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    edit(map.entry(key.to_owned()).or_insert(Value::Null), change);
}

/// Changes every object of a list; nothing where there is no list.
pub fn edit_each(map: &mut Map<String, Value>, key: &str, mut change: impl FnMut(usize, &mut Map<String, Value>)) {
    for (i, item) in map.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
        edit(item, |item| change(i, item));
    }
}

/// Whether a field of an object says something.
pub fn says(map: &Map<String, Value>, key: &str) -> bool {
    map.get(key).is_some_and(is_set)
}

/// Two values say the same: null and empty count as absent.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys());
            keys.into_iter().all(|k| same(a.get(k).unwrap_or(&Value::Null), b.get(k).unwrap_or(&Value::Null)))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Null, other) | (other, Value::Null) => match other {
            Value::Object(map) => map.is_empty(),
            other => !is_set(other),
        },
        (a, b) => a == b,
    }
}

/// Every field that differs, one a line: `path: -old +new`.
pub fn difference(old: &Value, new: &Value) -> String {
    let mut lines = Vec::new();
    differ("", old, new, &mut lines);
    lines.join("\n")
}

fn differ(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    /// A diff for people: past this, more lines say nothing.
    const MOST: usize = 50;
    if same(old, new) || lines.len() >= MOST {
        return;
    }
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let (a, b) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                let dot = if path.is_empty() { "" } else { "." };
                differ(&format!("{path}{dot}{key}"), a, b, lines);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                differ(&format!("{path}[{i}]"), a, b, lines);
            }
        }
        (a, b) => lines.push(format!("{path}: -{a} +{b}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_null_and_empty_are_one() {
        assert!(same(&json!({"a": null, "b": "", "c": {}, "d": 1}), &json!({"d": 1})));
        assert!(!same(&json!({"a": {"b": 1}}), &json!({})));
        assert!(!same(&json!([1]), &json!([1, 2])));
    }

    #[test]
    fn differences_name_their_path() {
        let (old, new) = (json!({"a": [{"b": "x"}], "c": 1}), json!({"a": [{"b": "y"}], "c": 1, "d": true}));
        assert_eq!(difference(&old, &new), "a[0].b: -\"x\" +\"y\"\nd: -null +true");
    }
}
