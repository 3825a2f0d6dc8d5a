//! What goes wrong and must not matter: lost frames, frozen pods, jumping clocks, absurd samples, objects that vanish,
//! settings that change under way.

#![allow(clippy::unwrap_used, clippy::panic)] // tests may fail loudly, helpers outside #[test] too

mod world;

use std::{collections::HashSet, time::Duration};

use api::{
    settings,
    stat::{Stat, WireStatMessage, WireStatMessages},
};
use autoscaler::{
    decider::{Change, Event, Kind, Settings},
    key::Key,
};
use world::{START, World, key};

fn started(annotations: &[(&str, &str)]) -> World {
    let mut world = World::new(annotations);
    world.start(settings::Autoscaler::default());
    world
}

#[test]
fn lost_frames_do_not_make_pods_swing() {
    let mut world = started(&[]);
    world.run(120, |_| Some((350.0, 350.0)));
    assert_eq!(world.replicas, 5);
    world.scales.clear();
    // Two of ten are lost; the seconds without one count as none, within the stable window's smoothing.
    world.run(600, |second| (second % 10 > 1).then_some((350.0, 350.0)));
    assert!(world.scales.iter().all(|(_, replicas)| (4..=5).contains(replicas)), "{:?}", world.scales);
    // All are lost for a while, and pods still say that they have nothing of their own: the load fades, and returns.
    world.idle(20);
    world.run(120, |_| Some((350.0, 350.0)));
    assert_eq!(world.replicas, 5);
}

#[test]
fn frozen_pods_leave_everything_as_it_was() {
    let mut world = started(&[("target-burst-capacity", "0")]);
    world.scraped = Stat { average_concurrent_requests: 350.0, request_count: 350.0, ..Stat::default() };
    world.run(120, |_| None);
    assert_eq!(world.replicas, 5);
    world.scales.clear();
    world.frozen = true;
    let asked = world.asked;
    world.idle(50);
    assert!(world.asked - asked <= 5, "one round at a time: {} more", world.asked - asked);
    assert!(world.scales.is_empty(), "{:?}", world.scales);
}

#[test]
fn a_reporters_clock_does_not_matter() {
    let mut world = started(&[]);
    world.run(60, |_| Some((100.0, 100.0)));
    world.scales.clear();
    for timestamp in [1, START - 86_400, START + 86_400 * 365, i64::MAX] {
        let stat = Stat { average_concurrent_requests: 10.0, request_count: 10.0, timestamp, ..Stat::default() };
        let message = WireStatMessage { namespace: "ns".into(), name: "rev".into(), stat: Some(stat) };
        world.send(Event::Frame(WireStatMessages { messages: vec![message] }));
        world.run(5, |_| Some((100.0, 100.0)));
    }
    assert!(world.scales.iter().all(|(_, replicas)| (1..=3).contains(replicas)), "{:?}", world.scales);
}

#[test]
fn a_process_that_slept_decides_nothing_rash_when_it_wakes() {
    let mut world = started(&[("min-scale", "1")]);
    world.run(120, |_| Some((350.0, 350.0)));
    // The machine was suspended for an hour; the first report after it is as the last before.
    world.now = world.now.plus(Duration::from_secs(3600));
    world.scales.clear();
    world.run(30, |_| Some((350.0, 350.0)));
    assert!(world.scales.iter().all(|(_, replicas)| *replicas >= 2), "halved once at most: {:?}", world.scales);
    world.run(60, |_| Some((350.0, 350.0)));
    assert_eq!(world.replicas, 5);
}

#[test]
fn an_owned_object_that_vanishes_is_made_again_with_all_its_metadata() {
    let mut world = World::with(&[], |pa| {
        pa.metadata.labels = Some([("l".to_owned(), "v".to_owned())].into());
        pa.metadata.annotations.as_mut().unwrap().insert("else".to_owned(), "x".to_owned());
    });
    world.start(settings::Autoscaler::default());
    world.idle(10);
    world.sks = None;
    world.send(Event::Sks(Change::Deleted(key())));
    world.idle(1);
    let made = world.sks.as_ref().unwrap();
    assert_eq!(made.metadata.labels.as_ref().unwrap()["l"], "v");
    assert_eq!(made.metadata.annotations.as_ref().unwrap()["else"], "x");
}

