//! A connection a request.

use tokio::task::JoinSet;

use super::{Bench, LEAVES, SETTLE, is_refused};
use crate::load::http1::Client;

impl Bench {
    /// Fills the line over HTTP/1.1, tries one more, lets some leave, and brings a pod.
    pub(super) async fn connections(&mut self, prefix: &str, limit: u32, n: usize) -> anyhow::Result<()> {
        let line = self.start(limit, n).await?;
        let host = line.revision.host();
        let request =
            |id: usize| format!("GET /{id} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n");
        let before = line.running.rss_kib();
        let mut clients = Vec::with_capacity(n);
        for id in 0..n {
            let mut client = Client::open_nth(&line.running.target, id).await?;
            client.send(request(id).as_bytes()).await?;
            clients.push(client);
        }
        line.until_waiting(n).await?;
        tokio::time::sleep(SETTLE).await;
        let rss = line.running.rss_kib() - before;
        let (head, _) = Client::open(&line.running.target).await?.page("/", &host).await?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        is_refused(status, head.contains("\nretry-after:"))?;
        let stays = |id: usize| !id.is_multiple_of(LEAVES);
        let mut waiting = JoinSet::new();
        for (id, mut client) in clients.into_iter().enumerate() {
            if stays(id) {
                waiting.spawn_local(async move { client.answer().await.map(drop) });
            }
        }
        let stayed = (0..n).filter(|id| stays(*id)).count();
        let left = line.until_waiting(stayed).await?;
        self.add(format!("{prefix}requests"), n as f64);
        self.add(format!("{prefix}rss_per_request_kib"), rss / n as f64);
        self.add(format!("{prefix}leave_ms"), left.as_secs_f64() * 1e3);
        self.answer_all(prefix, &line, waiting, |id| stays(id as usize), n as u32).await
    }
}
