//! `networking.internal.knative.dev/v1alpha1`: how the control plane tells the request path where requests go.

mod certificate;
mod cluster_domain_claim;
mod ingress;
mod serverless_service;

pub use certificate::{Certificate, CertificateSpec, CertificateStatus, Http01Challenge};
pub use cluster_domain_claim::{ClusterDomainClaim, ClusterDomainClaimSpec};
pub use ingress::{
    HttpIngressPath, HttpIngressRule, Ingress, IngressBackendSplit, IngressRule, IngressSpec, IngressStatus,
    IngressTls, LoadBalancerIngress, LoadBalancerStatus, StringMatch, VISIBILITY_CLUSTER_LOCAL, VISIBILITY_EXTERNAL,
    ingress_hash,
};
pub use serverless_service::{
    MODE_PROXY, MODE_SERVE, ObjectRef, ServerlessService, ServerlessServiceSpec, ServerlessServiceStatus,
};

/// API group of these kinds.
pub const GROUP: &str = "networking.internal.knative.dev";
