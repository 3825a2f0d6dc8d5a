//! Pingora's proxy as a program: one worker thread, connections to the app kept, no modules and no TLS.
//!
//! `pingora LISTEN BACKEND http1|h2c`. A program of its own, built on request, so that its libraries weigh on nobody else.

use std::net::SocketAddr;

use anyhow::Context;
use pingora_core::{
    apps::HttpServerOptions,
    server::{RunArgs, Server, configuration::ServerConf},
    upstreams::peer::HttpPeer,
};
use pingora_proxy::{ProxyHttp, ProxyServiceBuilder, Session};

struct ToApp {
    backend: SocketAddr,
    h2c: bool,
}

#[async_trait::async_trait]
impl ProxyHttp for ToApp {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, (): &mut ()) -> pingora_core::Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.backend, false, String::new());
        if self.h2c {
            peer.options.set_http_version(2, 2);
            peer.options.max_h2_streams = 100;
        }
        Ok(Box::new(peer))
    }
}

/// Serves until killed.
fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().context("where to listen")?;
    let backend = arguments.next().context("where to connect")?.parse()?;
    let h2c = arguments.next().is_some_and(|protocol| protocol == "h2c");

    let conf = ServerConf { threads: 1, grace_period_seconds: Some(0), ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut options = HttpServerOptions::default();
    options.h2c = h2c;
    let proxy = ToApp { backend, h2c };
    let mut service = ProxyServiceBuilder::new(&server.configuration, proxy).server_options(options).build();
    service.add_tcp(&listen);
    server.add_service(service);
    server.run(RunArgs::default());
    Ok(())
}
