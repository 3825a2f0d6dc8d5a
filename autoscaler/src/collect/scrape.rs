//! Asks pods for their load: `GET /metrics` at :9090 of each pod, directly (upstream
//! `pkg/autoscaler/metrics/{stats_scraper,http_scrape_client}.go`), or through the revision's Service where they are out
//! of reach ([`super::mesh`]).

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use api::stat::{CONTENT_TYPE, STREAM, Stat};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Semaphore;

use super::{
    mesh::{self, OutOfReach, Reach, Way},
    pod::{self, Pod},
};
use crate::{algorithm::sampling::sample_size, key::Key};

/// One pod may take this long.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);
/// Kept connections in all.
const MAX_IDLE: usize = 4096;
/// Tells a mesh that a pod is meant and not its Service (upstream's very name).
const DIRECT: &str = "Knative-Direct-Lb";
/// Requests under way in all.
const MAX_IN_FLIGHT: usize = 256;

/// Why a pod gave no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One pod.
    #[error(transparent)]
    Pod(#[from] pod::Error),
    /// Fewer pods answered than wanted.
    #[error("pods exhausted, last: {0}")]
    Exhausted(String),
    /// No pod answered, and a mesh is why.
    #[error("pods cannot be asked directly")]
    OutOfReach,
    /// Too few different pods were met through the Service.
    #[error("fewer than {0} pods answered through the Service")]
    Service(usize),
    /// The Service has no address.
    #[error("cannot resolve {0}: {1}")]
    Resolve(String, std::io::Error),
}

/// The pods of one revision, as a round asks them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Addresses in the order to ask.
    pub order: Vec<IpAddr>,
    /// How many answers are wanted.
    pub wanted: usize,
    /// The private Service.
    pub service: String,
    /// How long a pod must have been up to speak for others: the stable window.
    pub old_enough: Duration,
}

/// Scrapes over kept connections. Cheap to clone.
#[derive(Clone)]
pub struct Scraper(Arc<Inner>);

struct Inner {
    port: u16,
    reach: Reach,
    out_of_reach: Mutex<OutOfReach>,
    idle: Mutex<HashMap<SocketAddr, Pod>>,
    in_flight: Semaphore,
}

impl Scraper {
    /// Asks pods at `port`, themselves.
    pub fn new(port: u16) -> Self {
        Self::with(port, Reach::default())
    }

    /// Asks pods at `port`, in the way that `reach` leaves.
    pub fn with(port: u16, reach: Reach) -> Self {
        let in_flight = Semaphore::new(MAX_IN_FLIGHT);
        Self(Arc::new(Inner { port, reach, out_of_reach: Mutex::default(), idle: Mutex::default(), in_flight }))
    }

    /// One round for a revision.
    pub async fn round(&self, key: &Key, round: &Round) -> Result<Option<Stat>, Error> {
        let host = format!("{}.{}", round.service, key.namespace());
        let service = async {
            let found = tokio::net::lookup_host((host.as_str(), self.0.port)).await;
            let address = found.and_then(|mut all| all.next().ok_or_else(|| std::io::ErrorKind::NotFound.into()));
            let address = address.map_err(|error| Error::Resolve(host.clone(), error))?;
            self.through_service(address, &host, round).await
        };
        let sticky = self.out_of_reach().has(key.hashed(), Instant::now());
        match self.0.reach.way(sticky) {
            Way::Direct => self.ask_all(&round.order, round.wanted, Some(&host)).await,
            Way::Service => service.await,
            Way::DirectFirst => match self.ask_all(&round.order, round.wanted, Some(&host)).await {
                Err(Error::OutOfReach) => {
                    let stat = service.await?;
                    self.out_of_reach().add(key.hashed(), Instant::now());
                    Ok(stat)
                }
                other => other,
            },
        }
    }

    /// Asks through the Service at `address`.
    pub async fn through_service(&self, address: SocketAddr, host: &str, round: &Round) -> Result<Option<Stat>, Error> {
        let pods = round.order.len();
        // Never over a kept connection, which would lead to the same pod again.
        let ask = || async {
            let _permit = self.0.in_flight.acquire().await;
            let mut pod = Pod::connect(address, TIMEOUT).await?;
            let request = format!(
                "GET /metrics HTTP/1.1\r\nHost: {host}:{}\r\nConnection: close\r\nAccept: {CONTENT_TYPE}\r\n\r\n",
                self.0.port
            );
            pod.ask(request.as_bytes(), TIMEOUT).await.map(|(stat, _)| stat)
        };
        let sample = sample_size(pods);
        match mesh::meet(ask, sample, round.old_enough).await {
            Some(_) if pods == 0 => Ok(None),
            Some(stats) => Ok(Some(extrapolate(&stats, pods))),
            None => Err(Error::Service(sample)),
        }
    }

