//! Server-side apply: each manager says what it wants, and owns what it said.
//!
//! Pure. Ownership is exact for managers that apply. Plain updates are recorded once an object has a manager that
//! applies; before that, all there is belongs to `before-first-apply`, as in the real server for objects without
//! records. So objects nobody applies carry no `managedFields` and cost nothing.
use serde_json::{Map, Value, json};

use super::fields::{self, Set, children, field_name};
use super::merge_keys::merging;
use crate::apiserver::errors::ApiError;
use crate::apiserver::schema::{ListType, Schema};

/// One entry of `managedFields`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Manager {
    name: String,
    operation: String,
    subresource: String,
    api_version: String,
    time: String,
    fields: Set,
}

/// Who applies, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Applier<'a> {
    /// `fieldManager`.
    pub(crate) manager: &'a str,
    /// `status` or empty.
    pub(crate) subresource: &'a str,
    /// Version of the body.
    pub(crate) api_version: &'a str,
    /// Now, RFC 3339.
    pub(crate) now: &'a str,
    /// Take over what others own.
    pub(crate) force: bool,
}

/// Merges what a manager applies into the object as it is (`Null` when there is none yet).
pub(crate) fn apply(live: &Value, applied: &Value, schema: &Schema, who: Applier<'_>) -> Result<Value, ApiError> {
    let mut managers = read(live);
    if managers.is_empty() && live.is_object() {
        managers.push(Manager {
            name: "before-first-apply".to_owned(),
            operation: "Update".to_owned(),
            subresource: String::new(),
            api_version: who.api_version.to_owned(),
            time: who.now.to_owned(),
            fields: fields::of("", &owned_part(live), schema),
        });
    }
    let applied = owned_part(applied);
    let wanted = fields::of("", &applied, schema);
    let is_me = |m: &Manager| m.name == who.manager && m.operation == "Apply" && m.subresource == who.subresource;
    let mut conflicts = Vec::new();
    for manager in managers.iter_mut().filter(|manager| !is_me(manager)) {
        let mut fought = Vec::new();
        let mut path = String::new();
        let mut taken = Set::new();
        disputes("", &wanted, &manager.fields, live, &applied, schema, &mut path, &mut fought, &mut taken);
        if who.force {
            fields::subtract(&mut manager.fields, &taken);
        } else {
            conflicts.extend(fought.into_iter().map(|field| (describe(manager), field)));
        }
    }
    if !conflicts.is_empty() {
        return Err(conflict(&conflicts));
    }
    let mut merged = if live.is_object() { live.clone() } else { json!({}) };
    if let Some(metadata) = merged.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    merge("", &mut merged, &applied, schema);
    if let Some(at) = managers.iter().position(&is_me) {
        let before = managers.remove(at);
        let mut others = Set::new();
        for manager in &managers {
            fields::unite(&mut others, &manager.fields);
        }
        remove_given_up("", &mut merged, &before.fields, &wanted, &others, schema);
    }
    managers.retain(|manager| !manager.fields.is_empty());
    managers.push(Manager {
        name: who.manager.to_owned(),
        operation: "Apply".to_owned(),
        subresource: who.subresource.to_owned(),
        api_version: who.api_version.to_owned(),
        time: who.now.to_owned(),
        fields: wanted,
    });
    write(&mut merged, &managers);
    Ok(merged)
}

