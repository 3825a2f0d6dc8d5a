//! Envoy: one worker, no admin port, no request ids, and no limits that a sidecar would not have.

use std::{fs, io, process::Command};

use serde_json::{Value, json};

use super::{Plan, Protocol};

pub(super) fn prepare(command: &mut Command, plan: &Plan<'_>) -> io::Result<()> {
    let path = plan.folder.join("envoy.json");
    fs::write(&path, config(plan).to_string())?;
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]).arg("-c").arg(path);
    Ok(())
}

fn config(plan: &Plan<'_>) -> Value {
    let address = |a: std::net::SocketAddr| json!({"socket_address": {"address": a.ip(), "port_value": a.port()}});
    let kind = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let many = plan.connections;
    let upstream = match plan.protocol {
        Protocol::Http1 => json!({"http_protocol_options": {}}),
        Protocol::H2c => json!({"http2_protocol_options": {}}),
    };
    json!({"static_resources": {
        "listeners": [{
            "address": address(plan.listen),
            "filter_chains": [{"filters": [{
                "name": "http",
                "typed_config": {
                    "@type": kind("filters.network.http_connection_manager.v3.HttpConnectionManager"),
                    "stat_prefix": "in",
                    "generate_request_id": false,
                    "upgrade_configs": [{"upgrade_type": "websocket"}],
                    "route_config": {"virtual_hosts": [{
                        "name": "all",
                        "domains": ["*"],
                        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app", "timeout": "0s"}}],
                    }]},
                    "http_filters": [{
                        "name": "router",
                        "typed_config": {
                            "@type": kind("filters.http.router.v3.Router"),
                            "suppress_envoy_headers": true,
                            "dynamic_stats": false,
                        },
                    }],
                },
            }]}],
        }],
        "clusters": [{
            "name": "app",
            "type": "STATIC",
            "connect_timeout": "5s",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": kind("upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": upstream,
            }},
            "circuit_breakers": {"thresholds": [
                {"max_connections": many, "max_pending_requests": many, "max_requests": many},
            ]},
            "load_assignment": {"cluster_name": "app", "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": address(plan.backend)}}]},
            ]},
        }],
    }})
}
