//! A queue-proxy, ours or another, with the environment that a controller gives it.

use std::process::{Command, Stdio};

use super::{Kind, Plan};

/// The full ones have a limit that is above the load, all WebSockets included, so that the line is kept but nobody
/// stands in it.
pub(super) fn prepare(command: &mut Command, plan: &Plan<'_>, kind: Kind) {
    let (concurrency, observability) = match kind {
        Kind::FullSidecar => ("20000", r#"{"requestMetrics":{"protocol":"prometheus"}}"#),
        Kind::LoggingSidecar => {
            command.stdout(Stdio::piped());
            ("20000", r#"{"requestMetrics":{"protocol":"prometheus"},"enableRequestLog":true}"#)
        }
        _ => ("0", ""),
    };
    command.env_clear();
    for (name, value) in [
        ("CONTAINER_CONCURRENCY", concurrency),
        ("QUEUE_SERVING_PORT", &plan.listen.port().to_string()),
        ("QUEUE_SERVING_TLS_PORT", "8112"),
        ("USER_PORT", &plan.backend.port().to_string()),
        ("REVISION_TIMEOUT_SECONDS", "300"),
        ("SERVING_NAMESPACE", "default"),
        ("SERVING_SERVICE", "bench"),
        ("SERVING_CONFIGURATION", "bench"),
        ("SERVING_REVISION", "bench-00001"),
        ("SERVING_POD", "bench-00001-deployment-0"),
        ("SERVING_POD_IP", &plan.listen.ip().to_string()),
        ("SERVING_LOGGING_CONFIG", ""),
        ("SERVING_LOGGING_LEVEL", "error"),
        ("DORMOUSE_BIND_ADDRESS", &plan.listen.ip().to_string()),
        ("DORMOUSE_DRAIN_QUIET_MS", "0"),
    ] {
        command.env(name, value);
    }
    if !observability.is_empty() {
        command.env("OBSERVABILITY_CONFIG", observability);
    }
}