/// After a plain update: what it changed now belongs to whoever updated. Only on objects with records.
pub(crate) fn note_update(old: &Value, new: &mut Value, schema: &Schema, who: Applier<'_>) {
    let mut managers = read(old);
    if managers.is_empty() {
        return;
    }
    // A client may clear the records, and only that: `managedFields: [{}]`.
    let (before, after) = (owned_part(old), owned_part(new));
    let changed = fields::changed("", &before, &after, schema);
    for manager in &mut managers {
        fields::subtract(&mut manager.fields, &changed);
        fields::keep_existing(&mut manager.fields, "", &after, schema);
    }
    managers.retain(|manager| !manager.fields.is_empty());
    if !changed.is_empty() {
        let mine = managers.iter_mut().find(|manager| {
            manager.name == who.manager && manager.operation == "Update" && manager.subresource == who.subresource
        });
        if let Some(manager) = mine {
            fields::unite(&mut manager.fields, &changed);
            who.now.clone_into(&mut manager.time);
        } else {
            managers.push(Manager {
                name: who.manager.to_owned(),
                operation: "Update".to_owned(),
                subresource: who.subresource.to_owned(),
                api_version: who.api_version.to_owned(),
                time: who.now.to_owned(),
                fields: changed,
            });
        }
    }
    write(new, &managers);
}

/// The part of an object that can be owned: without type, identity and what the server writes.
fn owned_part(object: &Value) -> Value {
    let mut part = object.clone();
    if let Some(map) = part.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
        if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
            for name in [
                "name",
                "namespace",
                "generateName",
                "uid",
                "resourceVersion",
                "creationTimestamp",
                "generation",
                "managedFields",
                "selfLink",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
            ] {
                metadata.remove(name);
            }
            if metadata.is_empty() {
                map.remove("metadata");
            }
        }
    }
    part
}

fn read(object: &Value) -> Vec<Manager> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            Some(Manager {
                name: text(&entry["manager"]),
                operation: text(&entry["operation"]),
                subresource: text(&entry["subresource"]),
                api_version: text(&entry["apiVersion"]),
                time: text(&entry["time"]),
                fields: entry["fieldsV1"].as_object()?.clone(),
            })
        })
        .collect()
}

fn write(object: &mut Value, managers: &[Manager]) {
    let entries: Vec<Value> = managers
        .iter()
        .map(|manager| {
            let mut entry = json!({
                "manager": manager.name, "operation": manager.operation, "apiVersion": manager.api_version,
                "time": manager.time, "fieldsType": "FieldsV1", "fieldsV1": manager.fields,
            });
            if !manager.subresource.is_empty() {
                entry["subresource"] = manager.subresource.clone().into();
            }
            entry
        })
        .collect();
    object["metadata"]["managedFields"] = entries.into();
}

