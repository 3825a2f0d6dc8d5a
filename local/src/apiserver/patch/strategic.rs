//! Strategic merge patch: a merge patch that also merges the lists whose items have a key, with directives.
//!
//! Only for built-in kinds; which lists merge is in [`super::merge_keys`]. Directives: `$patch: delete|replace|merge`,
//! `$deleteFromPrimitiveList/FIELD`, `$setElementOrder/FIELD`, `$retainKeys`.
use serde_json::{Map, Value};

use super::merge_keys::{is_set, keys_of};
use crate::apiserver::schema::Schema;

const DIRECTIVE: &str = "$patch";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_PRIMITIVE: &str = "$deleteFromPrimitiveList/";
const RETAIN: &str = "$retainKeys";

/// Merges the patch into the object.
pub(crate) fn apply(object: &mut Value, patch: &Value, schema: &Schema) {
    let Value::Object(patch) = patch else {
        object.clone_from(patch);
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Some(map) = object.as_object_mut() else { return };
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        Some("replace") => {
            *map = patch.iter().filter(|(name, _)| *name != DIRECTIVE).map(|(k, v)| (k.clone(), v.clone())).collect();
            return;
        }
        Some("delete") => {
            map.clear();
            return;
        }
        _ => {}
    }
    if let Some(keep) = patch.get(RETAIN).and_then(Value::as_array) {
        map.retain(|name, _| keep.iter().any(|kept| kept == name));
    }
    for (name, value) in patch {
        if name == DIRECTIVE || name == RETAIN || name.starts_with(SET_ORDER) {
            continue;
        }
        if let Some(field) = name.strip_prefix(DELETE_PRIMITIVE) {
            if let (Some(Value::Array(list)), Value::Array(gone)) = (map.get_mut(field), value) {
                list.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if value.is_null() {
            map.remove(name);
            continue;
        }
        let field = schema.field(name);
        let order = patch.get(&format!("{SET_ORDER}{name}")).and_then(Value::as_array);
        match (value, field.and_then(Schema::items)) {
            (Value::Array(items), Some(item_schema)) => {
                if let Some(keys) = keys_of(name, item_schema, true) {
                    let mut list = take_list(map, name);
                    merge_list(&mut list, items, keys[0], item_schema);
                    if let Some(order) = order {
                        reorder(&mut list, order, Some(keys[0]));
                    }
                    map.insert(name.clone(), list.into());
                } else if is_set(name) {
                    let mut list = take_list(map, name);
                    for item in items {
                        if !list.contains(item) {
                            list.push(item.clone());
                        }
                    }
                    if let Some(order) = order {
                        reorder(&mut list, order, None);
                    }
                    map.insert(name.clone(), list.into());
                } else {
                    map.insert(name.clone(), value.clone());
                }
            }
            (Value::Object(_), _) => {
                let inner = field.cloned().unwrap_or_else(Schema::anything);
                apply(map.entry(name.clone()).or_insert(Value::Null), value, &inner);
            }
            _ => {
                map.insert(name.clone(), value.clone());
            }
        }
    }
    // An order without a list still orders what is there.
    for (name, order) in patch {
        let Some(field) = name.strip_prefix(SET_ORDER).filter(|field| !patch.contains_key(*field)) else { continue };
        let key = schema.field(field).and_then(Schema::items).and_then(|items| keys_of(field, items, true));
        if let (Some(Value::Array(list)), Some(order), Some(keys)) = (map.get_mut(field), order.as_array(), key) {
            reorder(list, order, Some(keys[0]));
        }
    }
}

/// Takes a list out of the map (empty if there is none), so that it can be changed and put back.
fn take_list(map: &mut Map<String, Value>, name: &str) -> Vec<Value> {
    match map.remove(name) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn merge_list(list: &mut Vec<Value>, patch: &[Value], key: &str, schema: &Schema) {
    if patch.iter().any(|item| item[DIRECTIVE] == "replace") {
        *list = patch.iter().filter(|item| item[DIRECTIVE] != "replace").cloned().collect();
        return;
    }
    let before: Vec<Value> = list.iter().map(|item| item[key].clone()).collect();
    for item in patch {
        let at = list.iter().position(|existing| !existing[key].is_null() && existing[key] == item[key]);
        match (item[DIRECTIVE].as_str(), at) {
            (Some("delete"), Some(_)) => list.retain(|existing| existing[key] != item[key]),
            (Some("delete"), None) => {}
            (_, Some(at)) => apply(&mut list[at], item, schema),
            (_, None) => {
                let mut fresh = Value::Object(Map::new());
                apply(&mut fresh, item, schema);
                list.push(fresh);
            }
        }
    }
    interleave(list, patch, key, &before);
}

/// The order of a merged list: the items of the patch as the patch has them, the others as they were, and of two that
/// come next the one that stood earlier before. New ones stand before what follows them in no patch.
fn interleave(list: &mut Vec<Value>, patch: &[Value], key: &str, before: &[Value]) {
    let in_patch = |item: &Value| patch.iter().position(|other| other[key] == item[key]);
    let (mut named, others): (Vec<Value>, Vec<Value>) =
        std::mem::take(list).into_iter().partition(|item| in_patch(item).is_some());
    named.sort_by_key(in_patch);
    let stood = |item: &Value| before.iter().position(|other| *other == item[key]);
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (named.peek(), others.peek()) {
            (None, None) => return,
            (Some(named), Some(other)) => stood(named).is_some_and(|at| stood(other) < Some(at)),
            (named, _) => named.is_none(),
        };
        list.extend(if other_first { others.next() } else { named.next() });
    }
}

/// Sorts by the order given; items it does not name keep their place after their predecessor.
fn reorder(list: &mut Vec<Value>, order: &[Value], key: Option<&str>) {
    let same = |entry: &Value, item: &Value| match key {
        Some(key) => !item[key].is_null() && entry[key] == item[key],
        None => entry == item,
    };
    let rank = |item: &Value| order.iter().position(|entry| same(entry, item));
    let mut last = 0;
    let mut ranked: Vec<(usize, Value)> = std::mem::take(list)
        .into_iter()
        .map(|item| {
            last = rank(&item).unwrap_or(last);
            (last, item)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    list.extend(ranked.into_iter().map(|(_, item)| item));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::builtin::schemas;
    use serde_json::json;

    fn check(kind: &str, object: Value, patch: &Value, want: &Value) {
        let mut object = object;
        apply(&mut object, patch, &schemas()[kind]);
        assert_eq!(&object, want, "{patch}");
    }

    #[test]
    fn containers_merge_by_name() {
        let pod = json!({ "spec": { "containers": [
            { "name": "a", "image": "a:1", "env": [{ "name": "X", "value": "1" }], "args": ["1"] }, { "name": "b", "image": "b:1" }] } });
        check(
            "io.k8s.api.core.v1.Pod",
            pod,
            &json!({ "spec": { "containers": [{ "name": "a", "image": "a:2", "env": [{ "name": "Y", "value": "2" }], "args": ["2"] }] } }),
            &json!({ "spec": { "containers": [
                { "name": "a", "image": "a:2", "env": [{ "name": "Y", "value": "2" }, { "name": "X", "value": "1" }], "args": ["2"] },
                { "name": "b", "image": "b:1" }] } }),
        );
    }

    #[test]
    fn directives() {
        let object = || json!({ "metadata": { "labels": { "a": "1" }, "finalizers": ["x", "y"] }, "spec": { "containers": [{ "name": "a" }, { "name": "b" }] } });
        let with = |containers: Value| {
            let mut want = object();
            want["spec"]["containers"] = containers;
            want
        };
        let pod = "io.k8s.api.core.v1.Pod";
        let cases = [
            (
                json!({ "spec": { "containers": [{ "name": "a", "$patch": "delete" }] } }),
                with(json!([{ "name": "b" }])),
            ),
            (
                json!({ "spec": { "containers": [{ "$patch": "replace" }, { "name": "c" }] } }),
                with(json!([{ "name": "c" }])),
            ),
            (
                json!({ "spec": { "$setElementOrder/containers": [{ "name": "c" }, { "name": "b" }, { "name": "a" }], "containers": [{ "name": "c" }] } }),
                with(json!([{ "name": "c" }, { "name": "b" }, { "name": "a" }])),
            ),
        ];
        for (patch, want) in cases {
            check(pod, object(), &patch, &want);
        }
        let mut want = object();
        want["metadata"]["finalizers"] = json!(["y", "z"]);
        let patch = json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["x"], "finalizers": ["z"] } });
        check(pod, object(), &patch, &want);
    }

    #[test]
    fn ports_have_different_keys_in_services_and_containers() {
        check(
            "io.k8s.api.core.v1.Service",
            json!({ "spec": { "ports": [{ "port": 80, "targetPort": 1 }] } }),
            &json!({ "spec": { "ports": [{ "port": 80, "targetPort": 2 }, { "port": 81 }] } }),
            &json!({ "spec": { "ports": [{ "port": 80, "targetPort": 2 }, { "port": 81 }] } }),
        );
    }

    #[test]
    fn conditions_merge_by_type() {
        check(
            "io.k8s.api.core.v1.Pod",
            json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }, { "type": "Initialized", "status": "True" }] } }),
            &json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }),
            &json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }, { "type": "Initialized", "status": "True" }] } }),
        );
    }
}
