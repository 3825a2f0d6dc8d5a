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
