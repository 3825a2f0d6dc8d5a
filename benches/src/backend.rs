//! The app behind the proxies: answers as fast as a socket allows, so that what is measured is the proxy.
//!
//! It runs on the load generator's thread: one core makes and serves all load, the other has the proxy to itself.

use std::{net::SocketAddr, time::Duration};

use anyhow::bail;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::head::Head;

/// What `/` answers: twelve bytes.
const TINY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nHello world\n";
/// Body of `/mib`.
pub(crate) const MIB: usize = 1024 * 1024;
/// How long `/wait` holds its answer.
pub(crate) const WAIT: Duration = Duration::from_millis(1000);

/// Serves until the runtime ends.
pub(crate) async fn start() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let mib: &'static [u8] = Box::leak(large_answer().into_boxed_slice());
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            // A proxy that goes away in the middle is no news.
            tokio::spawn(async move { serve(stream, mib).await.ok() });
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
        let (large, wait) = (path == b"/mib", path == b"/wait");
        if whole > bytes.len() {
            skip(&mut stream, whole - bytes.len()).await?;
        }
        bytes.drain(..whole.min(bytes.len()));
        if wait {
            tokio::time::sleep(WAIT).await;
        }
        stream.write_all(if large { mib } else { TINY }).await?;
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
    use crate::load::{Client, Request};

    #[tokio::test]
    async fn answers_each_request_of_a_connection() {
        let backend = start().await.unwrap();
        let mut client = Client::open(backend).await.unwrap();
        for (request, body) in
            [(Request::Tiny, 12), (Request::Download, MIB), (Request::Upload, 12), (Request::Tiny, 12)]
        {
            assert_eq!(client.exchange(request).await.unwrap(), body, "{request:?}");
        }
    }
}
