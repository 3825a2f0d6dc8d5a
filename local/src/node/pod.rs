//! One pod on this node: the task that carries out what its [`Machine`] decides.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, PoisonError},
    time::Duration,
};

use api::timeline::Phase;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    Shared, check,
    env::Place,
    machine::{Action, Event, Kind, Machine, Now, State},
    plan::{self, Check},
    start,
    status::status,
    write,
};
use crate::{
    keeper::{Command, Exit, Process, Signal},
    logs,
};

/// How long a readiness probe of our own sidecar is held.
const HOLD: Duration = Duration::from_secs(10);
/// A hook that never answers ends with the grace period; this only bounds its connection.
const HOOK_PATIENCE: Duration = Duration::from_hours(1);
/// Grace for a pod whose object vanished without a word.
const GONE_GRACE: Duration = Duration::from_secs(30);
/// Kubelet's bounds of a termination message taken from the log.
const MESSAGE_LINES: usize = 80;
const MESSAGE_BYTES: usize = 2048;

/// What the node tells a pod.
#[derive(Debug)]
pub(super) enum Order {
    /// The object changed.
    Update(Arc<Pod>),
    /// The object is gone.
    Gone,
    /// The node stops: processes go, the object stays.
    Shutdown(Duration),
}

/// What the pod's own tasks tell it.
enum Message {
    Event(Event),
    Started { container: usize, process: u64, command: Arc<Command> },
}

/// A process that runs.
struct Running {
    process: u64,
    command: Arc<Command>,
}

struct Live {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    machine: Machine,
    place: Place,
    running: Vec<Option<Running>>,
    started: Timestamp,
    marked: bool,
    status: watch::Sender<Option<PodStatus>>,
    messages: mpsc::UnboundedSender<Message>,
    /// Starting, waiting for ends, probes, hooks: none of it outlives the pod.
    tasks: JoinSet<()>,
}

fn now() -> Now {
    Now { instant: tokio::time::Instant::now().into_std(), wall: Timestamp::now() }
}

/// Runs a pod from its acceptance until no process of it is left.
pub(super) async fn live(shared: Arc<Shared>, pod: Arc<Pod>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    mark(&shared, &pod, Phase::PodScheduled);
    let Some((pod_ip, ports)) = take_place(&shared, &pod) else {
        tracing::error!(pod = name, namespace, "no address or port is free");
        return;
    };
    tracing::info!(pod = name, namespace, %pod_ip, "pod accepted");

    let (messages, mut inbox) = mpsc::unbounded_channel();
    let (status, newest) = watch::channel(None);
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &namespace);
    let writer = tokio::spawn(write::statuses(api.clone(), name.clone(), uid.clone(), newest));
    let plan = plan::plan(&pod, &shared.images, pod_ip, &ports);
    let mut live = Live {
        running: plan.containers.iter().map(|_| None).collect(),
        machine: Machine::new(plan),
        place: Place { pod_ip, host_ip: Ipv4Addr::LOCALHOST, ports },
        started: Timestamp::now(),
        marked: false,
        shared: Arc::clone(&shared),
        pod,
        status,
        messages,
        tasks: JoinSet::new(),
    };
    let mut remove = true;
    let mut finished = live.handle(Event::Tick);
    while !finished {
        let tick = live.machine.next_tick();
        let sleep = async {
            match tick {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            biased;
            Some(message) = inbox.recv() => match message {
                Message::Event(event) => event,
                Message::Started { container, process, command } => {
                    live.running[container] = Some(Running { process, command });
                    Event::Spawned { container }
                }
            },
            order = orders.recv() => match order {
                Some(Order::Update(pod)) => {
                    live.pod = pod;
                    let meta = &live.pod.metadata;
                    if meta.deletion_timestamp.is_none() {
                        continue;
                    }
                    let grace = meta.deletion_grace_period_seconds.map(|s| Duration::from_secs(s.max(0).cast_unsigned()));
                    Event::Stop { grace: grace.unwrap_or(live.machine.plan.grace), hooks: true }
                }
                Some(Order::Gone) => Event::Stop { grace: live.machine.plan.grace.min(GONE_GRACE), hooks: true },
                Some(Order::Shutdown(grace)) => {
                    remove = false;
                    Event::Stop { grace, hooks: false }
                }
                None => {
                    remove = false;
                    Event::Stop { grace: Duration::ZERO, hooks: false }
                }
            },
            () = sleep => Event::Tick,
        };
        finished = live.handle(event);
    }

    let Live { place, status, .. } = live;
    drop(status);
    give_back(&shared, &place);
    if remove {
        writer.abort();
        write::remove(&api, &name, &uid).await;
        let folder = logs::pod_dir(&shared.data_dir, &uid);
        let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(folder)).await;
        tracing::info!(pod = name, namespace, "pod removed");
    } else {
        writer.abort();
    }
}

