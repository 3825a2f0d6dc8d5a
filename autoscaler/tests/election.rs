//! Two candidates for one lease against a fake API server, in virtual time.

#![allow(clippy::unwrap_used, clippy::panic)] // tests may fail loudly, helpers outside #[test] too

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use api::settings::LeaderElection;
use autoscaler::{
    decider::Event,
    election::{Identity, elector::Election},
    ownership::Ownership,
};
use http::{Method, Request, Response};
use http_body_util::Full;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

/// One lease, with the rule that who writes must have read the latest version.
#[derive(Clone, Default)]
struct Leases {
    lease: Arc<Mutex<Option<Value>>>,
    version: Arc<Mutex<u64>>,
    others: Arc<Mutex<Vec<(Method, String)>>>,
}

impl Leases {
    fn client(&self) -> kube::Client {
        let leases = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let leases = leases.clone();
            async move {
                let (status, body) = leases.answer(request).await;
                let response = Response::builder().status(status).body(Full::from(body.to_string()));
                Ok::<_, Infallible>(response.unwrap())
            }
        });
        kube::Client::new(service, "default")
    }

    async fn answer(&self, request: Request<Body>) -> (u16, Value) {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect_bytes().await.unwrap();
        let mut body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if !path.contains("/leases") {
            self.others.lock().unwrap().push((method, path));
            return (200, body);
        }
        let failed = |code: u16, reason: &str| {
            (
                code,
                json!({ "kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": "Failure", "reason": reason, "message": reason, "code": code }),
            )
        };
        let mut lease = self.lease.lock().unwrap();
        if method == Method::GET {
            return lease.clone().map_or_else(|| failed(404, "NotFound"), |lease| (200, lease));
        }
        let known = lease.as_ref().map(|lease| lease["metadata"]["resourceVersion"].clone());
        let good = if method == Method::POST {
            known.is_none()
        } else {
            known == Some(body["metadata"]["resourceVersion"].clone())
        };
        if !good {
            return failed(409, "Conflict");
        }
        let mut version = self.version.lock().unwrap();
        *version += 1;
        body["metadata"]["resourceVersion"] = json!(version.to_string());
        *lease = Some(body.clone());
        (200, body)
    }

    fn holder(&self) -> String {
        self.lease.lock().unwrap().as_ref().unwrap()["spec"]["holderIdentity"].as_str().unwrap().to_owned()
    }
}

struct Replica {
    ownership: Ownership,
    events: mpsc::Receiver<Event>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn replica(leases: &Leases, name: &str, settings: LeaderElection) -> Replica {
    let (sender, events) = mpsc::channel(64);
    let (ownership, stop) = (Ownership::of_leases(1), CancellationToken::new());
    let election = Election {
        client: leases.client(),
        namespace: "knative-serving".into(),
        identity: Identity { pod: name.into(), ip: [10, 0, 0, 1].into() },
        settings,
        ownership: ownership.clone(),
        events: sender,
    };
    let task = tokio::spawn(election.run(0, stop.clone()));
    Replica { ownership, events, stop, task }
}

impl Replica {
    fn leads(&self) -> bool {
        self.ownership.held().has(0)
    }
}

const SHIPPED: LeaderElection = LeaderElection {
    buckets: 1,
    lease_duration: Duration::from_secs(10),
    renew_deadline: Duration::from_secs(7),
    retry_period: Duration::from_secs(2),
};

async fn until_leads(replica: &Replica, other: Option<&Replica>) -> Duration {
    let start = Instant::now();
    while !replica.leads() {
        assert!(start.elapsed() < Duration::from_secs(300), "nobody took over");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!(replica.leads() && other.is_some_and(Replica::leads)), "two holders at once");
    }
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_dead_holder_is_followed_within_fifteen_seconds() {
    let leases = Leases::default();
    let (mut first, second) = (replica(&leases, "as-1", SHIPPED), replica(&leases, "as-2", SHIPPED));
    let (dies, survives) = match first.events.recv().await {
        Some(Event::Held(held)) if held.has(0) => (first, second),
        other => panic!("{other:?}"),
    };
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(dies.leads() && !survives.leads());
    assert_eq!(leases.holder(), "as-1_10.0.0.1");
    dies.task.abort();
    dies.ownership.set_held(0, false);
    let took = until_leads(&survives, Some(&dies)).await;
    assert!(took < Duration::from_secs(15), "{took:?}");
    let announced = leases.others.lock().unwrap().clone();
    assert!(announced.iter().any(|(_, path)| path.ends_with("/services")), "{announced:?}");
    assert!(announced.iter().any(|(_, path)| path.ends_with("/endpointslices")));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_ends_gives_its_lease_back() {
    let leases = Leases::default();
    let first = replica(&leases, "as-1", LeaderElection::default());
    until_leads(&first, None).await;
    let second = replica(&leases, "as-2", LeaderElection::default());
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(first.leads() && !second.leads());
    first.stop.cancel();
    first.task.await.unwrap();
    assert_eq!(leases.holder(), "");
    let took = until_leads(&second, None).await;
    assert!(took <= Duration::from_secs(11), "one retry period with upstream's settings: {took:?}");
}
