//! Whose request it is, or who speaks: names of the service, its revision and the pod.

/// Names for reports, metrics, logs and spans. What is not known is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Namespace.
    pub namespace: String,
    /// Service, may be empty.
    pub service: String,
    /// Configuration.
    pub configuration: String,
    /// Revision.
    pub revision: String,
    /// Pod name, the identity in every stat.
    pub pod: String,
    /// Pod IP, for the request log.
    pub pod_ip: String,
}