/// The pod's address, and a real port for each one that a revision's user containers declare. Pods without
/// queue-proxy keep their ports: whoever finds them by their Endpoints connects to `podIP:containerPort`.
fn take_place(shared: &Shared, pod: &Pod) -> Option<(Ipv4Addr, BTreeMap<u16, u16>)> {
    let ip = shared.addresses.lock().unwrap_or_else(PoisonError::into_inner).take()?;
    let mut real = BTreeMap::new();
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let sidecar = |image: &Option<String>| shared.images.is_queue_proxy(image.as_deref().unwrap_or_default());
    if containers.clone().any(|container| sidecar(&container.image)) {
        let mut ports = shared.ports.lock().unwrap_or_else(PoisonError::into_inner);
        for container in containers.filter(|container| !sidecar(&container.image)) {
            for declared in plan::own_ports(container).into_values() {
                real.insert(declared, ports.take()?);
            }
        }
    }
    Some((ip, real))
}

fn give_back(shared: &Shared, place: &Place) {
    shared.addresses.lock().unwrap_or_else(PoisonError::into_inner).give_back(place.pod_ip);
    let mut ports = shared.ports.lock().unwrap_or_else(PoisonError::into_inner);
    for port in place.ports.values() {
        ports.give_back(*port);
    }
}

fn mark(shared: &Shared, pod: &Pod, phase: Phase) {
    let labels = pod.metadata.labels.as_ref();
    if let Some(revision) = labels.and_then(|labels| labels.get(api::labels::serving::REVISION)) {
        shared.observer.mark(pod.metadata.namespace.as_deref().unwrap_or_default(), revision, phase);
    }
}

impl Live {
    /// Takes an event in; true when the pod is finished.
    fn handle(&mut self, event: Event) -> bool {
        if let Event::Exited { container, .. } = event {
            self.running[container] = None;
        }
        while self.tasks.try_join_next().is_some() {}
        let now = now();
        let actions = self.machine.handle(event, now);
        // First what others wait for: the address is known before the processes run.
        self.publish(now.wall);
        let mut finished = false;
        for action in actions {
            finished |= action == Action::Finish;
            self.act(action);
        }
        let started = |container: &super::machine::Container| {
            matches!(container.state, State::Running { .. }) || container.succeeded()
        };
        if !self.marked && self.machine.containers.iter().all(started) {
            self.marked = true;
            mark(&self.shared, &self.pod, Phase::ContainersStarted);
        }
        finished
    }