/// Collects the fields that are wanted with another value than the one a manager owns.
#[allow(clippy::too_many_arguments)] // one walk over four trees side by side
fn disputes(
    field: &str,
    wanted: &Set,
    owned: &Set,
    live: &Value,
    applied: &Value,
    schema: &Schema,
    path: &mut String,
    fought: &mut Vec<String>,
    taken: &mut Set,
) {
    let live_children = children(field, live, schema).unwrap_or_default();
    let applied_children = children(field, applied, schema).unwrap_or_default();
    for (element, inner) in wanted {
        let Some(Value::Object(theirs)) = owned.get(element) else { continue };
        let Value::Object(mine) = inner else { continue };
        let find = |list: &[fields::Child<'_>]| list.iter().position(|child| child.element == *element);
        let (Some(was), Some(now)) = (find(&live_children), find(&applied_children)) else { continue };
        let (was, now) = (&live_children[was], &applied_children[now]);
        if was.value == now.value {
            continue;
        }
        // An empty map wants nothing to be gone of what others have put into it.
        let empty = |value: &Value| value.as_object().is_some_and(Map::is_empty);
        if !now.schema.atomic
            && was.value.is_object()
            && now.value.is_object()
            && (empty(was.value) || empty(now.value))
        {
            continue;
        }
        let length = path.len();
        path.push_str(&describe_element(element));
        if mine.is_empty() || theirs.is_empty() {
            fought.push(path.clone());
            taken.insert(element.clone(), Value::Object(Map::new()));
        } else {
            let mut below = Set::new();
            disputes(field_name(element), mine, theirs, was.value, now.value, &now.schema, path, fought, &mut below);
            if !below.is_empty() {
                taken.insert(element.clone(), below.into());
            }
        }
        path.truncate(length);
    }
}

fn describe_element(element: &str) -> String {
    if let Some(name) = element.strip_prefix("f:") {
        return format!(".{name}");
    }
    let item: Value = element.get(2..).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    match item {
        Value::Object(keys) => {
            let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        plain => format!("[={plain}]"),
    }
}

fn describe(manager: &Manager) -> String {
    if manager.operation == "Apply" {
        return format!("{:?}", manager.name);
    }
    let mut text = format!("{:?} using {}", manager.name, manager.api_version);
    if !manager.subresource.is_empty() {
        text = format!("{:?} with subresource {:?} using {}", manager.name, manager.subresource, manager.api_version);
    }
    if manager.time.is_empty() { text } else { format!("{text} at {}", manager.time) }
}

fn conflict(conflicts: &[(String, String)]) -> ApiError {
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|(who, field)| json!({ "reason": "FieldManagerConflict", "message": format!("conflict with {who}"), "field": field }))
        .collect();
    let mut managers: Vec<&str> = conflicts.iter().map(|(who, _)| who.as_str()).collect();
    managers.dedup();
    let message = if let [(who, field)] = conflicts {
        format!("Apply failed with 1 conflict: conflict with {who}: {field}")
    } else {
        let parts: Vec<String> = managers
            .iter()
            .map(|who| {
                let fields: String = conflicts
                    .iter()
                    .filter(|(other, _)| other == who)
                    .map(|(_, field)| format!("\n- {field}"))
                    .collect();
                format!("conflicts with {who}:{fields}")
            })
            .collect();
        format!("Apply failed with {} conflicts: {}", conflicts.len(), parts.join("\n"))
    };
    ApiError { details: Some(Box::new(json!({ "causes": causes }))), ..ApiError::new(409, "Conflict", message) }
}

/// Lays the applied value over the live one.
fn merge(field: &str, live: &mut Value, applied: &Value, schema: &Schema) {
    let resolved = schema.resolved();
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) if !schema.atomic && !resolved.atomic => {
            for (name, value) in applied {
                let inner = resolved.field(name).cloned().unwrap_or_else(Schema::anything);
                merge(name, live.entry(name.clone()).or_insert(Value::Null), value, &inner);
            }
        }
        (Value::Array(live), Value::Array(applied)) => {
            let items = resolved.items().cloned().unwrap_or_else(Schema::anything);
            match merging(field, if resolved.list == ListType::Atomic { schema } else { resolved }) {
                ListType::Map(keys) => {
                    for item in applied {
                        let element = fields::key_element(item, &keys);
                        match live.iter_mut().find(|existing| fields::key_element(existing, &keys) == element) {
                            Some(existing) => merge("", existing, item, &items),
                            None => live.push(item.clone()),
                        }
                    }
                }
                ListType::Set => {
                    for item in applied {
                        if !live.contains(item) {
                            live.push(item.clone());
                        }
                    }
                }
                ListType::Atomic | ListType::Builtin => live.clone_from(applied),
            }
        }
        (live, applied) => live.clone_from(applied),
    }
}

