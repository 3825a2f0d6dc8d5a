//! The whole path of a warm request, activator and queue-proxy, beside one Envoy alone: latency at fixed rates.

use super::{Bench, entry::Entry, requests::RATE};
use crate::{
    load::{
        self,
        http1::{Request, connections},
    },
    peers::Protocol,
    report::quantile,
};

const CONNECTIONS: usize = 64;
/// A rate at which a proxy is busy for a good part of its core.
const HIGH_RATE: u32 = 5 * RATE;

impl Bench {
    /// Ours with a queue-proxy behind it, on the same core; all others as they are.
    pub(super) async fn path_again(&self, entry: &mut Entry) -> anyhow::Result<()> {
        let (true, Some(sidecar), Some(door)) = (entry.is_first_of_ours(), &self.sidecar, &entry.peer) else {
            return self.again(entry, Protocol::Http1, 0).await;
        };
        let app = self.backend.target(Protocol::Http1);
        let behind = sidecar.start(app, Protocol::Http1, super::ROOM, self.cores).await?;
        let mut running = door.start(behind.target.clone(), Protocol::Http1, super::ROOM, self.cores).await?;
        running.behind = Some(Box::new(behind));
        entry.running = Some(running);
        Ok(())
    }

    /// A round at each rate.
    pub(super) async fn path(&self, entry: &mut Entry) -> anyhow::Result<()> {
        let target = self.target(entry, Protocol::Http1)?;
        for (rate, p50, p99) in [(RATE, "path_p50_us", "path_p99_us"), (HIGH_RATE, "path_5k_p50_us", "path_5k_p99_us")]
        {
            let clients = connections(&target, CONNECTIONS).await?;
            let before = entry.cpu();
            let took = load::fixed_rate(clients, Request::Tiny.bytes(), rate, self.extent.fixed).await?;
            if let (Some(before), Some(after), HIGH_RATE) = (before, entry.cpu(), rate) {
                entry.add("path_5k_cpu_us_per_request", after.since(before).us() / took.len() as f64);
            }
            entry.add(p50, quantile(&took, 0.5));
            entry.add(p99, quantile(&took, 0.99));
        }
        Ok(())
    }
}