    fn publish(&self, now: Timestamp) {
        let (ip, host) = (self.place.pod_ip, self.place.host_ip);
        self.status.send_if_modified(|current| {
            let before = current.clone().unwrap_or_default();
            let new = status(&self.pod, &self.machine, ip, host, self.started, &before, now);
            let changed = current.as_ref() != Some(&new);
            *current = Some(new);
            changed
        });
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Spawn { container, restart } => self.spawn(container, restart),
            Action::Term { container } => self.signal(container, Signal::Term),
            Action::Kill { container } => self.signal(container, Signal::Kill),
            Action::Probe { container, restart, kind, hold } => self.probe(container, restart, kind, hold),
            Action::Hook { container, restart, check } => self.hook(container, restart, check),
            Action::Finish => {}
        }
    }

    fn signal(&self, container: usize, signal: Signal) {
        if let Some(running) = &self.running[container] {
            self.shared.keeper.signal(running.process, signal);
        }
    }

    fn spawn(&mut self, index: usize, restart: u32) {
        let (shared, pod, place) = (Arc::clone(&self.shared), Arc::clone(&self.pod), self.place.clone());
        let plan = &self.machine.plan.containers[index];
        let (container, role, explains) = (plan.spec.clone(), plan.role, plan.log_explains);
        let messages = self.messages.clone();
        self.tasks.spawn(async move {
            match start::start(&shared, &pod, &container, role, &place, restart).await {
                Ok((process, command)) => {
                    let command = Arc::new(command);
                    let started =
                        Message::Started { container: index, process: process.id(), command: Arc::clone(&command) };
                    let _ = messages.send(started);
                    let event = ended(process, index, &command, explains).await;
                    if let Event::Exited { exit, .. } = &event {
                        let pod = pod.metadata.name.as_deref().unwrap_or_default();
                        tracing::debug!(pod, container = container.name, code = exit.exit_code(), "container ended");
                    }
                    let _ = messages.send(Message::Event(event));
                }
                Err(why) => {
                    let pod = pod.metadata.name.as_deref().unwrap_or_default();
                    tracing::info!(pod, container = container.name, ?why, "container not started; its status says why");
                    let _ = messages.send(Message::Event(Event::SpawnFailed { container: index, why }));
                }
            }
        });
    }

    fn probe(&mut self, container: usize, restart: u32, kind: Kind, hold: bool) {
        let plan = &self.machine.plan.containers[container];
        let probe = match kind {
            Kind::Startup => plan.startup.clone(),
            Kind::Liveness => plan.liveness.clone(),
            Kind::Readiness => plan.readiness.clone(),
        };
        let Some(probe) = probe else { return };
        let (shared, messages) = (Arc::clone(&self.shared), self.messages.clone());
        let inside = self.running[container].as_ref().map(|running| Arc::clone(&running.command));
        let name = plan.name.clone();
        self.tasks.spawn(async move {
            let hold = hold.then_some(HOLD);
            let result = check::ask(
                &probe.check,
                probe.timeout,
                hold,
                inside.as_deref().map(|command| (&shared.keeper, command)),
            )
            .await;
            if let Err(error) = &result {
                tracing::debug!(container = name, ?kind, error, "probe failed");
            }
            let good = result.is_ok();
            let _ = messages.send(Message::Event(Event::Probed { container, restart, kind, good }));
        });
    }

    fn hook(&mut self, container: usize, restart: u32, check: Check) {
        let (shared, messages) = (Arc::clone(&self.shared), self.messages.clone());
        let inside = self.running[container].as_ref().map(|running| Arc::clone(&running.command));
        self.tasks.spawn(async move {
            if let Err(error) =
                check::ask(&check, HOOK_PATIENCE, None, inside.as_deref().map(|command| (&shared.keeper, command)))
                    .await
            {
                tracing::debug!(error, "preStop hook failed");
            }
            let _ = messages.send(Message::Event(Event::HookDone { container, restart }));
        });
    }
}

/// Waits for the end of a process and, where the manifest asks for it, lets its log say why.
async fn ended(process: Process, container: usize, command: &Command, explains: bool) -> Event {
    // Without a keeper nothing lives.
    let exit = process.exit.await.unwrap_or(Exit { code: None, signal: Some(9) });
    let message = command.log.as_ref().filter(|_| explains && exit.exit_code() != 0);
    let message = message.map(|log| logs::tail(log, MESSAGE_LINES, MESSAGE_BYTES)).filter(|text| !text.is_empty());
    Event::Exited { container, exit, message }
}
