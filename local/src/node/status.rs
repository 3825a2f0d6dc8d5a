//! A pod's state as Kubernetes words it: phase, conditions, container statuses. Pure.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
        HostIP, Pod, PodCondition, PodIP, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    machine::{Container, Ended, Machine, State},
    plan::{ContainerPlan, RestartPolicy, Role},
};

/// The status of a pod. `before` keeps the times of conditions that did not change.
pub(super) fn status(
    pod: &Pod,
    machine: &Machine,
    pod_ip: Ipv4Addr,
    host_ip: Ipv4Addr,
    start: Timestamp,
    before: &PodStatus,
    now: Timestamp,
) -> PodStatus {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let of = |wanted: fn(Role) -> bool| {
        let pairs = machine.plan.containers.iter().zip(&machine.containers);
        let statuses: Vec<ContainerStatus> = pairs
            .filter(|(plan, _)| wanted(plan.role))
            .map(|(plan, c)| container(pod, uid, machine, plan, c))
            .collect();
        Some(statuses).filter(|statuses| !statuses.is_empty())
    };
    let phase = phase(machine);
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions(machine, phase, before, now)),
        pod_ip: Some(pod_ip.to_string()),
        pod_ips: Some(vec![PodIP { ip: pod_ip.to_string() }]),
        host_ip: Some(host_ip.to_string()),
        host_ips: Some(vec![HostIP { ip: host_ip.to_string() }]),
        start_time: Some(Time(start)),
        init_container_statuses: of(|role| matches!(role, Role::Init | Role::InitSidecar)),
        container_statuses: of(|role| matches!(role, Role::QueueProxy | Role::Main)),
        qos_class: Some("BestEffort".to_owned()),
        ..PodStatus::default()
    }
}

fn phase(machine: &Machine) -> &'static str {
    let pairs = || machine.plan.containers.iter().zip(&machine.containers);
    let main = || pairs().filter(|(plan, _)| !matches!(plan.role, Role::Init | Role::InitSidecar)).map(|(_, c)| c);
    if !machine.initialized() {
        let broken =
            pairs().any(|(plan, c)| plan.role == Role::Init && matches!(c.state, State::Ended) && !c.succeeded());
        return if broken && machine.plan.restart == RestartPolicy::Never { "Failed" } else { "Pending" };
    }
    let waits = |c: &Container| !matches!(c.state, State::Running { .. } | State::Ended) && c.ended.is_none();
    if main().any(waits) {
        return "Pending";
    }
    if main().any(|c| !matches!(c.state, State::Ended)) || machine.plan.restart == RestartPolicy::Always {
        return "Running";
    }
    if main().all(Container::succeeded) {
        return "Succeeded";
    }
    if machine.plan.restart == RestartPolicy::Never { "Failed" } else { "Running" }
}

fn conditions(machine: &Machine, phase: &str, before: &PodStatus, now: Timestamp) -> Vec<PodCondition> {
    let unready: Vec<&str> = machine
        .plan
        .containers
        .iter()
        .zip(&machine.containers)
        .filter(|(plan, c)| plan.role != Role::Init && !c.ready)
        .map(|(plan, _)| plan.name.as_str())
        .collect();
    let ready = match phase {
        "Succeeded" | "Failed" => Err(("PodCompleted", String::new())),
        _ if unready.is_empty() => Ok(()),
        _ => Err(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))),
    };
    let pairs = machine.plan.containers.iter().zip(&machine.containers);
    let waiting: Vec<&str> = pairs
        .filter(|(plan, c)| plan.role == Role::Init && !c.succeeded())
        .map(|(plan, _)| plan.name.as_str())
        .collect();
    let initialized = if machine.initialized() {
        Ok(())
    } else {
        Err(("ContainersNotInitialized", format!("containers with incomplete status: [{}]", waiting.join(" "))))
    };
    let condition = |kind: &str, state: &Result<(), (&str, String)>| {
        let status = if state.is_ok() { "True" } else { "False" };
        let (reason, message) = match state {
            Ok(()) => (None, None),
            Err((reason, message)) => (Some((*reason).to_owned()), Some(message.clone()).filter(|m| !m.is_empty())),
        };
        let old = before.conditions.iter().flatten().find(|old| old.type_ == kind && old.status == status);
        let since = old.and_then(|old| old.last_transition_time.clone()).unwrap_or(Time(now));
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason,
            message,
            last_transition_time: Some(since),
            ..PodCondition::default()
        }
    };
    vec![
        condition("Initialized", &initialized),
        condition("Ready", &ready),
        condition("ContainersReady", &ready),
        condition("PodScheduled", &Ok(())),
    ]
}

