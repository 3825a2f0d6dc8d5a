//! HAProxy: one thread, and every idle connection to the backend may serve any client. `server` is what else is said
//! of the app.

use std::{fs, io, process::Command};

use super::{Plan, Protocol};

pub(super) fn prepare(command: &mut Command, plan: &Plan<'_>, server: &str) -> io::Result<()> {
    let path = plan.folder.join("haproxy.cfg");
    let Plan { listen, backend, connections, .. } = plan;
    let proto = if plan.protocol == Protocol::H2c { " proto h2" } else { "" };
    fs::write(
        &path,
        format!(
            "global\n  nbthread 1\n  maxconn {connections}\n\
             defaults\n  mode http\n  option http-keep-alive\n  http-reuse always\n  \
             timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n  timeout http-keep-alive 300s\n  timeout tunnel 300s\n  timeout queue 300s\n\
             frontend in\n  bind {listen}{proto}\n  default_backend app\n\
             backend app\n  server app {backend}{proto}{server}\n"
        ),
    )?;
    command.arg("-db").arg("-q").arg("-f").arg(path);
    Ok(())
}
