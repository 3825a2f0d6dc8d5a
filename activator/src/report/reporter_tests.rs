use std::time::Duration;

use proxy::deadline::Limits;

use super::*;
use crate::revision::{Protocol, Settings};

fn revision(name: &str) -> Arc<Revision> {
    let settings = Settings {
        container_concurrency: 0,
        protocol: Protocol::Http1,
        limits: Limits::default(),
        trust_early_probe: true,
        policy: None,
        service: Box::default(),
        configuration: Box::default(),
    };
    Arc::new(Revision::new(RevisionKey::new("ns", name), settings, &crate::throttle::Lines::each(10)))
}

struct Desk {
    reporter: Arc<Reporter>,
    frames: mpsc::UnboundedReceiver<Bytes>,
}

impl Desk {
    fn new() -> Self {
        let (reporter, frames) = Reporter::new("act-1");
        Self { reporter, frames }
    }

    fn connected() -> Self {
        let desk = Self::new();
        desk.reporter.connected_now(Instant::now(), true);
        desk
    }

    /// (revision, concurrency, count) of everything sent so far.
    fn sent(&mut self) -> Vec<(String, f64, f64)> {
        let mut sent = Vec::new();
        while let Ok(frame) = self.frames.try_recv() {
            for message in WireStatMessages::decode(frame).unwrap().messages {
                let stat = message.stat.unwrap();
                assert_eq!(stat.pod_name, "act-1");
                sent.push((message.name, stat.average_concurrent_requests, stat.request_count));
            }
        }
        sent
    }
}

fn said(name: &str, concurrency: f64, count: f64) -> (String, f64, f64) {
    (name.to_owned(), concurrency, count)
}

#[test]
fn t54_the_first_request_of_each_revision_is_told_at_once() {
    let mut desk = Desk::connected();
    let (a, b) = (revision("a"), revision("b"));
    let _one = desk.reporter.arrive(Arc::clone(&a), Instant::now());
    let _two = desk.reporter.arrive(Arc::clone(&b), Instant::now());
    let _three = desk.reporter.arrive(Arc::clone(&a), Instant::now());
    assert_eq!(desk.sent(), [said("a", 1.0, 1.0), said("b", 1.0, 1.0)]);
}

#[test]
fn t57_an_idle_revision_is_told_zero_once_more_and_then_forgotten() {
    let mut desk = Desk::connected();
    let a = revision("a");
    drop(desk.reporter.arrive(Arc::clone(&a), Instant::now()));
    assert_eq!(desk.sent(), [said("a", 1.0, 1.0)]);
    let now = Instant::now();
    for (seconds, expected) in [(1, vec![said("a", 0.0, 0.0)]), (2, vec![said("a", 0.0, 0.0)]), (3, vec![])] {
        desk.reporter.tick(now + Duration::from_secs(seconds));
        assert_eq!(desk.sent(), expected, "second {seconds}");
    }
    let _again = desk.reporter.arrive(Arc::clone(&a), now + Duration::from_secs(4));
    assert_eq!(desk.sent(), [said("a", 1.0, 1.0)]);
}

#[test]
fn t60_a_request_in_flight_keeps_its_revision_reported() {
    let mut desk = Desk::connected();
    let a = revision("a");
    let now = Instant::now();
    let held = desk.reporter.arrive(Arc::clone(&a), now);
    desk.sent();
    for second in 1..5 {
        desk.reporter.tick(now + Duration::from_secs(second));
        let concurrency = if second == 1 { 0.0 } else { 1.0 };
        assert_eq!(desk.sent(), [said("a", concurrency, 0.0)], "second {second}");
    }
    drop(held);
}

#[test]
fn a_restarted_autoscaler_is_told_who_waits() {
    let mut desk = Desk::new();
    let (a, b) = (revision("a"), revision("b"));
    let now = Instant::now();
    let _one = desk.reporter.arrive(Arc::clone(&a), now);
    let _two = desk.reporter.arrive(Arc::clone(&a), now);
    drop(desk.reporter.arrive(Arc::clone(&b), now));
    desk.reporter.tick(now + Duration::from_secs(1));
    assert_eq!(desk.sent(), []);
    desk.reporter.connected_now(now + Duration::from_secs(1), true);
    assert_eq!(desk.sent(), [said("a", 2.0, 2.0)], "b's requests are over");
    desk.reporter.disconnected();
    desk.reporter.connected_now(now + Duration::from_secs(1), false);
    assert_eq!(desk.sent(), [said("a", 2.0, 0.0)], "what was told is not counted again");
}

#[test]
fn what_could_not_be_sent_is_told_to_the_next_connection() {
    let mut desk = Desk::connected();
    let a = revision("a");
    let now = Instant::now();
    let _one = desk.reporter.arrive(Arc::clone(&a), now);
    let poke = desk.frames.try_recv().unwrap();
    desk.reporter.unsent(&poke);
    desk.reporter.unsent(&Bytes::from_static(b"no frame"));
    desk.reporter.disconnected();
    desk.reporter.connected_now(now, false);
    assert_eq!(desk.sent(), [said("a", 1.0, 1.0)]);
    desk.reporter.tick(now + Duration::from_secs(1));
    assert_eq!(desk.sent(), [said("a", 0.0, 0.0)], "nothing twice");
}

#[test]
fn requests_that_must_wait_are_told_at_once_while_they_are_news() {
    let mut desk = Desk::connected();
    let a = revision("a");
    let now = Instant::now();
    let held: Vec<_> = (0..4)
        .map(|_| {
            let held = desk.reporter.arrive(Arc::clone(&a), now);
            desk.reporter.waits(&a, now);
            held
        })
        .collect();
    assert_eq!(desk.sent(), [said("a", 1.0, 1.0), said("a", 1.0, 1.0), said("a", 2.0, 2.0)]);
    desk.reporter.disconnected();
    let _more: Vec<_> = (0..9).map(|_| desk.reporter.arrive(Arc::clone(&a), now)).collect();
    desk.reporter.waits(&a, now);
    assert_eq!(desk.sent(), [], "to nobody");
    drop(held);
}
