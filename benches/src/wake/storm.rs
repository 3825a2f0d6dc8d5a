//! Many distinct revisions woken at once.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{Bench, cluster, patiently};
use crate::{
    cluster::{Pods, Revision},
    load::http1::Client,
    peers::{Door, Protocol, door::pod},
};

/// Between the last request and the first pod: everything has come to rest.
const REST: Duration = Duration::from_millis(500);

impl Bench {
    /// One request each to so many sleeping revisions; once all wait, all pods appear. Their first answer is good.
    pub(super) async fn storm(&mut self, n: usize) -> anyhow::Result<()> {
        let door = Door { revisions: n + 1, routed: n + 1, ..Door::PLAIN };
        let running = self.start(door).await?;
        let cluster = cluster(&running)?;
        let revision = |nth| Revision { nth, limit: 0, protocol: Protocol::Http1 };
        let begun = Instant::now();
        let mut waiting = JoinSet::new();
        for nth in 1..=n {
            let mut client = Client::open_nth(&running.target, nth).await?;
            let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nUser-Agent: bench\r\n\r\n", revision(nth).host());
            waiting.spawn_local(async move { client.exchange(request.as_bytes()).await });
        }
        patiently("a report of each", cluster.hears_of_all(n)).await?;
        let reported = begun.elapsed();
        tokio::time::sleep(REST).await;
        let (before, rss, begun) = (running.cpu(), running.rss_kib(), Instant::now());
        for nth in 1..=n {
            cluster.pods(revision(nth), Pods { ready: &[], not_ready: &[pod(nth)], port: self.pods.port });
            if nth % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let all = async {
            while let Some(answered) = waiting.join_next().await {
                answered??;
            }
            anyhow::Ok(())
        };
        patiently("an answer to each", all).await??;
        let seconds = begun.elapsed().as_secs_f64();
        let cpu = running.cpu().since(before).us() / n as f64;
        self.add("storm_requests_reported_seconds", reported.as_secs_f64());
        self.add("storm_seconds", seconds);
        self.add("wakes_per_second", n as f64 / seconds);
        self.add("storm_cpu_us_per_wake", cpu);
        self.add("storm_rss_waiting_kib", rss);
        self.add("storm_rss_awake_kib", running.rss_kib());
        Ok(())
    }
}
