//! What built-in kinds do beyond being stored: the defaults the real server fills in, a pod's first status.
//!
//! Pure. Only defaults that our controllers, the node or `kubectl` look at; [`prepare`] runs on each write.
use serde_json::{Map, Value, json};

use super::errors::Cause;
use super::registry::Resource;

/// Fills in a built-in object's defaults; on creation also its first status.
pub(crate) fn prepare(resource: &Resource, object: &mut Value, create: bool) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        let empty = |value: &Value| value.as_object().is_some_and(Map::is_empty) || *value == json!([]);
        metadata.retain(|name, value| !(EMPTY_IS_ABSENT.contains(&name.as_str()) && empty(value)));
    }
    if resource.custom {
        return;
    }
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => {
            pod_spec(&mut object["spec"]);
            pod(&mut object["spec"]);
            if create {
                object["status"] = json!({ "phase": "Pending", "qosClass": quality(&object["spec"]) });
            }
        }
        ("", "services") => service(object, create),
        ("", "namespaces") if create => {
            let name = object["metadata"]["name"].clone();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
            object["spec"]["finalizers"] = json!(["kubernetes"]);
            object["status"] = json!({ "phase": "Active" });
        }
        ("", "secrets") => {
            default(object, "type", json!("Opaque"));
            fold_string_data(object);
            without_empty(object, &["data"]);
        }
        ("", "configmaps") => without_empty(object, &["data", "binaryData"]),
        ("discovery.k8s.io", "endpointslices") => {
            for port in items(object, "ports") {
                default(port, "protocol", json!("TCP"));
            }
        }
        ("apps", "deployments") => {
            let spec = &mut object["spec"];
            default(spec, "replicas", json!(1));
            default(spec, "revisionHistoryLimit", json!(10));
            default(spec, "progressDeadlineSeconds", json!(600));
            if spec["strategy"]["type"].is_null() {
                spec["strategy"]["type"] = json!("RollingUpdate");
            }
            if spec["strategy"]["type"] == "RollingUpdate" {
                default(&mut spec["strategy"]["rollingUpdate"], "maxSurge", json!("25%"));
                default(&mut spec["strategy"]["rollingUpdate"], "maxUnavailable", json!("25%"));
            }
            pod_spec(&mut spec["template"]["spec"]);
            default(object, "status", json!({}));
        }
        ("apps", "replicasets") => {
            default(&mut object["spec"], "replicas", json!(1));
            pod_spec(&mut object["spec"]["template"]["spec"]);
        }
        ("autoscaling", "horizontalpodautoscalers") => default(&mut object["spec"], "minReplicas", json!(1)),
        _ => {}
    }
}

/// Parts of metadata that are left out when there is nothing in them.
const EMPTY_IS_ABSENT: [&str; 4] = ["labels", "annotations", "finalizers", "ownerReferences"];

/// Leaves maps out that have nothing in them.
fn without_empty(object: &mut Value, fields: &[&str]) {
    if let Some(map) = object.as_object_mut() {
        map.retain(|name, value| !(fields.contains(&name.as_str()) && value.as_object().is_some_and(Map::is_empty)));
    }
}

/// What is filled in for a pod itself, and not for the template of one.
fn pod(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    default(spec, "enableServiceLinks", json!(true));
    for list in ["containers", "initContainers"] {
        for container in items(spec, list) {
            let Some(limits) = container["resources"]["limits"].as_object().cloned() else { continue };
            for (name, limit) in limits {
                default(&mut container["resources"]["requests"], &name, limit);
            }
        }
    }
}

/// What is wrong with a built-in object, in the real server's words.
pub(crate) fn check(resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut causes: Vec<Cause> = missing(resource, object).into_iter().map(Cause::required).collect();
    if resource.is("apps", "deployments") || resource.is("apps", "replicasets") {
        let labels = &object["spec"]["template"]["metadata"]["labels"];
        let wanted = object["spec"]["selector"]["matchLabels"].as_object();
        let selected = !object["spec"]["selector"].is_null()
            && wanted.into_iter().flatten().all(|(name, value)| labels[name] == *value);
        if !selected {
            let why = "`selector` does not match template `labels`";
            causes.push(Cause::invalid("spec.template.metadata.labels", &labels.to_string(), why));
        }
    }
    causes
}

