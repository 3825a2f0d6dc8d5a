//! nginx: a master and one worker, as it is meant to run; both count.

use std::{fs, io, process::Command};

use super::{Plan, Protocol};

/// Kept-alive connections to the app for requests; a connection of its own for what is upgraded.
const LOCATIONS: &str = r#"    proxy_http_version 1.1;
    location / {
      proxy_pass http://app;
      proxy_set_header Connection "";
    }
    location /ws {
      proxy_pass http://app;
      proxy_set_header Connection upgrade;
      proxy_set_header Upgrade $http_upgrade;
    }
"#;

pub(super) fn prepare(command: &mut Command, plan: &Plan<'_>) -> io::Result<()> {
    let path = plan.folder.join("nginx.conf");
    let Plan { listen, backend, folder, connections, .. } = plan;
    let (http2, locations) = match plan.protocol {
        Protocol::H2c => (" http2", "    location / { grpc_pass grpc://app; }\n"),
        Protocol::Http1 => ("", LOCATIONS),
    };
    let folder = folder.display();
    // The worker must reach its files in a folder that is ours alone.
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    let sockets = connections * 2 + 64;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("  {name}_temp_path {folder}/{name};\n"))
        .collect();
    fs::write(
        &path,
        format!(
            "{user}daemon off;\nworker_processes 1;\npid {folder}/pid;\nerror_log stderr error;\n\
             events {{ worker_connections {sockets}; }}\n\
             http {{\n{temporary}  access_log off;\n  server_tokens off;\n  keepalive_timeout 300s;\n  \
             keepalive_requests 1000000000;\n  client_max_body_size 0;\n  proxy_request_buffering off;\n  \
             proxy_max_temp_file_size 0;\n  proxy_read_timeout 300s;\n  \
             upstream app {{ server {backend}; keepalive 128; keepalive_requests 1000000000; keepalive_timeout 300s; }}\n  \
             server {{\n    listen {listen}{http2} backlog=4096;\n{locations}  }}\n}}\n"
        ),
    )?;
    command.arg("-e").arg("stderr").arg("-p").arg(plan.folder).arg("-c").arg(path);
    Ok(())
}
