//! The life of one pod as a state machine: (state, event, now) → actions. No process, no socket, no clock.
//!
//! Init containers run one after the other, then queue-proxy and the main containers start together. A container that
//! ends is started again by its policy after its [`backoff`](super::backoff). Probes decide on started, ready, and when to stop a sick
//! container. Deletion stops everything: hooks first, queue-proxy at once, user containers when their hook is done
//! *and* queue-proxy has let its last request go; at the end of the grace period, all. [`super::status`] shows the
//! state as Kubernetes words it, [`super::pod`] carries the actions out.

mod container;

use std::time::{Duration, Instant};

use jiff::Timestamp;

use container::Stop;
pub(super) use container::{Container, Ended, State};

use super::{
    health::{Health, Verdict},
    plan::{Check, ContainerPlan, PodPlan, ProbePlan, RestartPolicy, Role},
};
use crate::keeper::Exit;

/// A moment, on the clock that never jumps and on the one that people read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) wall: Timestamp,
}

/// Which of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Startup,
    Liveness,
    Readiness,
}

/// What happened. Answers carry the restart they belong to; late ones are ignored.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// Time passed, or the pod was just accepted.
    Tick,
    Spawned {
        container: usize,
    },
    SpawnFailed {
        container: usize,
        why: SpawnFailure,
    },
    Exited {
        container: usize,
        exit: Exit,
        message: Option<String>,
    },
    Probed {
        container: usize,
        restart: u32,
        kind: Kind,
        good: bool,
    },
    HookDone {
        container: usize,
        restart: u32,
    },
    /// The pod is to go; `hooks` is false when the whole node stops.
    Stop {
        grace: Duration,
        hooks: bool,
    },
}

/// Why a container could not be started.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum SpawnFailure {
    /// Nothing says what its image runs as.
    Image { message: String },
    /// Its environment refers to what is not there.
    Config { message: String },
    /// The program could not be executed.
    Exec { message: String },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    Spawn {
        container: usize,
        restart: u32,
    },
    Term {
        container: usize,
    },
    Kill {
        container: usize,
    },
    Probe {
        container: usize,
        restart: u32,
        kind: Kind,
        hold: bool,
    },
    Hook {
        container: usize,
        restart: u32,
        check: Check,
    },
    /// No process is left: the pod object can go.
    Finish,
}

/// One pod.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) plan: PodPlan,
    pub(super) containers: Vec<Container>,
    /// The pod is to go: until when, and whether hooks run.
    stopping: Option<(Instant, bool)>,
    finished: bool,
}

const KINDS: [Kind; 3] = [Kind::Startup, Kind::Liveness, Kind::Readiness];

impl ContainerPlan {
    fn probe(&self, kind: Kind) -> Option<&ProbePlan> {
        match kind {
            Kind::Startup => self.startup.as_ref(),
            Kind::Liveness => self.liveness.as_ref(),
            Kind::Readiness => self.readiness.as_ref(),
        }
    }
}

impl Machine {
    /// A pod that was just accepted.
    pub(super) fn new(plan: PodPlan) -> Self {
        let containers = plan.containers.iter().map(|_| Container::new()).collect();
        Self { plan, containers, stopping: None, finished: false }
    }

    /// Takes an event in and says what to do.
    pub(super) fn handle(&mut self, event: Event, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        self.note(event, now, &mut actions);
        self.advance(now, &mut actions);
        actions
    }

    /// Whether every init container has done its part.
    pub(super) fn initialized(&self) -> bool {
        self.plan.containers.iter().zip(&self.containers).all(|(plan, container)| match plan.role {
            Role::Init => container.succeeded(),
            Role::InitSidecar => container.started,
            Role::QueueProxy | Role::Main => true,
        })
    }

