//! Which names, labels and annotations are allowed; messages as the real server's.
//!
//! Pure.
use serde_json::Value;

use super::errors::Cause;
use super::registry::Resource;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
    must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
    end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
    must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
    validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const KEY_NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
    alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
/// Finalizers that need no domain before their name.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
/// All annotations of an object together.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// What is wrong with an object's metadata.
pub(crate) fn check(resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let labels_only = resource.is("", "namespaces") || resource.is("", "services");
    if labels_only && (name.len() > 63 || !is_label(name)) {
        causes.push(Cause::invalid("metadata.name", &format!("{name:?}"), LABEL));
    } else if name.len() > 253 || !is_subdomain(name) {
        causes.push(Cause::invalid("metadata.name", &format!("{name:?}"), SUBDOMAIN));
    }
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        if !is_label_value(value) {
            causes.push(Cause::invalid("metadata.labels", &format!("{value:?}"), LABEL_VALUE));
        }
        if !is_key(key) {
            causes.push(Cause::invalid("metadata.labels", &format!("{key:?}"), KEY_NAME));
        }
    }
    for (nth, finalizer) in metadata["finalizers"].as_array().into_iter().flatten().enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        if resource.custom {
            // Any name will do, with a domain before it or without.
            if !is_key(name) {
                causes.push(Cause::invalid("metadata.finalizers", &format!("{name:?}"), KEY_NAME));
            }
        } else if !(is_key(name) && (name.contains('/') || STANDARD_FINALIZERS.contains(&name))) {
            let field = format!("metadata.finalizers[{nth}]");
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            causes.push(Cause::invalid(field, &format!("{name:?}"), why));
        }
    }
    causes.extend(owners(&metadata["ownerReferences"]));
    let annotations = metadata["annotations"].as_object();
    let bytes: usize =
        annotations.into_iter().flatten().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if bytes > MAX_ANNOTATIONS {
        causes.push(Cause {
            reason: "FieldValueTooLong",
            field: "metadata.annotations".to_owned(),
            message: format!("Too long: may not be more than {MAX_ANNOTATIONS} bytes"),
        });
    }
    causes
}

/// Finalizers added to those of an object that is on its way out: nobody would be there to take them off.
pub(crate) fn late_finalizers(old: &Value, new: &Value) -> Option<Cause> {
    if !old["metadata"]["deletionTimestamp"].is_string() {
        return None;
    }
    let of = |object: &Value| object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let (had, has) = (of(old), of(new));
    let late: Vec<String> = has.iter().filter(|one| !had.contains(one)).map(Value::to_string).collect();
    (!late.is_empty()).then(|| Cause {
        reason: "FieldValueForbidden",
        field: "metadata.finalizers".to_owned(),
        message: format!(
            "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            late.join(", ")
        ),
    })
}

/// What is wrong with references to owners.
fn owners(references: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut controllers: Vec<&str> = Vec::new();
    for reference in references.as_array().into_iter().flatten() {
        for (field, what) in [("apiVersion", "version "), ("kind", ""), ("name", ""), ("uid", "")] {
            if reference[field].as_str().is_none_or(str::is_empty) {
                let field = format!("metadata.ownerReferences.{field}");
                causes.push(Cause::invalid(field, "\"\"", &format!("{what}must not be empty")));
            }
        }
        if reference["controller"] == true {
            controllers.push(reference["name"].as_str().unwrap_or_default());
        }
    }
    if let [first, second, ..] = controllers[..] {
        let why = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
        );
        causes.push(Cause::invalid("metadata.ownerReferences", &references.to_string(), &why));
    }
    causes
}

fn is_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let edge = |c: Option<&u8>| c.is_some_and(|c| *c != b'-');
    text.bytes().all(inner) && edge(text.as_bytes().first()) && edge(text.as_bytes().last())
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

pub(crate) fn is_label_value(text: &str) -> bool {
    let edge = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    text.is_empty()
        || (text.len() <= 63
            && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
            && edge(text.as_bytes().first())
            && edge(text.as_bytes().last()))
}

fn is_key(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(is_subdomain) && !name.is_empty() && is_label_value(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, label, subdomain) in [
            ("a", true, true),
            ("a-b", true, true),
            ("a.b", false, true),
            ("A", false, false),
            ("-a", false, false),
            ("", false, false),
            ("a..b", false, false),
        ] {
            assert_eq!((is_label(name), is_subdomain(name)), (label, subdomain), "{name}");
        }
        for (key, ok) in [("app", true), ("serving.knative.dev/service", true), ("/x", false), ("a/b/c", false)] {
            assert_eq!(is_key(key), ok, "{key}");
        }
    }
}
