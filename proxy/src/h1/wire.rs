//! A socket with what was read too early and what is still to be written.
//!
//! Reads go into one buffer per thread and only what arrived is kept, in exactly the room it needs: a connection that
//! waits, for a request or for an answer, holds no buffer. Bodies that come in bulk are read in place instead.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::head::{self, Malformed};
use crate::stream::Stream;

/// The thread's read buffer.
const SCRATCH: usize = 16 * 1024;
/// Most that is read at once of a body that keeps coming.
const BULK: usize = 256 * 1024;
/// Data up to this is copied behind what is already to be written; the kernel takes longer to gather two pieces.
const COPIED: usize = 2048;
/// More than this waiting to be written: no more is taken in.
const FULL: usize = 64 * 1024;
/// Reads of one direction of a tunnel in one go; then the other direction, the clock and others have their turn.
const ROUNDS: usize = 8;
/// An emptied write buffer larger than this is given back.
const KEPT: usize = 4096;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Why no head came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeadError {
    /// The socket broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer closed; `begun`: in the middle of a head.
    #[error("EOF")]
    Eof { begun: bool },
    /// Not a head.
    #[error("{0}")]
    Malformed(#[from] Malformed),
}

/// Reads heads of one kind. It keeps what it reads: a head is too large to be handed from call to call.
pub(crate) trait ReadHead {
    /// Reads the head that these bytes begin with, if it is there and simple. Returns its length.
    fn read_simple(&mut self, bytes: &[u8]) -> Option<usize>;

    /// Reads a head that is not simple.
    fn read(&mut self, head: &[u8]) -> Result<(), Malformed>;
}

/// One connection's bytes.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: Stream,
    /// Read and not used yet.
    pub(crate) input: BytesMut,
    /// Bytes of `input` already searched for the end of a head.
    searched: usize,
    /// How much to read at once of a body; grows while reads come back full.
    bulk: usize,
    output: Output,
}

/// What the first read for a head gave.
enum First {
    Head(Result<(), Malformed>),
    Piece,
    Eof,
}

/// What is to be written, in this order.
#[derive(Debug, Default)]
struct Output {
    small: Vec<u8>,
    /// Bytes of `small` that are out.
    sent: usize,
    large: Bytes,
    after: &'static [u8],
}

