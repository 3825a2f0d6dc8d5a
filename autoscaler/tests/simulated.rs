//! A revision's life against a simulated cluster in virtual time: hours in milliseconds, to the second.

#![allow(clippy::unwrap_used, clippy::panic)] // tests may fail loudly, helpers outside #[test] too

mod world;

use std::time::Duration;

use api::settings;
use autoscaler::decider::{Change, Event, Kind, Settings};
use world::{World, key};

#[test]
fn a_new_revision_without_load_goes_to_zero_to_the_second() {
    // With a target burst capacity of 0 the activator is in the path only at zero: the full grace period counts.
    // By default it was in the path all the time, and the last pod need not wait for it.
    for (burst, zero_at) in [("0", 91), ("211", 61)] {
        let mut world = World::new(&[("target-burst-capacity", burst)]);
        world.start(settings::Autoscaler::default());
        world.idle(2);
        assert_eq!(world.active().0, "True");
        assert!(world.scales.is_empty(), "the Deployment was made with its initial scale");
        world.idle(200);
        // Ready at 1 s; a stable window of 60 s; 30 s of grace.
        assert_eq!(world.scales, [(zero_at, 0)], "burst {burst}");
        assert_eq!(world.active(), ("False", "NoTraffic"));
    }
}

#[test]
fn load_wakes_scales_and_puts_to_sleep() {
    let mut world = World::new(&[("target-burst-capacity", "0")]);
    world.start(settings::Autoscaler::default());
    world.idle(120);
    assert_eq!((world.replicas, world.decided), (0, 0));
    world.scales.clear();

    // The report of the first waiting request: decided and written within the call.
    world.report(1.0, 1.0);
    assert_eq!(world.scales, [(120, 1)]);
    assert_eq!((world.decided, world.active().1), (1, "Queued"));

    // 350 requests in flight at 70 a pod.
    world.run(120, |_| Some((350.0, 350.0)));
    assert_eq!((world.replicas, world.ready), (5, 5));
    assert_eq!(world.active().0, "True");

    // The last report of load is at 240 s.
    world.scales.clear();
    world.run(1, |_| Some((0.0, 0.0)));
    world.idle(300);
    assert!(world.scales.windows(2).all(|w| w[0].1 > w[1].1), "only downwards: {:?}", world.scales);
    let (second, replicas) = *world.scales.last().unwrap();
    assert_eq!(replicas, 0);
    // Window and grace after the last load, decisions every 2 s.
    assert!((240 + 60 + 30..=240 + 62 + 30).contains(&second), "at {second}: {:?}", world.scales);
    assert_eq!(world.active(), ("False", "NoTraffic"));
}

#[test]
fn a_burst_is_decided_at_once_and_not_at_the_next_tick() {
    let mut world = World::new(&[]);
    world.start(settings::Autoscaler::default());
    world.run(30, |_| Some((10.0, 10.0)));
    world.scales.clear();
    world.report(5000.0, 5000.0);
    let mut effects = Vec::new();
    world.now = world.now.plus(Duration::from_millis(50));
    world.engine.run_due(world.now, usize::MAX, &mut effects);
    world.perform(effects);
    assert!(world.replicas > 1, "{:?}", world.scales);
}

#[test]
fn nothing_is_written_while_nothing_changes() {
    let mut world = World::new(&[]);
    world.start(settings::Autoscaler::default());
    world.run(200, |_| Some((100.0, 100.0)));
    let (scales, statuses, modes) = (world.scales.len(), world.status_writes, world.modes.len());
    world.run(3600, |_| Some((100.0, 100.0)));
    assert_eq!((world.scales.len(), world.status_writes, world.modes.len()), (scales, statuses, modes));
}

#[test]
fn a_sleeping_revision_asks_for_no_time_at_all() {
    let mut world = World::new(&[]);
    world.start(settings::Autoscaler::default());
    world.idle(800);
    assert_eq!(world.replicas, 0);
    assert_eq!(world.engine.next_due(), None);
}

#[test]
fn the_last_pod_stays_until_an_activator_answers() {
    let mut world = World::new(&[]);
    world.activator_answers = false;
    world.start(settings::Autoscaler::default());
    world.idle(300);
    assert_eq!((world.replicas, world.active().0), (1, "False"));
    world.activator_answers = true;
    world.idle(5);
    assert_eq!(world.replicas, 0);
}

