//! Scraping and probing over real sockets.

#![allow(clippy::unwrap_used, clippy::panic)] // tests may fail loudly, helpers outside #[test] too

mod fake;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use api::stat::Stat;
use autoscaler::{
    apply::probe::{Prober, Resolve},
    collect::{
        Heard,
        listeners::Listeners,
        scrape::{Error, Scraper},
    },
    decider::{Event, ProbeTarget},
    key::Key,
};
use prost::Message;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};

/// What the server saw of its clients.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

/// Answers every request on `listener` with `answer(head)`, over as many connections as come.
fn serve(listener: TcpListener, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Arc<Seen> {
    let seen = Arc::new(Seen::default());
    let (count, answer) = (seen.clone(), Arc::new(answer));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.connections.fetch_add(1, Ordering::SeqCst);
            let (count, answer) = (count.clone(), answer.clone());
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                loop {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    count.requests.fetch_add(1, Ordering::SeqCst);
                    if stream.write_all(&answer(&head.to_ascii_lowercase())).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    seen
}

fn http(status: u16, content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn report(concurrency: f64) -> Vec<u8> {
    let stat = Stat { pod_name: "p".into(), average_concurrent_requests: concurrency, ..Stat::default() };
    http(200, "application/protobuf", &stat.encode_to_vec())
}

/// Pods of a revision: the same port on several loopback addresses.
async fn pods(answers: Vec<Vec<u8>>) -> (Vec<IpAddr>, u16, Vec<Arc<Seen>>) {
    let first = TcpListener::bind("127.0.4.1:0").await.unwrap();
    let port = first.local_addr().unwrap().port();
    let mut listeners = vec![first];
    for i in 1..answers.len() {
        listeners.push(TcpListener::bind(format!("127.0.4.{}:{port}", i + 1)).await.unwrap());
    }
    let addresses = listeners.iter().map(|l| l.local_addr().unwrap().ip()).collect();
    let seen = listeners.into_iter().zip(answers).map(|(l, answer)| serve(l, move |_| answer.clone())).collect();
    (addresses, port, seen)
}

#[tokio::test]
async fn s47_all_pods_are_added_up_over_kept_connections() {
    let (addresses, port, seen) = pods(vec![report(3.0), report(5.0), report(3.0)]).await;
    let scraper = Scraper::new(port);
    for _ in 0..3 {
        let stat = scraper.scrape(&addresses, 3).await.unwrap().unwrap();
        assert!((stat.average_concurrent_requests - 11.0).abs() < 1e-9);
    }
    for pod in seen {
        assert_eq!((pod.connections.load(Ordering::SeqCst), pod.requests.load(Ordering::SeqCst)), (1, 3));
    }
}

#[tokio::test]
async fn s48_s49_spares_are_asked_and_too_few_answers_are_none() {
    let bad = http(403, "text/plain", b"");
    let (addresses, port, _seen) = pods(vec![report(2.0), bad.clone(), report(2.0), report(2.0), report(2.0)]).await;
    let stat = Scraper::new(port).scrape(&addresses, 4).await.unwrap().unwrap();
    assert!((stat.average_concurrent_requests - 10.0).abs() < 1e-9, "four answers speak for five pods");

    let (addresses, port, _seen) = pods(vec![report(2.0), bad, report(2.0), report(2.0)]).await;
    let error = Scraper::new(port).scrape(&addresses, 4).await.unwrap_err();
    assert!(matches!(error, Error::Exhausted(_)), "{error}");
}

#[tokio::test]
async fn s46_s55_no_pods_long_answers_and_closed_ports() {
    assert_eq!(Scraper::new(1).scrape(&[], 0).await.unwrap(), None);
    let long = http(200, "application/protobuf", &[0; 337]);
    let (addresses, port, _seen) = pods(vec![long]).await;
    assert!(Scraper::new(port).scrape(&addresses, 1).await.is_err());
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    assert!(Scraper::new(free).scrape(&["127.0.0.1".parse().unwrap()], 1).await.is_err());
}

#[tokio::test]
async fn a_pod_that_closed_its_connection_is_asked_on_a_new_one() {
    let (addresses, port, seen) = pods(vec![
        http(200, "application/protobuf", b"\x0a\x01p")
            .strip_suffix(b"\x0a\x01p")
            .map(|head| {
                let head =
                    String::from_utf8(head.to_vec()).unwrap().replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
                [head.as_bytes(), b"\x0a\x01p"].concat()
            })
            .unwrap(),
    ])
    .await;
    let scraper = Scraper::new(port);
    for _ in 0..2 {
        assert!(scraper.scrape(&addresses, 1).await.is_ok());
    }
    assert_eq!(seen[0].connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_activator_is_found_by_the_services_endpoints() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = serve(listener, |head| {
        let asked = head.starts_with("get /healthz ")
            && head.contains("k-network-probe: activator\r\n")
            && head.contains("user-agent: knative-autoscaling-probe\r\n")
            && head.contains("host: rev.ns.svc.cluster.local\r\n");
        if asked { http(200, "text/plain", b"activator") } else { http(400, "text/plain", b"") }
    });
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": "rev", "namespace": "ns" },
        "subsets": [{ "addresses": [{ "ip": "127.0.0.1" }], "ports": [{ "name": "http", "port": port }] }],
    });
    let (api, _writes) = fake::Api::new(vec![("rev", endpoints)]);
    let target = ProbeTarget { service: "rev".into(), h2c: false };
    let prober = Prober::new(api.client(), Resolve::Endpoints);
    assert!(prober.until_activator(&Key::new("ns", "rev"), &target).await);
    assert_eq!(seen.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_only_meets_pods_gives_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    serve(listener, |_| http(400, "text/plain", b"queue"));
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": "rev", "namespace": "ns" },
        "subsets": [{ "addresses": [{ "ip": "127.0.0.1" }], "ports": [{ "name": "http", "port": port }] }],
    });
    let (api, _writes) = fake::Api::new(vec![("rev", endpoints)]);
    let target = ProbeTarget { service: "rev".into(), h2c: false };
    let prober = Prober::new(api.client(), Resolve::Endpoints);
    let start = tokio::time::Instant::now();
    assert!(!prober.until_activator(&Key::new("ns", "rev"), &target).await);
    // Paused time runs ahead of sockets, so tries may time out here instead of being refused; both count as "no".
    assert!((40..60).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

/// Of a pod that tells by itself.
fn stream(loads: &[f64], ends: bool) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.dormouse.stats+protobuf\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut bytes = head.as_bytes().to_vec();
    for load in loads {
        let stat = Stat { average_concurrent_requests: *load, ..Stat::default() }.encode_length_delimited_to_vec();
        bytes.extend(format!("{:x}\r\n", stat.len()).into_bytes());
        bytes.extend(stat);
        bytes.extend(b"\r\n");
    }
    if ends {
        bytes.extend(b"0\r\n\r\n");
    }
    bytes
}

async fn heard(events: &mut tokio::sync::mpsc::Receiver<Event>) -> (IpAddr, Result<f64, Heard>) {
    match events.recv().await.unwrap() {
        Event::Heard(_, pod, Heard::Told(stat)) => (pod, Ok(stat.average_concurrent_requests)),
        Event::Heard(_, pod, other) => (pod, Err(other)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn pods_are_listened_to_until_they_end_or_nobody_wants_to_know() {
    let answers = vec![stream(&[1.0, 2.0], false), stream(&[3.0], true), report(4.0), http(503, "text/plain", b"")];
    let (addresses, port, seen) = pods(answers).await;
    let (sender, mut events) = tokio::sync::mpsc::channel(16);
    let mut listeners = Listeners::new(Scraper::new(port), sender);
    let key = Key::new("ns", "rev");
    let mut listen = async |nth: usize, wanted: &[Result<f64, Heard>]| {
        listeners.listen(key.clone(), addresses[nth], "rev-private");
        for wanted in wanted {
            assert_eq!(heard(&mut events).await, (addresses[nth], wanted.clone()));
        }
    };
    listen(0, &[Ok(1.0), Ok(2.0)]).await;
    listen(1, &[Ok(3.0), Err(Heard::Lost)]).await;
    listen(2, &[Err(Heard::Unable)]).await;
    listen(3, &[Err(Heard::Lost)]).await;
    // One listener a pod: a second one takes the place of the first.
    listen(0, &[Ok(1.0), Ok(2.0)]).await;
    assert_eq!(seen[0].connections.load(Ordering::SeqCst), 2);
    while listeners.len() > 1 {
        listeners.clear().await;
    }
    listeners.hush(&(key.clone(), addresses[0]));
    assert!(listeners.is_empty());
    drop(listeners);
    assert!(events.recv().await.is_none());
}
