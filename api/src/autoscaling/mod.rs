//! `autoscaling.internal.knative.dev/v1alpha1`: how the control plane tells the autoscaler what to scale.

mod metric;
mod pod_autoscaler;

pub use metric::{Metric, MetricSpec, MetricStatus};
pub use pod_autoscaler::{PodAutoscaler, PodAutoscalerSpec, PodAutoscalerStatus, ScaleTargetRef};

/// API group of these kinds.
pub const GROUP: &str = "autoscaling.internal.knative.dev";

/// Value of [`PodAutoscalerSpec::reachability`]: some Route uses the revision.
pub const REACHABLE: &str = "Reachable";
/// Value of [`PodAutoscalerSpec::reachability`]: no Route uses it, or it cannot run.
pub const UNREACHABLE: &str = "Unreachable";
/// Value of `protocolType`.
pub const PROTOCOL_HTTP1: &str = "http1";
/// Value of `protocolType`.
pub const PROTOCOL_H2C: &str = "h2c";
