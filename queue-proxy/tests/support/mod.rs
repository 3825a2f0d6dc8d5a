//! A real sidecar on loopback, apps to put behind it, and a client that says exactly the bytes it is told.
#![allow(dead_code, unreachable_pub)] // each test binary uses its part

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use hyper::service::service_fn;
use proxy::{Body, Drain, ServerConfig};
use queue_proxy::{Addresses, Config, QueueProxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// No step of a test may hang longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test on the kind of runtime the sidecar runs on.
pub fn on_runtime<F: Future>(test: F) -> F::Output {
    proxy::runtime::block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("test hung") }).unwrap()
}

/// The configuration of a pod whose app listens at `app`.
pub fn config(app: SocketAddr) -> Config {
    config_with(app, &[])
}

/// The same with more of the environment.
pub fn config_with(app: SocketAddr, more: &[(&str, &str)]) -> Config {
    let mut environment = HashMap::from([
        ("CONTAINER_CONCURRENCY", "0"),
        ("QUEUE_SERVING_PORT", "0"),
        ("QUEUE_SERVING_TLS_PORT", "0"),
        ("USER_PORT", "1"),
        ("REVISION_TIMEOUT_SECONDS", "300"),
        ("SERVING_NAMESPACE", "ns"),
        ("SERVING_CONFIGURATION", "conf"),
        ("SERVING_REVISION", "rev"),
        ("SERVING_POD", "pod1"),
        ("SERVING_POD_IP", "10.0.0.1"),
        ("SERVING_LOGGING_CONFIG", ""),
        ("SERVING_LOGGING_LEVEL", ""),
    ]);
    environment.extend(more.iter().copied());
    let mut config = Config::from_lookup(|name| environment.get(name).map(ToString::to_string)).unwrap();
    config.bind_address = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    config.admin_port = 0;
    config.stats_port = 0;
    config.user = app;
    config.drain_quiet = Duration::ZERO;
    config
}

/// A running sidecar.
pub struct Pod {
    pub at: Addresses,
    pub shutdown: CancellationToken,
    pub ended: JoinHandle<()>,
}

impl Pod {
    pub async fn start(config: Config) -> Self {
        let sidecar = QueueProxy::bind(config).await.unwrap();
        let at = sidecar.local_addr();
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let ended = tokio::task::spawn_local(async move { sidecar.run(token).await.unwrap() });
        Self { at, shutdown, ended }
    }

    pub async fn before(app: SocketAddr) -> Self {
        Self::start(config(app)).await
    }

    pub async fn connect(&self) -> Raw {
        Raw::connect(self.at.serving).await
    }

    /// One request on its own connection, the whole answer as text.
    pub async fn say(&self, request: &str) -> String {
        say(self.at.serving, request).await
    }

    pub async fn get(&self, path: &str) -> String {
        self.say(&get(path)).await
    }
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")
}

/// Sends text, reads until the other side closes.
pub async fn say(to: SocketAddr, request: &str) -> String {
    let mut raw = Raw::connect(to).await;
    raw.send(request).await;
    raw.rest().await
}

/// A client that says exactly what it is told.
pub struct Raw(pub TcpStream);

impl Raw {
    pub async fn connect(to: SocketAddr) -> Self {
        Self(TcpStream::connect(to).await.unwrap())
    }

    pub async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until the text has come.
    pub async fn until(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&seen).contains(text) {
            let n = self.0.read(&mut buffer).await.unwrap();
            assert!(n > 0, "closed before {text:?}: {:?}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..n]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Reads until the end; a reset counts as one.
    pub async fn rest(&mut self) -> String {
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = self.0.read(&mut buffer).await {
            seen.extend_from_slice(&buffer[..n]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }
}

/// An app made of a function, HTTP/1 and h2c.
pub fn app<F, Fut>(serve: F) -> SocketAddr
where
    F: Fn(Request<Body>) -> Fut + 'static,
    Fut: Future<Output = Response<Body>> + 'static,
{
    let listener = proxy::accept::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), false).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Rc::new(serve);
    tokio::task::spawn_local(proxy::serve(listener, ServerConfig::default(), Drain::default(), move |_peer| {
        let serve = Rc::clone(&serve);
        service_fn(move |request| {
            let answer = serve(request);
            async move { Ok::<_, Infallible>(answer.await) }
        })
    }));
    address
}

/// An app that says exactly the bytes it is told: called once per connection.
pub async fn raw_app<F, Fut>(serve: F) -> SocketAddr
where
    F: Fn(Raw) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(serve(Raw(stream)));
        }
    });
    address
}

/// An app that answers with the request head exactly as it came.
pub async fn mirror() -> SocketAddr {
    raw_app(|mut raw| async move {
        let head = raw.until("\r\n\r\n").await;
        raw.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{head}", head.len()))
            .await;
    })
    .await
}

/// A free address nobody listens on.
pub fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

pub fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}
