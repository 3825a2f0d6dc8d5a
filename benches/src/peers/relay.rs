//! The floor: bytes from one socket to the other on one thread, with no idea what they mean.
//!
//! It is this very program, called with a word that its help does not name.

use std::{io, net::SocketAddr, process::Command};

use anyhow::Context;
use tokio::net::{TcpListener, TcpStream};

use super::Plan;

const WORD: &str = "__relay";

pub(super) fn prepare(command: &mut Command, plan: &Plan<'_>) {
    command.args([WORD, &plan.listen.to_string(), &plan.backend.to_string()]);
}

/// Where to listen and where to connect, when this process was started to be the relay.
pub(crate) fn asked(mut arguments: impl Iterator<Item = String>) -> Option<(String, String)> {
    (arguments.nth(1)? == WORD).then_some(())?;
    Some((arguments.next()?, arguments.next()?))
}

/// Relays until killed.
pub(crate) fn run(listen: &str, backend: &str) -> anyhow::Result<()> {
    let listen: SocketAddr = listen.parse().context("where to listen")?;
    let backend: SocketAddr = backend.parse().context("where to connect")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_word_makes_this_program_the_relay() {
        let asked = |words: &[&str]| asked(words.iter().map(ToString::to_string));
        assert_eq!(asked(&["benches", "__relay", "a", "b"]), Some(("a".into(), "b".into())));
        assert_eq!(asked(&["benches", "queue-proxy", "--quick"]), None);
        assert_eq!(asked(&["benches"]), None);
    }
}
