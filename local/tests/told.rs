//! The sidecar and the autoscaler on one wire: a pod tells its load by itself, and the autoscaler's listeners hear it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test cannot do without has failed it"
)]

use std::{net::SocketAddr, time::Duration};

use autoscaler::{
    collect::{Heard, listeners::Listeners, scrape::Scraper},
    decider::Event,
    key::Key,
};
use queue_proxy::{Config, QueueProxy};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

/// An app that answers everything.
async fn app() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            while matches!(stream.read(&mut request).await, Ok(1..)) {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            }
        }
    });
    address
}

/// What the pod adds to its revision's load: requests in flight, and requests per second.
async fn told(events: &mut mpsc::Receiver<Event>) -> Result<(f64, f64), Heard> {
    match events.recv().await.unwrap() {
        Event::Heard(_, _, Heard::Told(stat)) => Ok(stat.direct()),
        Event::Heard(_, _, other) => Err(other),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pod_tells_the_autoscaler_what_changes() {
    let runtime = proxy::runtime::local().unwrap();
    runtime.block_on(async {
        let variables = [
            ("CONTAINER_CONCURRENCY", "0"),
            ("QUEUE_SERVING_PORT", "0"),
            ("QUEUE_SERVING_TLS_PORT", "0"),
            ("USER_PORT", "1"),
            ("REVISION_TIMEOUT_SECONDS", "300"),
            ("SERVING_NAMESPACE", "ns"),
            ("SERVING_CONFIGURATION", "hello"),
            ("SERVING_REVISION", "hello-00001"),
            ("SERVING_POD", "pod1"),
            ("SERVING_POD_IP", "127.0.0.1"),
            ("SERVING_LOGGING_CONFIG", ""),
            ("SERVING_LOGGING_LEVEL", ""),
        ];
        let value = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let config = Config {
            bind_address: Some([127, 0, 0, 1].into()),
            admin_port: 0,
            stats_port: 0,
            user: app().await,
            drain_quiet: Duration::ZERO,
            ..Config::from_lookup(value).unwrap()
        };
        let sidecar = QueueProxy::bind(config).await.unwrap();
        let at = sidecar.local_addr();
        let stop = CancellationToken::new();
        let running = tokio::task::spawn_local(sidecar.run(stop.clone()));

        let (sender, mut events) = mpsc::channel(16);
        let mut listeners = Listeners::new(Scraper::new(at.stats.port()), sender);
        listeners.listen(Key::new("ns", "hello-00001"), [127, 0, 0, 1].into(), "hello-00001-private");
        assert_eq!(told(&mut events).await, Ok((0.0, 0.0)), "where things stand");

        for header in ["", "K-Proxy-Request: activator\r\n"] {
            let mut client = TcpStream::connect((at.stats.ip(), at.serving.port())).await.unwrap();
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{header}Connection: close\r\n\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
            client.read_to_end(&mut Vec::new()).await.unwrap();
        }
        // One was an activator's, which reports it itself.
        let mut arrived = 0.0;
        while arrived < 1.0 {
            arrived += told(&mut events).await.unwrap().1;
        }
        assert!((arrived - 1.0).abs() < f64::EPSILON, "{arrived}");
        assert_eq!(told(&mut events).await, Ok((0.0, 0.0)), "and nothing more");

        stop.cancel();
        assert_eq!(told(&mut events).await, Err(Heard::Lost), "a pod that goes says so at once");
        running.await.unwrap().unwrap();
    });
}
