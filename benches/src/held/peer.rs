//! HAProxy's queue in front of a server that has no room: what a request in it takes.

use std::time::Duration;

use tokio::time::sleep;

use super::{Bench, SETTLE};
use crate::{
    load::http1::{Client, Request},
    peers::{Peer, Protocol},
};

/// From the last request until memory is read: all are in the queue.
const ARRIVE: Duration = Duration::from_millis(500);

impl Bench {
    /// KiB of a request that waits, by so many.
    pub(super) async fn haproxy(&self, peer: &Peer, n: usize) -> anyhow::Result<f64> {
        let running = peer.start(self.pods.target(), Protocol::Http1, n + 500, self.cores).await?;
        // The one that the server is busy with.
        let busy = self.pods.make_busy();
        let mut occupying = Client::open(&running.target).await?;
        occupying.send(&Request::Tiny.bytes()).await?;
        sleep(SETTLE).await;
        let before = running.rss_kib();
        let mut clients = Vec::with_capacity(n);
        for nth in 0..n {
            let mut client = Client::open_nth(&running.target, nth).await?;
            client.send(&Request::Tiny.bytes()).await?;
            clients.push(client);
        }
        sleep(ARRIVE).await;
        let rss = running.rss_kib() - before;
        drop(busy);
        // They were in the queue and not lost: each has its answer now.
        for client in &mut clients {
            client.answer().await?;
        }
        Ok(rss / n as f64)
    }
}
