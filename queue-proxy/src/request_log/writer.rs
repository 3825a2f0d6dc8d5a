//! Lines on their way out, behind the requests' back: a pipe that nobody empties must not stall the sidecar.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::time::Duration;

/// Lines kept while the reader is slow; beyond it they are lost and counted.
const KEPT: usize = 4096;
/// At the end, what is kept must be taken within this time.
const LAST_CHANCE: Duration = Duration::from_secs(1);
/// Bytes gathered for one write.
const BATCH: usize = 64 * 1024;

/// A thread that writes lines to a sink.
#[derive(Debug)]
pub(crate) struct Writer {
    lines: Option<SyncSender<String>>,
    lost: Arc<AtomicU64>,
    /// Closed by the thread when it has written everything.
    done: Receiver<()>,
}

impl Writer {
    pub(crate) fn new(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, received) = sync_channel(KEPT);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lost);
        let (ending, done) = channel::<()>();
        std::thread::Builder::new().name("request-log".into()).stack_size(64 * 1024).spawn(move || {
            write_all(&received, &counter, sink);
            drop(ending);
        })?;
        Ok(Self { lines: Some(lines), lost, done })
    }

    /// One that writes nothing.
    pub(super) fn none() -> Self {
        Self { lines: None, lost: Arc::default(), done: channel().1 }
    }

    pub(crate) fn line(&self, line: String) {
        if self.lines.as_ref().is_some_and(|lines| lines.try_send(line).is_err()) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Writer {
    /// What was logged is written before the process ends.
    fn drop(&mut self) {
        drop(self.lines.take());
        let _ = self.done.recv_timeout(LAST_CHANCE);
    }
}

fn write_all(lines: &Receiver<String>, lost: &AtomicU64, mut sink: impl Write) {
    let mut batch = String::new();
    while let Ok(line) = lines.recv() {
        batch.push_str(&line);
        while batch.len() < BATCH
            && let Ok(line) = lines.try_recv()
        {
            batch.push_str(&line);
        }
        if sink.write_all(batch.as_bytes()).and_then(|()| sink.flush()).is_err() {
            return; // nobody reads stdout any more
        }
        batch.clear();
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(lost, "request log lines lost: the reader of stdout is too slow");
        }
    }
}