/// Required fields that are absent.
fn missing(resource: &Resource, object: &Value) -> Vec<&'static str> {
    let needed: &[&str] = match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => &["spec.containers"],
        ("apps", "deployments" | "replicasets") => &["spec.selector", "spec.template.spec.containers"],
        ("discovery.k8s.io", "endpointslices") => &["addressType"],
        _ => &[],
    };
    let absent = |path: &&&str| {
        let value = path.split('.').fold(object, |at, part| &at[part]);
        value.is_null() || value.as_array().is_some_and(Vec::is_empty)
    };
    needed.iter().filter(absent).copied().collect()
}

/// Sets a field that is absent.
fn default(object: &mut Value, field: &str, value: Value) {
    if object.is_null() {
        *object = Value::Object(Map::new());
    }
    if let Some(map) = object.as_object_mut() {
        map.entry(field).or_insert(value);
    }
}

fn pod_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    default(spec, "restartPolicy", json!("Always"));
    default(spec, "terminationGracePeriodSeconds", json!(30));
    default(spec, "dnsPolicy", json!("ClusterFirst"));
    default(spec, "schedulerName", json!("default-scheduler"));
    default(spec, "securityContext", json!({}));
    for list in ["containers", "initContainers"] {
        for container in items(spec, list).filter(|container| container.is_object()) {
            let latest = {
                let image = container["image"].as_str().unwrap_or_default();
                let last = image.rsplit('/').next().unwrap_or_default();
                !image.contains('@') && (!last.contains(':') || last.ends_with(":latest"))
            };
            default(container, "imagePullPolicy", json!(if latest { "Always" } else { "IfNotPresent" }));
            default(container, "terminationMessagePath", json!("/dev/termination-log"));
            default(container, "terminationMessagePolicy", json!("File"));
            default(container, "resources", json!({}));
            for port in items(container, "ports") {
                default(port, "protocol", json!("TCP"));
            }
            for env in items(container, "env") {
                if let Some(field) = env.pointer_mut("/valueFrom/fieldRef") {
                    default(field, "apiVersion", json!("v1"));
                }
            }
            for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
                probe_defaults(container, probe);
            }
        }
    }
}

/// The items of a list field, if it is there. (Indexing by `[]` would create what is looked at.)
fn items<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

fn probe_defaults(container: &mut Value, name: &str) {
    let Some(probe) = container.get_mut(name).filter(|probe| probe.is_object()) else { return };
    for (field, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        default(probe, field, json!(value));
    }
    if let Some(get) = probe.get_mut("httpGet").filter(|get| get.is_object()) {
        default(get, "scheme", json!("HTTP"));
        default(get, "path", json!("/"));
    }
}

fn service(object: &mut Value, create: bool) {
    let spec = &mut object["spec"];
    default(spec, "type", json!("ClusterIP"));
    default(spec, "sessionAffinity", json!("None"));
    if spec["type"] != "ExternalName" {
        default(spec, "internalTrafficPolicy", json!("Cluster"));
    }
    for port in items(spec, "ports") {
        default(port, "protocol", json!("TCP"));
        let number = port["port"].clone();
        default(port, "targetPort", number);
    }
    if create && !object["status"].is_object() {
        object["status"] = json!({ "loadBalancer": {} });
    }
}

/// `stringData` is written into `data`, base64, and not kept.
fn fold_string_data(secret: &mut Value) {
    let Some(Value::Object(plain)) = secret.as_object_mut().and_then(|secret| secret.remove("stringData")) else {
        return;
    };
    for (key, value) in plain {
        secret["data"][key] = base64(value.as_str().unwrap_or_default().as_bytes()).into();
    }
}

/// Standard base64, padded.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for position in 0..4 {
            if position <= chunk.len() {
                out.push(char::from(ALPHABET[(word >> (18 - 6 * position)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

fn quality(spec: &Value) -> &'static str {
    let mut any = false;
    let mut all = true;
    for container in spec["containers"].as_array().into_iter().flatten() {
        let (requests, limits) = (&container["resources"]["requests"], &container["resources"]["limits"]);
        any |= requests.is_object() || limits.is_object();
        for resource in ["cpu", "memory"] {
            let request = if requests[resource].is_null() { &limits[resource] } else { &requests[resource] };
            all &= !limits[resource].is_null() && *request == limits[resource];
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_rfc() {
        for (plain, want) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), want);
        }
    }

    #[test]
    fn pod_defaults_leave_no_empty_maps() {
        let mut spec =
            json!({ "containers": [{ "name": "a", "image": "x:1", "env": [{ "name": "A", "value": "1" }] }] });
        pod_spec(&mut spec);
        assert_eq!(spec["containers"][0]["env"], json!([{ "name": "A", "value": "1" }]));
        assert_eq!(spec["containers"][0]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(spec["restartPolicy"], "Always");
        assert!(spec.get("initContainers").is_none());
    }
}
