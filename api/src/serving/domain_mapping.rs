//! DomainMapping (`serving.knative.dev/v1beta1`): a host of one's own for something that has an address.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Addressable;
use crate::conditions::Condition;

/// What its host leads to. The name of the object is the host.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "serving.knative.dev",
    version = "v1beta1",
    kind = "DomainMapping",
    plural = "domainmappings",
    shortname = "dm",
    category = "all",
    category = "knative",
    category = "serving",
    namespaced,
    status = "DomainMappingStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason")
)]
#[serde(rename_all = "camelCase")]
pub struct DomainMappingSpec {
    /// An object with an address of the form `http://NAME.NAMESPACE.svc.DOMAIN`: a Service, a Route, a Kubernetes
    /// Service.
    #[serde(rename = "ref")]
    pub target: Reference,
    /// A Secret with the certificate of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<SecretTls>,
}

/// Another object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// Its kind.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its namespace; the referring object's, where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Group and version of its kind.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Its group; refused in a DomainMapping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Which of its addresses, where it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// A certificate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretTls {
    /// Secret of type `kubernetes.io/tls` in the same namespace.
    pub secret_name: String,
}

/// How a DomainMapping is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DomainMappingStatus {
    /// Generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// CertificateProvisioned, DomainClaimed, IngressReady, ReferenceResolved, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Address for clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The same, for programs that look for it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Addressable>,
}