    /// When [`Event::Tick`] is due.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        let pod = self.stopping.is_some();
        let times = self.plan.containers.iter().zip(&self.containers).flat_map(|(_, container)| {
            let kill = container.stop.as_ref().filter(|stop| !stop.kill_sent && container.alive()).map(|s| s.kill_at);
            let again = match container.state {
                State::BackOff { until, .. } if !pod => Some(until),
                _ => None,
            };
            let probes = KINDS.into_iter().filter(|kind| !pod && container.stop.is_none() && container.asks(*kind));
            let probes = probes.filter_map(|kind| container.probes[kind as usize].as_ref()?.next);
            kill.into_iter().chain(again).chain(probes)
        });
        times.min()
    }

    fn note(&mut self, event: Event, now: Now, actions: &mut Vec<Action>) {
        match event {
            Event::Tick => {}
            Event::Spawned { container: index } => {
                let (plan, container) = (&self.plan.containers[index], &mut self.containers[index]);
                container.state = State::Running { since: now.wall };
                container.started = plan.startup.is_none();
                container.ready = container.started && plan.readiness.is_none();
                for kind in KINDS {
                    let passing = kind == Kind::Liveness;
                    let health = plan.probe(kind).map(|probe| Health::new(probe, passing, now.instant));
                    container.probes[kind as usize] = health;
                }
            }
            Event::SpawnFailed { container, why } => self.spawn_failed(container, why, now),
            Event::Exited { container: index, exit, message } => {
                let container = &mut self.containers[index];
                let since = match container.state {
                    State::Running { since } => Some(since),
                    _ => None,
                };
                let code = exit.exit_code();
                let reason = if code == 0 { "Completed" } else { "Error" };
                container.end(code, reason, message, since, now);
            }
            Event::Probed { container, restart, kind, good } => {
                if self.containers[container].restarts == restart {
                    self.probed(container, kind, good, now, actions);
                }
            }
            Event::HookDone { container: index, restart } => {
                let container = &mut self.containers[index];
                if let Some(stop) = container.stop.as_mut().filter(|_| container.restarts == restart) {
                    stop.hook_done = true;
                }
            }
            Event::Stop { grace, hooks } => {
                let until = now.instant + grace;
                let (earlier, hooks) = self.stopping.map_or((until, hooks), |(at, _)| (at.min(until), hooks));
                self.stopping = Some((earlier, hooks));
                for stop in self.containers.iter_mut().filter_map(|container| container.stop.as_mut()) {
                    stop.kill_at = stop.kill_at.min(until);
                    stop.hook_done |= !hooks;
                }
            }
        }
    }

    fn spawn_failed(&mut self, index: usize, why: SpawnFailure, now: Now) {
        let image = self.plan.containers[index].spec.image.clone().unwrap_or_default();
        let container = &mut self.containers[index];
        let (reason, message) = match why {
            SpawnFailure::Exec { message } => {
                container.end(128, "StartError", Some(message), None, now);
                return;
            }
            SpawnFailure::Image { message } if container.image_failed => {
                ("ImagePullBackOff", format!("Back-off pulling image \"{image}\": ErrImagePull: {message}"))
            }
            SpawnFailure::Image { message } => ("ErrImagePull", message),
            SpawnFailure::Config { message } => ("CreateContainerConfigError", message),
        };
        let until = now.instant + container.backoff.wait_at_once(now.instant);
        container.image_failed = reason != "CreateContainerConfigError";
        container.state = State::BackOff { until, reason, message };
    }

    fn probed(&mut self, index: usize, kind: Kind, good: bool, now: Now, actions: &mut Vec<Action>) {
        let (plan, container) = (&self.plan.containers[index], &mut self.containers[index]);
        let (Some(probe), Some(health)) = (plan.probe(kind), container.probes[kind as usize].as_mut()) else { return };
        let verdict = health.answered(probe, good, now.instant);
        match (kind, verdict) {
            (Kind::Startup, Verdict::Passed) => {
                container.started = true;
                container.ready = plan.readiness.is_none();
                // The other probes count from here.
                for kind in [Kind::Liveness, Kind::Readiness] {
                    if let Some(health) = &mut container.probes[kind as usize] {
                        health.next = health.next.map(|next| next.max(now.instant));
                    }
                }
            }
            (Kind::Readiness, Verdict::Passed) => container.ready = container.started,
            (Kind::Readiness, Verdict::Failed) => container.ready = false,
            (Kind::Startup | Kind::Liveness, Verdict::Failed) if container.stop.is_none() => {
                let grace = probe.grace.unwrap_or(self.plan.grace);
                self.stop_container(index, now.instant + grace, true, actions);
            }
            _ => {}
        }
    }

    fn stop_container(&mut self, index: usize, kill_at: Instant, hooks: bool, actions: &mut Vec<Action>) {
        let (plan, container) = (&self.plan.containers[index], &mut self.containers[index]);
        container.ready = false;
        let hook = plan.pre_stop.as_ref().filter(|_| hooks);
        container.stop = Some(Stop { hook_done: hook.is_none(), term_sent: false, kill_sent: false, kill_at });
        if let Some(check) = hook {
            actions.push(Action::Hook { container: index, restart: container.restarts, check: check.clone() });
        }
    }

    /// Everything that follows from the state and the time.
    fn advance(&mut self, now: Now, actions: &mut Vec<Action>) {
        if let Some((until, hooks)) = self.stopping {
            for index in 0..self.containers.len() {
                let container = &self.containers[index];
                if matches!(container.state, State::Running { .. }) && container.stop.is_none() {
                    self.stop_container(index, until, hooks, actions);
                }
            }
            self.signal(now, actions);
            if !self.finished && !self.containers.iter().any(Container::alive) {
                self.finished = true;
                actions.push(Action::Finish);
            }
            return;
        }
        self.signal(now, actions);
        let restart_policy = self.plan.restart;
        for index in self.starting_order() {
            let (plan, container) = (&self.plan.containers[index], &mut self.containers[index]);
            match &container.state {
                State::Created => container.spawn(index, actions),
                State::BackOff { until, .. } if *until <= now.instant => {
                    // A container that ran before is a new instance of it.
                    container.restarts += u32::from(container.ended.is_some());
                    container.spawn(index, actions);
                }
                State::Ended => {
                    let failed = container.ended.as_ref().is_some_and(|ended| ended.exit_code != 0);
                    let again = match (plan.role, restart_policy) {
                        (Role::InitSidecar, _) => true,
                        (Role::Init, RestartPolicy::Never) => false,
                        (Role::Init, _) | (_, RestartPolicy::OnFailure) => failed,
                        (_, policy) => policy == RestartPolicy::Always,
                    };
                    if again {
                        container.start_again(index, now, actions);
                    }
                }
                _ => {}
            }
        }
        self.ask(now, actions);
    }

    /// The containers whose turn it is, queue-proxy first.
    fn starting_order(&self) -> Vec<usize> {
        let role = |index: &usize| self.plan.containers[*index].role;
        let mut order = Vec::new();
        for index in 0..self.containers.len() {
            match role(&index) {
                Role::Init => {
                    if !self.containers[index].succeeded() {
                        order.push(index);
                        return order;
                    }
                }
                Role::InitSidecar => {
                    order.push(index);
                    if !self.containers[index].started {
                        return order;
                    }
                }
                Role::QueueProxy | Role::Main => order.push(index),
            }
        }
        order.sort_by_key(|index| role(index) == Role::Main);
        order
    }

    /// Signals that are due for containers that are being stopped.
    fn signal(&mut self, now: Now, actions: &mut Vec<Action>) {
        let pod_stops = self.stopping.is_some();
        let sidecar_serves = pod_stops
            && self.plan.containers.iter().zip(&self.containers).any(|(p, c)| p.role == Role::QueueProxy && c.alive());
        for (index, (plan, container)) in self.plan.containers.iter().zip(&mut self.containers).enumerate() {
            let alive = container.alive();
            let Some(stop) = container.stop.as_mut().filter(|_| alive) else { continue };
            let waits = sidecar_serves && plan.role != Role::QueueProxy;
            if stop.hook_done && !waits && !stop.term_sent {
                stop.term_sent = true;
                actions.push(Action::Term { container: index });
            }
            if stop.kill_at <= now.instant && !stop.kill_sent {
                stop.kill_sent = true;
                actions.push(Action::Kill { container: index });
            }
        }
    }

    /// Probes that are due.
    fn ask(&mut self, now: Now, actions: &mut Vec<Action>) {
        for (index, (plan, container)) in self.plan.containers.iter().zip(&mut self.containers).enumerate() {
            if container.stop.is_some() || !matches!(container.state, State::Running { .. }) {
                continue;
            }
            let restart = container.restarts;
            for kind in KINDS.into_iter().filter(|kind| plan.probe(*kind).is_some()) {
                let asks = container.asks(kind);
                let (Some(probe), Some(health)) = (plan.probe(kind), container.probes[kind as usize].as_mut()) else {
                    continue;
                };
                if asks && health.next.is_some_and(|next| next <= now.instant) {
                    let hold = health.hold(probe);
                    health.asked(now.instant);
                    actions.push(Action::Probe { container: index, restart, kind, hold });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
