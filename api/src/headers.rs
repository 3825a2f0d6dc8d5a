//! Header names on the wire, lower-case so that they can be used with [`http::HeaderName::from_static`].

use http::HeaderName;

/// Namespace of the revision a request is for; set by the ingress, removed before the user container.
pub const SERVING_NAMESPACE: HeaderName = HeaderName::from_static("knative-serving-namespace");
/// Name of the revision a request is for.
pub const SERVING_REVISION: HeaderName = HeaderName::from_static("knative-serving-revision");
/// Traffic tag chosen by the client.
pub const SERVING_TAG: HeaderName = HeaderName::from_static("knative-serving-tag");
/// Set by the ingress where a request took the default route.
pub const SERVING_DEFAULT_ROUTE: HeaderName = HeaderName::from_static("knative-serving-default-route");
/// `activator` on requests that came through an activator: the pod's stat counts them as proxied.
pub const PROXY_REQUEST: HeaderName = HeaderName::from_static("k-proxy-request");
/// The Host the client asked for; queue-proxy restores it.
pub const ORIGINAL_HOST: HeaderName = HeaderName::from_static("k-original-host");
/// Ask a mesh to route to the pod named, not to the service.
pub const PASSTHROUGH_LB: HeaderName = HeaderName::from_static("k-passthrough-lb");
/// Marks a network probe; the values are in [`crate::probe`].
pub const NETWORK_PROBE: HeaderName = HeaderName::from_static("k-network-probe");
/// What a network probe expects to get back.
pub const NETWORK_HASH: HeaderName = HeaderName::from_static("k-network-hash");
/// Old mark of a kubelet probe.
pub const KUBELET_PROBE: HeaderName = HeaderName::from_static("k-kubelet-probe");
/// Ours: on a probe, "answer as soon as ready, at the latest after this many milliseconds".
pub const HOLD: HeaderName = HeaderName::from_static("dormouse-hold");
/// Ours: which hop made this error, and why (`activator; reason=queue-full`).
pub const ERROR: HeaderName = HeaderName::from_static("dormouse-error");