/// Removes what the manager owned before, wants no more, and nobody else owns.
fn remove_given_up(field: &str, value: &mut Value, before: &Set, wanted: &Set, others: &Set, schema: &Schema) {
    let present: Vec<(String, Schema)> = children(field, value, schema)
        .unwrap_or_default()
        .into_iter()
        .map(|child| (child.element, child.schema))
        .collect();
    // From the back, so that positions in a list stay true.
    for (at, (element, inner_schema)) in present.iter().enumerate().rev() {
        let Some(Value::Object(mine)) = before.get(element) else { continue };
        let still = wanted.get(element).and_then(Value::as_object);
        let theirs = others.get(element).and_then(Value::as_object);
        if still.is_none() && theirs.is_none() {
            match value {
                Value::Object(map) => {
                    map.remove(field_name(element));
                }
                Value::Array(list) => {
                    list.remove(at);
                }
                _ => {}
            }
            continue;
        }
        let child = match value {
            Value::Object(map) => map.get_mut(field_name(element)),
            Value::Array(list) => list.get_mut(at),
            _ => None,
        };
        let empty = Set::new();
        if let Some(child) = child
            && !mine.is_empty()
        {
            remove_given_up(
                field_name(element),
                child,
                mine,
                still.unwrap_or(&empty),
                theirs.unwrap_or(&empty),
                inner_schema,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::builtin::schemas;

    fn who(manager: &str, force: bool) -> Applier<'_> {
        Applier { manager, subresource: "", api_version: "apps/v1", now: "2026-01-01T00:00:00Z", force }
    }

    fn run(live: &Value, applied: &Value, manager: &str, force: bool) -> Result<Value, ApiError> {
        apply(live, applied, &schemas()["io.k8s.api.apps.v1.Deployment"], who(manager, force))
    }

    fn deployment(containers: &Value) -> Value {
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d" },
            "spec": { "template": { "spec": { "containers": containers } } } })
    }

    #[test]
    fn what_is_no_longer_said_goes() {
        let one = run(
            &Value::Null,
            &deployment(&json!([{ "name": "a", "image": "1" }, { "name": "b", "image": "2" }])),
            "m",
            false,
        )
        .unwrap();
        let two = run(&one, &deployment(&json!([{ "name": "a", "image": "3" }])), "m", false).unwrap();
        assert_eq!(two["spec"]["template"]["spec"]["containers"], json!([{ "name": "a", "image": "3" }]));
        assert_eq!(two["metadata"]["managedFields"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn others_fields_conflict_unless_forced() {
        let one = run(&Value::Null, &deployment(&json!([{ "name": "a", "image": "1" }])), "first", false).unwrap();
        let same = run(&one, &deployment(&json!([{ "name": "a", "image": "1" }])), "second", false).unwrap();
        assert_eq!(same["metadata"]["managedFields"].as_array().unwrap().len(), 2, "shared");
        let error = run(&one, &deployment(&json!([{ "name": "a", "image": "2" }])), "second", false).unwrap_err();
        assert_eq!(
            error.message,
            "Apply failed with 1 conflict: conflict with \"first\": .spec.template.spec.containers[name=\"a\"].image"
        );
        assert_eq!(error.code, 409);
        let forced = run(&one, &deployment(&json!([{ "name": "a", "image": "2" }])), "second", true).unwrap();
        assert_eq!(forced["spec"]["template"]["spec"]["containers"][0]["image"], "2");
        // The first gave up the image: applying without it changes nothing.
        let after = run(&forced, &deployment(&json!([{ "name": "a" }])), "first", false).unwrap();
        assert_eq!(after["spec"]["template"]["spec"]["containers"][0]["image"], "2");
    }

    #[test]
    fn an_update_takes_ownership() {
        let schema = &schemas()["io.k8s.api.apps.v1.Deployment"];
        let mut applied = deployment(&json!([{ "name": "a", "image": "1" }]));
        applied["spec"]["replicas"] = json!(1);
        let one = run(&Value::Null, &applied, "kubectl", false).unwrap();
        let mut two = one.clone();
        two["spec"]["replicas"] = json!(5);
        note_update(&one, &mut two, schema, who("autoscaler", false));
        let error = run(&two, &applied, "kubectl", false).unwrap_err();
        assert!(error.message.contains("\"autoscaler\" using apps/v1"), "{error}");
        assert!(error.message.ends_with(": .spec.replicas"), "{error}");
        applied["spec"].as_object_mut().unwrap().remove("replicas");
        let three = run(&two, &applied, "kubectl", false).unwrap();
        assert_eq!(three["spec"]["replicas"], 5, "owned by the autoscaler");
    }

    #[test]
    fn objects_without_records_belong_to_before_first_apply() {
        let live = deployment(&json!([{ "name": "a", "image": "1" }]));
        let error = run(&live, &deployment(&json!([{ "name": "a", "image": "2" }])), "m", false).unwrap_err();
        assert!(error.message.contains("before-first-apply"), "{error}");
    }
}
