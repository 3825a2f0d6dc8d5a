//! From v1alpha1 to v1. Every problem is told at once, by the path at which the user wrote it.

use serde_json::{Map, Value, json};

use super::{Form, Mode, STORED};
use crate::admission::{field_error::Errors, json::text};

type Object = Map<String, Value>;

/// Members of a Configuration's spec.
const CONFIGURATION: [&str; 4] = ["generation", "build", "revisionTemplate", "template"];
/// The newest Revision, in a list of names.
pub(super) const LATEST: &str = "@latest";

/// The whole object.
pub(super) fn object(mut object: Value) -> Result<Value, Errors> {
    let kind = text(&object, "kind").to_owned();
    let (mut form, mut errors) = (Form::default(), Errors::none());
    let spec = object.get_mut("spec").map(Value::take).unwrap_or_default();
    let spec = into_object(spec);
    let spec = match kind.as_str() {
        "Service" => service(spec, &mut form, &mut errors),
        "Configuration" => configuration(spec, &mut form, &mut errors),
        "Route" => route(spec, &mut form, &mut errors),
        "Revision" => revision(spec, &mut form, &mut errors),
        _ => spec,
    };
    if !errors.is_empty() {
        return Err(errors.via("spec"));
    }
    object["apiVersion"] = STORED.into();
    object["spec"] = Value::Object(spec);
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        status_of(status);
    }
    form.note(&mut object);
    Ok(object)
}

