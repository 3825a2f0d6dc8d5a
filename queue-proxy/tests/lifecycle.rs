//! Ready, held, draining, gone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http::Response;
use proxy::Body;
use queue_proxy::readiness::Readiness;
use support::*;
use tokio::net::TcpListener;

fn readiness(port: u16, kind: &str) -> Readiness {
    Readiness::parse(&format!(r#"{{{kind},"successThreshold":1}}"#).replace("PORT", &port.to_string()), false).unwrap()
}

fn probe(hold: Option<u64>) -> String {
    let hold = hold.map_or(String::new(), |ms| format!("Dormouse-Hold: {ms}\r\n"));
    format!(
        "GET /healthz HTTP/1.1\r\nHost: pod\r\nUser-Agent: Knative-Activator-Probe\r\nK-Network-Probe: queue\r\n{hold}Connection: close\r\n\r\n"
    )
}

#[test]
fn a_held_probe_is_answered_when_the_app_is_ready() {
    on_runtime(async {
        let app = nobody();
        let readiness = readiness(app.port(), r#""tcpSocket":{"port":PORT}"#);
        let pod = Pod::start(queue_proxy::Config { readiness, ..config(app) }).await;
        let address = pod.at.serving;
        let held = tokio::task::spawn_local(async move { say(address, &probe(Some(15_000))).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!held.is_finished());
        let _app = TcpListener::bind(app).await.unwrap();
        let answer = held.await.unwrap();
        assert_eq!((status(&answer), body(&answer)), (200, "queue"));
    });
}

#[test]
fn a_hold_ends_when_its_time_is_up() {
    on_runtime(async {
        let app = nobody();
        let readiness = readiness(app.port(), r#""tcpSocket":{"port":PORT}"#);
        let pod = Pod::start(queue_proxy::Config { readiness, ..config(app) }).await;
        let answer = pod.say(&probe(Some(30))).await;
        assert_eq!((status(&answer), body(&answer)), (503, ""));
    });
}

#[test]
fn a_pod_that_never_got_ready_does_not_hold_its_own_end_up() {
    on_runtime(async {
        let app = nobody();
        let readiness = readiness(app.port(), r#""tcpSocket":{"port":PORT}"#);
        let pod = Pod::start(queue_proxy::Config { readiness, ..config(app) }).await;
        let mut held = pod.connect().await;
        held.send(&probe(Some(60_000))).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        pod.shutdown.cancel();
        assert_eq!(status(&held.rest().await), 503);
        pod.ended.await.unwrap();
    });
}

#[test]
fn probes_of_every_kind_tell_ready_from_not() {
    on_runtime(async {
        let code = Rc::new(Cell::new(503));
        let hits = Rc::new(Cell::new(0));
        let (answer, count) = (Rc::clone(&code), Rc::clone(&hits));
        let app = app(move |request| {
            count.set(count.get() + 1);
            assert_eq!(request.headers()["user-agent"], "kube-probe//");
            assert_eq!(request.headers()["x-probe"], "yes");
            assert_eq!(request.uri(), "/ready?x=1");
            let mut response = Response::new(Body::empty());
            *response.status_mut() = http::StatusCode::from_u16(answer.get()).unwrap();
            async move { response }
        });
        let http = r#""periodSeconds":10,"httpGet":{"port":PORT,"path":"ready?x=1","httpHeaders":[{"name":"X-Probe","value":"yes"}]}"#;
        let pod = Pod::start(queue_proxy::Config { readiness: readiness(app.port(), http), ..config(app) }).await;
        assert_eq!(status(&pod.say(&probe(None)).await), 503);
        assert_eq!(hits.get(), 1, "one attempt per question");
        code.set(200);
        let before = hits.get();
        let (one, two) = (probe(None), probe(None));
        let (one, two) = futures::join!(pod.say(&one), pod.say(&two));
        assert_eq!((status(&one), status(&two)), (200, 200));
        assert!(hits.get() - before <= 2);
        code.set(404);
        assert_eq!(status(&pod.say(&probe(None)).await), 503);
    });
}

#[test]
fn grpc_health_is_asked() {
    on_runtime(async {
        let app = app(|request: http::Request<Body>| async move {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            let serving = bytes::Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]);
            let frames = [http_body::Frame::data(serving), http_body::Frame::trailers(trailers)];
            let frames = frames.map(Ok::<_, proxy::BoxError>);
            Response::new(Body::boxed(http_body_util::StreamBody::new(futures::stream::iter(frames))))
        });
        let grpc = r#""periodSeconds":1,"grpc":{"port":PORT}"#;
        let pod = Pod::start(queue_proxy::Config { readiness: readiness(app.port(), grpc), ..config(app) }).await;
        assert_eq!(status(&pod.say(&probe(None)).await), 200);
    });
}

#[test]
fn network_probes_and_misdirected_ones_follow_the_table() {
    on_runtime(async {
        let pod = Pod::before(nobody()).await;
        let say = |lines: &'static str| {
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}Connection: close\r\n\r\n");
            let pod = &pod;
            async move { pod.say(&request).await }
        };
        let answer = say("K-Network-Probe: probe\r\nK-Network-Hash: abc\r\n").await;
        assert!(status(&answer) == 200 && answer.contains("K-Network-Hash: abc\r\n"), "{answer}");
        let answer = say("K-Network-Probe: probe\r\n").await;
        assert_eq!(status(&answer), 400);
        assert_eq!(body(&answer), "a probe request must contain a non-empty \"K-Network-Hash\" header\n");
        let answer = say("User-Agent: Knative-Autoscaling-Probe\r\nK-Network-Probe: activator\r\n").await;
        assert_eq!((status(&answer), body(&answer)), (400, "unexpected probe header value: activator\n"));
    });
}

#[test]
fn a_drain_loses_no_request() {
    on_runtime(async {
        let app = app(|request| async move {
            if request.uri().path() == "/slow" {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            Response::new(Body::full("done"))
        });
        let quiet = Duration::from_millis(100);
        let pod = Pod::start(queue_proxy::Config { drain_quiet: quiet, ..config(app) }).await;
        let mut slow = pod.connect().await;
        slow.send(&get("/slow")).await;
        let mut idle = pod.connect().await;
        idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        idle.until("done").await;
        pod.shutdown.cancel();
        tokio::task::yield_now().await;
        // Health checks fail from the start; ordinary requests are served and told to come by another connection.
        let refused = pod.say(&probe(None)).await;
        assert_eq!((status(&refused), body(&refused)), (503, "shutting down\n"));
        idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = idle.rest().await;
        assert!(status(&answer) == 200 && answer.contains("Connection: close\r\n"), "{answer}");
        assert_eq!(status(&slow.rest().await), 200);
        pod.ended.await.unwrap();
        assert!(tokio::net::TcpStream::connect(pod.at.serving).await.is_err());
    });
}

#[test]
fn an_idle_sidecar_goes_at_once_when_quiet_is_zero() {
    on_runtime(async {
        let pod = Pod::before(nobody()).await;
        let _idle = pod.connect().await;
        pod.shutdown.cancel();
        pod.ended.await.unwrap();
    });
}

#[test]
fn wait_for_drain_without_a_signal_is_taken_back() {
    on_runtime(async {
        let mut config = config(nobody());
        config.drain_quiet = Duration::from_secs(30);
        let pod = Pod::start(config).await;
        let hook = get("/wait-for-drain");
        let hook = say(pod.at.admin, &hook);
        let during = async {
            loop {
                let answer = pod.say(&probe(None)).await;
                if status(&answer) == 503 {
                    break;
                }
            }
        };
        let (answer, ()) = futures::join!(hook, during);
        assert_eq!((status(&answer), body(&answer)), (200, ""));
        assert_eq!(status(&pod.say(&probe(None)).await), 200);
        assert_eq!(status(&say(pod.at.admin, &get("/other")).await), 404);
    });
}

#[test]
fn the_pre_stop_hook_waits_for_requests_in_flight() {
    on_runtime(async {
        let answered = Rc::new(Cell::new(false));
        let flag = Rc::clone(&answered);
        let app = app(move |_| {
            let flag = Rc::clone(&flag);
            async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                flag.set(true);
                Response::new(Body::full("done"))
            }
        });
        let pod = Pod::before(app).await;
        let mut slow = pod.connect().await;
        slow.send(&get("/")).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        pod.shutdown.cancel();
        let answer = say(pod.at.admin, &get("/wait-for-drain")).await;
        assert_eq!(status(&answer), 200);
        assert!(answered.get(), "the app may be stopped while it still works");
        assert_eq!(status(&slow.rest().await), 200);
    });
}

#[test]
fn aggressive_probes_want_their_successes_in_a_row() {
    on_runtime(async {
        // Which hit fails, and how many hits three in a row then take.
        for (failing, least) in [(None, 3), (Some(2), 5)] {
            let hits = Rc::new(Cell::new(0));
            let count = Rc::clone(&hits);
            let app = app(move |_| {
                count.set(count.get() + 1);
                let mut response = Response::new(Body::empty());
                if failing == Some(count.get()) {
                    *response.status_mut() = http::StatusCode::BAD_REQUEST;
                }
                async move { response }
            });
            let text = format!(r#"{{"httpGet":{{"port":{}}},"successThreshold":3}}"#, app.port());
            let readiness = Readiness::parse(&text, false).unwrap();
            let pod = Pod::start(queue_proxy::Config { readiness, ..config(app) }).await;
            assert_eq!(status(&pod.say(&probe(None)).await), 200);
            assert_eq!(hits.get(), least);
            // The row lives on: later questions need one success only.
            assert_eq!(status(&pod.say(&probe(None)).await), 200);
            assert_eq!(hits.get(), least + 1);
        }
    });
}

#[test]
fn every_container_of_the_pod_must_be_ready() {
    on_runtime(async {
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (listening, closed) = (open.local_addr().unwrap().port(), nobody().port());
        for (first, second, expected) in
            [(listening, listening, 200), (closed, listening, 503), (listening, closed, 503)]
        {
            let one = |port| format!(r#"{{"tcpSocket":{{"port":{port}}},"periodSeconds":1}}"#);
            let readiness = Readiness::parse(&format!("[{},null,{}]", one(first), one(second)), false).unwrap();
            let pod = Pod::start(queue_proxy::Config { readiness, ..config(nobody()) }).await;
            assert_eq!(status(&pod.say(&probe(None)).await), expected, "{first} {second}");
        }
    });
}
