//! PodAutoscaler: one per Revision; annotations carry its scaling settings.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::Condition;
/// A reference to a scalable object in the same namespace; a ServerlessService copies it.
pub use crate::networking::ObjectRef as ScaleTargetRef;

/// What to scale and by which limit.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "autoscaling.internal.knative.dev",
    version = "v1alpha1",
    kind = "PodAutoscaler",
    plural = "podautoscalers",
    shortname = "kpa",
    shortname = "pa",
    category = "knative-internal",
    category = "autoscaling",
    namespaced,
    status = "PodAutoscalerStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "DesiredScale", type_ = "integer", json_path = ".status.desiredScale"),
    printcolumn(name = "ActualScale", type_ = "integer", json_path = ".status.actualScale"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason")
)]
#[serde(rename_all = "camelCase")]
pub struct PodAutoscalerSpec {
    /// Most requests that a pod handles at once; 0 = no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_concurrency: Option<i64>,
    /// The object with the scale sub-resource.
    #[serde(default)]
    pub scale_target_ref: ScaleTargetRef,
    /// Empty (unknown), `Reachable` or `Unreachable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachability: Option<String>,
    /// `http1` or `h2c`.
    #[serde(default)]
    pub protocol_type: String,
}

/// What the autoscaler made of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodAutoscalerStatus {
    /// Generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Active, ScaleTargetInitialized, SKSReady, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Public Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// Private Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_service_name: Option<String>,
    /// Wanted pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_scale: Option<i32>,
    /// Ready pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual_scale: Option<i32>,
}
