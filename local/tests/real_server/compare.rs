//! Two records of the same calls → where they differ. Pure.
use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::script::Answer;

/// A place where the servers do not agree.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) call: String,
    /// `status`, or a path into the answer: `.spec.replicas`, `.items[0].kind`.
    pub(crate) place: String,
    pub(crate) theirs: String,
    pub(crate) ours: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}\n    real: {}\n    ours: {}", self.call, self.place, self.theirs, self.ours)
    }
}

/// All differences, call by call.
pub(crate) fn records(theirs: &[Answer], ours: &[Answer]) -> Vec<Difference> {
    assert_eq!(theirs.len(), ours.len(), "the script took another way");
    let mut found = Vec::new();
    for (theirs, ours) in theirs.iter().zip(ours) {
        assert_eq!(theirs.call, ours.call);
        let mut at = |place: &str, theirs: String, ours_is: String| {
            found.push(Difference { call: ours.call.clone(), place: place.to_owned(), theirs, ours: ours_is });
        };
        if theirs.status != ours.status {
            at("status", theirs.status.to_string(), ours.status.to_string());
        }
        values("", &settled(&theirs.body), &settled(&ours.body), &mut at);
    }
    found
}

fn values(place: &str, theirs: &Value, ours: &Value, at: &mut impl FnMut(&str, String, String)) {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let place = format!("{place}.{key}");
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => values(&place, a, b, at),
                    (a, b) => at(&place, text(a), text(b)),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (nth, (a, b)) in a.iter().zip(b).enumerate() {
                values(&format!("{place}[{nth}]"), a, b, at);
            }
        }
        (a, b) if a == b => {}
        (a, b) => at(place, text(Some(a)), text(Some(b))),
    }
}

fn text(value: Option<&Value>) -> String {
    let text = value.map_or("(absent)".to_owned(), Value::to_string);
    if text.len() > 400 { format!("{}…", text.chars().take(400).collect::<String>()) } else { text }
}

/// A table's cell, with a word in place of an age.
fn without_age(cell: &Value) -> Value {
    let seconds = cell.as_str().and_then(|text| text.strip_suffix('s'));
    if seconds.is_some_and(|number| number.parse::<u32>().is_ok()) { "<age>".into() } else { cell.clone() }
}

/// A text with a word in place of each uid in it.
fn without_uids(text: &str) -> String {
    const SHAPE: &[u8] = b"00000000-0000-0000-0000-000000000000";
    let is_uid = |bytes: &[u8]| {
        let fits = |(byte, shape): (&u8, &u8)| if *shape == b'-' { *byte == b'-' } else { byte.is_ascii_hexdigit() };
        bytes.len() == SHAPE.len() && bytes.iter().zip(SHAPE).all(fits)
    };
    let mut text = text.to_owned();
    let found = |text: &str| text.as_bytes().windows(SHAPE.len()).position(is_uid);
    while let Some(at) = found(&text) {
        text.replace_range(at..at + SHAPE.len(), "<uid>");
    }
    text
}

/// What no two servers can have in common, by a word each.
fn settled(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| {
                let settled = match (key.as_str(), value) {
                    ("uid" | "resourceVersion", Value::String(text)) if !text.is_empty() => format!("<{key}>").into(),
                    ("creationTimestamp" | "deletionTimestamp" | "time" | "lastTransitionTime", Value::String(_)) => {
                        "<time>".into()
                    }
                    // A set, which the real server writes in the order of its own map.
                    ("managedFields", Value::Array(managers)) => {
                        let mut managers: Vec<Value> = managers.iter().map(settled).collect();
                        managers
                            .sort_by_key(|one| format!("{}{}{}", one["manager"], one["operation"], one["subresource"]));
                        managers.into()
                    }
                    ("cells", Value::Array(cells)) => cells.iter().map(without_age).collect(),
                    // Sets as well.
                    ("resources", Value::Array(resources)) => {
                        let mut resources: Vec<Value> = resources.iter().map(settled).collect();
                        resources.sort_by_key(|one| one["name"].to_string());
                        resources.into()
                    }
                    ("verbs", Value::Array(verbs)) => {
                        let mut verbs = verbs.clone();
                        verbs.sort_by_key(Value::to_string);
                        verbs.into()
                    }
                    _ => settled(value),
                };
                (key.clone(), settled)
            })
            .collect(),
        Value::Array(items) => items.iter().map(settled).collect(),
        Value::String(text) => without_uids(text).into(),
        other => other.clone(),
    }
}
