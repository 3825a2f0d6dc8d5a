//! What a spec says when it says nothing (upstream `pkg/apis/serving/v1/*_defaults.go`).

use std::collections::{BTreeMap, BTreeSet};

use api::{labels::serving as labels, names, settings::Feature};
use serde_json::{Map, Value, json};

use super::json::{edit_each, edit_field, get, has, is_set, list, says, text};
use crate::settings::Settings;

type Object = Map<String, Value>;

/// Whom the object is made for: names in templates of config-defaults.
#[derive(Debug, Clone, Copy)]
pub struct Parent<'a> {
    /// Name of the Service, Configuration or Revision.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
}

/// Fills in a Revision's spec. `creating`: some defaults would change what an older object meant.
pub fn revision_spec(spec: &mut Object, parent: Parent<'_>, creating: bool, settings: &Settings) {
    let d = &settings.defaults;
    if !says(spec, "timeoutSeconds") {
        spec.insert("timeoutSeconds".to_owned(), d.revision_timeout_seconds.into());
    }
    let timeout = spec.get("timeoutSeconds").and_then(Value::as_i64).unwrap_or_default();
    let shorter = [
        ("idleTimeoutSeconds", d.revision_idle_timeout_seconds),
        ("responseStartTimeoutSeconds", d.revision_response_start_timeout_seconds),
    ];
    for (key, default) in shorter {
        if spec.get(key).is_none_or(Value::is_null) && default < timeout && default != 0 {
            spec.insert(key.to_owned(), default.into());
        }
    }
    if spec.get("containerConcurrency").is_none_or(Value::is_null) {
        spec.insert("containerConcurrency".to_owned(), d.container_concurrency.into());
    }
    if let (true, Some(links), true) =
        (creating, d.enable_service_links, spec.get("enableServiceLinks").is_none_or(Value::is_null))
    {
        spec.insert("enableServiceLinks".to_owned(), links.into());
    }
    container_names(spec, parent, settings);

    let whole = Value::Object(spec.clone());
    let writable: BTreeSet<String> = list(&whole, "volumes")
        .iter()
        .filter(|v| ["emptyDir", "persistentVolumeClaim", "ephemeral"].iter().any(|kind| has(v, kind)))
        .map(|v| text(v, "name").to_owned())
        .collect();
    let alone = list(&whole, "containers").len() == 1;
    let pod_security = get(&whole, &["securityContext"]).clone();
    edit_each(spec, "containers", |_, container| {
        resources(container, settings);
        if alone || says(container, "ports") {
            serving_probe(container);
        }
        probes(container);
        edit_each(container, "volumeMounts", |_, mount| {
            let name = mount.get("name").and_then(Value::as_str).unwrap_or_default();
            if !writable.contains(name) {
                mount.insert("readOnly".to_owned(), true.into());
            }
        });
        security(container, &pod_security, settings);
    });
    edit_each(spec, "initContainers", |_, container| security(container, &pod_security, settings));
}

/// Names for containers that have none; numbered where there are several, never one that is in use.
fn container_names(spec: &mut Object, parent: Parent<'_>, settings: &Settings) {
    let mut used: BTreeSet<String> = ["containers", "initContainers"]
        .iter()
        .filter_map(|key| spec.get(*key)?.as_array())
        .flatten()
        .map(|c| text(c, "name").to_owned())
        .collect();
    let d = &settings.defaults;
    let kinds = [
        ("containers", d.user_container_name(parent.name, parent.namespace)),
        ("initContainers", d.init_container_name(parent.name, parent.namespace)),
    ];
    for (key, default) in kinds {
        let several = spec.get(key).and_then(Value::as_array).is_some_and(|c| c.len() > 1);
        let mut next = 0;
        edit_each(spec, key, |_, container| {
            if says(container, "name") {
                return;
            }
            let mut name = default.clone();
            if several || used.contains(&name) {
                loop {
                    name = names::child_name(&default, &format!("-{next}"));
                    next += 1;
                    if !used.contains(&name) {
                        break;
                    }
                }
            }
            used.insert(name.clone());
            container.insert("name".to_owned(), name.into());
        });
    }
}

/// Requests and limits of config-defaults where the container names none.
fn resources(container: &mut Object, settings: &Settings) {
    edit_field(container, "resources", |resources| {
        for (key, defaults) in [("requests", &settings.defaults.requests), ("limits", &settings.defaults.limits)] {
            if !defaults.is_empty() {
                edit_field(resources, key, |amounts| fill(amounts, defaults));
            }
        }
    });
}

fn fill(amounts: &mut Object, defaults: &BTreeMap<&'static str, String>) {
    for (name, amount) in defaults {
        amounts.entry((*name).to_owned()).or_insert_with(|| amount.clone().into());
    }
}

/// The container that serves is always probed, by an open port if by nothing else.
fn serving_probe(container: &mut Object) {
    edit_field(container, "readinessProbe", |probe| {
        let kinds = ["tcpSocket", "httpGet", "exec", "grpc"];
        if !kinds.iter().any(|kind| probe.get(*kind).is_some_and(|v| !v.is_null())) {
            probe.insert("tcpSocket".to_owned(), json!({"port": 0}));
        }
    });
}

