//! A small CPU quota, such as a pod's limit sets: what gets through when the proxy may run 2.5 ms in each 100.

use super::{Bench, entry::Entry};
use crate::{
    load::{
        self,
        http1::{Request, connections},
    },
    peers::Protocol,
    quota::Quota,
};

/// What a queue-proxy requests by default, taken as a hard limit.
pub(super) const MILLICORES: u32 = 25;
const CONNECTIONS: usize = 8;

impl Bench {
    /// A closed loop over few connections, with the program and its children, and nobody else, under the quota.
    pub(super) async fn limited(&self, entry: &mut Entry) -> anyhow::Result<()> {
        self.again(entry, Protocol::Http1, 0).await?;
        let Some(running) = &entry.running else { return Ok(()) };
        let clients = connections(&running.target, CONNECTIONS).await?;
        let quota = Quota::new(MILLICORES)?;
        for pid in running.pids() {
            quota.hold(pid)?;
        }
        let (done, _clients) = load::closed_loop(clients, Request::Tiny.bytes(), self.extent.quota).await?;
        entry.add("quota25m_requests_per_second", done.requests as f64 / done.seconds);
        Ok(())
    }
}
