//! What a sleeping revision takes: memory with very many of them, less that with none.

use std::time::Duration;

use super::Bench;
use crate::peers::Door;

/// From the first answer until memory is read.
const SETTLE: Duration = Duration::from_secs(2);

impl Bench {
    /// So many revisions that never had a request, without a host and with one each.
    pub(super) async fn idle(&mut self, n: usize) -> anyhow::Result<()> {
        let base = self.rss(Door::PLAIN).await?;
        let known = self.rss(Door { revisions: n, ..Door::PLAIN }).await?;
        let routed = self.rss(Door { revisions: n, routed: n, ..Door::PLAIN }).await?;
        let each = |rss: f64| (rss - base) * 1024.0 / n as f64;
        self.add("rss_base_kib", base);
        self.add("bytes_per_idle_revision", each(known));
        self.add("bytes_per_idle_revision_with_host", each(routed));
        Ok(())
    }

    async fn rss(&self, door: Door) -> anyhow::Result<f64> {
        let running = self.start(door).await?;
        tokio::time::sleep(SETTLE).await;
        Ok(running.rss_kib())
    }
}
