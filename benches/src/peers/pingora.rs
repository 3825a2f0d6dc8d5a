//! Pingora's proxy: one worker thread, connections to the app kept, no modules and no TLS.

use std::{net::SocketAddr, sync::Arc};

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
pub(super) fn run(listen: SocketAddr, backend: SocketAddr, h2c: bool) -> anyhow::Result<()> {
    let conf = ServerConf { threads: 1, grace_period_seconds: Some(0), ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut options = HttpServerOptions::default();
    options.h2c = h2c;
    let conf: &Arc<ServerConf> = &server.configuration;
    let mut service = ProxyServiceBuilder::new(conf, ToApp { backend, h2c }).server_options(options).build();
    service.add_tcp(&listen.to_string());
    server.add_service(service);
    server.run(RunArgs::default());
    Ok(())
}
