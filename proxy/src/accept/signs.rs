//! What a connection is doing, seen from its socket and its timer; and a timer for slow headers that costs a quiet
//! connection nothing.
//!
//! hyper starts a timer each time it waits for a request head, also while a keep-alive connection rests. Ours sets no
//! real timer until a byte of that head has come: resting connections live on (as upstream's do), and a request
//! that arrives in one piece never touches the timer wheel. The same signs tell when a connection rests, which hyper
//! does not say: it waits for a head, nothing of it has come, and all that was written is out.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use hyper::rt::{Sleep, Timer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;

/// The signs of one connection. One thread reads and writes them; the atomics are for hyper's `Send` bounds.
#[derive(Debug, Clone, Default)]
pub(super) struct Signs(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// A request head is waited for.
    waits: AtomicBool,
    /// Bytes came since that wait began.
    bytes_came: AtomicBool,
    /// Something was written and not flushed yet.
    unflushed: AtomicBool,
    /// Heads waited for so far.
    heads: AtomicU32,
}

impl Signs {
    /// Whether nothing at all is under way.
    pub(super) fn resting(&self) -> bool {
        let state = &self.0;
        state.waits.load(Ordering::Relaxed)
            && !state.bytes_came.load(Ordering::Relaxed)
            && !state.unflushed.load(Ordering::Relaxed)
    }

    /// How often a wait for a head has begun: two equal counts mean that no request came in between.
    pub(super) fn heads(&self) -> u32 {
        self.0.heads.load(Ordering::Relaxed)
    }
}

/// The timer that hyper gets.
#[derive(Debug, Clone)]
pub(super) struct HeaderTimer {
    signs: Signs,
    timeout: Duration,
}

impl HeaderTimer {
    pub(super) fn new(signs: &Signs, timeout: Duration) -> Self {
        Self { signs: signs.clone(), timeout }
    }
}

impl Timer for HeaderTimer {
    fn sleep(&self, _duration: Duration) -> Pin<Box<dyn Sleep>> {
        let state = &self.signs.0;
        state.bytes_came.store(false, Ordering::Relaxed);
        state.waits.store(true, Ordering::Relaxed);
        state.heads.fetch_add(1, Ordering::Relaxed);
        Box::pin(LazySleep { timeout: self.timeout, signs: self.signs.clone(), armed: None })
    }

    /// The time hyper names counts from the start of the rest; ours counts from the first byte.
    fn sleep_until(&self, _deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(self.timeout)
    }
}

struct LazySleep {
    timeout: Duration,
    signs: Signs,
    armed: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Sleep for LazySleep {}

impl Drop for LazySleep {
    /// hyper lets go of it when the head is complete.
    fn drop(&mut self) {
        self.signs.0.waits.store(false, Ordering::Relaxed);
    }
}

impl Future for LazySleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.armed.is_none() && !this.signs.0.bytes_came.load(Ordering::Relaxed) {
            // hyper polls again after each read, so the first byte gets us back here.
            return Poll::Pending;
        }
        let timeout = this.timeout;
        this.armed.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout))).as_mut().poll(cx)
    }
}

/// A stream that leaves its signs.
#[derive(Debug)]
pub(super) struct SignedIo {
    stream: Stream,
    /// Read before the stream: what an earlier hyper connection had taken in and not used.
    early: Bytes,
    signs: Signs,
}

impl SignedIo {
    pub(super) fn new(stream: Stream, early: Bytes, signs: &Signs) -> Self {
        Self { stream, early, signs: signs.clone() }
    }

    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    fn written(&self) {
        self.signs.0.unflushed.store(true, Ordering::Relaxed);
    }
}

impl AsyncRead for SignedIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.early.is_empty() {
            let taken = this.early.len().min(buf.remaining());
            buf.put_slice(&this.early[..taken]);
            this.early.advance(taken);
            this.signs.0.bytes_came.store(true, Ordering::Relaxed);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let poll = Pin::new(&mut this.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.signs.0.bytes_came.store(true, Ordering::Relaxed);
        }
        poll
    }
}

impl AsyncWrite for SignedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.written();
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        if poll.is_ready() {
            // hyper flushes the socket only after it has written all it had.
            self.signs.0.unflushed.store(false, Ordering::Relaxed);
        }
        poll
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.written();
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
