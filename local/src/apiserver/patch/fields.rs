//! Sets of fields, in the `FieldsV1` form that `managedFields` has: who said what.
//!
//! Pure. A set is a JSON map: `f:NAME` for a field, `k:{…}` for a list item by its keys, `v:…` for an item of a set;
//! `{}` is a leaf, `.` the item itself.
use serde_json::{Map, Value};

use super::merge_keys::merging;
use crate::apiserver::schema::{ListType, Schema, Shape};

/// A set of fields.
pub(crate) type Set = Map<String, Value>;

/// One child of a value as a set names it: its element, itself, its schema.
pub(crate) struct Child<'v> {
    /// `f:…`, `k:…` or `v:…`.
    pub(crate) element: String,
    /// The child.
    pub(crate) value: &'v Value,
    /// What it should look like.
    pub(crate) schema: Schema,
}

/// The children of a value that can be owned apart; `None` when the value is owned as a whole.
pub(crate) fn children<'v>(field: &str, value: &'v Value, schema: &Schema) -> Option<Vec<Child<'v>>> {
    let resolved = schema.resolved();
    match value {
        Value::Object(map) if !schema.atomic && !resolved.atomic && !map.is_empty() => {
            if matches!(resolved.shape, Shape::IntOrString) {
                return None;
            }
            Some(
                map.iter()
                    .map(|(name, value)| Child {
                        element: format!("f:{name}"),
                        value,
                        schema: resolved.field(name).cloned().unwrap_or_else(Schema::anything),
                    })
                    .collect(),
            )
        }
        Value::Array(list) => {
            let items = resolved.items().cloned().unwrap_or_else(Schema::anything);
            match merging(field, if resolved.list == ListType::Atomic { schema } else { resolved }) {
                ListType::Map(keys) => Some(
                    list.iter()
                        .map(|value| Child { element: key_element(value, &keys), value, schema: items.clone() })
                        .collect(),
                ),
                ListType::Set => Some(
                    list.iter()
                        .map(|value| Child { element: format!("v:{value}"), value, schema: Schema::anything() })
                        .collect(),
                ),
                ListType::Atomic | ListType::Builtin => None,
            }
        }
        _ => None,
    }
}

/// `k:{"name":"a"}`; keys in order, `protocol` defaulting to TCP as Kubernetes' lists of ports have it.
pub(crate) fn key_element(item: &Value, keys: &[String]) -> String {
    let mut named = Map::new();
    for key in keys {
        let value = match &item[key] {
            Value::Null if key == "protocol" => Value::from("TCP"),
            other => other.clone(),
        };
        named.insert(key.clone(), value);
    }
    format!("k:{}", Value::Object(named))
}

/// The fields of a value.
pub(crate) fn of(field: &str, value: &Value, schema: &Schema) -> Set {
    let mut set = Set::new();
    for child in children(field, value, schema).unwrap_or_default() {
        let mut inner = of(field_name(&child.element), child.value, &child.schema);
        if child.element.starts_with("k:") {
            inner.insert(".".to_owned(), Value::Object(Map::new()));
        }
        set.insert(child.element, Value::Object(inner));
    }
    set
}

/// The name of the field an element stands for; empty for items.
pub(crate) fn field_name(element: &str) -> &str {
    element.strip_prefix("f:").unwrap_or("")
}

/// The fields that differ between two values.
pub(crate) fn changed(field: &str, old: &Value, new: &Value, schema: &Schema) -> Set {
    let mut set = Set::new();
    let old_children = children(field, old, schema).unwrap_or_default();
    let new_children = children(field, new, schema).unwrap_or_default();
    for child in &new_children {
        let name = field_name(&child.element);
        match old_children.iter().find(|before| before.element == child.element) {
            Some(before) if before.value == child.value => {}
            Some(before) => {
                set.insert(child.element.clone(), changed(name, before.value, child.value, &child.schema).into());
            }
            None => {
                let mut inner = of(name, child.value, &child.schema);
                if child.element.starts_with("k:") {
                    inner.insert(".".to_owned(), Value::Object(Map::new()));
                }
                set.insert(child.element.clone(), inner.into());
            }
        }
    }
    set
}

/// Removes from a set what another set names.
pub(crate) fn subtract(set: &mut Set, other: &Set) {
    for (element, inner) in other {
        let Some(Value::Object(mine)) = set.get_mut(element) else { continue };
        let leaf = inner.as_object().is_none_or(Map::is_empty);
        if leaf {
            set.remove(element);
            continue;
        }
        if mine.is_empty() {
            continue; // The map itself, of which something inside says nothing.
        }
        if let Value::Object(inner) = inner {
            subtract(mine, inner);
        }
        if mine.is_empty() {
            set.remove(element);
        }
    }
}

/// Adds another set.
pub(crate) fn unite(set: &mut Set, other: &Set) {
    for (element, inner) in other {
        let entry = set.entry(element.clone()).or_insert_with(|| Value::Object(Map::new()));
        if let (Value::Object(mine), Value::Object(inner)) = (entry, inner) {
            unite(mine, inner);
        }
    }
}

/// Removes what names nothing that is in the value any more.
pub(crate) fn keep_existing(set: &mut Set, field: &str, value: &Value, schema: &Schema) {
    let present = children(field, value, schema).unwrap_or_default();
    set.retain(|element, inner| {
        // What names only what is gone names nothing; a leaf names itself.
        if element == "." {
            return true;
        }
        let Some(child) = present.iter().find(|child| child.element == *element) else { return false };
        if let Value::Object(inner) = inner
            && !inner.is_empty()
        {
            keep_existing(inner, field_name(element), child.value, &child.schema);
            return !inner.is_empty();
        }
        true
    });
}
