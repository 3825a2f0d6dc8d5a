//! One data thread and two, on a core each.
//!
//! Two cores are all there is, and load must have its share: so each data thread is held to the same small part of its
//! core, the rest is the load's, and what gets through with two threads over what gets through with one is the scaling.
//! The CPU of a request beside it says the same without a quota's edges: twice the ratio of one thread's to two's.

use super::{Bench, entry::Entry};
use crate::{
    load::{
        self,
        http1::{Request, connections},
    },
    peers::{Door, Kind, Peer, Protocol},
    quota::Quota,
};

const CONNECTIONS: usize = 64;
/// Of each core for a data thread.
const MILLICORES: u32 = 300;
/// Microseconds in which that is counted.
const PERIOD: u32 = 10_000;

impl Bench {
    /// A process with one thread, then one with two.
    pub(super) async fn scaling(&self, entry: &mut Entry) -> anyhow::Result<()> {
        let mut found = Vec::new();
        for (threads, cpu, rate) in [
            (1, "threads1_cpu_us_per_request", "threads1_quota_requests_per_second"),
            (2, "threads2_cpu_us_per_request", "threads2_quota_requests_per_second"),
        ] {
            entry.running = None;
            let Some(peer @ Peer { kind: Kind::Door(door), .. }) = &entry.peer else { return Ok(()) };
            let peer = peer.of_kind(Kind::Door(Door { threads, ..*door }));
            let app = self.backend.target(Protocol::Http1);
            let running = peer.start(app, Protocol::Http1, super::ROOM, self.cores).await?;
            let mut quotas = Vec::new();
            for nth in 0..threads {
                let thread = running.thread(&format!("activator-{nth}"))?;
                self.cores.pin(thread, nth)?;
                let quota = Quota::counted_in(PERIOD, MILLICORES)?;
                quota.hold_thread(thread)?;
                quotas.push(quota);
            }
            let clients = connections(&running.target, CONNECTIONS).await?;
            let before = running.cpu();
            let (done, _clients) = load::closed_loop(clients, Request::Tiny.bytes(), self.extent.scaling).await?;
            let of_one = running.cpu().since(before).us() / done.requests as f64;
            let a_second = done.requests as f64 / done.seconds;
            entry.add(cpu, of_one);
            entry.add(rate, a_second);
            found.push((of_one, a_second));
        }
        if let [(cpu_one, rate_one), (cpu_two, rate_two)] = found[..] {
            entry.add("scaling_by_cpu", 2.0 * cpu_one / cpu_two);
            entry.add("scaling_by_quota", rate_two / rate_one);
        }
        Ok(())
    }
}
