//! What upstream's autoscaler does not have, in the simulated cluster: keep-warm, learned idle times, Prometheus, pods
//! that need not be asked, several holders.

#![allow(clippy::unwrap_used, clippy::panic)] // tests may fail loudly, helpers outside #[test] too

mod world;

use std::{collections::BTreeMap, time::Duration};

use api::{
    settings,
    stat::{Stat, WireStatMessage, WireStatMessages},
};
use autoscaler::{
    decider::{Effect, Engine, Event},
    metrics::Metrics,
    moment::Moment,
    ownership::{Held, Ownership},
};
use world::{START, World, key};

fn started(annotations: &[(&str, &str)]) -> World {
    let mut world = World::new(annotations);
    world.start(settings::Autoscaler::default());
    world
}

#[test]
fn pods_are_kept_in_their_window_and_go_after_it() {
    // The simulation begins at 2027-01-15T08:00:00Z.
    assert_eq!(Moment::from_seconds(START).timestamp().to_string(), "2027-01-15T08:00:00Z");
    let mut world = started(&[("autoscaler.dormouse.dev/keep-warm", "0 9 * * * for 1h min 2")]);
    world.idle(3590);
    assert_eq!(world.replicas, 0);
    world.idle(20);
    assert_eq!((world.replicas, world.scales.last()), (2, Some(&(3600, 2))));
    world.idle(3580);
    assert_eq!(world.replicas, 2);
    world.idle(200);
    assert_eq!(world.replicas, 0);
    world.idle(86_400 - 3 * 3600);
    assert_eq!(world.scales.iter().filter(|(_, replicas)| *replicas == 2).count(), 1, "{:?}", world.scales);
    world.idle(3 * 3600);
    assert_eq!(world.scales.iter().filter(|(_, replicas)| *replicas == 2).count(), 2, "the next day again");
}

#[test]
fn a_revision_called_every_half_hour_is_awake_when_it_is_called() {
    let mut world = started(&[("autoscaler.dormouse.dev/learned-keep-warm", "true")]);
    let mut cold = Vec::new();
    for nth in 0..20 {
        world.idle(1790);
        if world.ready == 0 {
            cold.push(nth);
        }
        world.report(1.0, 1.0);
        world.run(10, |_| None);
    }
    assert!((8..14).contains(&cold.len()), "ten idle times are learned from: {cold:?}");
    assert!(cold.iter().all(|nth| *nth < 14), "{cold:?}");
    let mut off = started(&[]);
    off.idle(1790);
    off.report(1.0, 1.0);
    assert_eq!(off.scales.last(), Some(&(1790, 1)), "off by default");
}

#[test]
fn prometheus_says_how_much() {
    let mut world = started(&[
        ("autoscaler.dormouse.dev/prometheus-address", "http://prometheus:9090"),
        ("autoscaler.dormouse.dev/prometheus-query", "load{r=\"$revision\",n=\"$namespace\"}"),
    ]);
    world.measured = Some(350.0);
    world.run(120, |_| Some((9000.0, 9000.0)));
    assert_eq!(world.queries.first().map(String::as_str), Some("load{r=\"rev\",n=\"ns\"}"));
    assert!(world.queries.len() < 30, "asked every five seconds: {}", world.queries.len());
    assert_eq!(world.replicas, 5, "and not what activators say");
    assert_eq!(world.asked, 0);
    world.scales.clear();
    world.measured = None;
    world.idle(30);
    assert!(world.scales.is_empty(), "no answer is no zero: {:?}", world.scales);
    world.measured = Some(0.0);
    world.idle(400);
    assert_eq!(world.replicas, 0);
    world.report(1.0, 1.0);
    assert_eq!(world.scales.last().unwrap().1, 1, "a waiting request still wakes it");
}