fn container(pod: &Pod, uid: &str, machine: &Machine, plan: &ContainerPlan, container: &Container) -> ContainerStatus {
    let id = |restart: u32| format!("process://{uid}/{}/{restart}", plan.name);
    let waiting = |reason: &str, message: Option<String>| ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    };
    let main = !matches!(plan.role, Role::Init | Role::InitSidecar);
    let not_yet = if main && !machine.initialized() { "PodInitializing" } else { "ContainerCreating" };
    let terminated = |ended: &Ended| ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: ended.exit_code,
            reason: Some(ended.reason.to_owned()),
            message: ended.message.clone(),
            started_at: ended.started.map(Time),
            finished_at: Some(Time(ended.finished)),
            container_id: Some(id(ended.restart)),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    };
    let state = match (&container.state, &container.ended) {
        (State::Running { since }, _) => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }),
            ..ContainerState::default()
        },
        // A program that cannot be executed never ran: it waits, and its last state says why.
        (State::Ended | State::Starting, Some(ended)) if ended.reason == "StartError" => {
            waiting("RunContainerError", ended.message.clone())
        }
        (State::Ended, Some(ended)) => terminated(ended),
        (State::BackOff { reason: reason @ "CrashLoopBackOff", message, .. }, _) => {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let who = format!("container={} pod={name}_{namespace}({uid})", plan.name);
            waiting(reason, Some(format!("{message} restarting failed {who}")))
        }
        (State::BackOff { reason, message, .. }, _) => waiting(reason, Some(message.clone())),
        (State::Created | State::Starting | State::Ended, _) => waiting(not_yet, None),
    };
    let current_is_last = matches!(container.state, State::Ended)
        && container.ended.as_ref().is_some_and(|ended| ended.reason != "StartError");
    let last = container.ended.as_ref().filter(|_| !current_is_last).map(terminated);
    let image = plan.spec.image.clone().unwrap_or_default();
    ContainerStatus {
        name: plan.name.clone(),
        ready: if plan.role == Role::Init { container.succeeded() } else { container.ready },
        started: Some(container.started),
        restart_count: i32::try_from(container.restarts).unwrap_or(i32::MAX),
        image_id: image.clone(),
        image,
        container_id: matches!(container.state, State::Running { .. } | State::Ended).then(|| id(container.restarts)),
        state: Some(state),
        last_state: last,
        ..ContainerStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::{
        keeper::Exit,
        node::{
            images::ImageMap,
            machine::{Event, Kind, Now, SpawnFailure},
            plan,
        },
    };
    use serde_json::{Value, json};

    struct Bench {
        pod: Pod,
        machine: Machine,
        status: PodStatus,
        now: Now,
    }

    fn bench(spec: &Value) -> Bench {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec}))
                .unwrap();
        let images = ImageMap::new(Vec::new(), "/x".into(), "queue".into(), "/".into());
        let plan = plan::plan(&pod, &images, Ipv4Addr::new(127, 9, 0, 2), &std::collections::BTreeMap::new());
        let now = Now { instant: Instant::now(), wall: Timestamp::UNIX_EPOCH };
        Bench { pod, machine: Machine::new(plan), status: PodStatus::default(), now }
    }

    impl Bench {
        /// `phase | Ready reason | state of each container (last state)`.
        fn on(&mut self, event: Event) -> String {
            self.now.instant += Duration::from_secs(1);
            self.now.wall += Duration::from_secs(1);
            self.machine.handle(event, self.now);
            let ip = Ipv4Addr::new(127, 9, 0, 2);
            let start = Timestamp::UNIX_EPOCH;
            self.status = status(&self.pod, &self.machine, ip, Ipv4Addr::LOCALHOST, start, &self.status, self.now.wall);
            let ready = self.condition("Ready");
            let ready = ready.reason.clone().unwrap_or_else(|| ready.status.clone());
            let state = |state: &ContainerState| match (&state.waiting, &state.running, &state.terminated) {
                (Some(waiting), ..) => waiting.reason.clone().unwrap(),
                (_, Some(_), _) => "running".to_owned(),
                (.., Some(ended)) => format!("{} {}", ended.reason.as_deref().unwrap(), ended.exit_code),
                _ => "?".to_owned(),
            };
            let all = self.status.init_container_statuses.iter().chain(&self.status.container_statuses).flatten();
            let states = all.map(|c| {
                let last = c.last_state.as_ref().map(|last| format!(" ({})", state(last))).unwrap_or_default();
                format!("{}{last}", state(c.state.as_ref().unwrap()))
            });
            format!("{} | {ready} | {}", self.status.phase.as_deref().unwrap(), states.collect::<Vec<_>>().join(", "))
        }

        fn condition(&self, kind: &str) -> PodCondition {
            self.status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap().clone()
        }

        fn exited(&mut self, container: usize, code: i32) -> String {
            let exit = Exit { code: Some(code), signal: None };
            self.on(Event::Exited { container, exit, message: Some("why".into()) })
        }
    }

    #[test]
    fn a_pod_comes_up_crashes_and_backs_off() {
        let probe = json!({"tcpSocket": {"port": 1}});
        let mut pod = bench(&json!({"containers": [{"name": "a", "readinessProbe": probe}]}));
        assert_eq!(pod.on(Event::Tick), "Pending | ContainersNotReady | ContainerCreating");
        assert_eq!(pod.status.pod_ip.as_deref(), Some("127.9.0.2"), "known before anything runs");
        assert_eq!(pod.on(Event::Spawned { container: 0 }), "Running | ContainersNotReady | running");
        assert_eq!(pod.condition("Ready").message.unwrap(), "containers with unready status: [a]");
        let good = Event::Probed { container: 0, restart: 0, kind: Kind::Readiness, good: true };
        assert_eq!(pod.on(good), "Running | True | running");
        let since = pod.condition("Ready").last_transition_time;
        pod.on(Event::Tick);
        assert_eq!(pod.condition("Ready").last_transition_time, since, "moves only with the status");
        assert_eq!(pod.exited(0, 3), "Running | ContainersNotReady | ContainerCreating (Error 3)");
        assert_eq!(pod.on(Event::Spawned { container: 0 }), "Running | ContainersNotReady | running (Error 3)");
        assert_eq!(pod.exited(0, 0), "Running | ContainersNotReady | CrashLoopBackOff (Completed 0)");
        let container = &pod.status.container_statuses.as_ref().unwrap()[0];
        let waiting = container.state.as_ref().unwrap().waiting.as_ref().unwrap();
        assert_eq!(waiting.message.as_deref(), Some("back-off 10s restarting failed container=a pod=p_ns(u)"));
        assert_eq!(container.restart_count, 1);
        let last = container.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
        assert_eq!(last.message.as_deref(), Some("why"));
    }

    #[test]
    fn what_cannot_run_waits_with_its_reason() {
        for (why, words) in [
            (SpawnFailure::Image { message: "m".into() }, "Pending | ContainersNotReady | ErrImagePull"),
            (SpawnFailure::Config { message: "m".into() }, "Pending | ContainersNotReady | CreateContainerConfigError"),
            (
                SpawnFailure::Exec { message: "m".into() },
                "Running | ContainersNotReady | RunContainerError (StartError 128)",
            ),
        ] {
            let mut pod = bench(&json!({"containers": [{"name": "a", "image": "i"}]}));
            pod.on(Event::Tick);
            assert_eq!(pod.on(Event::SpawnFailed { container: 0, why }), words);
        }
    }

    #[test]
    fn init_containers_come_first() {
        let mut pod =
            bench(&json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}));
        assert_eq!(pod.on(Event::Tick), "Pending | ContainersNotReady | ContainerCreating, PodInitializing");
        assert_eq!(pod.condition("Initialized").status, "False");
        pod.on(Event::Spawned { container: 0 });
        assert_eq!(pod.exited(0, 0), "Pending | ContainersNotReady | Completed 0, ContainerCreating");
        assert_eq!(pod.condition("Initialized").status, "True");
        pod.on(Event::Spawned { container: 1 });
        assert_eq!(pod.exited(1, 0), "Succeeded | PodCompleted | Completed 0, Completed 0");
        let mut broken =
            bench(&json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}));
        broken.on(Event::Tick);
        broken.on(Event::Spawned { container: 0 });
        assert_eq!(broken.exited(0, 2), "Failed | PodCompleted | Error 2, PodInitializing");
    }
}