/// What is no object says nothing; the schema has refused it.
fn into_object(value: Value) -> Object {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn take(map: &mut Object, key: &str) -> Option<Value> {
    map.remove(key).filter(|value| !value.is_null())
}

/// A field that nobody knows is a slip that would otherwise be lost without a word.
fn unknown(map: &Object, known: &[&str]) -> Errors {
    let strangers = map.keys().filter(|key| !known.contains(&key.as_str()));
    strangers.map(|key| Errors::new("unknown field(s)", &[key])).collect()
}

fn service(mut spec: Object, form: &mut Form, errors: &mut Errors) -> Object {
    let members: Vec<(Mode, Value)> =
        Mode::ALL.into_iter().filter_map(|mode| Some((mode, take(&mut spec, mode.word())?))).collect();
    let plain: Vec<&str> =
        CONFIGURATION.iter().skip(1).chain(&["traffic"]).copied().filter(|key| spec.contains_key(*key)).collect();
    let mut said: Vec<&str> = members.iter().map(|(mode, _)| mode.word()).collect();
    if !said.is_empty() {
        said.extend(&plain);
    }
    if said.len() > 1 {
        errors.add(Errors::multiple_one_of(&said));
        return spec;
    }
    let Some((mode, member)) = members.into_iter().next() else {
        if plain.is_empty() {
            errors.add(Errors::missing_one_of(&["runLatest", "release", "pinned", "manual", "template"]));
            return spec;
        }
        let traffic = take(&mut spec, "traffic");
        let mut whole = configuration(spec, form, errors);
        if let Some(mut traffic) = traffic {
            targets(&mut traffic, form, errors);
            whole.insert("traffic".to_owned(), traffic);
        }
        return whole;
    };
    spec.remove("generation");
    errors.add(unknown(&spec, &[]));
    form.mode = Some(mode);
    let mut own = Errors::none();
    let whole = by_mode(mode, into_object(member), form, &mut own);
    errors.add(own.via(mode.word()));
    whole
}

fn by_mode(mode: Mode, mut member: Object, form: &mut Form, errors: &mut Errors) -> Object {
    if mode == Mode::Manual {
        errors.add(unknown(&member, &[]));
        // The schema wants the list; the form says that it is meant.
        return into_object(json!({ "template": { "spec": { "containers": [] } } }));
    }
    let wanted = into_object(take(&mut member, "configuration").unwrap_or_default());
    let mut own = Errors::none();
    let mut spec = configuration(wanted, form, &mut own);
    errors.add(own.via("configuration"));
    let traffic = match mode {
        Mode::Pinned => {
            let name = take(&mut member, "revisionName").unwrap_or_default();
            if name.as_str().unwrap_or_default().is_empty() {
                errors.add(Errors::missing(&["revisionName"]));
            }
            json!([target(&name, 100)])
        }
        Mode::Release => release(&mut member, errors),
        Mode::RunLatest | Mode::Manual => json!([target(&LATEST.into(), 100)]),
    };
    errors.add(unknown(&member, &[]));
    spec.insert("traffic".to_owned(), traffic);
    spec
}

/// A part of the traffic that goes to a Revision by name, or to the newest.
fn target(name: &Value, percent: i64) -> Value {
    match name.as_str() {
        Some(LATEST) => json!({ "latestRevision": true, "percent": percent }),
        _ => json!({ "revisionName": name, "latestRevision": false, "percent": percent }),
    }
}

fn release(member: &mut Object, errors: &mut Errors) -> Value {
    let names = take(member, "revisions").unwrap_or_default();
    let names = names.as_array().map(Vec::as_slice).unwrap_or_default();
    let percent = take(member, "rolloutPercent").and_then(|v| v.as_i64()).unwrap_or_default();
    if names.is_empty() {
        errors.add(Errors::missing(&["revisions"]));
    }
    if names.len() > 2 {
        errors.add(Errors::out_of_bounds(names.len(), 1, 2, "revisions"));
    }
    if names.len() < 2 && percent != 0 {
        errors.add(Errors::new("may not set rolloutPercent for a single revision", &["rolloutPercent"]));
    }
    if !(0..=99).contains(&percent) {
        errors.add(Errors::out_of_bounds(percent, 0, 99, "rolloutPercent"));
    }
    let mut traffic: Vec<Value> = Vec::new();
    let parts = [("current", 100_i64.saturating_sub(percent)), ("candidate", percent)];
    for ((tag, percent), name) in parts.into_iter().zip(names) {
        let mut target = target(name, percent);
        target["tag"] = tag.into();
        traffic.push(target);
    }
    traffic.push(json!({ "latestRevision": true, "percent": 0, "tag": "latest" }));
    Value::Array(traffic)
}

fn configuration(mut spec: Object, form: &mut Form, errors: &mut Errors) -> Object {
    errors.add(unknown(&spec, &CONFIGURATION));
    if spec.get("build").is_some_and(|build| !build.is_null()) {
        errors.add(Errors::with_details(
            "build cannot be migrated forward",
            &["build"],
            "build the image first, and name it in the container",
        ));
    }
    let (old, new) = (take(&mut spec, "revisionTemplate"), take(&mut spec, "template"));
    form.revision_template = old.is_some();
    let (field, template) = match (old, new) {
        (Some(_), Some(_)) => {
            errors.add(Errors::multiple_one_of(&["revisionTemplate", "template"]));
            return Map::new();
        }
        (Some(template), None) => ("revisionTemplate", template),
        (None, Some(template)) => ("template", template),
        (None, None) => {
            errors.add(Errors::missing_one_of(&["revisionTemplate", "template"]));
            return Map::new();
        }
    };
    let mut template = into_object(template);
    let mut own = unknown(&template, &["metadata", "spec"]);
    let spec = into_object(take(&mut template, "spec").unwrap_or_default());
    let mut about_spec = Errors::none();
    template.insert("spec".to_owned(), Value::Object(revision(spec, form, &mut about_spec)));
    own.add(about_spec.via("spec"));
    errors.add(own.via(field));
    let mut whole = Map::new();
    whole.insert("template".to_owned(), Value::Object(template));
    whole
}

fn revision(mut spec: Object, form: &mut Form, errors: &mut Errors) -> Object {
    spec.remove("generation");
    if let Some(state) = take(&mut spec, "servingState")
        && !["", "Active", "Reserve", "Retired"].contains(&state.as_str().unwrap_or("?"))
    {
        errors.add(Errors::invalid(plain(&state), "servingState"));
    }
    for field in ["buildName", "buildRef"] {
        if take(&mut spec, field).is_some_and(|value| value != "") {
            errors.add(Errors::new("build cannot be migrated forward", &[field]));
        }
    }
    concurrency(&mut spec, form, errors);
    let several = spec.get("containers").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    match take(&mut spec, "container") {
        Some(_) if several => errors.add(Errors::multiple_one_of(&["container", "containers"])),
        Some(container) => {
            form.container = true;
            spec.insert("containers".to_owned(), json!([container]));
        }
        None if !several => errors.add(Errors::missing_one_of(&["container", "containers"])),
        None => {}
    }
    spec
}

/// `Single` is one request at a time, `Multi` is any number.
fn concurrency(spec: &mut Object, form: &mut Form, errors: &mut Errors) {
    const BOTH: [&str; 2] = ["concurrencyModel", "containerConcurrency"];
    let Some(model) = take(spec, BOTH[0]).filter(|model| model != "") else { return };
    let number = spec.get(BOTH[1]).and_then(Value::as_i64);
    let limit = match (model.as_str(), number) {
        (Some("Single"), None | Some(0 | 1)) => 1,
        (Some("Multi"), None) => 0,
        (Some("Multi"), Some(number)) if number != 1 => number,
        (Some("Single" | "Multi"), _) => return errors.add(Errors::multiple_one_of(&BOTH)),
        _ => return errors.add(Errors::invalid(plain(&model), BOTH[0])),
    };
    // Other limits are said by the number alone.
    form.concurrency_model = matches!(limit, 0 | 1);
    spec.insert(BOTH[1].to_owned(), limit.into());
}

/// A text without quotes, as upstream prints values.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn route(mut spec: Object, form: &mut Form, errors: &mut Errors) -> Object {
    spec.remove("generation");
    errors.add(unknown(&spec, &["traffic"]));
    if let Some(traffic) = spec.get_mut("traffic") {
        targets(traffic, form, errors);
    }
    spec
}

fn targets(traffic: &mut Value, form: &mut Form, errors: &mut Errors) {
    const KNOWN: [&str; 7] = ["name", "tag", "revisionName", "configurationName", "latestRevision", "percent", "url"];
    for (i, target) in traffic.as_array_mut().into_iter().flatten().enumerate() {
        let Some(target) = target.as_object_mut() else { continue };
        let mut own = unknown(target, &KNOWN);
        if let Some(name) = take(target, "name").filter(|name| name != "") {
            let tag = target.get("tag").and_then(Value::as_str).unwrap_or_default();
            if !tag.is_empty() && name != tag {
                own.add(Errors::multiple_one_of(&["name", "tag"]));
            }
            form.name = true;
            target.insert("tag".to_owned(), name);
        }
        errors.add(own.via_index(i).via("traffic"));
    }
}

/// What only the older version shows goes.
fn status_of(status: &mut Object) {
    for shown in ["domain", "domainInternal"] {
        status.remove(shown);
    }
    if let Some(address) = status.get_mut("address").and_then(Value::as_object_mut) {
        address.remove("hostname");
    }
    for target in status.get_mut("traffic").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(target) = target.as_object_mut() else { continue };
        if let Some(name) = target.remove("name") {
            target.entry("tag").or_insert(name);
        }
    }
}