#[test]
fn pods_with_nothing_to_add_are_seldom_asked() {
    let mut world = started(&[]);
    world.run(60, |_| Some((20.0, 20.0)));
    let before = world.asked;
    world.run(300, |_| Some((20.0, 20.0)));
    assert!(world.asked - before <= 21, "once in fifteen seconds: {}", world.asked - before);
    // Traffic past the activators: noticed with the next answer, and every second from then on.
    world.scraped = Stat { average_concurrent_requests: 300.0, request_count: 300.0, ..Stat::default() };
    world.run(100, |_| Some((20.0, 20.0)));
    assert!(world.replicas >= 5, "{}", world.replicas);
    let before = world.asked;
    world.run(10, |_| Some((20.0, 20.0)));
    assert!(world.asked - before >= 9 * 4, "{}", world.asked - before);
}

#[test]
fn a_sleeping_revision_asks_for_no_time() {
    let mut world = started(&[]);
    // Long enough for its progress deadline, too, to be over.
    world.idle(800);
    assert_eq!(world.replicas, 0);
    assert!(world.engine.next_due().is_none_or(|due| due <= world.now), "only what is over");
    let mut effects = Vec::new();
    world.engine.run_due(world.now, usize::MAX, &mut effects);
    assert_eq!((world.engine.next_due(), effects.len()), (None, 0));
}

/// The report of a revision, as it leaves an activator.
fn report(name: &str, timestamp: i64) -> Event {
    let stat = Stat { average_concurrent_requests: 1.0, timestamp, ..Stat::default() };
    let message = WireStatMessage { namespace: "default".into(), name: name.into(), stat: Some(stat) };
    Event::Frame(WireStatMessages { messages: vec![message] })
}

#[test]
fn reports_go_to_the_holder_of_their_bucket_and_no_further() {
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    let ownership = Ownership::of_leases(2);
    let mut engine = Engine::new(ownership.clone(), metrics.clone());
    engine.handle(Event::Held(ownership.set_held(0, true)), Moment::from_seconds(START), &mut Vec::new());
    let mut forwarded = BTreeMap::new();
    for name in ["hello-00001", "hello-00002"] {
        let mut out = Vec::new();
        engine.handle(report(name, 0), Moment::from_seconds(START), &mut out);
        forwarded.insert(name, out);
    }
    // Both of these are bucket 1's.
    for (name, out) in &forwarded {
        let [Effect::Forward(1, message)] = &out[..] else { panic!("{name}: {out:?}") };
        assert_eq!(message.stat.as_ref().unwrap().timestamp, START, "stamped with the time of its arrival");
    }
    let mut out = Vec::new();
    engine.handle(report("hello-00001", START), Moment::from_seconds(START), &mut out);
    assert!(out.is_empty(), "it was handed on once already");
    assert_eq!(metrics.unknown_stats.get(), 1);
}

#[test]
fn a_new_holder_takes_over_without_a_swing() {
    let mut world = started(&[("target-burst-capacity", "10")]);
    world.run(120, |_| Some((200.0, 200.0)));
    assert_eq!(world.replicas, 3);
    let (scales, modes) = (world.scales.len(), world.modes.len());
    // The lease is lost for a while, in which another decided nothing else.
    world.send(Event::Held(Held(0)));
    world.run(20, |_| None);
    assert_eq!(world.scales.len(), scales);
    world.send(Event::Held(Held(u32::MAX)));
    world.run(200, |_| Some((200.0, 200.0)));
    assert_eq!((world.scales.len(), world.modes.len()), (scales, modes), "{:?} {:?}", world.scales, world.modes);
    assert_eq!(world.engine.explain(&key()).unwrap().desired, 3);
}

/// A burst beyond what is wanted is decided within 50 ms wherever in the two seconds between decisions it comes.
#[test]
fn bursts_do_not_wait_for_the_next_tick() {
    for offset in (0..2000).step_by(100) {
        let mut world = started(&[]);
        world.run(30, |_| Some((10.0, 10.0)));
        world.now = world.now.plus(Duration::from_millis(offset));
        world.scales.clear();
        world.report(5000.0, 5000.0);
        world.now = world.now.plus(Duration::from_millis(50));
        let mut effects = Vec::new();
        world.engine.run_due(world.now, usize::MAX, &mut effects);
        world.perform(effects);
        assert!(world.replicas > 1, "{offset} ms after a decision: {:?}", world.scales);
    }
}
