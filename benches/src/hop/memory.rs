//! What a connection costs in memory: in flight, idle, upgraded; each in a process of its own.

use tokio::time::sleep;

use super::{Bench, entry::Entry};
use crate::{
    backend,
    load::{http1, websocket},
    peers::Protocol,
};

/// Requests that the backend holds.
const IN_FLIGHT: usize = 500;

impl Bench {
    /// A request in flight, its connections with it.
    pub(super) async fn in_flight(&self, entry: &mut Entry) -> anyhow::Result<()> {
        self.again(entry, Protocol::Http1, IN_FLIGHT).await?;
        let Some(running) = &entry.running else { return Ok(()) };
        let before = self.settled(running).await;
        let _clients = http1::in_flight(&running.target, IN_FLIGHT).await?;
        sleep(backend::WAIT / 2).await;
        let grown = running.rss_kib() - before;
        entry.add("kib_per_request_in_flight", grown / IN_FLIGHT as f64);
        Ok(())
    }

    /// A connection that has served a request and waits for the next.
    pub(super) async fn idle_connections(&self, entry: &mut Entry) -> anyhow::Result<()> {
        let connections = self.extent.idle_connections;
        self.again(entry, Protocol::Http1, connections).await?;
        let Some(running) = &entry.running else { return Ok(()) };
        let before = self.settled(running).await;
        let _clients = http1::connections(&running.target, connections).await?;
        let grown = self.settled(running).await - before;
        entry.add("kib_per_idle_connection", grown / connections as f64);
        Ok(())
    }

    /// An upgraded connection that has carried a message each way and rests.
    pub(super) async fn websockets(&self, entry: &mut Entry) -> anyhow::Result<()> {
        let sockets = self.extent.websockets;
        self.again(entry, Protocol::Http1, sockets).await?;
        let Some(running) = &entry.running else { return Ok(()) };
        let before = self.settled(running).await;
        let _sockets = websocket::open(&running.target, sockets).await?;
        let grown = self.settled(running).await - before;
        entry.add("kib_per_websocket", grown / sockets as f64);
        Ok(())
    }
}
