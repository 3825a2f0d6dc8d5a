//! Many requests a connection, over h2c.

use anyhow::bail;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, body::Incoming, client::conn::http2, header::RETRY_AFTER};
use tokio::task::JoinSet;

use super::{Bench, LEAVES, SETTLE, is_refused};
use crate::load::{Target, http1};

type Sender = http2::SendRequest<Empty<Bytes>>;

/// Streams on a connection, as many as an activator allows.
const STREAMS: usize = 250;

impl Bench {
    /// As [`Bench::connections`], over h2c.
    pub(super) async fn streams(&mut self, prefix: &str, limit: u32, n: usize) -> anyhow::Result<()> {
        let line = self.start(limit, n).await?;
        let host = line.revision.host();
        let before = line.running.rss_kib();
        let stays = |id: usize| !id.is_multiple_of(LEAVES);
        let (mut staying, mut leaving) = (JoinSet::new(), JoinSet::new());
        for first in (0..n).step_by(STREAMS) {
            let connection = connect(&line.running.target, first / STREAMS).await?;
            for id in first..n.min(first + STREAMS) {
                let asked = call(connection.clone(), host.clone(), id);
                if stays(id) {
                    staying.spawn_local(async move {
                        let answer = asked.await?;
                        let status = answer.status();
                        answer.into_body().collect().await?;
                        if status == 200 { Ok(()) } else { bail!("answer: {status}") }
                    });
                } else {
                    leaving.spawn_local(asked);
                }
            }
            // So that ids are in the order in which they came.
            line.until_waiting(n.min(first + STREAMS)).await?;
        }
        tokio::time::sleep(SETTLE).await;
        let rss = line.running.rss_kib() - before;
        let refused = call(connect(&line.running.target, 0).await?, host.clone(), n).await?;
        is_refused(refused.status().as_u16(), refused.headers().contains_key(RETRY_AFTER))?;
        leaving.shutdown().await;
        let left = line.until_waiting(staying.len()).await?;
        self.add(format!("{prefix}requests"), n as f64);
        self.add(format!("{prefix}rss_per_request_kib"), rss / n as f64);
        self.add(format!("{prefix}leave_ms"), left.as_secs_f64() * 1e3);
        self.answer_all(prefix, &line, staying, |id| stays(id as usize), n as u32).await
    }
}

async fn connect(to: &Target, nth: usize) -> anyhow::Result<Sender> {
    let io = hyper_util::rt::TokioIo::new(http1::connect(to, nth).await?);
    let (sender, connection) = http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await?;
    // It ends when the last of its streams is dropped; a break shows in the calls.
    tokio::spawn(connection);
    Ok(sender)
}

async fn call(mut connection: Sender, host: String, id: usize) -> anyhow::Result<Response<Incoming>> {
    let request = Request::get(format!("http://{host}/{id}")).body(Empty::new())?;
    connection.ready().await?;
    Ok(connection.send_request(request).await?)
}
