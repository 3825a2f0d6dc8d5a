//! Rules of probes (upstream `k8s_validation.go`).

use serde_json::Value;

use super::{
    field_error::Errors,
    json::{get, has, number, text},
    mask,
};

/// Name and number of the container's port, as probes may refer to it; none in a sidecar.
#[derive(Debug, Clone, Copy)]
pub struct UserPort<'a> {
    /// Name, `http` where the user gives none.
    pub name: &'a str,
}

const ALLOWED: [&str; 10] = [
    "exec",
    "failureThreshold",
    "grpc",
    "httpGet",
    "initialDelaySeconds",
    "periodSeconds",
    "successThreshold",
    "tcpSocket",
    "terminationGracePeriodSeconds",
    "timeoutSeconds",
];

/// A liveness or startup probe.
pub fn validate(probe: &Value, port: Option<UserPort<'_>>) -> Errors {
    if probe.is_null() {
        return Errors::none();
    }
    let mut errors = mask::disallowed(probe, &ALLOWED);
    let mut handlers = Vec::new();
    let kinds: [(&str, &[&str]); 4] = [
        ("httpGet", &["host", "path", "scheme", "httpHeaders", "port"]),
        ("tcpSocket", &["host", "port"]),
        ("exec", &["command"]),
        ("grpc", &["port", "service"]),
    ];
    for (kind, fields) in kinds {
        if !has(probe, kind) {
            continue;
        }
        handlers.push(if kind == "grpc" { "gRPC" } else { kind });
        let handler = get(probe, &[kind]);
        errors.add(mask::disallowed(handler, fields).via(kind));
        if kind == "httpGet" || kind == "tcpSocket" {
            errors.add(validate_port(get(handler, &["port"]), kind, port));
        }
    }
    match handlers.as_slice() {
        [] => errors.add(Errors::missing_one_of(&["httpGet", "tcpSocket", "exec", "grpc"])),
        [_] => {}
        several => errors.add(Errors::multiple_one_of(several)),
    }
    errors
}

fn validate_port(port: &Value, kind: &str, user: Option<UserPort<'_>>) -> Errors {
    let path = format!("{kind}.port");
    let name = port.as_str().unwrap_or_default();
    match user {
        Some(user) if !name.is_empty() && name != user.name => {
            Errors::invalid_because(name, &path, "Probe port must match container port")
        }
        None if name.is_empty() && port.as_i64().unwrap_or_default() == 0 => {
            Errors::invalid_because(0, &path, "Probe port must be specified")
        }
        _ => Errors::none(),
    }
}

/// A readiness probe; without a period it is queue-proxy's own, which knows no timeout and no patience.
pub fn validate_readiness(probe: &Value, port: Option<UserPort<'_>>) -> Errors {
    if probe.is_null() {
        return Errors::none();
    }
    let mut errors = validate(probe, port);
    let mut at_least = |key: &str, low: i64| {
        let value = number(probe, key);
        if value < low {
            errors.add(Errors::out_of_bounds(value, low, i32::MAX, key));
        }
    };
    at_least("periodSeconds", 0);
    at_least("initialDelaySeconds", 0);
    at_least("successThreshold", 1);
    if number(probe, "periodSeconds") == 0 {
        for key in ["failureThreshold", "timeoutSeconds"] {
            if number(probe, key) != 0 {
                errors.add(Errors::new(format!("{key} is disallowed when periodSeconds is zero"), &[key]));
            }
        }
    } else {
        at_least("timeoutSeconds", 1);
        at_least("failureThreshold", 1);
    }
    errors
}

/// Probes of a container that does not serve, while `multi-container-probing` is off: none.
pub fn none_allowed(container: &Value) -> Errors {
    ["livenessProbe", "readinessProbe", "startupProbe"]
        .iter()
        .filter(|kind| has(container, kind))
        .map(|kind| mask::disallowed(get(container, &[kind]), &[]).via(kind))
        .collect()
}

/// The name by which probes may call the container's port.
pub fn port_name(port: &Value) -> &str {
    match text(port, "name") {
        "" => "http",
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn readiness(probe: &Value) -> String {
        validate_readiness(probe, Some(UserPort { name: "http" })).to_string()
    }

    #[test]
    fn probes_are_judged_in_upstreams_words() {
        let max = i32::MAX;
        let cases = [
            (json!({"tcpSocket": {"port": 0}, "successThreshold": 1}), String::new()),
            (json!({"httpGet": {"path": "/", "port": "http"}, "successThreshold": 1}), String::new()),
            (
                json!({"successThreshold": 1}),
                "expected exactly one, got neither: exec, grpc, httpGet, tcpSocket".into(),
            ),
            (
                json!({"successThreshold": 1, "exec": {}, "tcpSocket": {"port": 0}}),
                "expected exactly one, got both: exec, tcpSocket".into(),
            ),
            (json!({"tcpSocket": {}, "successThreshold": 0}), format!("expected 1 <= 0 <= {max}: successThreshold")),
            (
                json!({"tcpSocket": {}, "successThreshold": 1, "periodSeconds": -1, "timeoutSeconds": 1, "failureThreshold": 1}),
                format!("expected 0 <= -1 <= {max}: periodSeconds"),
            ),
            (
                json!({"tcpSocket": {}, "successThreshold": 1, "timeoutSeconds": 3}),
                "timeoutSeconds is disallowed when periodSeconds is zero: timeoutSeconds".into(),
            ),
            (
                json!({"tcpSocket": {}, "successThreshold": 1, "failureThreshold": 3}),
                "failureThreshold is disallowed when periodSeconds is zero: failureThreshold".into(),
            ),
            (
                json!({"tcpSocket": {}, "successThreshold": 1, "periodSeconds": 1, "failureThreshold": 1}),
                format!("expected 1 <= 0 <= {max}: timeoutSeconds"),
            ),
            (
                json!({"httpGet": {"port": "imap"}, "successThreshold": 1}),
                "invalid value: imap: httpGet.port\nProbe port must match container port".into(),
            ),
        ];
        for (probe, want) in cases {
            assert_eq!(readiness(&probe), want, "{probe}");
        }
        let sidecar = validate_readiness(&json!({"tcpSocket": {}, "successThreshold": 1}), None).to_string();
        assert_eq!(sidecar, "invalid value: 0: tcpSocket.port\nProbe port must be specified");
    }
}
