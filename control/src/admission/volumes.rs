//! Rules of volumes and their mounts (upstream `k8s_validation.go`).

use std::collections::{BTreeMap, BTreeSet};

use api::settings::{Feature, Features};
use serde_json::Value;

use super::{
    field_error::Errors,
    json::{get, has, list, text},
    mask,
    syntax::dns1123_label,
};

const KINDS: [&str; 9] =
    ["secret", "configMap", "projected", "emptyDir", "persistentVolumeClaim", "hostPath", "csi", "ephemeral", "image"];
const RESERVED_PATHS: [&str; 3] = ["/", "/dev", "/dev/log"];

/// Checks the volumes of a spec; every one must be mounted somewhere.
pub fn validate<'a>(spec: &'a Value, features: &Features) -> (BTreeMap<&'a str, &'a Value>, Errors) {
    let mounted: BTreeSet<&str> = ["initContainers", "containers"]
        .iter()
        .flat_map(|kind| list(spec, kind))
        .flat_map(|container| list(container, "volumeMounts"))
        .map(|mount| text(mount, "name"))
        .collect();
    let mut volumes = BTreeMap::new();
    let mut errors = Errors::none();
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        let name = text(volume, "name");
        if volumes.contains_key(name) {
            errors.add(Errors::new(format!("duplicate volume name {name:?}"), &["name"]).via_index(i));
        }
        if !mounted.contains(name) {
            errors.add(Errors::new(format!("volume with name {name:?} not mounted"), &["name"]).via_index(i));
        }
        errors.add(validate_volume(volume, features).via_index(i));
        volumes.insert(name, volume);
    }
    (volumes, errors.via("volumes"))
}

fn validate_volume(volume: &Value, features: &Features) -> Errors {
    let name = text(volume, "name");
    let mut errors = Errors::none();
    let switched = [
        ("image", "Image", features.volumes_image),
        ("emptyDir", "EmptyDir", features.volumes_empty_dir),
        ("hostPath", "HostPath", features.volumes_host_path),
        ("csi", "CSI", features.volumes_csi),
        ("ephemeral", "Ephemeral", features.volumes_ephemeral),
    ];
    for (kind, word, feature) in switched {
        if has(volume, kind) && feature != Feature::Enabled {
            let message = format!("{word} volume support is disabled, but found {word} volume {name}");
            errors.add(Errors::new(message, &[]));
        }
    }
    let claim = get(volume, &["persistentVolumeClaim"]);
    if !claim.is_null() {
        let of = text(claim, "claimName");
        if features.persistent_volume_claim != Feature::Enabled {
            let message =
                format!("Persistent volume claim support is disabled, but found persistent volume claim {of}");
            errors.add(Errors::new(message, &[]));
        }
        let read_only = get(claim, &["readOnly"]).as_bool().unwrap_or_default();
        if !read_only && features.persistent_volume_write != Feature::Enabled {
            let message = format!(
                "Persistent volume write support is disabled, but found persistent volume claim {of} that is not read-only"
            );
            errors.add(Errors::new(message, &[]));
        }
    }
    errors.add(mask::disallowed(volume, &mask::volume(features)));
    // From here on upstream forgets what it found before when the name is wrong; we tell both.
    if name.is_empty() {
        errors.add(Errors::missing(&["name"]));
    } else if !dns1123_label(name).is_empty() {
        errors.add(Errors::invalid(name, "name"));
    }
    let specified: Vec<&str> = KINDS.into_iter().filter(|kind| has(volume, kind)).collect();
    for kind in ["secret", "configMap"] {
        errors.add(items(get(volume, &[kind])));
    }
    for (i, source) in list(get(volume, &["projected"]), "sources").iter().enumerate() {
        errors.add(projection(source).via_index(i).via("projected"));
    }
    if has(volume, "emptyDir") {
        let medium = text(get(volume, &["emptyDir"]), "medium");
        if !["", "Memory"].contains(&medium) {
            errors.add(Errors::invalid(medium, "medium").via("emptyDir"));
        }
    }
    match specified.as_slice() {
        [] => {
            let possible: Vec<&str> = mask::volume(features).into_iter().filter(|f| *f != "name").collect();
            errors.add(Errors::missing_one_of(&possible));
        }
        [_] => {}
        several => errors.add(Errors::multiple_one_of(several)),
    }
    errors
}

/// Keys and paths of a Secret's or ConfigMap's items.
fn items(source: &Value) -> Errors {
    list(source, "items")
        .iter()
        .enumerate()
        .map(|(i, item)| {
            let missing: Vec<&str> = ["key", "path"].into_iter().filter(|k| text(item, k).is_empty()).collect();
            if missing.is_empty() { Errors::none() } else { Errors::missing(&missing).via_index(i).via("items") }
        })
        .collect()
}