fn probes(container: &mut Object) {
    if container.get("readinessProbe").is_some_and(|p| !p.is_null()) {
        edit_field(container, "readinessProbe", |probe| {
            if !says(probe, "successThreshold") {
                probe.insert("successThreshold".to_owned(), 1.into());
            }
            // With a period it is the kubelet's probe with the kubelet's defaults; without one it is ours.
            if says(probe, "periodSeconds") {
                for (key, default) in [("failureThreshold", 3), ("timeoutSeconds", 1)] {
                    if !says(probe, key) {
                        probe.insert(key.to_owned(), default.into());
                    }
                }
            }
        });
    }
    for kind in ["readinessProbe", "livenessProbe", "startupProbe"] {
        if container.get(kind).and_then(|p| p.get("grpc")).is_some_and(|g| !g.is_null()) {
            edit_field(container, kind, |probe| {
                edit_field(probe, "grpc", |grpc| {
                    if grpc.get("service").is_none_or(Value::is_null) {
                        grpc.insert("service".to_owned(), "".into());
                    }
                });
            });
        }
    }
}

/// Settings of the `restricted` profile, where `secure-pod-defaults` asks for them and the user says nothing else.
fn security(container: &mut Object, pod: &Value, settings: &Settings) {
    let feature = settings.features.secure_pod_defaults;
    if !matches!(feature, Feature::Enabled | Feature::AllowRootBounded) {
        return;
    }
    let whole = Value::Object(container.clone());
    let low_port = list(&whole, "ports").iter().any(|p| super::json::number(p, "containerPort") < 1024);
    edit_field(container, "securityContext", |security| {
        let absent = |map: &Object, key: &str| map.get(key).is_none_or(Value::is_null);
        if absent(security, "allowPrivilegeEscalation") {
            security.insert("allowPrivilegeEscalation".to_owned(), false.into());
        }
        if text(get(pod, &["seccompProfile"]), "type").is_empty() {
            edit_field(security, "seccompProfile", |profile| {
                if !says(profile, "type") {
                    profile.insert("type".to_owned(), "RuntimeDefault".into());
                }
            });
        }
        if absent(security, "capabilities") {
            let mut capabilities = json!({"drop": ["ALL"]});
            if low_port {
                capabilities["add"] = json!(["NET_BIND_SERVICE"]);
            }
            security.insert("capabilities".to_owned(), capabilities);
        }
        if feature == Feature::Enabled && !has(pod, "runAsNonRoot") && absent(security, "runAsNonRoot") {
            security.insert("runAsNonRoot".to_owned(), true.into());
        }
    });
}

/// Fills in traffic; a Service's without any goes to the latest Revision.
pub fn traffic(spec: &mut Object, in_service: bool) {
    if in_service && !says(spec, "traffic") {
        spec.insert("traffic".to_owned(), json!([{"percent": 100, "latestRevision": true}]));
    }
    edit_each(spec, "traffic", |_, target| {
        if target.get("latestRevision").is_none_or(Value::is_null) {
            let floats = !says(target, "revisionName");
            target.insert("latestRevision".to_owned(), floats.into());
        }
        if target.get("percent").is_none_or(Value::is_null) {
            target.insert("percent".to_owned(), 0.into());
        }
    });
}

/// Notes who made the object and who changed its spec last.
pub fn user_info(object: &mut Object, user: &str, changed: Changed) {
    if user.is_empty() || changed == Changed::Nothing {
        return;
    }
    edit_field(object, "metadata", |metadata| {
        edit_field(metadata, "annotations", |annotations| {
            if changed == Changed::Created {
                annotations.insert(labels::CREATOR.to_owned(), user.into());
            }
            annotations.insert(labels::LAST_MODIFIER.to_owned(), user.into());
        });
    });
}

/// A reference leads to the referring object's namespace, where it does not say.
pub fn reference(target: &mut Object, namespace: &str) {
    if !says(target, "namespace") {
        target.insert("namespace".to_owned(), namespace.into());
    }
}

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It is new.
    Created,
    /// Its spec is another.
    Spec,
    /// Its spec stays.
    Nothing,
}

/// Class and metric of a PodAutoscaler that names none.
pub fn pod_autoscaler(object: &mut Object, settings: &Settings) {
    use api::labels::autoscaling::{CLASS, HPA_CLASS, KPA_CLASS, METRIC};
    edit_field(object, "metadata", |metadata| {
        edit_field(metadata, "annotations", |annotations| {
            let class = annotations
                .entry(CLASS.key.to_owned())
                .or_insert_with(|| settings.autoscaler.pod_autoscaler_class.clone().into())
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let metric = match class.as_str() {
                KPA_CLASS => "concurrency",
                HPA_CLASS => "cpu",
                _ => return,
            };
            if !annotations.get(METRIC.key).is_some_and(is_set) {
                annotations.insert(METRIC.key.to_owned(), metric.into());
            }
        });
    });
}
