//! What the autoscaler is told: requests in flight per revision, each second, and at once when the first one comes or
//! when requests have to wait and are many more than it knows.
//!
//! [`window`] counts (pure); [`Load`] is one revision's window behind its mutex; [`Reporter`] gathers all of them into
//! frames; [`socket`] carries the frames. Without a connection the counts go on; on reconnect every revision with
//! requests in flight is reported at once, so that an autoscaler that restarted learns who waits.

pub mod socket;
pub mod window;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use api::stat::{Stat, WireStatMessage, WireStatMessages};
use bytes::Bytes;
use prost::Message;
use proxy::clock;
use tokio::sync::mpsc;

use crate::revision::{Revision, RevisionKey};
use window::{Report, Window};

/// One revision's window; `None` while it has had no request for a full period.
#[derive(Debug, Default)]
pub struct Load {
    window: Mutex<Option<Box<Window>>>,
}

impl Load {
    fn lock(&self) -> MutexGuard<'_, Option<Box<Window>>> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests in flight, waiting ones included.
    pub fn in_flight(&self) -> u32 {
        self.lock().as_ref().map_or(0, |window| window.in_flight())
    }
}

/// Gathers the load of all revisions.
#[derive(Debug)]
pub struct Reporter {
    pod_name: String,
    frames: mpsc::UnboundedSender<Bytes>,
    connected: AtomicBool,
    ever_connected: AtomicBool,
    /// Revisions with a window. A revision is in it exactly once; written when a window opens or closes.
    active: Mutex<Vec<Arc<Revision>>>,
}

/// A request in flight; dropping it ends it.
#[derive(Debug)]
pub struct InFlight {
    revision: Arc<Revision>,
    /// When it ended, if somebody has looked at the clock.
    ended: Option<Instant>,
}

impl InFlight {
    /// The revision it is for.
    pub fn revision(&self) -> &Arc<Revision> {
        &self.revision
    }

    /// It ended then; to be dropped now.
    pub fn ends(&mut self, now: Instant) {
        self.ended = Some(now);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let now = self.ended.unwrap_or_else(|| clock::now().into_std());
        if let Some(window) = self.revision.load.lock().as_mut() {
            window.leave(now);
        }
    }
}

impl Reporter {
    /// A reporter under a name, and the frames it wants sent. Frames are made only while connected, so that the
    /// channel holds no more than a live socket has yet to take.
    pub fn new(pod_name: &str) -> (Arc<Self>, mpsc::UnboundedReceiver<Bytes>) {
        let (frames, receiver) = mpsc::unbounded_channel();
        let reporter = Self {
            pod_name: pod_name.to_owned(),
            frames,
            connected: AtomicBool::new(false),
            ever_connected: AtomicBool::new(false),
            active: Mutex::new(Vec::new()),
        };
        (Arc::new(reporter), receiver)
    }

    /// Whether the autoscaler can be told.
    pub fn connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Whether it ever could.
    pub fn ever_connected(&self) -> bool {
        self.ever_connected.load(Ordering::Relaxed)
    }

    /// A request for a revision arrives. The first after a pause is reported before this returns.
    pub fn arrive(&self, revision: Arc<Revision>, now: Instant) -> InFlight {
        let mut slot = revision.load.lock();
        if let Some(window) = slot.as_mut() {
            window.enter(now);
        } else {
            let mut window = Box::new(Window::new(now));
            let report = window.poke();
            window.enter(now);
            if self.connected() {
                self.send(vec![self.message(&revision.key, report)]);
            } else {
                window.poke_lost();
            }
            *slot = Some(window);
            drop(slot);
            self.active().push(Arc::clone(&revision));
            return InFlight { revision, ended: None };
        }
        drop(slot);
        InFlight { revision, ended: None }
    }

    /// A request found no room. Told at once if the load has grown to twice what the autoscaler knows, so that a burst
    /// is decided on before the second is over and a burst of `n` costs about log2 `n` messages.
    pub fn waits(&self, revision: &Revision, now: Instant) {
        if !self.connected() {
            return;
        }
        let report = revision.load.lock().as_mut().and_then(|window| window.crossing(now));
        if let Some(report) = report {
            self.send(vec![self.message(&revision.key, report)]);
        }
    }

    /// The second is over: reports every revision that has a window, and closes windows that stayed empty.
    pub fn tick(&self, now: Instant) {
        let connected = self.connected();
        let mut messages = Vec::new();
        self.active().retain(|revision| {
            let mut slot = revision.load.lock();
            let Some(window) = slot.as_mut() else { return false };
            let (report, idle) = window.report(now);
            if let Some(metrics) = revision.metrics_if_any() {
                metrics.concurrency(report.concurrency);
            }
            if connected {
                messages.push(self.message(&revision.key, report));
            } else {
                window.report_lost(report);
            }
            if idle {
                *slot = None;
            }
            !idle
        });
        if !messages.is_empty() {
            self.send(messages);
        }
    }

    /// A new connection: tells what is in flight and has not been told to this autoscaler.
    pub fn connected_now(&self, now: Instant, first: bool) {
        let mut messages = Vec::new();
        // Set while the list is held: a request that arrives meanwhile either is in the list or sees the connection.
        let active = self.active();
        self.connected.store(true, Ordering::Relaxed);
        self.ever_connected.store(true, Ordering::Relaxed);
        for revision in active.iter() {
            if let Some(report) = revision.load.lock().as_mut().and_then(|window| window.catch_up(now)) {
                messages.push(self.message(&revision.key, report));
            }
        }
        drop(active);
        if !first && !messages.is_empty() {
            tracing::info!(revisions = messages.len(), "told the autoscaler what is in flight");
        }
        if !messages.is_empty() {
            self.send(messages);
        }
    }

    /// A frame was made and could not be sent: its arrivals count as untold.
    pub fn unsent(&self, frame: &Bytes) {
        let Ok(WireStatMessages { messages }) = WireStatMessages::decode(frame.clone()) else { return };
        let untold = |revision: &Revision| {
            let about = |message: &&WireStatMessage| {
                *message.name == *revision.key.name && *message.namespace == *revision.key.namespace
            };
            messages.iter().find(about)?.stat.as_ref().map(|stat| stat.request_count)
        };
        for revision in self.active().iter() {
            if let Some(count) = untold(revision)
                && let Some(window) = revision.load.lock().as_mut()
            {
                window.report_lost(Report { concurrency: 0.0, count });
            }
        }
    }

    /// The connection is gone.
    pub fn disconnected(&self) {
        self.connected.store(false, Ordering::Relaxed);
    }

    fn active(&self) -> MutexGuard<'_, Vec<Arc<Revision>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn message(&self, key: &RevisionKey, report: Report) -> WireStatMessage {
        WireStatMessage {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            stat: Some(Stat {
                pod_name: self.pod_name.clone(),
                average_concurrent_requests: report.concurrency,
                request_count: report.count,
                ..Stat::default()
            }),
        }
    }

    fn send(&self, messages: Vec<WireStatMessage>) {
        // The receiver is gone only when the process ends.
        let _ = self.frames.send(WireStatMessages { messages }.encode_to_vec().into());
    }
}

#[cfg(test)]
#[path = "reporter_tests.rs"]
mod tests;
