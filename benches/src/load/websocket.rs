//! Upgraded connections that have exchanged a message and then rest.
//!
//! Both messages are constants (RFC 6455 frames of `Hello`): what is measured is the proxy's memory, not framing.

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Target, http1::connect};
use crate::head::Head;

/// The upgrade, with the key that RFC 6455 uses as its example.
const REQUEST: &[u8] = b"GET /ws HTTP/1.1\r\nHost: bench.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// The backend's answer to it.
pub(crate) const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// `Hello` from a client, masked.
pub(crate) const ASKED: &[u8] = &[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
/// `Hello` from a server.
pub(crate) const SAID: &[u8] = &[0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];

/// An upgraded connection, closed when dropped.
pub(crate) struct WebSocket(#[expect(dead_code, reason = "held open, never read again")] TcpStream);

/// Opens this many; each has exchanged a message when it is returned.
pub(crate) async fn open(to: &Target, n: usize) -> anyhow::Result<Vec<WebSocket>> {
    let mut sockets = Vec::with_capacity(n);
    for nth in 0..n {
        let mut stream = connect(to, nth).await?;
        upgrade(&mut stream).await?;
        stream.write_all(ASKED).await?;
        let mut said = [0; SAID.len()];
        stream.read_exact(&mut said).await.context("no message came back")?;
        if said != SAID {
            bail!("another message came back: {said:?}");
        }
        sockets.push(WebSocket(stream));
    }
    Ok(sockets)
}

async fn upgrade(stream: &mut TcpStream) -> anyhow::Result<()> {
    stream.write_all(REQUEST).await?;
    let mut received = Vec::with_capacity(512);
    loop {
        if stream.read_buf(&mut received).await? == 0 {
            bail!("the connection ended before it was upgraded");
        }
        // The backend says nothing before it is asked, so nothing follows the head.
        let Some(head) = Head::parse(&received)? else { continue };
        if head.status() != 101 {
            bail!("no upgrade: {}", String::from_utf8_lossy(head.first_line));
        }
        return Ok(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{backend::Backend, namespace::Namespace, peers::Protocol};

    #[tokio::test]
    async fn a_message_goes_and_one_comes_back() {
        let backend = Backend::start(Namespace::default()).unwrap();
        assert_eq!(open(&backend.target(Protocol::Http1), 2).await.unwrap().len(), 2);
    }
}
