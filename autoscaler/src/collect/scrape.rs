//! Asks pods for their load: `GET /metrics` at :9090 of each pod, directly (upstream
//! `pkg/autoscaler/metrics/{stats_scraper,http_scrape_client}.go`, direct mode).

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use api::stat::{CONTENT_TYPE, MAX_SCRAPE_BYTES, Stat};
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use http::{Request, header};
use http_body_util::Empty;
use prost::Message;
use tokio::sync::Semaphore;

use super::http::{self as client, Connection};

/// One pod may take this long.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Kept connections in all.
const MAX_IDLE: usize = 1000;
/// Requests under way in all.
const MAX_IN_FLIGHT: usize = 256;

/// Why a pod gave no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No HTTP answer.
    #[error(transparent)]
    Http(#[from] client::Error),
    /// The request could not be built.
    #[error("bad address: {0}")]
    Request(#[from] http::Error),
    /// An answer that is no report.
    #[error("answer is no report: {0}")]
    NoStat(String),
    /// Fewer pods answered than wanted.
    #[error("pods exhausted, last: {0}")]
    Exhausted(String),
}

/// Scrapes over kept connections. Cheap to clone.
#[derive(Clone)]
pub struct Scraper(Arc<Inner>);

struct Inner {
    port: u16,
    idle: Mutex<HashMap<SocketAddr, Connection>>,
    in_flight: Semaphore,
}

impl Scraper {
    /// Asks pods at `port`.
    pub fn new(port: u16) -> Self {
        Self(Arc::new(Inner { port, idle: Mutex::default(), in_flight: Semaphore::new(MAX_IN_FLIGHT) }))
    }

    /// Asks until `wanted` pods of `order` answered, and extrapolates to all of them. One worker per wanted answer
    /// goes down the common list; one that runs out fails the round, since the rest would not speak for all.
    pub async fn scrape(&self, order: &[IpAddr], wanted: usize) -> Result<Option<Stat>, Error> {
        if wanted == 0 || order.is_empty() {
            return Ok(None);
        }
        let next = AtomicUsize::new(0);
        let mut workers: FuturesUnordered<_> = (0..wanted).map(|_| self.worker(order, &next)).collect();
        let mut stats = Vec::with_capacity(wanted);
        while let Some(stat) = workers.next().await {
            stats.push(stat?);
        }
        Ok(Some(extrapolate(&stats, order.len())))
    }

    /// Each pod's requests in flight; `None` where it did not answer.
    pub async fn each(&self, pods: impl Iterator<Item = IpAddr>) -> Vec<Option<f64>> {
        let ask = |address| async move {
            let stat = self.one(SocketAddr::new(address, self.0.port)).await.ok()?;
            Some(stat.average_concurrent_requests).filter(|busy| busy.is_finite())
        };
        futures::future::join_all(pods.map(ask)).await
    }

    async fn worker(&self, order: &[IpAddr], next: &AtomicUsize) -> Result<Stat, Error> {
        let mut last = String::from("no pod left");
        while let Some(address) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            match self.one(SocketAddr::new(*address, self.0.port)).await {
                Ok(stat) => return Ok(stat),
                Err(error) => last = error.to_string(),
            }
        }
        Err(Error::Exhausted(last))
    }

    async fn one(&self, address: SocketAddr) -> Result<Stat, Error> {
        // Never closed; without a permit the request would only be early.
        let _permit = self.0.in_flight.acquire().await;
        let kept = self.idle().remove(&address).filter(|connection| !connection.is_closed());
        let mut connection = match kept {
            Some(connection) => connection,
            None => {
                tokio::time::timeout(TIMEOUT, client::connect(address)).await.map_err(|_| client::Error::Timeout)??
            }
        };
        let request = Request::get("/metrics")
            .header(header::HOST, address.to_string())
            .header(header::ACCEPT, CONTENT_TYPE)
            .body(Empty::<Bytes>::new())?;
        let response = client::exchange(&mut connection, request, MAX_SCRAPE_BYTES, TIMEOUT).await?;
        let mut idle = self.idle();
        if idle.len() >= MAX_IDLE {
            idle.retain(|_, connection| !connection.is_closed());
        }
        if idle.len() < MAX_IDLE && !connection.is_closed() {
            idle.insert(address, connection);
        }
        drop(idle);
        parse(&response)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Connection>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(response: &http::Response<Bytes>) -> Result<Stat, Error> {
    if !response.status().is_success() {
        return Err(Error::NoStat(format!("status {}", response.status())));
    }
    let content_type = response.headers().get(header::CONTENT_TYPE);
    if content_type.is_none_or(|value| value != CONTENT_TYPE) {
        return Err(Error::NoStat(format!("content type {content_type:?}")));
    }
    Stat::decode(response.body().clone()).map_err(|error| Error::NoStat(error.to_string()))
}

/// The average of the answers times the number of pods.
fn extrapolate(stats: &[Stat], pods: usize) -> Stat {
    let scale = |field: fn(&Stat) -> f64| stats.iter().map(field).sum::<f64>() / stats.len() as f64 * pods as f64;
    Stat {
        pod_name: "service-scraper".to_owned(),
        average_concurrent_requests: scale(|s| s.average_concurrent_requests),
        average_proxied_concurrent_requests: scale(|s| s.average_proxied_concurrent_requests),
        request_count: scale(|s| s.request_count),
        proxied_request_count: scale(|s| s.proxied_request_count),
        ..Stat::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s47_all_pods_answer() {
        let stat = |concurrency, proxied, count, proxied_count| Stat {
            average_concurrent_requests: concurrency,
            average_proxied_concurrent_requests: proxied,
            request_count: count,
            proxied_request_count: proxied_count,
            ..Stat::default()
        };
        let got = extrapolate(&[stat(3.0, 2.0, 5.0, 4.0), stat(5.0, 4.0, 7.0, 6.0), stat(3.0, 2.0, 5.0, 4.0)], 3);
        assert_eq!(got, Stat { pod_name: "service-scraper".into(), ..stat(11.0, 8.0, 17.0, 14.0) });
    }

    #[test]
    fn s55_only_a_report_is_a_report() {
        let response = |status, content_type: &str, body: &'static [u8]| {
            http::Response::builder()
                .status(status)
                .header("content-type", content_type)
                .body(Bytes::from(body))
                .unwrap()
        };
        assert!(parse(&response(200, "application/protobuf", b"\x0a\x01p")).is_ok());
        assert!(parse(&response(403, "application/protobuf", b"")).is_err());
        assert!(parse(&response(200, "text/html", b"")).is_err());
        assert!(parse(&response(200, "application/protobuf; x", b"")).is_err());
        assert!(parse(&response(200, "application/protobuf", b"\x0a\xff")).is_err());
    }
}
