//! The keeper process itself: one thread, one socket, the containers.
//!
//! It ends when the socket does, and no process that it started, or that those started, outlives it.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    os::unix::process::CommandExt as _,
    process::Stdio,
    rc::Rc,
    time::Duration,
};

use jiff::Timestamp;
use rustix::process::{Pid, WaitOptions, getpid, kill_process_group, set_child_subreaper, wait};
use tokio::{
    io::AsyncReadExt as _,
    net::{UnixStream, unix::pipe},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
};

use super::{
    family::{self, Family, MARKER},
    protocol::{self, Command, Exit, Id, Report, Request, Signal},
};
use crate::logs::{Writer, cri::Stream};

/// Output that was written before the exit belongs into the log before the exit is reported, but a descendant that
/// keeps the pipe open must not hold the report back.
const LOG_GRACE: Duration = Duration::from_millis(100);
/// A process in uninterruptible sleep cannot be waited for for ever.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the keeper on the socket that is standard input; returns when every process is gone.
pub(super) fn run() -> io::Result<()> {
    set_child_subreaper(Some(getpid()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = tokio::task::LocalSet::new().block_on(&runtime, async {
        let socket: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
        let socket = std::os::unix::net::UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        serve(UnixStream::from_std(socket)?).await
    });
    kill_all();
    result
}

struct Container {
    id: Id,
    logs: JoinSet<()>,
}

async fn serve(socket: UnixStream) -> io::Result<()> {
    let (mut requests, mut reports) = socket.into_split();
    let (report, mut outbox) = mpsc::unbounded_channel::<Report>();
    // Reports are few and small: one or two a process.
    tokio::task::spawn_local(async move {
        while let Some(message) = outbox.recv().await {
            if protocol::send(&mut reports, &message).await.is_err() {
                break;
            }
        }
    });
    // Frames are read by a task of their own: a read that is cancelled in the middle would lose bytes.
    let (request, mut inbox) = mpsc::channel::<Request>(16);
    tokio::task::spawn_local(async move {
        while let Ok(message) = protocol::receive(&mut requests).await {
            if request.send(message).await.is_err() {
                break;
            }
        }
    });
    let mut child_ended = signal(SignalKind::child())?;
    // `up` decides when containers end, also when somebody signals every process of this name. Taken and never read.
    let _ignored = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let mut containers: HashMap<i32, Container> = HashMap::new();
    loop {
        tokio::select! {
            message = inbox.recv() => match message {
                None => return Ok(()),
                Some(Request::Spawn { id, command }) => {
                    let message = match spawn(id, &command) {
                        Ok((pid, logs)) => {
                            containers.insert(pid, Container { id, logs });
                            Report::Started { id, pid }
                        }
                        Err(error) => Report::Failed { id, error: error.to_string() },
                    };
                    let _ = report.send(message);
                }
                Some(Request::Signal { id, signal }) => {
                    // A pid in the map is not reaped yet, so it is still ours.
                    let pid = containers.iter().find(|(_, container)| container.id == id).map(|(&pid, _)| pid);
                    if let Some(pid) = pid.and_then(Pid::from_raw) {
                        let signal = match signal {
                            Signal::Term => rustix::process::Signal::TERM,
                            Signal::Kill => rustix::process::Signal::KILL,
                        };
                        let _ = kill_process_group(pid, signal);
                    }
                }
            },
            _ = child_ended.recv() => {
                let mut ended = Vec::new();
                for (pid, exit) in reap() {
                    ended.extend(containers.remove(&pid).map(|container| (pid, exit, container)));
                }
                sweep(&ended, &containers);
                for (_, exit, container) in ended {
                    tokio::task::spawn_local(tell_end(container, exit, report.clone()));
                }
            }
        }
    }
}

/// Reports the end of a container, its log complete if that is soon.
async fn tell_end(container: Container, exit: Exit, report: mpsc::UnboundedSender<Report>) {
    let Container { id, mut logs } = container;
    let drained = async { while logs.join_next().await.is_some() {} };
    let late = tokio::time::timeout(LOG_GRACE, drained).await.is_err();
    let _ = report.send(Report::Exited { id, exit });
    if late {
        while logs.join_next().await.is_some() {}
    }
}

fn spawn(id: Id, command: &Command) -> io::Result<(i32, JoinSet<()>)> {
    let (program, arguments) =
        command.argv.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no program"))?;
    let mut process = std::process::Command::new(program);
    process.args(arguments).env_clear().envs(command.env.iter().map(|(k, v)| (k, v))).env(MARKER, id.to_string());
    process.current_dir(&command.cwd).stdin(Stdio::null()).process_group(0);
    let log = command.log.as_deref().map(Writer::create).transpose()?;
    if log.is_some() {
        process.stdout(Stdio::piped()).stderr(Stdio::piped());
    } else {
        process.stdout(Stdio::null()).stderr(Stdio::null());
    }
    let mut child = match process.spawn() {
        Ok(child) => child,
        Err(error) => {
            // The log says it too, and is complete.
            if let Some(mut log) = log {
                let _ = log.write(Timestamp::now(), Stream::Stderr, format!("exec {program}: {error}\n").as_bytes());
                let _ = log.finish(Timestamp::now());
            }
            return Err(error);
        }
    };
    let mut logs = JoinSet::new();
    if let Some(log) = log {
        let outputs = [
            (Stream::Stdout, child.stdout.take().map(OwnedFd::from)),
            (Stream::Stderr, child.stderr.take().map(OwnedFd::from)),
        ];
        let log = Rc::new(RefCell::new(Some(log)));
        let end = Rc::new(End(Rc::clone(&log)));
        for (stream, output) in outputs {
            let Some(output) = output else { continue };
            let output = pipe::Receiver::from_owned_fd(output)?;
            logs.spawn_local(copy(output, stream, Rc::clone(&log), Rc::clone(&end)));
        }
    }
    Ok((child.id().cast_signed(), logs))
}

/// Finishes a log when the last of its streams is done.
struct End(Rc<RefCell<Option<Writer>>>);

impl Drop for End {
    fn drop(&mut self) {
        if let Some(log) = self.0.borrow_mut().take() {
            let _ = log.finish(Timestamp::now());
        }
    }
}

/// Copies one output of a process into its log. A log that cannot be written drops text: the process goes on.
async fn copy(mut output: pipe::Receiver, stream: Stream, log: Rc<RefCell<Option<Writer>>>, _end: Rc<End>) {
    let mut buffer = Vec::new();
    loop {
        if output.readable().await.is_err() {
            return;
        }
        // Grown only while there is output: a quiet container costs no buffer.
        buffer.resize(16 * 1024, 0);
        match output.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => {
                if let Some(log) = log.borrow_mut().as_mut() {
                    let _ = log.write(Timestamp::now(), stream, &buffer[..n]);
                }
                if n < buffer.len() {
                    buffer = Vec::new();
                }
            }
        }
    }
}

/// Waits for every child that has ended, our own and those that fell to us.
fn reap() -> Vec<(i32, Exit)> {
    let mut ended = Vec::new();
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        let exit = Exit { code: status.exit_status(), signal: status.terminating_signal() };
        ended.push((pid.as_raw_nonzero().get(), exit));
    }
    ended
}

