//! `config-features`: what users may ask for (upstream `pkg/apis/config/features.go`).

use super::{Data, InvalidSetting, Reader};

const NAME: &str = "config-features";

/// State of one feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// On for everyone.
    Enabled,
    /// Off.
    Disabled,
    /// Off unless a revision asks for it.
    Allowed,
    /// secure-pod-defaults only: safe defaults without strict policy.
    AllowRootBounded,
}

impl Feature {
    /// Whether users may use the field behind the feature.
    pub fn permits(self) -> bool {
        self != Self::Disabled
    }
}

macro_rules! features {
    ($($(#[$doc:meta])* $field:ident = $key:literal, $default:ident;)*) => {
        /// Every feature; the key of `multi_container` is `multi-container`, and so on.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Features {
            $($(#[$doc])* pub $field: Feature,)*
        }

        impl Default for Features {
            fn default() -> Self {
                Self { $($field: Feature::$default,)* }
            }
        }

        impl Features {
            /// Reads the ConfigMap's data. Upstream ignores unknown words; so do we, keeping the default.
            pub fn parse(data: &Data) -> Result<Self, InvalidSetting> {
                let r = Reader { config_map: NAME, data };
                Ok(Self { $($field: flag(&r, $key, Feature::$default),)* })
            }
        }
    };
}

fn flag(r: &Reader<'_>, key: &str, default: Feature) -> Feature {
    match r.text(key).map(str::to_ascii_lowercase).as_deref() {
        Some("enabled") => Feature::Enabled,
        Some("disabled") => Feature::Disabled,
        Some("allowed") => Feature::Allowed,
        Some("allowrootbounded") => Feature::AllowRootBounded,
        _ => default,
    }
}

features! {
    /// More than one container a pod.
    multi_container = "multi-container", Enabled;
    /// Readiness probes on sidecars.
    multi_container_probing = "multi-container-probing", Disabled;
    /// `affinity`.
    affinity = "kubernetes.podspec-affinity", Disabled;
    /// `topologySpreadConstraints`.
    topology_spread_constraints = "kubernetes.podspec-topologyspreadconstraints", Disabled;
    /// `hostAliases`.
    host_aliases = "kubernetes.podspec-hostaliases", Disabled;
    /// `nodeSelector`.
    node_selector = "kubernetes.podspec-nodeselector", Disabled;
    /// `tolerations`.
    tolerations = "kubernetes.podspec-tolerations", Disabled;
    /// `valueFrom.fieldRef` and `resourceFieldRef`.
    field_ref = "kubernetes.podspec-fieldref", Disabled;
    /// `runtimeClassName`.
    runtime_class_name = "kubernetes.podspec-runtimeclassname", Disabled;
    /// `dnsPolicy`.
    dns_policy = "kubernetes.podspec-dnspolicy", Disabled;
    /// `dnsConfig`.
    dns_config = "kubernetes.podspec-dnsconfig", Disabled;
    /// The pod's `securityContext`.
    security_context = "kubernetes.podspec-securitycontext", Disabled;
    /// `shareProcessNamespace`.
    share_process_namespace = "kubernetes.podspec-shareprocessnamespace", Disabled;
    /// `hostIPC`.
    host_ipc = "kubernetes.podspec-hostipc", Disabled;
    /// `hostPID`.
    host_pid = "kubernetes.podspec-hostpid", Disabled;
    /// `hostNetwork`.
    host_network = "kubernetes.podspec-hostnetwork", Disabled;
    /// `priorityClassName`.
    priority_class_name = "kubernetes.podspec-priorityclassname", Disabled;
    /// `schedulerName`.
    scheduler_name = "kubernetes.podspec-schedulername", Disabled;
    /// `securityContext.capabilities.add`.
    add_capabilities = "kubernetes.containerspec-addcapabilities", Disabled;
    /// Safe security context where the user gave none.
    secure_pod_defaults = "secure-pod-defaults", Disabled;
    /// Routing by the `Knative-Serving-Tag` header.
    tag_header_based_routing = "tag-header-based-routing", Disabled;
    /// Whether probes find out if the app speaks HTTP/2.
    autodetect_http2 = "autodetect-http2", Disabled;
    /// `emptyDir` volumes.
    volumes_empty_dir = "kubernetes.podspec-volumes-emptydir", Enabled;
    /// `image` volumes.
    volumes_image = "kubernetes.podspec-volumes-image", Disabled;
    /// `hostPath` volumes.
    volumes_host_path = "kubernetes.podspec-volumes-hostpath", Disabled;
    /// `ephemeral` volumes.
    volumes_ephemeral = "kubernetes.podspec-volumes-ephemeral", Disabled;
    /// `csi` volumes.
    volumes_csi = "kubernetes.podspec-volumes-csi", Disabled;
    /// `mountPropagation`.
    mount_propagation = "kubernetes.podspec-volumes-mount-propagation", Disabled;
    /// `initContainers`.
    init_containers = "kubernetes.podspec-init-containers", Disabled;
    /// `persistentVolumeClaim` volumes.
    persistent_volume_claim = "kubernetes.podspec-persistent-volume-claim", Disabled;
    /// Writable ones.
    persistent_volume_write = "kubernetes.podspec-persistent-volume-write", Disabled;
    /// Mount the pod's annotations into the sidecar.
    queue_proxy_mount_podinfo = "queueproxy.mount-podinfo", Disabled;
    /// Resource defaults for the sidecar.
    queue_proxy_resource_defaults = "queueproxy.resource-defaults", Disabled;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_in_any_case_and_unknown_ones_change_nothing() {
        let data = [
            ("multi-container", "disabled"),
            ("tag-header-based-routing", "ENABLED"),
            ("kubernetes.podspec-fieldref", "allowed"),
            ("kubernetes.podspec-volumes-emptydir", "whatever"),
        ];
        let f = Features::parse(&data.map(|(k, v)| (k.to_owned(), v.to_owned())).into()).unwrap();
        assert_eq!(f.multi_container, Feature::Disabled);
        assert_eq!(f.tag_header_based_routing, Feature::Enabled);
        assert!(f.field_ref.permits() && f.volumes_empty_dir == Feature::Enabled);
        assert!(!f.host_pid.permits());
    }
}
