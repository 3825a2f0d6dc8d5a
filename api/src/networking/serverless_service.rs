//! ServerlessService: one per Revision; decides whether its public Service leads to activators or to the pods.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::Condition;

/// Clients reach the pods directly.
pub const MODE_SERVE: &str = "Serve";
/// Clients reach activators.
pub const MODE_PROXY: &str = "Proxy";

/// The wanted mode and the pods' owner.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.internal.knative.dev",
    version = "v1alpha1",
    kind = "ServerlessService",
    plural = "serverlessservices",
    shortname = "sks",
    category = "knative-internal",
    category = "networking",
    namespaced,
    status = "ServerlessServiceStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Activators", type_ = "integer", json_path = ".spec.numActivators"),
    printcolumn(name = "ServiceName", type_ = "string", json_path = ".status.serviceName"),
    printcolumn(name = "PrivateServiceName", type_ = "string", json_path = ".status.privateServiceName"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#)
)]
#[serde(rename_all = "camelCase")]
pub struct ServerlessServiceSpec {
    /// [`MODE_SERVE`] or [`MODE_PROXY`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The Deployment whose pods serve.
    #[serde(default)]
    pub object_ref: ObjectRef,
    /// `http1` or `h2c`.
    #[serde(default)]
    pub protocol_type: String,
    /// How many activators carry the revision in Proxy mode; 0 = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_activators: Option<i32>,
}

/// A reference to an object in the same namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// API version, such as `apps/v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Kind, such as `Deployment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The Services it made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerlessServiceStatus {
    /// Generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// ActivatorEndpointsPopulated, EndpointsPopulated, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Public Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// Private Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_service_name: Option<String>,
}
