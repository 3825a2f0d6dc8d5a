//! Hands on reports about revisions that another process decides: a task a bucket, with a queue, so that a holder that
//! is away holds up nobody else's.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api::{
    ports,
    stat::{WireStatMessage, WireStatMessages},
};
use futures::SinkExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use prost::Message as _;
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use super::Identity;

/// Reports that wait for one holder; beyond that they are dropped and counted.
const QUEUE: usize = 1000;
/// Reports of one frame.
const BATCH: usize = 256;
/// Between two tries.
const RETRY: Duration = Duration::from_millis(500);
/// Time to connect.
const CONNECT: Duration = Duration::from_millis(500);
/// Tries of one frame: a report that is so late says nothing any more.
const TRIES: usize = 30;

/// Who holds what, as the leases say.
#[derive(Debug, Clone, Default)]
pub struct Holders(Arc<Mutex<HashMap<String, Identity>>>);

impl Holders {
    /// The holder of a bucket, if it has one.
    pub fn of(&self, bucket: &str) -> Option<Identity> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(bucket).cloned()
    }

    /// Takes a lease. One without a holder, or with one that cannot be read, leaves the last known in place: it may
    /// still answer, and nobody else would.
    pub fn see(&self, lease: &Lease) {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if let Ok(identity) = holder.parse() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(lease.name_any(), identity);
        }
    }

    /// Follows the leases of a namespace whose names are `buckets`.
    pub async fn watch(self, client: Client, namespace: String, buckets: Vec<String>) {
        use futures::StreamExt;
        let leases: Api<Lease> = Api::namespaced(client, &namespace);
        let mut stream = watcher(leases, watcher::Config::default()).default_backoff().applied_objects().boxed();
        while let Some(lease) = stream.next().await {
            match lease {
                Ok(lease) if buckets.contains(&lease.name_any()) => self.see(&lease),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "leases cannot be watched; it is taken up again");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    }
}

/// Sends reports to their holders.
pub struct Forwarder {
    queues: Vec<mpsc::Sender<WireStatMessage>>,
    tasks: JoinSet<()>,
}

/// Where a bucket's holder may be found.
#[derive(Debug, Clone)]
struct Route {
    bucket: String,
    holders: Holders,
    /// `NAMESPACE.svc.DOMAIN`.
    suffix: String,
}

impl Forwarder {
    /// For these buckets; names that are addresses (a StatefulSet's) need no holder.
    pub fn new(buckets: &[String], holders: &Holders, namespace: &str, domain: &str) -> Self {
        let mut tasks = JoinSet::new();
        let queues = buckets
            .iter()
            .map(|bucket| {
                let (queue, reports) = mpsc::channel(QUEUE);
                let suffix = format!("{namespace}.svc.{domain}");
                let route = Route { bucket: bucket.clone(), holders: holders.clone(), suffix };
                tasks.spawn(forward(route, reports));
                queue
            })
            .collect();
        Self { queues, tasks }
    }

    /// Hands a report on; whether there was room.
    pub fn send(&self, bucket: u8, report: WireStatMessage) -> bool {
        self.queues.get(usize::from(bucket)).is_some_and(|queue| queue.try_send(report).is_ok())
    }

    /// Ends all tasks.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn forward(route: Route, mut reports: mpsc::Receiver<WireStatMessage>) {
    let mut socket: Option<(String, Socket)> = None;
    let mut messages = Vec::new();
    while reports.recv_many(&mut messages, BATCH).await > 0 {
        let frame = WireStatMessages { messages: std::mem::take(&mut messages) };
        let frame = Message::Binary(frame.encode_to_vec().into());
        let mut tries = 0;
        while !deliver(&route, &mut socket, &frame).await {
            tries += 1;
            if tries == TRIES {
                tracing::warn!(bucket = route.bucket, "reports dropped: their holder does not take them");
                break;
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn deliver(route: &Route, socket: &mut Option<(String, Socket)>, frame: &Message) -> bool {
    let wanted = route.addresses();
    // A holder that changed is somebody else.
    if socket.as_ref().is_some_and(|(address, _)| !wanted.contains(address)) {
        *socket = None;
    }
    if socket.is_none() {
        for address in wanted {
            match timeout(CONNECT, connect_async(&address)).await {
                Ok(Ok((connected, _))) => {
                    *socket = Some((address, connected));
                    break;
                }
                Ok(Err(error)) => tracing::debug!(address, %error, "holder does not answer"),
                Err(_) => tracing::debug!(address, "holder does not answer in time"),
            }
        }
    }
    let Some((_, connected)) = socket else { return false };
    let sent = timeout(CONNECT, connected.send(frame.clone())).await;
    let good = matches!(sent, Ok(Ok(())));
    if !good {
        *socket = None;
    }
    good
}

impl Route {
    /// The holder's own address first, then the bucket's Service.
    fn addresses(&self) -> Vec<String> {
        if self.bucket.contains("://") {
            return vec![self.bucket.clone()];
        }
        let direct = self.holders.of(&self.bucket).map(|holder| {
            let address = std::net::SocketAddr::new(holder.ip, ports::AUTOSCALER);
            format!("ws://{address}")
        });
        let service = format!("ws://{}.{}:{}", self.bucket, self.suffix, ports::AUTOSCALER);
        direct.into_iter().chain([service]).collect()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use k8s_openapi::api::coordination::v1::LeaseSpec;

    use super::*;

    fn lease(holder: &str) -> Lease {
        let spec = LeaseSpec { holder_identity: Some(holder.to_owned()), ..LeaseSpec::default() };
        let mut lease = Lease { spec: Some(spec), ..Lease::default() };
        lease.metadata.name = Some("b".to_owned());
        lease
    }

    #[test]
    fn s70_a_holder_is_asked_by_its_address_and_then_by_its_service() {
        let holders = Holders::default();
        let route = Route { bucket: "b".into(), holders: holders.clone(), suffix: "ns.svc.cluster.local".into() };
        assert_eq!(route.addresses(), ["ws://b.ns.svc.cluster.local:8080"], "no holder is known");
        for (holder, first) in [("as_10.0.0.1", "ws://10.0.0.1:8080"), ("as_fd00::1", "ws://[fd00::1]:8080")] {
            holders.see(&lease(holder));
            assert_eq!(route.addresses()[0], first);
        }
        for unusable in ["", "10.0.0.9"] {
            holders.see(&lease(unusable));
            assert_eq!(route.addresses()[0], "ws://[fd00::1]:8080");
        }
    }

    #[tokio::test]
    async fn s70_reports_wait_until_their_holder_is_there() {
        let reserved = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = reserved.local_addr().unwrap();
        drop(reserved);
        let forwarder = Forwarder::new(&[format!("ws://{address}")], &Holders::default(), "ns", "d");
        for name in ["a", "b"] {
            let report = WireStatMessage { namespace: "ns".into(), name: name.into(), stat: None };
            assert!(forwarder.send(0, report));
        }
        assert!(!forwarder.send(1, WireStatMessage::default()), "no such bucket");
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let mut names = Vec::new();
        while names.len() < 2 {
            let Some(Ok(Message::Binary(frame))) = socket.next().await else { continue };
            names.extend(WireStatMessages::decode(frame).unwrap().messages.into_iter().map(|m| m.name));
        }
        assert_eq!(names, ["a", "b"]);
        forwarder.shutdown().await;
    }
}