/// When a container's main process ends, the rest of it ends too, as in a pid namespace: its group, and what has left
/// the group and fell to us.
fn sweep(ended: &[(i32, Exit, Container)], alive: &HashMap<i32, Container>) {
    if ended.is_empty() {
        return;
    }
    for group in ended.iter().filter_map(|(main, ..)| Pid::from_raw(*main)) {
        let _ = kill_process_group(group, rustix::process::Signal::KILL);
    }
    let marks: Vec<String> = ended.iter().map(|(.., container)| container.id.to_string()).collect();
    let family = Family::read();
    let orphans = family.children(getpid().as_raw_nonzero().get()).iter();
    for &orphan in orphans.filter(|pid| !alive.contains_key(pid)) {
        if marks.iter().any(|mark| family::has_mark(orphan, mark)) {
            for pid in family.tree(orphan) {
                family::kill(pid);
            }
        }
    }
}

/// Kills everything below this process until nothing is left.
fn kill_all() {
    let own = getpid().as_raw_nonzero().get();
    let started = std::time::Instant::now();
    while started.elapsed() < KILL_PATIENCE {
        let family = Family::read();
        let below = family.tree(own);
        for &pid in below.iter().filter(|&&pid| pid != own) {
            family::kill(pid);
        }
        reap();
        if below.len() == 1 {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
