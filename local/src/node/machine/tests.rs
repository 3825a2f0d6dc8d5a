//! The life of a pod, event by event, in virtual time.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::node::{images::ImageMap, plan};

/// A pod on a test bench: time moves when told to, actions are written down as words.
struct Bench {
    machine: Machine,
    now: Now,
}

impl Bench {
    fn new(pod: Value) -> Self {
        let images = ImageMap::new(Vec::new(), "/x".into(), "queue".into(), "/".into());
        let pod = serde_json::from_value(pod).unwrap();
        let plan = plan::plan(&pod, &images, "127.9.0.2".parse().unwrap(), &BTreeMap::new());
        Self { machine: Machine::new(plan), now: Now { instant: Instant::now(), wall: Timestamp::UNIX_EPOCH } }
    }

    fn containers(containers: &Value) -> Self {
        Self::new(json!({"spec": {"containers": containers}}))
    }

    /// `spawn user#1`, `term queue`, `probe user readiness`, …
    fn on(&mut self, event: Event) -> String {
        let plan = self.machine.plan.clone();
        let name = |index: usize| plan.containers[index].name.clone();
        let actions = self.machine.handle(event, self.now);
        let words = actions.into_iter().map(|action| match action {
            Action::Spawn { container, restart } => format!("spawn {}#{restart}", name(container)),
            Action::Term { container } => format!("term {}", name(container)),
            Action::Kill { container } => format!("kill {}", name(container)),
            Action::Probe { container, kind, hold, .. } => {
                format!("probe {} {kind:?}{}", name(container), if hold { " held" } else { "" })
            }
            Action::Hook { container, .. } => format!("hook {}", name(container)),
            Action::Finish => "finish".to_owned(),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    fn tick(&mut self) -> String {
        self.on(Event::Tick)
    }

    fn spawned(&mut self, container: usize) -> String {
        self.on(Event::Spawned { container })
    }

    fn exited(&mut self, container: usize, code: i32) -> String {
        self.on(Event::Exited { container, exit: Exit { code: Some(code), signal: None }, message: None })
    }

    fn probed(&mut self, container: usize, kind: Kind, good: bool) -> String {
        let restart = self.machine.containers[container].restarts;
        self.on(Event::Probed { container, restart, kind, good })
    }

    fn stop(&mut self, seconds: u64) -> String {
        self.on(Event::Stop { grace: Duration::from_secs(seconds), hooks: true })
    }

    fn wait(&mut self, time: Duration) {
        self.now.instant += time;
    }

    /// Lets time pass until the machine wants to be woken; gives how long that was.
    fn next(&mut self) -> Duration {
        let next = self.machine.next_tick().expect("an alarm");
        let wait = next.saturating_duration_since(self.now.instant);
        self.wait(wait);
        wait
    }
}

/// A revision's pod: user container with a hook, then queue-proxy with a held probe.
fn revision() -> Bench {
    Bench::containers(&json!([
        {"name": "user", "image": "app", "lifecycle": {"preStop": {"httpGet": {"port": 8022, "path": "/wait-for-drain"}}}},
        {"name": "queue", "image": "queue", "readinessProbe": {"httpGet": {"port": 8012,
            "httpHeaders": [{"name": "K-Network-Probe", "value": "queue"}]}}},
    ]))
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_sidecar_starts_first_and_its_held_probe_makes_the_pod_ready() {
    let mut pod = revision();
    assert_eq!(pod.tick(), "spawn queue#0, spawn user#0");
    assert_eq!(pod.spawned(1), "probe queue Readiness held");
    assert_eq!(pod.spawned(0), "");
    assert!(pod.machine.containers[0].ready && !pod.machine.containers[1].ready);
    // The port is not open yet: asked again within a millisecond.
    assert_eq!(pod.probed(1, Kind::Readiness, false), "");
    assert_eq!(pod.next(), Duration::from_millis(1));
    assert_eq!(pod.tick(), "probe queue Readiness held");
    assert_eq!(pod.probed(1, Kind::Readiness, true), "");
    assert!(pod.machine.containers[1].ready);
    assert_eq!(pod.next(), Duration::from_secs(10));
    assert_eq!(pod.tick(), "probe queue Readiness");
}

#[test]
fn deletion_lets_the_sidecar_drain_before_the_user_process_is_told() {
    let mut pod = revision();
    pod.tick();
    pod.spawned(1);
    pod.spawned(0);
    assert_eq!(pod.stop(300), "hook user, term queue");
    // The hook is done, but requests still run through queue-proxy.
    assert_eq!(pod.on(Event::HookDone { container: 0, restart: 0 }), "");
    assert_eq!(pod.exited(1, 0), "term user");
    assert_eq!(pod.exited(0, 0), "finish");
    assert_eq!(pod.tick(), "", "finished once");
}

#[test]
fn what_does_not_stop_in_its_grace_is_killed() {
    let mut pod = revision();
    pod.tick();
    pod.spawned(1);
    pod.spawned(0);
    pod.stop(300);
    // A second deletion can only be sooner.
    assert_eq!(pod.stop(600), "");
    assert_eq!(pod.stop(5), "");
    assert_eq!(pod.next(), 5 * SECOND);
    assert_eq!(pod.tick(), "kill user, kill queue");
    assert_eq!(pod.exited(0, 137), "");
    assert_eq!(pod.exited(1, 137), "finish");
}

#[test]
fn a_stopping_node_runs_no_hooks_but_keeps_the_order() {
    let mut pod = revision();
    pod.tick();
    pod.spawned(1);
    pod.spawned(0);
    assert_eq!(pod.on(Event::Stop { grace: SECOND, hooks: false }), "term queue");
    assert_eq!(pod.exited(1, 0), "term user");
}

#[test]
fn a_pod_that_never_started_goes_at_once_and_one_that_starts_just_now_after_it_has() {
    assert_eq!(revision().stop(300), "finish");
    let mut pod = Bench::containers(&json!([{"name": "a"}]));
    assert_eq!(pod.tick(), "spawn a#0");
    assert_eq!(pod.stop(300), "");
    assert_eq!(pod.spawned(0), "term a");
    assert_eq!(pod.exited(0, 0), "finish");
}

#[test]
fn a_crashing_container_is_restarted_with_growing_waits() {
    let mut pod = Bench::containers(&json!([{"name": "a"}]));
    pod.tick();
    let mut waits = Vec::new();
    for restart in 1..=8 {
        pod.spawned(0);
        let started = pod.exited(0, 1);
        if started.is_empty() {
            let State::BackOff { reason, .. } = &pod.machine.containers[0].state else { panic!("no backoff") };
            assert_eq!(*reason, "CrashLoopBackOff");
            waits.push(pod.next().as_secs());
            assert_eq!(pod.tick(), format!("spawn a#{restart}"));
        } else {
            assert_eq!(started, "spawn a#1");
        }
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
    // A long good run wipes the slate.
    pod.spawned(0);
    pod.wait(Duration::from_hours(1));
    assert_eq!(pod.exited(0, 1), "spawn a#9");
}

#[test]
fn restart_policies() {
    for (policy, code, again) in [
        ("Always", 0, true),
        ("Always", 1, true),
        ("OnFailure", 0, false),
        ("OnFailure", 1, true),
        ("Never", 0, false),
        ("Never", 1, false),
    ] {
        let mut pod = Bench::new(json!({"spec": {"restartPolicy": policy, "containers": [{"name": "a"}]}}));
        pod.tick();
        pod.spawned(0);
        assert_eq!(pod.exited(0, code) == "spawn a#1", again, "{policy} {code}");
    }
}

#[test]
fn init_containers_run_in_turn_and_sidecars_among_them_stay() {
    let mut pod = Bench::new(json!({"spec": {
        "initContainers": [{"name": "one"}, {"name": "two", "restartPolicy": "Always"}, {"name": "three"}],
        "containers": [{"name": "main"}]}}));
    assert_eq!(pod.tick(), "spawn one#0");
    assert_eq!(pod.spawned(0), "");
    assert_eq!(pod.exited(0, 1), "spawn one#1", "until it succeeds");
    pod.spawned(0);
    assert_eq!(pod.exited(0, 0), "spawn two#0");
    assert_eq!(pod.spawned(1), "spawn three#0");
    pod.spawned(2);
    assert_eq!(pod.exited(2, 0), "spawn main#0");
    assert!(pod.machine.initialized());
    pod.spawned(3);
    assert_eq!(pod.exited(1, 0), "spawn two#1", "a sidecar is always restarted");
}

#[test]
fn images_that_cannot_run_are_tried_again_and_said_twice_differently() {
    let mut pod = Bench::containers(&json!([{"name": "a", "image": "no-such"}]));
    pod.tick();
    let failed = |pod: &mut Bench| {
        let why = SpawnFailure::Image { message: "map it".into() };
        assert_eq!(pod.on(Event::SpawnFailed { container: 0, why }), "");
        let State::BackOff { reason, message, .. } = pod.machine.containers[0].state.clone() else { panic!("runs") };
        (reason, message)
    };
    assert_eq!(failed(&mut pod), ("ErrImagePull", "map it".into()));
    assert_eq!(pod.next(), 10 * SECOND);
    assert_eq!(pod.tick(), "spawn a#0");
    let (reason, message) = failed(&mut pod);
    assert_eq!(reason, "ImagePullBackOff");
    assert_eq!(message, "Back-off pulling image \"no-such\": ErrImagePull: map it");
    assert_eq!(pod.next(), 20 * SECOND);
}

#[test]
fn a_program_that_cannot_be_executed_counts_as_a_crash() {
    let mut pod = Bench::containers(&json!([{"name": "a"}]));
    pod.tick();
    let why = || SpawnFailure::Exec { message: "no such file".into() };
    assert_eq!(pod.on(Event::SpawnFailed { container: 0, why: why() }), "spawn a#1");
    assert_eq!(pod.on(Event::SpawnFailed { container: 0, why: why() }), "");
    let container = &pod.machine.containers[0];
    assert!(matches!(container.state, State::BackOff { reason: "CrashLoopBackOff", .. }));
    let ended = container.ended.as_ref().unwrap();
    assert_eq!((ended.reason, ended.exit_code), ("StartError", 128));
}

#[test]
fn startup_gates_the_others_and_liveness_restarts() {
    let probe = json!({"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 2});
    let mut pod = Bench::containers(&json!([{"name": "a", "startupProbe": probe, "livenessProbe": probe,
        "readinessProbe": probe, "lifecycle": {"preStop": {"exec": {"command": ["bye"]}}}}]));
    pod.tick();
    assert_eq!(pod.spawned(0), "probe a Startup");
    assert!(!pod.machine.containers[0].started);
    assert_eq!(pod.probed(0, Kind::Startup, true), "probe a Liveness, probe a Readiness");
    assert!(pod.machine.containers[0].started && !pod.machine.containers[0].ready);
    pod.probed(0, Kind::Readiness, true);
    assert!(pod.machine.containers[0].ready);
    assert_eq!(pod.probed(0, Kind::Liveness, false), "");
    assert_eq!(pod.next(), SECOND);
    assert_eq!(pod.tick(), "probe a Liveness, probe a Readiness");
    assert_eq!(pod.probed(0, Kind::Liveness, false), "hook a");
    assert!(!pod.machine.containers[0].ready, "a container that is stopped serves nobody");
    assert_eq!(pod.on(Event::HookDone { container: 0, restart: 0 }), "term a");
    assert_eq!(pod.next(), 30 * SECOND);
    assert_eq!(pod.tick(), "kill a");
    assert_eq!(pod.exited(0, 137), "spawn a#1");
    // An answer to a question of the former instance changes nothing.
    pod.spawned(0);
    let late = Event::Probed { container: 0, restart: 0, kind: Kind::Startup, good: true };
    pod.on(late);
    assert!(!pod.machine.containers[0].started);
}

#[test]
fn a_failing_startup_probe_restarts_too() {
    let probe = json!({"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 1});
    let mut pod = Bench::containers(&json!([{"name": "a", "startupProbe": probe}]));
    pod.tick();
    pod.spawned(0);
    assert_eq!(pod.probed(0, Kind::Startup, false), "term a");
    assert_eq!(pod.exited(0, 143), "spawn a#1");
}

proptest::proptest! {
    /// Whatever happens in whatever order, a pod that is told to stop finishes once its processes have ended, nothing
    /// starts after that, and nothing is started while its former instance lives.
    #[test]
    fn every_life_ends(steps in proptest::collection::vec((0u8..6, 0usize..2, 0u64..400), 0..60)) {
        let mut pod = revision();
        let mut alive = [false, false];
        let mut asked = [false, false];
        let mut stopped = false;
        let see = |words: String, alive: &[bool; 2], stopped: bool, asked: &mut [bool; 2]| {
            for word in words.split(", ").filter(|word| word.starts_with("spawn")) {
                assert!(!stopped, "{word} after the stop");
                let index = usize::from(word.contains("queue"));
                assert!(!alive[index] && !asked[index], "{word} twice");
                asked[index] = true;
            }
        };
        see(pod.tick(), &alive, stopped, &mut asked);
        for (what, index, time) in steps {
            pod.wait(Duration::from_secs(time));
            let words = match what {
                0 if asked[index] => { asked[index] = false; alive[index] = true; pod.spawned(index) }
                1 if asked[index] => {
                    asked[index] = false;
                    pod.on(Event::SpawnFailed { container: index, why: SpawnFailure::Config { message: String::new() } })
                }
                2 if alive[index] => { alive[index] = false; pod.exited(index, (time % 2) as i32) }
                3 => pod.probed(index, Kind::Readiness, time % 2 == 0),
                4 if time < 40 => { stopped = true; pod.stop(time) }
                _ => pod.tick(),
            };
            see(words, &alive, stopped, &mut asked);
        }
        let mut last = pod.stop(0);
        for index in 0..2 {
            if asked[index] { last += &pod.spawned(index); alive[index] = true; }
        }
        for (index, alive) in alive.iter().enumerate() {
            if *alive { last += &pod.exited(index, 0); }
        }
        proptest::prop_assert!(pod.machine.finished, "{last}");
    }
}
