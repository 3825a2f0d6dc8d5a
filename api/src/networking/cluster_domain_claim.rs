//! ClusterDomainClaim: which namespace may map a host. One for the whole cluster, named like the host.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whose the host is.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.internal.knative.dev",
    version = "v1alpha1",
    kind = "ClusterDomainClaim",
    plural = "clusterdomainclaims",
    shortname = "cdc",
    category = "knative-internal",
    category = "networking",
    derive = "Default",
    derive = "PartialEq"
)]
pub struct ClusterDomainClaimSpec {
    /// The namespace whose DomainMapping may have this name.
    pub namespace: String,
}
