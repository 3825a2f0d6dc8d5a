//! One container's part of its pod's state.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Action, Kind, Now};
use crate::node::{backoff::Backoff, health::Health};

/// The end of one instance.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::node) struct Ended {
    pub(in crate::node) exit_code: i32,
    pub(in crate::node) reason: &'static str,
    pub(in crate::node) message: Option<String>,
    pub(in crate::node) started: Option<Timestamp>,
    pub(in crate::node) finished: Timestamp,
    pub(in crate::node) restart: u32,
}

/// Where a container is in its life.
#[derive(Debug, Clone)]
pub(in crate::node) enum State {
    /// Its turn has not come.
    Created,
    /// Asked to start.
    Starting,
    /// Its process runs.
    Running { since: Timestamp },
    /// Waits to be tried again.
    BackOff { until: Instant, reason: &'static str, message: String },
    /// Ended; for good, or about to be started again.
    Ended,
}

/// One container.
#[derive(Debug, Clone)]
pub(in crate::node) struct Container {
    pub(in crate::node) state: State,
    pub(in crate::node) restarts: u32,
    /// How the last instance ended.
    pub(in crate::node) ended: Option<Ended>,
    /// Past its startup probe.
    pub(in crate::node) started: bool,
    /// Passes its readiness probe.
    pub(in crate::node) ready: bool,
    pub(in crate::node) probes: [Option<Health>; 3],
    pub(in crate::node) backoff: Backoff,
    /// The last try failed at the image.
    pub(in crate::node) image_failed: bool,
    pub(in crate::node) stop: Option<Stop>,
}

/// A container that is being stopped.
#[derive(Debug, Clone)]
pub(in crate::node) struct Stop {
    pub(in crate::node) hook_done: bool,
    pub(in crate::node) term_sent: bool,
    pub(in crate::node) kill_sent: bool,
    pub(in crate::node) kill_at: Instant,
}

impl Container {
    /// Before its first start.
    pub(in crate::node) fn new() -> Self {
        Self {
            state: State::Created,
            restarts: 0,
            ended: None,
            started: false,
            ready: false,
            probes: [None, None, None],
            backoff: Backoff::default(),
            image_failed: false,
            stop: None,
        }
    }

    /// Has a process, or is about to.
    pub(in crate::node) fn alive(&self) -> bool {
        matches!(self.state, State::Starting | State::Running { .. })
    }

    /// Ended with nothing more to do.
    pub(in crate::node) fn succeeded(&self) -> bool {
        matches!(self.state, State::Ended) && self.ended.as_ref().is_some_and(|ended| ended.exit_code == 0)
    }

    /// Startup probes until they pass, the others after that.
    pub(in crate::node) fn asks(&self, kind: Kind) -> bool {
        matches!(self.state, State::Running { .. }) && (kind == Kind::Startup) != self.started
    }

    /// Asks for its process.
    pub(in crate::node) fn spawn(&mut self, index: usize, actions: &mut Vec<Action>) {
        self.state = State::Starting;
        actions.push(Action::Spawn { container: index, restart: self.restarts });
    }

    /// After an end: at once, or when its backoff is over.
    pub(in crate::node) fn start_again(&mut self, index: usize, now: Now, actions: &mut Vec<Action>) {
        let wait = self.backoff.wait(now.instant);
        if wait.is_zero() {
            self.restarts += 1;
            self.spawn(index, actions);
        } else {
            let until = now.instant + wait;
            // The pod's name is added where the status is written.
            self.state =
                State::BackOff { until, reason: "CrashLoopBackOff", message: format!("back-off {}", words(wait)) };
        }
    }

    /// Notes the end of its process (or that it never began).
    pub(in crate::node) fn end(
        &mut self,
        code: i32,
        reason: &'static str,
        message: Option<String>,
        since: Option<Timestamp>,
        now: Now,
    ) {
        let restart = self.restarts;
        self.state = State::Ended;
        self.ended = Some(Ended { exit_code: code, reason, message, started: since, finished: now.wall, restart });
        self.started = false;
        self.ready = false;
        self.probes = [None, None, None];
        self.stop = None;
    }
}

/// `10s`, `1m20s`: as Go prints durations.
fn words(wait: Duration) -> String {
    match (wait.as_secs() / 60, wait.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}
