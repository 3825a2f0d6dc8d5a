//! `-f FILE|DIR`: reads manifests and applies them, as `kubectl apply` would.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    discovery::{self, Scope},
};
use serde_json::Value;

/// Who owns the fields that `up` applies.
pub const FIELD_MANAGER: &str = "dormouse-up";

/// One object with where it came from.
#[derive(Debug)]
pub struct Manifest {
    /// `FILE` or `FILE, document N`.
    pub origin: String,
    /// The object.
    pub object: DynamicObject,
}

/// Reads every object of the given files and folders, before anything is applied: one bad file applies nothing.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for path in paths {
        for file in files(path)? {
            let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            manifests.extend(parse(&file.display().to_string(), &text)?);
        }
    }
    Ok(manifests)
}

/// The file itself, or the manifests in the folder in order of name.
fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).with_context(|| format!("cannot read folder {}", path.display()))?;
    let mut found: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    found.retain(|p| p.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known)));
    found.sort();
    if found.is_empty() {
        bail!("{}: no .yaml, .yml or .json file in this folder", path.display());
    }
    Ok(found)
}

fn parse(file: &str, text: &str) -> anyhow::Result<Vec<Manifest>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).with_context(|| format!("{file}: not valid YAML"))?;
    let mut manifests = Vec::new();
    for (i, document) in documents.into_iter().enumerate() {
        let origin = if i == 0 { file.to_owned() } else { format!("{file}, document {}", i + 1) };
        let items = match document {
            Value::Null => continue,
            Value::Object(mut list) if list.get("kind").and_then(Value::as_str) == Some("List") => {
                match list.remove("items") {
                    Some(Value::Array(items)) => items,
                    _ => bail!("{origin}: a List without items"),
                }
            }
            other => vec![other],
        };
        for item in items {
            let object: DynamicObject = serde_json::from_value(item)
                .with_context(|| format!("{origin}: not a Kubernetes object (apiVersion, kind and metadata)"))?;
            if object.types.is_none() || object.metadata.name.is_none() {
                bail!("{origin}: want apiVersion, kind and metadata.name");
            }
            manifests.push(Manifest { origin: origin.clone(), object });
        }
    }
    Ok(manifests)
}

/// Applies one object; returns `kind/name` for the screen.
pub async fn apply(client: &Client, manifest: &Manifest) -> anyhow::Result<String> {
    let object = &manifest.object;
    let name = object.name_any();
    let types = object.types.clone().unwrap_or_default();
    let gvk = GroupVersionKind::try_from(&types).with_context(|| format!("{}: bad apiVersion", manifest.origin))?;
    let (resource, capabilities) = discovery::pinned_kind(client, &gvk)
        .await
        .with_context(|| format!("{}: this server has no {} of {}", manifest.origin, types.kind, types.api_version))?;
    let api: Api<DynamicObject> = if capabilities.scope == Scope::Cluster {
        Api::all_with(client.clone(), &resource)
    } else {
        let namespace = object.namespace().unwrap_or_else(|| "default".to_owned());
        Api::namespaced_with(client.clone(), &namespace, &resource)
    };
    let mut params = PatchParams::apply(FIELD_MANAGER).force();
    params.field_validation = Some(kube::api::ValidationDirective::Strict);
    api.patch(&name, &params, &Patch::Apply(object))
        .await
        .with_context(|| format!("{}: cannot apply {} {name}", manifest.origin, types.kind))?;
    Ok(format!("{}/{name}", types.kind.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_documents_and_lists_are_read() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: b}\n";
        let names: Vec<String> = parse("x.yaml", text).unwrap().iter().map(|m| m.object.name_any()).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn errors_name_the_file() {
        for text in ["a: [", "just text", "kind: ConfigMap\nmetadata: {name: a}", "apiVersion: v1\nkind: ConfigMap"] {
            let error = format!("{:#}", parse("bad.yaml", text).unwrap_err());
            assert!(error.contains("bad.yaml"), "{error}");
        }
    }

    #[test]
    fn a_folder_is_read_in_order_and_other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(&[dir.path().to_owned()]).is_err());
        for name in ["b.yaml", "a.yml", "note.txt"] {
            let id = name.split('.').next().unwrap();
            fs::write(dir.path().join(name), format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {id}}}"))
                .unwrap();
        }
        let names: Vec<String> = read(&[dir.path().to_owned()]).unwrap().iter().map(|m| m.object.name_any()).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
