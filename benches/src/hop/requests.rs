//! Requests over HTTP/1.1: CPU, rate, latency, and large bodies.

use std::time::Duration;

use super::{Bench, entry::Entry};
use crate::{
    load::{
        self,
        http1::{Request, connections},
    },
    peers::{Protocol, Running},
    report::quantile,
};

/// Kept-alive connections of the closed loop and of the fixed rate.
const CONNECTIONS: usize = 64;
/// Connections that carry 1 MiB bodies.
const BODY_CONNECTIONS: usize = 4;
/// A log may be written behind the requests.
const LINES_ARRIVE: Duration = Duration::from_millis(50);
/// Requests a second at which latency is read.
pub(super) const RATE: u32 = 1000;

impl Bench {
    /// Load, latency at a fixed rate, latency of one connection.
    pub(super) async fn round(&self, entry: &mut Entry) -> anyhow::Result<()> {
        // A process anew: where its memory happens to lie is worth a tenth of a request.
        self.again(entry, Protocol::Http1, 0).await?;
        let target = self.target(entry, Protocol::Http1)?;
        let asked = Request::Tiny.bytes();
        let clients = connections(&target, CONNECTIONS).await?;
        let (_, clients) = load::closed_loop(clients, asked.clone(), self.extent.warm).await?;
        let (before, lines) = (entry.cpu(), entry.lines());
        let (done, clients) = load::closed_loop(clients, asked.clone(), self.extent.closed).await?;
        if let (Some(before), Some(after)) = (before, entry.cpu()) {
            let spent = after.since(before);
            let each = |us: f64| us / done.requests as f64;
            entry.add("cpu_us_per_request", each(spent.us()));
            entry.add("cpu_user_us_per_request", each(spent.user_us()));
            entry.add("cpu_system_us_per_request", each(spent.us() - spent.user_us()));
        }
        entry.add("requests_per_second", done.requests as f64 / done.seconds);
        if lines.is_some() {
            tokio::time::sleep(LINES_ARRIVE).await;
        }
        if let (Some(before), Some(after)) = (lines, entry.lines()) {
            entry.add("lines_per_request", (after - before) as f64 / done.requests as f64);
        }
        let before = entry.cpu();
        let (done, clients) = load::awake(load::closed_loop(clients, asked.clone(), self.extent.closed)).await?;
        if let (Some(before), Some(after)) = (before, entry.cpu()) {
            entry.add("awake_cpu_us_per_request", after.since(before).us() / done.requests as f64);
        }
        if let Some(rss) = entry.running.as_ref().map(Running::rss_kib) {
            entry.add("rss_load_kib", rss);
        }
        let took = load::fixed_rate(clients, asked.clone(), RATE, self.extent.fixed).await?;
        entry.add("p50_us", quantile(&took, 0.5));
        entry.add("p99_us", quantile(&took, 0.99));
        for client in &mut connections(&target, 1).await? {
            let took = load::one_by_one(client, &asked, self.extent.single).await?;
            entry.add("p50_1conn_us", quantile(&took, 0.5));
        }
        Ok(())
    }

    /// Bodies of 1 MiB, down and up.
    pub(super) async fn bodies(&self, entry: &mut Entry) -> anyhow::Result<()> {
        for (request, speed, cost) in [
            (Request::Download, "mib_per_second_down", "cpu_us_per_mib_down"),
            (Request::Upload, "mib_per_second_up", "cpu_us_per_mib_up"),
        ] {
            let clients = connections(&self.target(entry, Protocol::Http1)?, BODY_CONNECTIONS).await?;
            let before = entry.cpu();
            let (done, _clients) = load::closed_loop(clients, request.bytes(), self.extent.bodies).await?;
            if let (Some(before), Some(after)) = (before, entry.cpu()) {
                entry.add(cost, after.since(before).us() / done.requests as f64);
            }
            entry.add(speed, done.requests as f64 / done.seconds);
        }
        Ok(())
    }
}
