//! The process that owns every child, so that none survives.
//!
//! `dormouse up` starts one small child, `dormouse __keeper` ([`main`]). It spawns containers on request, each in its own
//! process group, writes their logs, and reports their ends. It is a child subreaper: whatever a container forks stays
//! below it. When its socket closes, because `up` stopped or was killed (`kill -9` included), it kills all of them and
//! goes. Ctrl-C does not reach it: it is in a process group of its own.
//!
//! [`Keeper`] is the other end of the socket, used by the node.

mod family;
mod process;
mod protocol;

use std::{
    collections::HashMap,
    io,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::process::{Pid, kill_process_group};
use tokio::{
    net::{UnixStream, unix::OwnedReadHalf},
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

pub use protocol::{Command, Exit, Signal};
use protocol::{Id, Report, Request};

/// The hidden subcommand that runs the keeper.
pub const SUBCOMMAND: &str = "__keeper";

/// Runs the keeper process: what `dormouse __keeper` does. Returns when no process of its is left.
pub fn main() -> io::Result<()> {
    process::run()
}

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused to start the program.
    #[error("{0}")]
    Spawn(String),
    /// The keeper is gone, and with it every process.
    #[error("the keeper process has ended")]
    KeeperGone,
}

/// A handle on the keeper process; cheap to clone. When the last clone goes, the keeper kills everything and ends.
#[derive(Clone, Debug)]
pub struct Keeper {
    outbox: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Arc<Waiting>,
    next: Arc<AtomicU64>,
    closed: CancellationToken,
}

/// A process that the keeper started.
#[derive(Debug)]
pub struct Process {
    id: Id,
    /// Its process id.
    pub pid: i32,
    /// Resolves when it has ended; an error means that the keeper has gone.
    pub exit: oneshot::Receiver<Exit>,
}

impl Process {
    /// What [`Keeper::signal`] takes.
    pub fn id(&self) -> u64 {
        self.id
    }
}

/// Who waits for which report.
#[derive(Debug, Default)]
struct Waiting(Mutex<HashMap<Id, Waiter>>);

#[derive(Debug)]
struct Waiter {
    pid: Option<Pid>,
    started: Option<oneshot::Sender<Result<i32, Error>>>,
    exited: oneshot::Sender<Exit>,
}

/// The keeper's end: resolves when the process has gone.
#[derive(Debug)]
pub struct Ended(tokio::task::JoinHandle<()>);

impl Ended {
    /// Waits until the keeper, and so every process, is gone.
    pub async fn wait(&mut self) {
        let _ = (&mut self.0).await;
    }
}

impl Keeper {
    /// Starts `exe __keeper`.
    pub fn start(exe: &Path) -> io::Result<(Self, Ended)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = std::process::Command::new(exe);
        command.arg(SUBCOMMAND).stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).process_group(0);
        let mut child = command.spawn()?;
        // The parent's copy of the child's end is in `command`; while it lives we would never see the end.
        drop(command);
        let (read, mut write) = UnixStream::from_std(ours)?.into_split();
        let (outbox, mut inbox) = mpsc::unbounded_channel::<Vec<u8>>();
        let waiting = Arc::new(Waiting::default());
        let closed = CancellationToken::new();
        let until = closed.clone();
        tokio::spawn(async move {
            use tokio::io::AsyncWriteExt as _;
            let sent = async {
                while let Some(frame) = inbox.recv().await {
                    if write.write_all(&frame).await.is_err() {
                        break;
                    }
                }
            };
            let _ = until.run_until_cancelled(sent).await;
            // Dropping this half of the socket is the end that the keeper waits for.
            drop(write);
        });
        let reader = tokio::spawn(read_reports(read, Arc::clone(&waiting)));
        let ended = tokio::spawn(async move {
            let _ = reader.await;
            let _ = tokio::task::spawn_blocking(move || child.wait()).await;
        });
        Ok((Self { outbox, waiting, next: Arc::default(), closed }, Ended(ended)))
    }

    /// Starts a process.
    pub async fn spawn(&self, command: Command) -> Result<Process, Error> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let frame =
            protocol::encode(&Request::Spawn { id, command }).map_err(|error| Error::Spawn(error.to_string()))?;
        let (started, start) = oneshot::channel();
        let (exited, exit) = oneshot::channel();
        self.waiting.lock().insert(id, Waiter { pid: None, started: Some(started), exited });
        if self.outbox.send(frame).is_err() {
            self.waiting.lock().remove(&id);
            return Err(Error::KeeperGone);
        }
        let pid = start.await.map_err(|_| Error::KeeperGone)??;
        Ok(Process { id, pid, exit })
    }

    /// Ends the keeper, and with it every process, without waiting for other clones of this handle.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Sends a signal to a process and its group; one that has ended is left alone.
    pub fn signal(&self, id: u64, signal: Signal) {
        if let Ok(frame) = protocol::encode(&Request::Signal { id, signal }) {
            let _ = self.outbox.send(frame);
        }
    }
}

impl Waiting {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Id, Waiter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, report: Report) {
        let mut waiting = self.lock();
        match report {
            Report::Started { id, pid } => {
                if let Some(waiter) = waiting.get_mut(&id) {
                    waiter.pid = Pid::from_raw(pid);
                    if let Some(started) = waiter.started.take() {
                        let _ = started.send(Ok(pid));
                    }
                }
            }
            Report::Failed { id, error } => {
                if let Some(started) = waiting.remove(&id).and_then(|waiter| waiter.started) {
                    let _ = started.send(Err(Error::Spawn(error)));
                }
            }
            Report::Exited { id, exit } => {
                if let Some(waiter) = waiting.remove(&id) {
                    let _ = waiter.exited.send(exit);
                }
            }
        }
    }
}

async fn read_reports(mut from: OwnedReadHalf, waiting: Arc<Waiting>) {
    while let Ok(report) = protocol::receive(&mut from).await {
        waiting.report(report);
    }
    // Nobody will ever hear more: every waiter learns by its dropped channel. The keeper has killed everything by now,
    // unless somebody killed the keeper.
    for (_, waiter) in waiting.lock().drain() {
        if let Some(pid) = waiter.pid {
            let _ = kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}
