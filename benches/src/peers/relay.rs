//! The floor: bytes from one socket to the other on one thread, with no idea what they mean.

use std::{io, net::SocketAddr};

use tokio::net::{TcpListener, TcpStream};

/// Relays until killed.
pub(super) fn run(listen: SocketAddr, backend: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        loop {
            let (client, _) = listener.accept().await?;
            // One side went away: so does the other.
            tokio::spawn(async move { join(client, backend).await.ok() });
        }
    })
}

async fn join(mut client: TcpStream, backend: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(backend).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
