//! Which fields of a Kubernetes type may be set (upstream `pkg/apis/serving/fieldmask.go`).

use api::settings::{Feature, Features};
use serde_json::Value;

use super::{field_error::Errors, json::is_set};

/// Fields of `value` that say something and are not `allowed`.
pub fn disallowed(value: &Value, allowed: &[&str]) -> Errors {
    let fields: Vec<&str> = value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, v)| is_set(v) && !allowed.contains(&key.as_str()))
        .map(|(key, _)| key.as_str())
        .collect();
    if fields.is_empty() { Errors::none() } else { Errors::disallowed(&fields) }
}

/// Fields of a Revision's spec beside the pod's.
const REVISION: [&str; 4] =
    ["containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds", "idleTimeoutSeconds"];

/// Fields of a Revision's spec.
pub fn pod_spec(features: &Features) -> Vec<&'static str> {
    let f = features;
    let mut allowed = REVISION.to_vec();
    allowed.extend(["serviceAccountName", "containers", "volumes", "imagePullSecrets", "enableServiceLinks"]);
    let switched = [
        ("affinity", f.affinity),
        ("topologySpreadConstraints", f.topology_spread_constraints),
        ("hostAliases", f.host_aliases),
        ("nodeSelector", f.node_selector),
        ("runtimeClassName", f.runtime_class_name),
        ("tolerations", f.tolerations),
        ("securityContext", f.security_context),
        ("securityContext", f.secure_pod_defaults),
        ("shareProcessNamespace", f.share_process_namespace),
        ("priorityClassName", f.priority_class_name),
        ("schedulerName", f.scheduler_name),
        ("initContainers", f.init_containers),
        ("dnsPolicy", f.dns_policy),
        ("dnsConfig", f.dns_config),
        ("hostIPC", f.host_ipc),
        ("hostPID", f.host_pid),
        ("hostNetwork", f.host_network),
    ];
    allowed.extend(switched.iter().filter(|(_, feature)| feature.permits()).map(|(field, _)| *field));
    allowed
}

/// Fields of a container.
pub const CONTAINER: [&str; 17] = [
    "name",
    "args",
    "command",
    "env",
    "workingDir",
    "envFrom",
    "image",
    "imagePullPolicy",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "resources",
    "securityContext",
    "startupProbe",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "volumeMounts",
];

/// Fields of a volume.
pub fn volume(features: &Features) -> Vec<&'static str> {
    let f = features;
    let mut allowed = vec!["name", "secret", "configMap", "projected"];
    let switched = [
        ("emptyDir", f.volumes_empty_dir),
        ("persistentVolumeClaim", f.persistent_volume_claim),
        ("hostPath", f.volumes_host_path),
        ("csi", f.volumes_csi),
        ("ephemeral", f.volumes_ephemeral),
        ("image", f.volumes_image),
    ];
    allowed.extend(switched.iter().filter(|(_, feature)| feature.permits()).map(|(field, _)| *field));
    allowed
}

/// Fields of a volume mount.
pub fn volume_mount(features: &Features) -> Vec<&'static str> {
    let mut allowed = vec!["name", "readOnly", "mountPath", "subPath"];
    if features.mount_propagation.permits() {
        allowed.push("mountPropagation");
    }
    allowed
}

/// Fields of where a variable's value comes from.
pub fn env_source(features: &Features) -> Vec<&'static str> {
    let mut allowed = vec!["configMapKeyRef", "secretKeyRef"];
    if features.field_ref.permits() {
        allowed.extend(["fieldRef", "resourceFieldRef"]);
    }
    allowed
}

/// Fields of a container's security context; `privileged` may only be false, which says nothing.
pub const SECURITY_CONTEXT: [&str; 7] = [
    "capabilities",
    "readOnlyRootFilesystem",
    "runAsUser",
    "runAsGroup",
    "runAsNonRoot",
    "allowPrivilegeEscalation",
    "seccompProfile",
];

/// Fields of capabilities.
pub fn capabilities(value: &Value, features: &Features) -> Vec<&'static str> {
    let secure = matches!(features.secure_pod_defaults, Feature::Enabled | Feature::AllowRootBounded);
    let only_bind = value.get("add").is_some_and(|add| *add == serde_json::json!(["NET_BIND_SERVICE"]));
    if features.add_capabilities == Feature::Enabled || secure && only_bind {
        vec!["drop", "add"]
    } else {
        vec!["drop"]
    }
}

/// Fields of a pod's security context.
pub fn pod_security_context(features: &Features) -> Vec<&'static str> {
    if features.security_context.permits() {
        vec!["runAsUser", "runAsGroup", "runAsNonRoot", "fsGroup", "supplementalGroups", "seccompProfile"]
    } else if features.secure_pod_defaults.permits() {
        vec!["seccompProfile"]
    } else {
        Vec::new()
    }
}
