//! The CustomResourceDefinitions as a manifest for a cluster.

use anyhow::Context;
use serde_json::Value;

/// All of them as YAML documents, with a line that says where they come from.
pub fn yaml() -> anyhow::Result<String> {
    let mut text = String::from("# Made of the Rust types by `dormouse crds`; change those.\n");
    for crd in api::crds::all() {
        // Through a value: absent fields are left out, and keys are in order.
        let mut value = serde_json::to_value(&crd).context("cannot write a CustomResourceDefinition")?;
        shorten(&mut value);
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&value).context("cannot write YAML")?);
    }
    Ok(text)
}

/// Takes out what the fields of a pod's fields mean, which is Kubernetes' to say and most of the text.
fn shorten(schema: &mut Value) {
    let is_pod = schema["properties"].get("containers").is_some();
    match schema {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                match value.as_object_mut().filter(|_| is_pod && key == "properties") {
                    Some(fields) => fields.values_mut().for_each(|field| {
                        let meaning = field.get("description").cloned();
                        silence(field);
                        if let (Some(meaning), Some(field)) = (meaning, field.as_object_mut()) {
                            field.insert("description".to_owned(), meaning);
                        }
                    }),
                    None => shorten(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(shorten),
        _ => {}
    }
}

fn silence(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            // A property may have that very name; then it is no text.
            map.retain(|key, value| !(key == "description" && value.is_string()));
            map.values_mut().for_each(silence);
        }
        Value::Array(list) => list.iter_mut().for_each(silence),
        _ => {}
    }
}
