//! Upstream's cases of a whole reconcile (sheet S66, S67), driven by load and pods as they would come about: what is
//! written to PodAutoscaler, ServerlessService and Deployment together.

#![allow(clippy::unwrap_used, clippy::panic)] // tests may fail loudly, helpers outside #[test] too

mod world;

use std::time::Duration;

use api::settings;
use autoscaler::decider::{Change, Event};
use world::{World, key};

/// Ten requests per pod, none to spare: want = load / 10.
const TEN: [(&str, &str); 2] = [("target", "10"), ("target-utilization-percentage", "100")];

fn world(annotations: &[(&str, &str)]) -> World {
    World::new(&[&TEN, annotations].concat())
}

fn started(annotations: &[(&str, &str)]) -> World {
    let mut world = world(annotations);
    world.start(settings::Autoscaler::default());
    world.idle(2);
    world
}

fn wanted(world: &World) -> i32 {
    world.pa.status.as_ref().unwrap().desired_scale.unwrap()
}

#[test]
fn s66_without_a_serverless_service_one_is_made_and_waited_for() {
    let mut world = world(&[]);
    world.network_is_slow = true;
    world.start(settings::Autoscaler::default());
    world.idle(1);
    // Upstream begins with two; these are as many as its first pod will want.
    assert_eq!(world.path(), ("Proxy", 3), "ceil((1 x 10 + 211) / 100)");
    assert_eq!(world.condition("SKSReady"), ("Unknown", "NotReady"));
    let status = world.pa.status.as_ref().unwrap();
    let message = api::conditions::get(&status.conditions, "SKSReady").unwrap().message.as_deref();
    assert_eq!(message, Some("No Private Service Name"));
    assert!(world.metric.is_none(), "there is nothing to measure yet");
    // It comes: everything goes on from its event alone.
    world.network_is_slow = false;
    let sks = world.sks.clone().unwrap();
    world.set_sks(sks);
    assert!(world.metric.is_some());
    world.idle(1);
    assert_eq!(world.condition("SKSReady").0, "True");
}

#[test]
fn details_of_a_status_wait_for_what_people_look_at() {
    // Everything is there before anybody could look: one write says it all.
    let mut world = world(&[]);
    world.pod_start = Duration::ZERO;
    world.start(settings::Autoscaler::default());
    assert_eq!(world.status_writes, 0);
    world.pods_get_ready();
    assert_eq!((world.status_writes, world.condition("Ready").0), (1, "True"));
    // A pod takes its time: meanwhile the details are told.
    let world = started(&[]);
    assert_eq!((world.status_writes, world.condition("Ready").0), (2, "True"));
}

#[test]
fn s66_activators_come_into_the_path_when_the_burst_capacity_is_short_and_leave_with_it() {
    let mut world = started(&[("target-burst-capacity", "18"), ("max-scale", "11")]);
    world.run(90, |_| Some((80.0, 80.0)));
    // Pods for the load and not a request more: short by all of the burst.
    assert_eq!((wanted(&world), world.ready), (8, 8));
    assert_eq!(world.path(), ("Proxy", 2), "ceil((8 x 10 + 18) / 100)");
    world.run(90, |_| Some((110.0, 110.0)));
    assert_eq!((wanted(&world), world.replicas), (11, 11));
    assert_eq!(world.path(), ("Proxy", 2), "ceil((11 x 10 + 18) / 100)");
    assert_eq!(world.engine.explain(&key()).unwrap().decisions.last().unwrap().excess_burst_capacity, -18);
    // 110 of capacity, 18 for a burst, 91 in use: one to spare.
    let mut world = started(&[("target-burst-capacity", "18"), ("min-scale", "11"), ("max-scale", "11")]);
    world.run(90, |_| Some((91.0, 91.0)));
    assert_eq!(world.engine.explain(&key()).unwrap().decisions.last().unwrap().excess_burst_capacity, 1);
    assert_eq!(world.path().0, "Serve");
}

#[test]
fn s66_three_activators_for_two_hundred_and_some() {
    let mut world = started(&[("target-burst-capacity", "100"), ("min-scale", "11")]);
    world.run(90, |_| Some((110.0, 110.0)));
    assert_eq!(world.path(), ("Proxy", 3), "ceil((11 x 10 + 100) / 100)");
}

