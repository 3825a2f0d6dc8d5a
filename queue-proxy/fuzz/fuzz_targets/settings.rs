//! The first line is the log's configuration, the rest the telemetry's: either is understood, ignored or named in the
//! error, and the log's never keeps the sidecar from starting.
#![no_main]

use libfuzzer_sys::fuzz_target;
use queue_proxy::Config;

fuzz_target!(|text: &str| {
    let (zap, observability) = text.split_once('\n').unwrap_or(("", text));
    let config = Config::from_lookup(|name| {
        let value = match name {
            "CONTAINER_CONCURRENCY" | "QUEUE_SERVING_PORT" => "0",
            "USER_PORT" => "1",
            "REVISION_TIMEOUT_SECONDS" => "300",
            "QUEUE_SERVING_TLS_PORT"
            | "SERVING_NAMESPACE"
            | "SERVING_CONFIGURATION"
            | "SERVING_REVISION"
            | "SERVING_POD"
            | "SERVING_POD_IP" => "",
            "SERVING_LOGGING_CONFIG" | "SERVING_LOGGING_LEVEL" => zap,
            "OBSERVABILITY_CONFIG" => observability,
            _ => return None,
        };
        Some(value.to_string())
    });
    if let Err(error) = config {
        assert!(error.to_string().contains("OBSERVABILITY_CONFIG"), "{error}");
    }
});