fn projection(source: &Value) -> Errors {
    let kinds = ["secret", "configMap", "serviceAccountToken", "downwardAPI"];
    let specified: Vec<&str> = kinds.into_iter().filter(|kind| has(source, kind)).collect();
    let mut errors = Errors::none();
    for kind in ["secret", "configMap"] {
        if !has(source, kind) {
            continue;
        }
        let inner = get(source, &[kind]);
        if text(inner, "name").is_empty() {
            errors.add(Errors::missing(&["name"]).via(kind));
        }
        errors.add(items(inner).via(kind));
    }
    if has(source, "serviceAccountToken") && text(get(source, &["serviceAccountToken"]), "path").is_empty() {
        errors.add(Errors::missing(&["path"]).via("serviceAccountToken"));
    }
    for (i, item) in list(get(source, &["downwardAPI"]), "items").iter().enumerate() {
        let mut wrong = match (has(item, "fieldRef"), has(item, "resourceFieldRef")) {
            (false, false) => Errors::missing_one_of(&["fieldRef", "resourceFieldRef"]),
            (true, true) => Errors::new("Within a single item, cannot set both", &["resourceFieldRef", "fieldRef"]),
            _ => Errors::none(),
        };
        if text(item, "path").is_empty() {
            wrong.add(Errors::missing(&["path"]));
        }
        errors.add(wrong.via_index(i).via("items").via("downwardAPI"));
    }
    match specified.as_slice() {
        [] => errors.add(Errors::missing_one_of(&kinds)),
        [_] => {}
        several => errors.add(Errors::multiple_one_of(several)),
    }
    errors
}

/// Checks a container's mounts against the spec's volumes.
pub fn validate_mounts(container: &Value, volumes: &BTreeMap<&str, &Value>, features: &Features) -> Errors {
    let mut errors = Errors::none();
    let mut seen = BTreeSet::new();
    for (i, mount) in list(container, "volumeMounts").iter().enumerate() {
        let mut wrong = mask::disallowed(mount, &mask::volume_mount(features));
        let name = text(mount, "name");
        let volume = volumes.get(name).copied();
        if volume.is_none() {
            wrong.add(Errors::new("volumeMount has no matching volume", &["name"]));
        }
        let path = text(mount, "mountPath");
        let clean = clean_path(path);
        if path.is_empty() {
            wrong.add(Errors::missing(&["mountPath"]));
        } else if RESERVED_PATHS.contains(&clean.as_str()) {
            wrong.add(Errors::new(format!("mountPath {clean:?} is a reserved path"), &["mountPath"]));
        } else if !path.starts_with('/') {
            wrong.add(Errors::invalid(path, "mountPath"));
        } else if seen.contains(&clean) {
            wrong.add(Errors::invalid(format!("{path:?} must be unique"), "mountPath"));
        }
        seen.insert(clean);
        let writable = ["emptyDir", "persistentVolumeClaim", "ephemeral"];
        let read_only = get(mount, &["readOnly"]).as_bool().unwrap_or_default();
        if !read_only && !volume.is_some_and(|v| writable.iter().any(|kind| has(v, kind))) {
            wrong.add(Errors::new("volume mount should be readOnly for this type of volume", &["readOnly"]));
        }
        let claim_read_only =
            volume.is_some_and(|v| get(v, &["persistentVolumeClaim", "readOnly"]).as_bool().unwrap_or_default());
        if claim_read_only && !read_only {
            wrong.add(Errors::new("volume is readOnly but volume mount is not", &["readOnly"]));
        }
        errors.add(wrong.via_index(i));
    }
    errors.via("volumeMounts")
}

/// Go's `path.Clean` of what can be an absolute path.
fn clean_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let rooted = if path.starts_with('/') { "/" } else { "" };
    format!("{rooted}{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(spec: &Value) -> String {
        let features = Features::default();
        let (volumes, mut errors) = validate(spec, &features);
        errors.add(validate_mounts(&list(spec, "containers")[0], &volumes, &features));
        errors.to_string()
    }

    #[allow(clippy::needless_pass_by_value)] // reads best with literals
    fn spec(volume: Value, mount: Value) -> Value {
        json!({"volumes": [volume], "containers": [{"volumeMounts": [mount]}]})
    }

    #[test]
    fn volumes_are_judged_in_upstreams_words() {
        let secret = || json!({"name": "v", "secret": {"secretName": "s"}});
        let mount = |path: &str| json!({"name": "v", "mountPath": path, "readOnly": true});
        let cases = [
            (spec(secret(), mount("/x")), ""),
            (spec(secret(), mount("/dev/../dev")), "mountPath \"/dev\" is a reserved path: volumeMounts[0].mountPath"),
            (spec(secret(), mount("x")), "invalid value: x: volumeMounts[0].mountPath"),
            (spec(secret(), mount("")), "missing field(s): volumeMounts[0].mountPath"),
            (
                spec(secret(), json!({"name": "v", "mountPath": "/x"})),
                "volume mount should be readOnly for this type of volume: volumeMounts[0].readOnly",
            ),
            (spec(json!({"name": "v", "emptyDir": {}}), json!({"name": "v", "mountPath": "/x"})), ""),
            (
                spec(secret(), json!({"name": "w", "mountPath": "/x", "readOnly": true})),
                "volume with name \"v\" not mounted: volumes[0].name\nvolumeMount has no matching volume: volumeMounts[0].name",
            ),
            (
                spec(json!({"name": "v"}), mount("/x")),
                "expected exactly one, got neither: volumes[0].configMap, volumes[0].emptyDir, volumes[0].projected, volumes[0].secret",
            ),
            (
                spec(json!({"name": "v", "secret": {}, "configMap": {}}), mount("/x")),
                "expected exactly one, got both: volumes[0].configMap, volumes[0].secret",
            ),
            (
                spec(json!({"name": "v", "nfs": {}}), mount("/x")),
                "expected exactly one, got neither: volumes[0].configMap, volumes[0].emptyDir, volumes[0].projected, volumes[0].secret\nmust not set the field(s): volumes[0].nfs",
            ),
        ];
        for (spec, want) in cases {
            assert_eq!(check(&spec), want, "{spec}");
        }
    }
}
