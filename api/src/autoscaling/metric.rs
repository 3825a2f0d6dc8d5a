//! Metric: what the autoscaler collects for one revision, and over which windows.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::Condition;

/// Windows and source. The windows are whole nanoseconds on the wire.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "autoscaling.internal.knative.dev",
    version = "v1alpha1",
    kind = "Metric",
    plural = "metrics",
    category = "knative-internal",
    category = "autoscaling",
    namespaced,
    status = "MetricStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#)
)]
#[serde(rename_all = "camelCase")]
pub struct MetricSpec {
    /// Stable window in nanoseconds.
    #[serde(default)]
    pub stable_window: i64,
    /// Panic window in nanoseconds.
    #[serde(default)]
    pub panic_window: i64,
    /// Private Service whose pods are scraped; empty = none, the activator sees all traffic.
    #[serde(default)]
    pub scrape_target: String,
}

/// Whether collecting works.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricStatus {
    /// Generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
