//! The app behind the proxies: answers as fast as a socket allows, so that what is measured is the proxy.
//!
//! It runs on the load generator's thread: one core makes and serves all load, the other has the proxy to itself.

mod grpc;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::bail;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::{
    head::Head,
    load::{Target, websocket},
    namespace::Namespace,
    peers::Protocol,
};

/// What `/` answers: twelve bytes.
const TINY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nHello world\n";
/// What an activator's probe wants to hear.
const QUEUE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nqueue";
/// Body of `/mib`.
pub(crate) const MIB: usize = 1024 * 1024;
/// How long `/wait` holds its answer.
pub(crate) const WAIT: Duration = Duration::from_millis(1000);

/// Where it listens; it serves until the runtime ends.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    http1: SocketAddr,
    h2c: SocketAddr,
    namespace: Namespace,
}

impl Backend {
    /// On free ports of loopback, in this network. Within a runtime only.
    pub(crate) fn start(namespace: Namespace) -> io::Result<Self> {
        Self::on(Ipv4Addr::LOCALHOST, namespace)
    }

    /// On all addresses, so that it can be as many pods as there are addresses of loopback.
    pub(crate) fn everywhere() -> io::Result<Self> {
        Self::on(Ipv4Addr::UNSPECIFIED, Namespace::default())
    }

    fn on(ip: Ipv4Addr, namespace: Namespace) -> io::Result<Self> {
        let mib: &'static [u8] = Box::leak(large_answer().into_boxed_slice());
        let http1 = listen(ip, &namespace, move |stream| serve(stream, mib))?;
        let h2c = listen(ip, &namespace, move |stream| either(stream, mib))?;
        Ok(Self { http1, h2c, namespace })
    }

    /// Where it speaks this.
    pub(crate) fn target(&self, protocol: Protocol) -> Target {
        let address = match protocol {
            Protocol::Http1 => self.http1,
            Protocol::H2c => self.h2c,
        };
        Target { address, namespace: self.namespace.clone() }
    }
}

/// h2c, or HTTP/1.1 from an activator that asks whether this pod is ready.
async fn either(stream: TcpStream, mib: &[u8]) -> anyhow::Result<()> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first == *b"G" { serve(stream, mib).await } else { grpc::serve(stream).await }
}

fn listen<F>(
    ip: Ipv4Addr,
    namespace: &Namespace,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> io::Result<SocketAddr>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let listener = namespace.within(|| {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(ip.into(), 0))?;
        socket.listen(4096)
    })?;
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listener.local_addr()?.port());
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let served = serve(stream);
            // A proxy that goes away in the middle is no news.
            tokio::spawn(async move { served.await.ok() });
        }
    });
    Ok(address)
}

fn large_answer() -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {MIB}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + MIB, b'x');
    answer
}

async fn serve(mut stream: TcpStream, mib: &[u8]) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = Vec::with_capacity(1024);
    loop {
        let Some(head) = Head::parse(&bytes)? else {
            if bytes.len() > 64 * 1024 {
                bail!("a request head without an end");
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let (whole, path) = (head.length + head.content_length, head.path());
        let (large, wait, probe) = (path == b"/mib", path == b"/wait", path == b"/healthz");
        if path == b"/ws" {
            return talk(stream).await;
        }
        if whole > bytes.len() {
            skip(&mut stream, whole - bytes.len()).await?;
        }
        bytes.drain(..whole.min(bytes.len()));
        if wait {
            tokio::time::sleep(WAIT).await;
        }
        let answer = match (large, probe) {
            (true, _) => mib,
            (_, true) => QUEUE,
            _ => TINY,
        };
        stream.write_all(answer).await?;
    }
}

/// Upgrades, and says one message for each that comes.
async fn talk(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.write_all(websocket::ANSWER).await?;
    let mut asked = [0; websocket::ASKED.len()];
    loop {
        stream.read_exact(&mut asked).await?;
        stream.write_all(websocket::SAID).await?;
    }
}

/// Reads the rest of a body and forgets it.
async fn skip(stream: &mut TcpStream, mut left: usize) -> anyhow::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    while left > 0 {
        let most = left.min(buffer.len());
        match stream.read(&mut buffer[..most]).await? {
            0 => bail!("the connection ended in the middle of a body"),
            n => left -= n,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::http1::{Client, Request};

    #[tokio::test]
    async fn answers_each_request_of_a_connection() {
        let backend = Backend::start(Namespace::default()).unwrap();
        let mut client = Client::open(&backend.target(Protocol::Http1)).await.unwrap();
        for (request, body) in
            [(Request::Tiny, 12), (Request::Download, MIB), (Request::Upload, 12), (Request::Tiny, 12)]
        {
            assert_eq!(client.exchange(&request.bytes()).await.unwrap(), body, "{request:?}");
        }
    }
}
