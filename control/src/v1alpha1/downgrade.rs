//! From v1 to v1alpha1: as the user wrote it if that still says the same, else in the words of v1, which v1alpha1
//! knows as well.

use serde_json::{Map, Value, json};

use super::{
    Form, Mode, OLD,
    upgrade::{self, LATEST},
};
use crate::admission::json::{get, same, text};

type Object = Map<String, Value>;

/// The whole object.
pub(super) fn object(object: Value) -> Value {
    let form = Form::of(&object);
    if form != Form::default()
        && let Some(written) = written(object.clone(), form)
        && upgrade::object(written.clone()).is_ok_and(|back| same(&back, &object))
    {
        return shown(written);
    }
    let mut plain = object;
    plain["apiVersion"] = OLD.into();
    Form::default().note(&mut plain);
    shown(plain)
}

/// In this form; none where the object has no place for it.
fn written(mut object: Value, form: Form) -> Option<Value> {
    Form::default().note(&mut object);
    object["apiVersion"] = OLD.into();
    let kind = text(&object, "kind").to_owned();
    let Value::Object(spec) = object.get_mut("spec")?.take() else { return None };
    let spec = match kind.as_str() {
        "Service" => service(spec, form)?,
        "Configuration" => configuration(spec, form)?,
        "Route" => named(spec, form),
        "Revision" => revision(spec, form)?,
        _ => spec,
    };
    object["spec"] = Value::Object(spec);
    Some(object)
}

fn service(mut spec: Object, form: Form) -> Option<Object> {
    let Some(mode) = form.mode else {
        let traffic = spec.remove("traffic");
        let mut whole = configuration(spec, form)?;
        if let Some(traffic) = traffic {
            whole.insert("traffic".to_owned(), traffic);
        }
        return Some(named(whole, form));
    };
    let traffic = spec.remove("traffic").unwrap_or_default();
    let member = match mode {
        Mode::Manual => json!({}),
        Mode::RunLatest => json!({ "configuration": configuration(spec, form)? }),
        Mode::Pinned => json!({
            "revisionName": traffic.get(0)?.get("revisionName")?,
            "configuration": configuration(spec, form)?,
        }),
        Mode::Release => {
            let (names, percent) = released(&traffic)?;
            let mut member = json!({ "revisions": names, "configuration": configuration(spec, form)? });
            if percent != 0 {
                member["rolloutPercent"] = percent.into();
            }
            member
        }
    };
    let mut whole = Map::new();
    whole.insert(mode.word().to_owned(), member);
    Some(whole)
}

/// Names of a release as they were written; none where the traffic is no release.
fn released(traffic: &Value) -> Option<(Vec<&str>, i64)> {
    let (last, parts) = traffic.as_array()?.split_last()?;
    if text(last, "tag") != "latest" {
        return None;
    }
    let name = |part| match text(part, "revisionName") {
        "" => LATEST,
        name => name,
    };
    let percent = parts.get(1).and_then(|candidate| candidate.get("percent")?.as_i64()).unwrap_or_default();
    Some((parts.iter().map(name).collect(), percent))
}

fn configuration(mut spec: Object, form: Form) -> Option<Object> {
    let Some(Value::Object(mut template)) = spec.remove("template") else { return None };
    let Some(Value::Object(inner)) = template.remove("spec") else { return None };
    template.insert("spec".to_owned(), Value::Object(revision(inner, form)?));
    let field = if form.revision_template { "revisionTemplate" } else { "template" };
    spec.insert(field.to_owned(), Value::Object(template));
    Some(spec)
}

fn revision(mut spec: Object, form: Form) -> Option<Object> {
    if form.container {
        let Some(Value::Array(mut containers)) = spec.remove("containers") else { return None };
        let only = containers.pop().filter(|_| containers.is_empty())?;
        spec.insert("container".to_owned(), only);
    }
    if form.concurrency_model {
        let model = match spec.remove("containerConcurrency")?.as_i64()? {
            0 => "Multi",
            1 => "Single",
            _ => return None,
        };
        spec.insert("concurrencyModel".to_owned(), model.into());
    }
    Some(spec)
}

/// Targets by `name`.
fn named(mut spec: Object, form: Form) -> Object {
    for target in spec.get_mut("traffic").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(target) = target.as_object_mut().filter(|_| form.name) else { continue };
        if let Some(tag) = target.remove("tag") {
            target.insert("name".to_owned(), tag);
        }
    }
    spec
}

/// Adds what clients of the time look for in a status: hosts, where v1 has URLs, and names of targets.
fn shown(mut object: Value) -> Value {
    let host = |url: &Value| url.as_str().and_then(|url| Some(url.split_once("://")?.1.to_owned()));
    let Some(status) = object.get("status").filter(|status| status.is_object()) else { return object };
    let (outside, inside) = (host(get(status, &["url"])), host(get(status, &["address", "url"])));
    let status = &mut object["status"];
    if let Some(host) = outside {
        status["domain"] = host.into();
    }
    if let Some(host) = inside {
        status["domainInternal"] = host.clone().into();
        status["address"]["hostname"] = host.into();
    }
    for target in status.get_mut("traffic").and_then(Value::as_array_mut).into_iter().flatten() {
        if !text(target, "tag").is_empty() {
            target["name"] = target["tag"].clone();
        }
    }
    object
}