#[test]
fn min_scale_and_retention_are_kept() {
    let mut world = World::new(&[("min-scale", "2")]);
    world.start(settings::Autoscaler::default());
    world.idle(600);
    assert_eq!(world.replicas, 2);
    let mut world = World::new(&[("scale-to-zero-pod-retention-period", "5m")]);
    world.start(settings::Autoscaler::default());
    world.idle(700);
    // Inactive at 61 s.
    assert_eq!(world.scales, [(361, 0)]);
}

#[test]
fn a_restart_neither_flips_the_path_nor_takes_pods() {
    let mut world = World::new(&[("target-burst-capacity", "10")]);
    world.start(settings::Autoscaler::default());
    world.run(120, |_| Some((200.0, 200.0)));
    assert_eq!((world.replicas, world.modes.last().map(String::as_str)), (3, Some("Serve")));

    let before = world.pa.clone();
    let mut second = World::with(&[("target-burst-capacity", "10")], |pa| *pa = before);
    second.sks = world.sks.clone();
    second.version = world.version + 100;
    second.replicas = 3;
    second.start(settings::Autoscaler::default());
    second.run(200, |_| Some((200.0, 200.0)));
    assert!(second.modes.iter().all(|mode| mode == "Serve"), "{:?}", second.modes);
    assert!(second.scales.is_empty(), "{:?}", second.scales);
}

#[test]
fn a_restart_at_zero_stays_asleep_and_still_wakes() {
    let mut world = World::new(&[]);
    world.start(settings::Autoscaler::default());
    world.idle(200);
    let mut second = World::with(&[], |pa| *pa = world.pa.clone());
    second.sks = world.sks.clone();
    second.version = world.version + 100;
    second.replicas = 0;
    second.start(settings::Autoscaler::default());
    second.idle(30);
    assert!(second.scales.is_empty() && second.modes.is_empty());
    second.report(1.0, 1.0);
    assert_eq!(second.scales, [(30, 1)]);
}

#[test]
fn steady_noisy_load_does_not_swing() {
    let mut world = World::new(&[("metric", "rps")]);
    world.start(settings::Autoscaler::default());
    let mut random = fastrand::Rng::with_seed(7);
    let mut noisy = move |_| Some((60.0, 6000.0 * (0.9 + 0.2 * random.f64())));
    world.run(180, &mut noisy);
    world.scales.clear();
    world.run(3600, &mut noisy);
    // 6000 / 140 = 42.9 pods; one more or less is the noise itself.
    assert!(world.scales.iter().all(|(_, replicas)| (42..=44).contains(replicas)), "{:?}", world.scales);
}

#[test]
fn absurd_reports_change_nothing() {
    let mut world = World::new(&[]);
    world.start(settings::Autoscaler::default());
    world.run(30, |_| Some((10.0, 10.0)));
    for bad in [f64::NAN, f64::INFINITY, -5.0, 1e300] {
        world.report(bad, bad);
    }
    world.run(30, |_| Some((10.0, 10.0)));
    assert!(world.scales.is_empty() && world.replicas == 1);
}

#[test]
fn a_failing_write_is_repeated_and_keeps_no_other_from_being_made() {
    let mut world = World::new(&[]);
    world.start(settings::Autoscaler::default());
    world.idle(200);
    world.scales.clear();
    world.broken = Some("status");
    world.report(1.0, 1.0);
    assert_eq!(world.scales, [(200, 1)], "a status that cannot be written must not keep a request waiting");
    world.idle(5);
    assert_eq!(world.active().0, "False", "as last written");
    world.broken = None;
    world.idle(31);
    assert_eq!(world.active().0, "True");

    let mut world = World::new(&[]);
    world.start(settings::Autoscaler::default());
    world.idle(200);
    world.scales.clear();
    world.broken = Some("scale");
    world.report(1.0, 1.0);
    world.idle(2);
    assert!(world.scales.is_empty());
    world.broken = None;
    world.idle(5);
    assert_eq!(world.replicas, 1, "repeated by itself");
}

