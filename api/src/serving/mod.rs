//! `serving.knative.dev`: what users write. Field by field as upstream `pkg/apis/serving/{v1,v1beta1}`.

mod configuration;
mod domain_mapping;
mod revision;
mod route;
mod service;

pub use configuration::{Configuration, ConfigurationSpec, ConfigurationStatus};
pub use domain_mapping::{DomainMapping, DomainMappingSpec, DomainMappingStatus, Reference, SecretTls};
pub use revision::{
    ContainerStatus, ROUTING_ACTIVE, ROUTING_PENDING, ROUTING_RESERVE, Revision, RevisionSpec, RevisionStatus,
    RevisionTemplateSpec,
};
pub use route::{Addressable, Route, RouteSpec, RouteStatus, TrafficTarget};
pub use service::{Service, ServiceSpec, ServiceStatus};

/// API group of these kinds.
pub const GROUP: &str = "serving.knative.dev";
