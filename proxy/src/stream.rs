//! The socket under an HTTP connection, on both sides of the hop.
//!
//! A head and a small body go out by one plain `send`: the kernel takes longer to gather two pieces than we take to
//! copy them.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use socket2::SockRef;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// Pieces up to this much in all are joined before they are written.
const JOINED: usize = 2048;

/// A connected socket, with or without TLS. One type, so that the HTTP engine is compiled once.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Ready when there is something to read; false if that is the end. To be asked only after a read has found
    /// nothing, when TLS holds no bytes back.
    pub(crate) fn poll_bytes_come(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut one = [0];
        self.socket().poll_peek(cx, &mut ReadBuf::new(&mut one)).map(|peeked| matches!(peeked, Ok(1..)))
    }

    /// Ready when a read may well give something; cheaper to ask than a read.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(socket) => socket.poll_read_ready(cx).map(drop),
            Self::Tls(_) => Poll::Ready(()), // which may hold some back
        }
    }

    /// Whether the peer has said nothing, no byte and no end, as far as the event loop has heard. Costs no system call.
    pub(crate) fn seems_quiet(&mut self) -> bool {
        let nobody = &mut Context::from_waker(Waker::noop());
        match self {
            Self::Plain(socket) => socket.poll_read_ready(nobody).is_pending() || self.is_quiet(),
            // Takes in what is TLS's own, such as tickets; whatever is left would be read as the next answer.
            Self::Tls(stream) => Pin::new(stream).poll_fill_buf(nobody).is_pending(),
        }
    }

    /// The same, asked of the socket itself.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let peeked = SockRef::from(self.socket()).peek(&mut [MaybeUninit::uninit()]);
        let nothing = peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        nothing && (matches!(self, Self::Plain(_)) || self.seems_quiet())
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = match &mut *self {
            Self::Plain(socket) => Pin::new(socket),
            Self::Tls(stream) => return Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        if let [one] = bufs {
            return socket.poll_write(cx, one);
        }
        let mut joined = [0; JOINED];
        match join(bufs, &mut joined) {
            Some(joined) => socket.poll_write(cx, joined),
            None => socket.poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

/// The pieces one after the other, if they fit.
fn join<'a>(bufs: &[IoSlice<'_>], room: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut end = 0;
    for buf in bufs {
        room.get_mut(end..end + buf.len())?.copy_from_slice(buf);
        end += buf.len();
    }
    room.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_joined_only_if_all_fit() {
        let mut room = [0; 4];
        let bufs = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cd")];
        assert_eq!(join(&bufs, &mut room), Some(&b"abcd"[..]));
        let bufs = [IoSlice::new(b"abc"), IoSlice::new(b"de")];
        assert_eq!(join(&bufs, &mut room), None);
        assert_eq!(join(&[], &mut room), Some(&b""[..]));
    }
}