#[test]
fn s66_nothing_wanted_is_carried_by_activators_and_says_so() {
    let mut world = started(&[("target-burst-capacity", "0")]);
    world.run(20, |_| Some((5.0, 5.0)));
    assert_eq!((world.active(), world.path().0), (("True", ""), "Serve"));
    world.idle(64);
    // The window is over, the grace period is not: activators first, then the pods.
    assert_eq!((wanted(&world), world.replicas), (0, 1));
    assert_eq!((world.active(), world.path().0), (("False", "NoTraffic"), "Proxy"));
    world.idle(40);
    assert_eq!(world.replicas, 0);
}

#[test]
fn s66_one_that_cannot_be_activated_is_given_up() {
    let mut world = world(&[("serving.knative.dev/progress-deadline", "60s")]);
    world.pod_start = Duration::from_secs(3600);
    world.start(settings::Autoscaler::default());
    world.idle(2);
    assert_eq!((world.active(), world.path().0), (("Unknown", "Queued"), "Proxy"));
    // The progress deadline and thirty seconds.
    world.idle(95);
    assert_eq!((world.active().0, world.path().0, world.replicas), ("False", "Proxy", 0));
    // What was given up receives no traffic either, and the next look says that.
    assert_eq!(world.reasons, ["Queued", "TimedOut", "NoTraffic"]);
}

#[test]
fn s66_fewer_than_the_least_is_not_active_yet_unless_nobody_can_come() {
    for (reachability, active) in [("Reachable", ("Unknown", "Queued")), ("Unreachable", ("True", ""))] {
        let mut world = World::with(&[("min-scale", "2"), ("initial-scale", "1")], |pa| {
            pa.spec.reachability = Some(reachability.to_owned());
        });
        world.start(settings::Autoscaler::default());
        world.pods.insert(1, world.now.plus(Duration::from_secs(600)));
        world.run(4, |_| Some((1.0, 1.0)));
        assert_eq!((world.ready, world.active()), (1, active), "{reachability}");
    }
}

#[test]
fn s66_initial_pods_are_asked_for_and_waited_for() {
    let mut world = world(&[("initial-scale", "20")]);
    world.replicas = 11;
    world.start(settings::Autoscaler::default());
    assert_eq!(world.scales, [(0, 20)]);
    // Eleven are ready, nine are on their way.
    for pod in 11..20 {
        world.pods.insert(pod, world.now.plus(Duration::from_secs(30)));
    }
    world.run(10, |_| Some((200.0, 200.0)));
    assert_eq!((world.ready, world.active()), (11, ("Unknown", "Queued")));
    assert_eq!(world.condition("ScaleTargetInitialized").0, "Unknown");
    world.run(20, |_| Some((200.0, 200.0)));
    assert_eq!((world.ready, world.active()), (20, ("True", "")));
    assert_eq!(world.condition("ScaleTargetInitialized").0, "True");
}

#[test]
fn s67_what_was_wanted_stays_where_nothing_is_known() {
    let mut before = started(&[("min-scale", "2"), ("target-burst-capacity", "0")]);
    before.run(30, |_| Some((15.0, 15.0)));
    assert_eq!((wanted(&before), before.ready), (2, 2));
    // A new process that has heard nothing yet.
    let pa = before.pa.clone();
    let mut after = World::with(&[], |new| *new = pa);
    (after.sks, after.version, after.replicas) = (before.sks.clone(), before.version + 100, 2);
    after.pod_start = Duration::ZERO;
    after.start(settings::Autoscaler::default());
    after.idle(1);
    let status = after.pa.status.as_ref().unwrap();
    assert_eq!((status.desired_scale, status.actual_scale), (Some(2), Some(2)));
    assert_eq!(after.active(), ("True", ""));
}

/// Two that go and come: whatever the order of events, the objects end the same.
#[test]
fn s66_events_out_of_order_end_alike() {
    let mut world = started(&[]);
    world.run(30, |_| Some((25.0, 25.0)));
    let (want, path) = (wanted(&world), (world.path().0.to_owned(), world.path().1));
    let (pa, sks) = (world.pa.clone(), world.sks.clone().unwrap());
    for event in [
        Event::PodAutoscaler(Change::Applied(Box::new(pa))),
        Event::Sks(Change::Applied(Box::new(sks.clone()))),
        Event::Sks(Change::Deleted(key())),
        Event::Sks(Change::Applied(Box::new(sks))),
    ] {
        world.send(event);
        world.run(5, |_| Some((25.0, 25.0)));
    }
    assert_eq!((wanted(&world), world.path()), (want, (path.0.as_str(), path.1)));
}
