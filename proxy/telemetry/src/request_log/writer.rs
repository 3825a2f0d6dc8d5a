//! Lines on their way out, behind the requests' back: a pipe that nobody empties must not stall the process.
//!
//! Lines are appended to one buffer; a thread takes it as a whole and writes it. A lone line goes out at once, under
//! load there is one write per [`PAUSE`]: to wake a thread costs several times what it costs to make a line.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes kept while the reader is slow, some 4,000 lines of the default template; lines that come when there are more
/// are lost and counted.
const KEPT: usize = 2 << 20;
/// From one write to the next.
const PAUSE: Duration = Duration::from_millis(10);
/// At the end, what is kept must be taken within this time.
const LAST_CHANCE: Duration = Duration::from_secs(1);
/// A buffer that has grown beyond this is given back.
const SPARE_BYTES: usize = 256 << 10;

/// A thread that writes lines to a sink.
#[derive(Debug)]
pub struct Writer {
    shared: Option<Arc<Shared>>,
    /// Closed by the thread when it has written everything. Asked once, at the end; the lock lets threads share the rest.
    done: Mutex<Receiver<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// There is text where none was, or it is the end.
    news: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    text: Vec<u8>,
    /// Bytes that the thread is writing.
    writing: usize,
    /// Lines.
    lost: u64,
    /// No lines will come, or nobody reads them.
    ended: bool,
}

impl Writer {
    /// Starts the thread.
    pub fn new(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let (ending, done) = channel::<()>();
        std::thread::Builder::new().name("request-log".into()).stack_size(64 * 1024).spawn(move || {
            of_thread.write_all(sink);
            drop(ending);
        })?;
        Ok(Self { shared: Some(shared), done: Mutex::new(done) })
    }

    /// One that writes nothing.
    pub(super) fn none() -> Self {
        Self { shared: None, done: Mutex::new(channel().1) }
    }

    /// Takes a line, its end included.
    pub fn line(&self, line: &[u8]) {
        let Some(shared) = &self.shared else { return };
        // A lock in a request's way, but hardly ever a taken one: the thread holds it a hundred times a second, to swap
        // two buffers.
        let mut waiting = shared.lock();
        if waiting.ended {
            return;
        }
        if waiting.writing + waiting.text.len() >= KEPT {
            waiting.lost += 1;
            return;
        }
        let first = waiting.text.is_empty();
        waiting.text.extend_from_slice(line);
        drop(waiting);
        if first {
            shared.news.notify_one();
        }
    }
}

impl Drop for Writer {
    /// What was logged is written before the process ends.
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else { return };
        shared.lock().ended = true;
        shared.news.notify_one();
        let _ = self.done.get_mut().unwrap_or_else(PoisonError::into_inner).recv_timeout(LAST_CHANCE);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, mut sink: impl Write) {
        let mut batch = Vec::new();
        let mut last: Option<Instant> = None;
        while self.next(&mut batch, last) {
            let written = sink.write_all(&batch).and_then(|()| sink.flush());
            last = Some(Instant::now());
            let mut waiting = self.lock();
            if written.is_err() {
                // Nobody reads stdout any more.
                *waiting = Waiting { ended: true, ..Waiting::default() };
                return;
            }
            waiting.writing = 0;
            let lost = std::mem::take(&mut waiting.lost);
            drop(waiting);
            if lost > 0 {
                tracing::warn!(lost, "request log lines lost: the reader of stdout is too slow");
            }
            batch.clear();
            if batch.capacity() > SPARE_BYTES {
                batch = Vec::new();
            }
        }
    }

    /// Waits for text, and for the pause after the last write; the text goes into `batch`. False if it is the end.
    fn next(&self, batch: &mut Vec<u8>, last: Option<Instant>) -> bool {
        let quiet = |waiting: &mut Waiting| waiting.text.is_empty() && !waiting.ended;
        let mut waiting = self.news.wait_while(self.lock(), quiet).unwrap_or_else(PoisonError::into_inner);
        if let Some(pause) = last.and_then(|last| PAUSE.checked_sub(last.elapsed())) {
            let waited = self.news.wait_timeout_while(waiting, pause, |waiting| !waiting.ended);
            (waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(batch, &mut waiting.text);
        waiting.writing = batch.len();
        !batch.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, sync_channel};

    /// Says what is written to it, and waits to be told how the write went.
    struct Slow(Sender<Vec<u8>>, Receiver<io::Result<()>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).unwrap();
            self.1.recv().unwrap_or(Ok(())).map(|()| bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Writer, Receiver<Vec<u8>>, std::sync::mpsc::SyncSender<io::Result<()>>) {
        let ((says, written), (tell, told)) = (channel(), sync_channel(8));
        (Writer::new(Slow(says, told)).unwrap(), written, tell)
    }

    fn kept_and_lost(shared: &Shared) -> (usize, u64) {
        let waiting = shared.lock();
        (waiting.writing + waiting.text.len(), waiting.lost)
    }

    #[test]
    fn lines_that_came_during_a_write_are_one_write() {
        let (writer, written, tell) = slow();
        writer.line(b"first\n");
        assert_eq!(written.recv().unwrap(), b"first\n", "a lone line waits for nothing");
        for _ in 0..100 {
            writer.line(b"more\n");
        }
        drop(tell); // whatever it writes, it goes well
        drop(writer);
        assert_eq!(written.recv().unwrap(), b"more\n".repeat(100));
        assert!(written.recv().is_err());
    }

    #[test]
    fn what_nobody_reads_is_bounded() {
        let (writer, written, tell) = slow();
        let line = vec![b'a'; KEPT / 4 + 1];
        writer.line(&line);
        written.recv().unwrap();
        for _ in 0..9 {
            writer.line(&line);
        }
        let shared = writer.shared.clone().unwrap();
        assert_eq!(kept_and_lost(&shared), (4 * line.len(), 6));
        drop((tell, writer));
        assert_eq!(written.recv().unwrap().len(), 3 * line.len());
        assert!(written.recv().is_err(), "the thread has ended");
        assert_eq!(kept_and_lost(&shared), (0, 0));
    }

    #[test]
    fn without_a_reader_nothing_is_kept() {
        let (writer, written, tell) = slow();
        writer.line(b"a\n");
        written.recv().unwrap();
        tell.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        let _ = writer.done.lock().unwrap().recv(); // the thread is gone
        writer.line(b"b\n");
        assert_eq!(kept_and_lost(writer.shared.as_ref().unwrap()), (0, 0));
        drop(writer);
        assert!(written.recv().is_err());
    }
}
