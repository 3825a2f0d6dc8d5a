//! After 101: bytes both ways until both sides have closed.
//!
//! A half-close is passed on and the other direction goes on flowing (upstream cuts both). The tunnel counts the bytes
//! that pass, so that an idle limit can look at real traffic.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};

use crate::deadline::{Deadline, Limit};

/// Copy buffer per direction; small, since most upgraded connections are many and quiet.
const BUFFER: usize = 4 * 1024;

/// The two sides of an upgraded connection, not yet joined.
#[derive(Debug)]
pub struct Tunnel {
    client: OnUpgrade,
    target: OnUpgrade,
}

/// How a tunnel ended.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// A side did not hand its connection over.
    #[error("upgrade: {0}")]
    Upgrade(#[from] hyper::Error),
    /// A side broke off.
    #[error("tunnel: {0}")]
    Io(#[from] io::Error),
    /// A request timeout.
    #[error("tunnel: {0}")]
    Expired(Limit),
}

impl Tunnel {
    pub(crate) fn new(client: OnUpgrade, target: OnUpgrade) -> Self {
        Self { client, target }
    }

    /// Copies until both sides have closed or a limit is reached. Returns the bytes to the target and to the client.
    /// Must run beside the response, not before it: the client's side opens once the 101 is written.
    pub async fn run(self, mut deadline: Deadline) -> Result<(u64, u64), TunnelError> {
        let (client, target) = futures::try_join!(self.client, self.target)?;
        deadline.started();
        let traffic = Rc::new(Cell::new(0_u64));
        let mut client = Counted { io: TokioIo::new(client), traffic: Rc::clone(&traffic) };
        let mut target = Counted { io: TokioIo::new(target), traffic: Rc::clone(&traffic) };
        let copy = copy_bidirectional_with_sizes(&mut client, &mut target, BUFFER, BUFFER);
        match deadline.run_while_moving(copy, || traffic.get()).await {
            Ok(done) => Ok(done?),
            Err(limit) => Err(TunnelError::Expired(limit)),
        }
    }
}

struct Counted {
    io: TokioIo<Upgraded>,
    traffic: Rc<Cell<u64>>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        self.traffic.set(self.traffic.get().wrapping_add(read as u64));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
