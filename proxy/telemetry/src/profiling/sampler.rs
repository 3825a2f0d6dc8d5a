//! Takes a profile: a thread of its own that lives as long as the profile.
//!
//! The signal handler and the stack walk are the `pprof` crate's; it interrupts whatever runs [`FREQUENCY`] times per
//! second of CPU time. Its buffers (some 70 MiB) are made at the first profile and kept.

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::{SemaphorePermit, oneshot};

use super::profile::{self, Function, Samples, Stack};

/// Samples per second of CPU time; not a round number, so as not to run in step with what is measured.
const FREQUENCY: i32 = 99;
/// The report is read through some thousand nested iterators.
const STACK: usize = 8 << 20;

/// Samples for `length`, or until the future is dropped, then encodes. `turn` is given back at the end.
pub(super) async fn take(length: Duration, turn: SemaphorePermit<'static>) -> Result<Vec<u8>, String> {
    let (answer, answered) = oneshot::channel();
    let (_asked, still_asked) = channel::<()>();
    let work = move || {
        let _turn = turn;
        let profile = sample(|| still_asked.recv_timeout(length) == Err(RecvTimeoutError::Timeout));
        let _ = answer.send(profile);
    };
    std::thread::Builder::new()
        .name("profile".into())
        .stack_size(STACK)
        .spawn(work)
        .map_err(|error| error.to_string())?;
    answered.await.map_err(|_| "the sampling thread is gone".to_string())?
}

/// Samples while `wait` blocks; its result says whether anybody still wants the profile.
fn sample(wait: impl FnOnce() -> bool) -> Result<Vec<u8>, String> {
    // Overflow goes to a file, and the root file system is read-only.
    let shared_memory = Path::new("/dev/shm");
    if shared_memory.is_dir() {
        let _ = tempfile::env::override_temp_dir(shared_memory); // an error: set by an earlier profile
    }
    let guard = pprof::ProfilerGuard::new(FREQUENCY).map_err(|error| error.to_string())?;
    if !wait() {
        return Err("nobody waits for it any more".into());
    }
    let report = guard.report().build_unresolved().map_err(|error| error.to_string())?;
    drop(guard);
    let stacks = report.data.iter().map(|(stack, count)| Stack {
        addresses: stack.frames.iter().map(|frame| frame.ip().addr() as u64).collect(),
        count: i64::try_from(*count).unwrap_or(0),
    });
    let mut functions = Symbols::default();
    let samples = Samples {
        stacks: stacks.collect(),
        started: report.timing.start_time.duration_since(UNIX_EPOCH).unwrap_or_default(),
        length: report.timing.duration,
        frequency: FREQUENCY,
        // Without it addresses only, which `go tool pprof` can live with.
        maps: std::fs::read_to_string("/proc/self/maps").unwrap_or_default(),
    };
    Ok(profile::encode(&samples, |address| functions.at(address)))
}

/// Names of addresses, as far as the binary was not stripped.
#[derive(Default)]
struct Symbols {
    known: HashMap<u64, Vec<Function>>,
}

impl Symbols {
    /// The function at an address, what is inlined there first.
    fn at(&mut self, address: u64) -> Vec<Function> {
        let resolve = || {
            let mut found = Vec::new();
            // One is taken off again inside, where a return address is expected.
            let after = std::ptr::without_provenance_mut(usize::try_from(address + 1).unwrap_or(0));
            backtrace::resolve(after, |symbol| {
                if let Some(name) = symbol.name() {
                    found.push(Function {
                        name: format!("{name:#}"),
                        file: symbol.filename().map(|file| file.display().to_string()).unwrap_or_default(),
                        line: i64::from(symbol.lineno().unwrap_or(0)),
                    });
                }
            });
            found
        };
        self.known.entry(address).or_insert_with(resolve).clone()
    }
}