    fn out_of_reach(&self) -> std::sync::MutexGuard<'_, OutOfReach> {
        self.0.out_of_reach.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks until `wanted` pods of `order` answered, and extrapolates to all of them. One worker per wanted answer
    /// goes down the common list; one that runs out fails the round, since the rest would not speak for all.
    pub async fn scrape(&self, order: &[IpAddr], wanted: usize) -> Result<Option<Stat>, Error> {
        self.ask_all(order, wanted, None).await
    }

    async fn ask_all(&self, order: &[IpAddr], wanted: usize, host: Option<&str>) -> Result<Option<Stat>, Error> {
        if wanted == 0 || order.is_empty() {
            return Ok(None);
        }
        let (next, only_mesh) = (AtomicUsize::new(0), AtomicBool::new(true));
        let mut workers: FuturesUnordered<_> =
            (0..wanted).map(|_| self.worker(order, &next, &only_mesh, host)).collect();
        let mut stats = Vec::with_capacity(wanted);
        while let Some(stat) = workers.next().await {
            match stat {
                Ok(stat) => stats.push(stat),
                // A mesh answers for all pods alike; an answer of one, or another failure, is no mesh.
                Err(_) if stats.is_empty() && only_mesh.load(Ordering::Relaxed) => return Err(Error::OutOfReach),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(extrapolate(&stats, order.len())))
    }

    /// Each pod's requests in flight; `None` where it did not answer.
    pub async fn each(&self, pods: impl Iterator<Item = IpAddr>) -> Vec<Option<f64>> {
        let ask = |address| async move {
            let stat = self.one(SocketAddr::new(address, self.0.port), None).await.ok()?;
            Some(stat.average_concurrent_requests).filter(|busy| busy.is_finite())
        };
        futures::future::join_all(pods.map(ask)).await
    }

    async fn worker(
        &self,
        order: &[IpAddr],
        next: &AtomicUsize,
        only_mesh: &AtomicBool,
        host: Option<&str>,
    ) -> Result<Stat, Error> {
        let mut last = String::from("no pod left");
        while let Some(address) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            match self.one(SocketAddr::new(*address, self.0.port), host).await {
                Ok(stat) => return Ok(stat),
                Err(error) => {
                    if !matches!(error, Error::Pod(pod::Error::Mesh(_))) {
                        only_mesh.store(false, Ordering::Relaxed);
                    }
                    last = error.to_string();
                }
            }
        }
        Err(Error::Exhausted(last))
    }

    async fn one(&self, address: SocketAddr, host: Option<&str>) -> Result<Stat, Error> {
        // Never closed; without a permit the request would only be early.
        let _permit = self.0.in_flight.acquire().await;
        let kept = self.idle().remove(&address);
        let was_kept = kept.is_some();
        let mut pod = match kept {
            Some(pod) => pod,
            None => Pod::connect(address, TIMEOUT).await?,
        };
        let request = self.request(address, host, "");
        let answer = match pod.ask(request.as_bytes(), TIMEOUT).await {
            // The pod may have closed what was kept.
            Err(pod::Error::Io(..) | pod::Error::NoStat(_)) if was_kept => {
                pod = Pod::connect(address, TIMEOUT).await?;
                pod.ask(request.as_bytes(), TIMEOUT).await
            }
            answer => answer,
        };
        let (stat, keeps) = answer?;
        let mut idle = self.idle();
        if idle.len() >= MAX_IDLE {
            // Some pod that may be gone makes room.
            let any = idle.keys().next().copied();
            any.and_then(|any| idle.remove(&any));
        }
        if keeps {
            idle.insert(address, pod);
        }
        Ok(stat)
    }

    /// Whether pods can be listened to: one that a mesh chooses for each connection is not the one that was meant.
    pub fn reaches_pods(&self) -> bool {
        self.0.reach.way(false) != Way::Service
    }

    /// Where and how to ask a pod to tell by itself.
    pub(super) fn listening(&self, pod: IpAddr, revision: &Key, service: &str) -> (SocketAddr, String) {
        let address = SocketAddr::new(pod, self.0.port);
        let host = format!("{service}.{}", revision.namespace());
        (address, self.request(address, Some(&host), &format!("{STREAM}: true\r\n")))
    }

    fn request(&self, address: SocketAddr, host: Option<&str>, more: &str) -> String {
        let rest = format!("{more}Accept: {CONTENT_TYPE}\r\n\r\n");
        // A mesh that lets pods be asked by address wants to know whose they are.
        match host.filter(|_| self.0.reach.addressable) {
            Some(host) => format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n{DIRECT}: true\r\n{rest}"),
            None => format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n{rest}"),
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Pod>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
}