impl Wire {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, input: BytesMut::new(), searched: 0, bulk: SCRATCH, output: Output::default() }
    }

    /// Reads until there is a whole head of at most this many bytes, and has it read.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        reader: &mut impl ReadHead,
    ) -> Poll<Result<(), HeadError>> {
        loop {
            if !self.input.is_empty() {
                let blank = head::blank(&self.input);
                if blank > 0 {
                    self.input.advance(blank);
                    self.searched = 0;
                }
                if let Some(end) = head::end(&self.input, self.searched) {
                    if end > most {
                        return Poll::Ready(Err(Malformed::TooLarge.into()));
                    }
                    self.searched = 0;
                    let head = self.input.split_to(end);
                    let read = if reader.read_simple(&head).is_some() { Ok(()) } else { reader.read(&head) };
                    return Poll::Ready(read.map_err(Into::into));
                }
                self.searched = self.input.len();
                if self.input.len() > most {
                    return Poll::Ready(Err(Malformed::TooLarge.into()));
                }
            }
            if self.input.is_empty() {
                match ready!(self.poll_first(cx, most, reader))? {
                    First::Head(head) => return Poll::Ready(head.map_err(Into::into)),
                    First::Piece => {}
                    First::Eof => return Poll::Ready(Err(HeadError::Eof { begun: false })),
                }
            } else if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(HeadError::Eof { begun: true }));
            }
        }
    }

    /// Nearly every head comes whole: it is parsed where it was read.
    fn poll_first(&mut self, cx: &mut Context<'_>, most: usize, reader: &mut impl ReadHead) -> Poll<io::Result<First>> {
        READ.with_borrow_mut(|buffer| {
            let read = ready!(poll_read(&mut self.stream, cx, buffer))?;
            let bytes = &buffer[..read];
            if read == 0 {
                return Poll::Ready(Ok(First::Eof));
            }
            if matches!(bytes, [b'\r' | b'\n', ..]) || read > most {
                self.input.extend_from_slice(bytes);
                return Poll::Ready(Ok(First::Piece));
            }
            let (end, head) = if let Some(end) = reader.read_simple(bytes) {
                (end, Ok(()))
            } else if let Some(end) = head::end(bytes, 0) {
                (end, reader.read(bytes.get(..end).unwrap_or_default()))
            } else {
                self.input.extend_from_slice(bytes);
                return Poll::Ready(Ok(First::Piece));
            };
            if end < read {
                self.input = BytesMut::from(bytes.get(end..).unwrap_or_default());
            }
            Poll::Ready(Ok(First::Head(head)))
        })
    }

    /// Ready when a read may well give something.
    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_readable(cx)
    }

    /// Reads some more; 0 is the end.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        READ.with_borrow_mut(|buffer| {
            let read = ready!(poll_read(&mut self.stream, cx, buffer))?;
            self.input.extend_from_slice(&buffer[..read]);
            Poll::Ready(Ok(read))
        })
    }

    /// The same for a body of which this much is still expected: in place, and in larger pieces the more it gives.
    pub(crate) fn poll_fill_body(&mut self, cx: &mut Context<'_>, expected: u64) -> Poll<io::Result<usize>> {
        let room = self.bulk.min(usize::try_from(expected).unwrap_or(usize::MAX));
        if room <= SCRATCH {
            let read = ready!(self.poll_fill(cx))?;
            if read == SCRATCH {
                self.bulk = 4 * SCRATCH;
            }
            return Poll::Ready(Ok(read));
        }
        self.input.reserve(room);
        let read = tokio_util::io::poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input);
        if self.input.is_empty() {
            self.input = BytesMut::new(); // nothing came: hold no room for it
        }
        let read = ready!(read)?;
        self.bulk = match read {
            n if n >= room => (2 * self.bulk).min(BULK),
            n if n < room / 4 => SCRATCH,
            _ => self.bulk,
        };
        Poll::Ready(Ok(read))
    }

    /// Resolves when there is something to read, without reading it; false if that is the end.
    pub(crate) fn poll_bytes_come(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if !self.input.is_empty() {
            return Poll::Ready(true);
        }
        self.stream.poll_bytes_come(cx)
    }

    /// Whether a connection between two exchanges can be trusted: still open, and nothing has come unasked. `rested`:
    /// ask the socket itself.
    pub(crate) fn is_quiet(&mut self, rested: bool) -> bool {
        self.input.is_empty() && if rested { self.stream.is_quiet() } else { self.stream.seems_quiet() }
    }

    /// Where heads and other small things are put. Only while [`Wire::takes_more`].
    pub(crate) fn small(&mut self) -> &mut Vec<u8> {
        &mut self.output.small
    }

    /// Puts a piece of a body, and what must stand right behind it. Only while [`Wire::takes_more`].
    pub(crate) fn put(&mut self, data: Bytes, after: &'static [u8]) {
        let output = &mut self.output;
        if data.len() <= COPIED {
            output.small.extend_from_slice(&data);
            output.small.extend_from_slice(after);
        } else {
            (output.large, output.after) = (data, after);
        }
    }

    /// Whether more may be put before the next flush.
    pub(crate) fn takes_more(&self) -> bool {
        self.output.large.is_empty() && self.output.after.is_empty() && self.output.small.len() < FULL
    }

    /// Whether all that was put is written.
    pub(crate) fn is_flushed(&self) -> bool {
        self.output.is_empty()
    }

    /// Bytes that were put and are not written yet.
    pub(crate) fn unsent(&self) -> usize {
        let Output { small, sent, large, after } = &self.output;
        small.len() - sent + large.len() + after.len()
    }

    /// Takes the buffer of small things, as to keep what was written for another try.
    pub(crate) fn take_small(&mut self) -> Vec<u8> {
        self.output.sent = 0;
        std::mem::take(&mut self.output.small)
    }

    /// Gives the buffer back that [`Wire::take_small`] took.
    pub(crate) fn give_small(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        if self.output.small.capacity() == 0 && buffer.capacity() <= KEPT {
            self.output.small = buffer;
        }
    }

    /// Lets go of what [`Wire::poll_write_out`] kept.
    pub(crate) fn forget_written(&mut self) {
        if self.output.is_empty() {
            self.output.clear();
        }
    }

    /// Writes until at least one byte is out.
    pub(crate) fn poll_write_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (stream, output) = (&mut self.stream, &mut self.output);
        let small = &output.small[output.sent..];
        let written = if output.large.is_empty() && output.after.is_empty() {
            ready!(Pin::new(stream).poll_write(cx, small))?
        } else {
            let pieces = [IoSlice::new(small), IoSlice::new(&output.large), IoSlice::new(output.after)];
            ready!(Pin::new(stream).poll_write_vectored(cx, &pieces))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        output.written(written);
        Poll::Ready(Ok(()))
    }

    /// Writes all that was put; what was written stays in the buffer until the caller lets go of it.
    pub(crate) fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            ready!(self.poll_write_some(cx))?;
        }
        // TLS has a buffer of its own.
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Writes all that was put.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx))?;
        self.output.clear();
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more will be written.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// Moves what there is to another wire, as much as that one takes. Returns the bytes moved since the last call,
    /// and whether this side has ended; pending when either side has to wait.
    pub(crate) fn poll_move(&mut self, to: &mut Self, moved: &mut u64, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..ROUNDS {
            ready!(to.poll_flush(cx))?;
            if !self.input.is_empty() {
                *moved += self.input.len() as u64;
                to.put(std::mem::take(&mut self.input).freeze(), b"");
                continue;
            }
            let read = READ.with_borrow_mut(|buffer| {
                let read = ready!(poll_read(&mut self.stream, cx, buffer))?;
                // Straight on, without a copy, unless the other side is slow.
                let mut sent = 0;
                while sent < read {
                    match Pin::new(&mut to.stream).poll_write(cx, &buffer[sent..read]) {
                        Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        Poll::Ready(Ok(n)) => sent += n,
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => break,
                    }
                }
                to.small().extend_from_slice(&buffer[sent..read]);
                Poll::Ready(Ok(read))
            });
            let read = ready!(read)?;
            if read == 0 {
                return Poll::Ready(Ok(()));
            }
            *moved += read as u64;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Gives all buffers back; for a connection that rests.
    pub(crate) fn shrink(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        if self.output.is_empty() {
            self.output = Output::default();
        }
    }
}

impl Output {
    fn is_empty(&self) -> bool {
        self.sent == self.small.len() && self.large.is_empty() && self.after.is_empty()
    }

    fn written(&mut self, mut n: usize) {
        let of_small = n.min(self.small.len() - self.sent);
        self.sent += of_small;
        n -= of_small;
        let of_large = n.min(self.large.len());
        self.large.advance(of_large);
        self.after = self.after.get(n - of_large..).unwrap_or_default();
    }

    fn clear(&mut self) {
        self.sent = 0;
        self.small.clear();
        if self.small.capacity() > KEPT {
            self.small = Vec::new();
        }
    }
}

fn poll_read(stream: &mut Stream, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(buffer);
    ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().len()))
}
