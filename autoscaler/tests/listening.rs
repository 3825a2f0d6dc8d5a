//! Pods that tell their load by themselves: the same decisions as when they are asked, at a fraction of the messages.

#![allow(clippy::unwrap_used, clippy::panic)] // tests may fail loudly, helpers outside #[test] too

mod world;

use std::time::Duration;

use api::{settings, stat::Stat};
use autoscaler::{
    collect::Heard,
    decider::{Change, Event},
    key::Key,
};
use world::{World, address, key};

/// Activators leave the path as soon as they can, so that pods tell of everything.
fn started(annotations: &[(&str, &str)]) -> World {
    let mut annotations = annotations.to_vec();
    annotations.push(("target-burst-capacity", "0"));
    let mut world = World::new(&annotations).listening();
    world.start(settings::Autoscaler::default());
    world.idle(3);
    world
}

#[test]
fn a_load_that_stays_needs_no_words() {
    let mut world = started(&[]);
    world.share(320.0, 320.0);
    world.idle(60);
    assert_eq!(world.replicas, 5, "{:?}", world.scales);
    world.scales.clear();
    world.idle(600);
    assert_eq!((world.asked, world.scales.len(), world.replicas), (0, 0, 5));
    assert!(world.listened.values().all(|times| *times == 1), "{:?}", world.listened);
    world.share(0.0, 0.0);
    world.idle(200);
    assert_eq!(world.replicas, 0, "no load, no pods");
}

/// Loads over minutes, by which revisions that are asked and revisions that are listened to must come to the same.
#[test]
fn listening_decides_as_asking_does() {
    for loads in [&[50.0, 320.0, 690.0, 100.0, 10.0][..], &[2000.0, 2.0, 5.0], &[69.0, 71.0, 69.0, 140.0]] {
        let (mut asked, mut listened) = (World::new(&[("target-burst-capacity", "0")]), started(&[]));
        asked.start(settings::Autoscaler::default());
        asked.idle(3);
        for load in loads {
            for world in [&mut asked, &mut listened] {
                world.share(*load, *load);
                world.idle(90);
            }
            assert_eq!(asked.replicas, listened.replicas, "{load} of {loads:?}");
        }
        assert!(asked.asked > 0 && listened.asked == 0);
    }
}

#[test]
fn more_than_is_wanted_can_take_is_decided_at_once() {
    let mut world = started(&[]);
    world.share(50.0, 50.0);
    world.idle(10);
    world.scales.clear();
    world.share(2000.0, 2000.0);
    let mut effects = Vec::new();
    world.engine.run_due(world.now.plus(Duration::from_millis(50)), usize::MAX, &mut effects);
    world.perform(effects);
    assert_eq!(world.scales.len(), 1, "not at the next tick");
}

#[test]
fn pods_that_cannot_tell_are_asked_and_tried_again_later() {
    let mut world = World::new(&[("target-burst-capacity", "0"), ("min-scale", "1")]).listening();
    world.first_answer = Some(Heard::Unable);
    world.scraped = Stat { average_concurrent_requests: 50.0, request_count: 50.0, ..Stat::default() };
    world.start(settings::Autoscaler::default());
    world.idle(300);
    assert_eq!(world.listened.values().sum::<usize>(), 1);
    assert!(world.asked > 250, "{}", world.asked);
    // Meanwhile the pod was replaced by one that can.
    world.first_answer = None;
    world.idle(320);
    let asked = world.asked;
    world.idle(60);
    assert_eq!((world.listened.values().sum::<usize>(), world.asked), (2, asked));
}

#[test]
fn one_that_is_lost_counts_as_the_others_and_is_tried_again() {
    let mut world = started(&[]);
    world.share(320.0, 320.0);
    world.idle(60);
    world.scales.clear();
    world.first_answer = Some(Heard::Lost);
    world.hear(address(2), Heard::Lost);
    world.idle(90);
    assert!(world.scales.is_empty(), "{:?}", world.scales);
    let times = world.listened[&address(2)];
    assert!((6..15).contains(&times), "{times}: after a second, two, four, and so on up to fifteen");
    // All are lost: what is wanted stays as it was until a stable window has passed, as with pods that do not answer.
    for pod in 0..5 {
        world.hear(address(pod), Heard::Lost);
    }
    world.idle(50);
    assert!(world.scales.is_empty(), "{:?}", world.scales);
    world.first_answer = None;
    world.idle(60);
    assert_eq!((world.replicas, world.asked), (5, 0));
}

#[test]
fn seconds_in_which_nobody_was_heard_are_not_made_up_afterwards() {
    let mut world = started(&[("max-scale", "1")]);
    world.share(60.0, 60.0);
    world.idle(30);
    world.first_answer = Some(Heard::Lost);
    world.hear(address(0), Heard::Lost);
    world.idle(20);
    world.first_answer = None;
    // Tried again within fifteen seconds; ten more for the decisions.
    world.idle(25);
    let last = world.engine.explain(&key()).unwrap().decisions.pop().unwrap();
    assert!(last.stable < 55.0, "{}", last.stable);
}

#[test]
fn a_report_nobody_wants_ends_its_listener() {
    let mut world = started(&[]);
    let told = Heard::Told(Stat::default());
    world.hear(address(7), told.clone());
    assert_eq!(world.hushed, [address(7)]);
    world.send(Event::Heard(Key::new("ns", "other"), address(8), told.clone()));
    assert_eq!(world.hushed, [address(7), address(8)]);
    world.send(Event::Pod(Change::Deleted(Key::new("ns", "rev-0"))));
    world.hear(address(0), told);
    assert_eq!(world.hushed, [address(7), address(8), address(0)]);
    world.hear(address(0), Heard::Lost);
    world.hear(address(0), Heard::Unable);
    assert_eq!(world.hushed.len(), 3, "it has ended already");
}

#[test]
fn a_revision_with_many_pods_is_asked_for_a_sample() {
    let mut world = started(&[]);
    for (load, many) in [(60.0, false), (100.0, true), (10.0, false)] {
        world.share(70.0 * load, 100.0);
        world.idle(180);
        let asked = world.asked;
        world.idle(20);
        assert_eq!((world.ready > 64, world.asked > asked), (many, many), "{load}: {} pods", world.ready);
    }
}

#[test]
fn absurd_reports_are_refused() {
    let mut world = started(&[]);
    world.share(50.0, 50.0);
    world.idle(20);
    world.scales.clear();
    for bad in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
        let stat = Stat { average_concurrent_requests: bad, ..Stat::default() };
        world.hear(address(0), Heard::Told(stat));
        world.idle(5);
    }
    assert!(world.scales.is_empty() && world.engine.explain(&key()).unwrap().desired == 1);
}
