//! What a process on the request path says of itself and of its requests. Shared by queue-proxy and activator, which
//! never import each other; what only one of them says (its metrics, its names) stays there.
//!
//! 1. [`identity`]: whose request it is, by Knative's names; [`observability`]: which telemetry is wanted.
//! 2. [`logging`]: the process's own log, in the keys that log pipelines made for Knative know.
//! 3. [`request_log`]: one line per request, by a Go template.
//! 4. [`traces`]: which requests are followed and what is remembered of them; a [`traces::hop::Hop`] says which spans
//!    a process makes.
//! 5. [`otlp`]: sends traces and metrics to a collector, behind the requests' back.
//! 6. [`metrics_server`]: where and how a Prometheus page is served; [`labels`] and [`process`]: what pages have in
//!    common.
//! 7. [`profiling`]: CPU profiles on request.
//!
//! Nothing here knows a route, a slot or a pod. What is switched off costs nothing, and what a collector or a reader of
//! stdout does is never felt by a request.

pub mod identity;
pub mod labels;
pub mod logging;
pub mod metrics_server;
pub mod observability;
pub mod otlp;
pub mod process;
pub mod profiling;
pub mod request_log;
pub mod traces;

pub use identity::Identity;
