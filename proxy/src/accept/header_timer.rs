//! A timer for slow headers that costs a quiet connection nothing.
//!
//! hyper starts a timer each time it waits for a request head, also while a keep-alive connection rests. Ours sets no
//! real timer until a byte of that head has come: resting connections live on (as upstream's do), and a request
//! that arrives in one piece never touches the timer wheel.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// One per connection. The flag says that bytes came since the last wait for a head began.
#[derive(Debug, Clone)]
pub(super) struct HeaderTimer {
    bytes_came: Arc<AtomicBool>,
    timeout: Duration,
}

impl HeaderTimer {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { bytes_came: Arc::default(), timeout }
    }
}

impl Timer for HeaderTimer {
    fn sleep(&self, _duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.bytes_came.store(false, Ordering::Relaxed);
        Box::pin(LazySleep { timeout: self.timeout, bytes_came: Arc::clone(&self.bytes_came), armed: None })
    }

    /// The time hyper names counts from the start of the rest; ours counts from the first byte.
    fn sleep_until(&self, _deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(self.timeout)
    }
}

struct LazySleep {
    timeout: Duration,
    bytes_came: Arc<AtomicBool>,
    armed: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Sleep for LazySleep {}

impl Future for LazySleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.armed.is_none() && !this.bytes_came.load(Ordering::Relaxed) {
            // hyper polls again after each read, so the first byte gets us back here.
            return Poll::Pending;
        }
        let timeout = this.timeout;
        this.armed.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout))).as_mut().poll(cx)
    }
}

/// A stream that tells its [`HeaderTimer`] about bytes.
#[derive(Debug)]
pub(super) struct CountedIo {
    stream: TcpStream,
    bytes_came: Arc<AtomicBool>,
}

impl CountedIo {
    pub(super) fn new(stream: TcpStream, timer: &HeaderTimer) -> Self {
        Self { stream, bytes_came: Arc::clone(&timer.bytes_came) }
    }
}

impl AsyncRead for CountedIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.bytes_came.store(true, Ordering::Relaxed);
        }
        poll
    }
}

impl AsyncWrite for CountedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