#[test]
fn what_a_new_list_does_not_have_is_forgotten() {
    let mut world = started(&[]);
    world.run(10, |_| Some((10.0, 10.0)));
    assert!(world.engine.explain(&key()).is_some());
    let all = HashSet::from([key().hashed()]);
    world.send(Event::Listed(Kind::PodAutoscaler, all.clone()));
    world.send(Event::Listed(Kind::ServerlessService, all));
    assert!(world.engine.explain(&key()).is_some_and(|account| account.ready == 1));
    world.send(Event::Listed(Kind::Pod, HashSet::from([Key::new("ns", "other").hashed()])));
    assert!(world.engine.explain(&key()).is_some_and(|account| account.ready == 0));
    world.send(Event::Listed(Kind::PodAutoscaler, HashSet::new()));
    assert!(world.engine.explain(&key()).is_none());
}

/// Every key of `config-autoscaler` that a decision can show, changed while the revision runs.
#[test]
fn every_setting_is_followed_live() {
    type Edit = fn(&mut settings::Autoscaler);
    type Read = fn(&autoscaler::algorithm::RevisionScaling) -> String;
    let table: &[(&str, Edit, Read, &str)] = &[
        ("enable-scale-to-zero", |s| s.enable_scale_to_zero = false, |r| r.scale_to_zero.to_string(), "false"),
        ("initial-scale", |s| s.initial_scale = 4, |r| r.initial_scale.to_string(), "4"),
        ("min-scale", |s| s.min_scale = 2, |r| r.min_scale.to_string(), "2"),
        ("max-scale", |s| s.max_scale = 9, |r| r.max_scale.to_string(), "9"),
        ("max-scale-up-rate", |s| s.max_scale_up_rate = 3.0, |r| r.max_scale_up_rate.to_string(), "3"),
        ("max-scale-down-rate", |s| s.max_scale_down_rate = 4.0, |r| r.max_scale_down_rate.to_string(), "4"),
        ("target percentage", |s| s.container_concurrency_target_fraction = 0.5, |r| r.target.to_string(), "50"),
        ("target default", |s| s.container_concurrency_target_default = 10.0, |r| r.total.to_string(), "10"),
        ("burst", |s| s.target_burst_capacity = 5.0, |r| r.target_burst_capacity.to_string(), "5"),
        ("stable-window", |s| s.stable_window = secs(30), |r| r.stable_window.as_secs().to_string(), "30"),
        ("panic-window", |s| s.panic_window_percentage = 20.0, |r| r.panic_window.as_secs().to_string(), "12"),
        ("panic-threshold", |s| s.panic_threshold_percentage = 150.0, |r| r.panic_threshold.to_string(), "1.5"),
        ("grace", |s| s.scale_to_zero_grace_period = secs(7), |r| r.grace_period.as_secs().to_string(), "7"),
        ("retention", |s| s.scale_to_zero_pod_retention_period = secs(8), |r| secs_of(r.retention_period), "8"),
        ("delay", |s| s.scale_down_delay = secs(9), |r| secs_of(r.scale_down_delay), "9"),
        ("activator-capacity", |s| s.activator_capacity = 50.0, |r| r.activator_capacity.to_string(), "50"),
    ];
    let mut world = started(&[]);
    world.run(5, |_| Some((10.0, 10.0)));
    for (name, edit, read, want) in table {
        let mut autoscaler = settings::Autoscaler::default();
        edit(&mut autoscaler);
        world.send(Event::Settings(Settings { autoscaler, ..Settings::default() }.into()));
        world.run(1, |_| Some((10.0, 10.0)));
        let settings = world.engine.explain(&key()).unwrap().settings;
        assert_eq!(read(&settings), *want, "{name}");
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn secs_of(duration: Duration) -> String {
    duration.as_secs().to_string()
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    /// Whatever the load does: the log of its decisions replays, and a revision at rest comes to zero.
    #[test]
    fn logs_of_the_engine_replay(loads in proptest::collection::vec(proptest::option::of(0.0f64..3000.0), 1..40)) {
        let mut world = started(&[("scale-down-delay", "10s")]);
        for load in loads {
            world.run(4, |_| load.map(|load| (load, load)));
        }
        let log = serde_json::to_vec(&world.engine.explain(&key()).unwrap()).unwrap();
        let replay = autoscaler::replay::replay(&log).unwrap();
        proptest::prop_assert!(replay.difference.is_none(), "{}", replay);
        world.idle(400);
        proptest::prop_assert_eq!(world.replicas, 0);
    }
}