#[test]
fn a_report_before_the_last_list_is_decided_with_it() {
    let mut world = World::new(&[]);
    world.start(settings::Autoscaler::default());
    world.idle(200);
    let mut second = World::with(&[], |pa| *pa = world.pa.clone());
    second.replicas = 0;
    second.version = world.version + 100;
    let sks = world.sks.clone().unwrap();
    second.send(Event::Sks(Change::Applied(Box::new(sks))));
    second.set_replicas(0);
    second.send(Event::PodAutoscaler(Change::Applied(Box::new(second.pa.clone()))));
    second.report(1.0, 1.0);
    assert!(second.scales.is_empty());
    for kind in [Kind::Metric, Kind::Pod, Kind::Target, Kind::Settings, Kind::ServerlessService, Kind::PodAutoscaler] {
        second.send(Event::Synced(kind));
    }
    assert_eq!(second.scales, [(0, 1)]);
}

#[test]
fn other_classes_are_left_alone() {
    let mut world = World::with(&[], |pa| {
        let annotations = pa.metadata.annotations.as_mut().unwrap();
        annotations.insert("autoscaling.knative.dev/class".into(), "hpa.autoscaling.knative.dev".into());
    });
    world.start(settings::Autoscaler::default());
    world.run(30, |_| Some((500.0, 500.0)));
    assert!(world.scales.is_empty() && world.modes.is_empty() && world.status_writes == 0);
    assert_eq!(world.horizontal.last(), Some(&key()), "a HorizontalPodAutoscaler has it");
}

#[test]
fn settings_are_followed_live() {
    let mut world = World::new(&[]);
    world.start(settings::Autoscaler { min_scale: 3, ..settings::Autoscaler::default() });
    world.idle(10);
    assert_eq!(world.replicas, 3);
    let settings =
        Settings { autoscaler: settings::Autoscaler { min_scale: 5, ..Default::default() }, ..Settings::default() };
    world.send(Event::Settings(settings.into()));
    assert_eq!(world.replicas, 5);
}

#[test]
fn a_scale_target_that_somebody_else_changed_is_put_right() {
    let mut world = World::new(&[("min-scale", "2")]);
    world.start(settings::Autoscaler::default());
    world.idle(10);
    world.set_replicas(7);
    assert_eq!(world.replicas, 2);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    #[test]
    fn written_scales_lie_within_the_bounds(
        loads in proptest::collection::vec(proptest::option::of(0.0f64..5000.0), 20..120), min in 1i32..4, more in 0i32..20,
    ) {
        let (low, high) = (min.to_string(), (min + more).to_string());
        let mut world = World::new(&[("min-scale", &low), ("max-scale", &high)]);
        world.start(settings::Autoscaler::default());
        for load in loads {
            world.run(3, |_| load.map(|load| (load, load)));
        }
        for (second, replicas) in &world.scales {
            proptest::prop_assert!((min..=min + more).contains(replicas), "{replicas} at {second}");
        }
        proptest::prop_assert!((min..=min + more).contains(&world.replicas));
    }
}

#[test]
fn a_server_that_does_not_take_a_status_is_not_flooded() {
    let mut world = World::new(&[]);
    world.start(settings::Autoscaler::default());
    world.idle(10);
    let before = world.pa.status.clone();
    world.broken = Some("forgets");
    world.status_writes = 0;
    world.report(1000.0, 1000.0);
    world.idle(30);
    assert_eq!(world.pa.status, before);
    assert!((2..60).contains(&world.status_writes), "{}", world.status_writes);
}

#[test]
fn s33_a_report_at_zero_is_decided_without_a_tick() {
    let mut world = World::new(&[]);
    world.start(settings::Autoscaler::default());
    world.idle(200);
    world.report(0.0, 0.0);
    assert_eq!(world.replicas, 0, "nothing is in flight");
    world.report(1.0, 1.0);
    assert_eq!(world.scales.last(), Some(&(200, 1)));
}

#[test]
fn s44_silence_is_no_load_only_where_activators_see_everything() {
    // Always in the path: silence means none. Else: nothing is decided before something is known.
    for (burst, desired) in [("-1", 0), ("0", -1)] {
        let mut world = World::new(&[("target-burst-capacity", burst)]);
        world.frozen = true;
        world.start(settings::Autoscaler::default());
        world.idle(100);
        assert_eq!(world.engine.explain(&key()).unwrap().desired, desired, "burst {burst}");
    }
}
