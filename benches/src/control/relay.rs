//! A way to the API server that counts the writes that go by it. Nothing is changed: one connection out for each one in.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http_body_util::BodyExt;
use hyper::{Method, Request, Response, body::Incoming, client, server, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

/// A running relay; ends with its runtime.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    writes: Arc<AtomicU64>,
}

impl Relay {
    pub(super) fn start(to: SocketAddr) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let (address, listener) = (listener.local_addr()?, TcpListener::from_std(listener)?);
        let writes = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&writes);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    if let Err(error) = pass(stream, to, &count).await {
                        eprintln!("control: a connection to the API server broke: {error}");
                    }
                });
            }
        });
        Ok(Self { address, writes })
    }

    /// Requests so far that were not mere questions; those for leases are not counted.
    pub(super) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }
}

async fn pass(stream: TcpStream, to: SocketAddr, count: &AtomicU64) -> anyhow::Result<()> {
    let out = TcpStream::connect(to).await?;
    out.set_nodelay(true)?;
    stream.set_nodelay(true)?;
    let (sender, connection) = client::conn::http1::handshake(TokioIo::new(out)).await?;
    tokio::spawn(connection);
    let sender = Mutex::new(sender);
    let service = service_fn(|request: Request<Incoming>| async {
        // Who does the work is no Service's affair, and is written by the clock.
        if request.method() != Method::GET && !request.uri().path().contains("/leases") {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let response: hyper::Result<Response<Incoming>> = sender.lock().await.send_request(request).await;
        response.map(|response| response.map(BodyExt::boxed))
    });
    // A client that closes a watch in the middle is no fault.
    let _ = server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    Ok(())
}
