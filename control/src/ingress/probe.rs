//! Asks a gateway which version of an Ingress it serves.

use std::{net::SocketAddr, time::Duration};

use api::{headers, networking::Ingress, probe};
use bytes::Bytes;
use http::{Request, StatusCode, header::HOST, header::USER_AGENT};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long one gateway may take to answer for one Ingress.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why a gateway does not count as serving.
#[derive(Debug, thiserror::Error)]
pub enum NotServed {
    /// Nobody answers there.
    #[error("gateway {0}: {1}")]
    Connect(SocketAddr, std::io::Error),
    /// It answers with something that is not HTTP, or hangs up.
    #[error("gateway {0}: {1}")]
    Http(SocketAddr, hyper::Error),
    /// It does not answer in time.
    #[error("gateway {0}: no answer within a second")]
    Silent(SocketAddr),
    /// It serves another version of the host, or does not know it.
    #[error("gateway {gateway} does not serve {host} yet: {status}")]
    Behind {
        /// Which gateway.
        gateway: SocketAddr,
        /// Which host.
        host: String,
        /// What it answered.
        status: StatusCode,
    },
    /// A host that cannot be asked for.
    #[error("host {0:?}: {1}")]
    Host(String, http::Error),
}

/// Succeeds when the gateway serves every rule of exactly this version (`hash`).
pub async fn ask(gateway: SocketAddr, ingress: &Ingress, hash: &str) -> Result<(), NotServed> {
    match tokio::time::timeout(PATIENCE, ask_all(gateway, ingress, hash)).await {
        Ok(answer) => answer,
        Err(_) => Err(NotServed::Silent(gateway)),
    }
}

async fn ask_all(gateway: SocketAddr, ingress: &Ingress, hash: &str) -> Result<(), NotServed> {
    // One host stands for its rule: a gateway takes in a whole Ingress at once.
    let hosts: Vec<&String> = ingress.spec.rules.iter().filter_map(|rule| rule.hosts.first()).collect();
    if hosts.is_empty() {
        return Ok(());
    }
    let stream = TcpStream::connect(gateway).await.map_err(|e| NotServed::Connect(gateway, e))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| NotServed::Http(gateway, e))?;
    let connection = tokio::spawn(async move {
        // Its end is told to the sender as well.
        let _ = connection.await;
    });
    let mut result = Ok(());
    for host in hosts {
        result = ask_one(&mut sender, gateway, host, hash).await;
        if result.is_err() {
            break;
        }
    }
    connection.abort();
    result
}

async fn ask_one(
    sender: &mut hyper::client::conn::http1::SendRequest<Empty<Bytes>>,
    gateway: SocketAddr,
    host: &str,
    hash: &str,
) -> Result<(), NotServed> {
    let request = Request::get(probe::PATH)
        .header(HOST, host)
        .header(USER_AGENT, probe::INGRESS_USER_AGENT)
        .header(headers::NETWORK_PROBE, probe::PROBE)
        .header(headers::NETWORK_HASH, hash)
        .body(Empty::new())
        .map_err(|e| NotServed::Host(host.to_owned(), e))?;
    sender.ready().await.map_err(|e| NotServed::Http(gateway, e))?;
    let answer = sender.send_request(request).await.map_err(|e| NotServed::Http(gateway, e))?;
    let serves = answer.headers().get(headers::NETWORK_HASH).is_some_and(|v| v.as_bytes() == hash.as_bytes());
    if answer.status() == StatusCode::OK && serves {
        return Ok(());
    }
    Err(NotServed::Behind { gateway, host: host.to_owned(), status: answer.status() })
}
