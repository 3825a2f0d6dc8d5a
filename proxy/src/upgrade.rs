//! After 101: bytes both ways until both sides have closed.
//!
//! A half-close is passed on and the other direction goes on flowing (upstream cuts both). The tunnel counts the bytes
//! that pass, so that an idle limit can look at real traffic. It holds no buffer while nothing moves.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

use crate::deadline::{Deadline, Limit};
use crate::h1::client::Connection;
use crate::h1::origin::Origin;
use crate::h1::wire::Wire;

/// The two sides of an upgraded connection, not yet joined.
#[derive(Debug)]
pub struct Tunnel {
    client: Origin,
    /// Comes true when the 101 is out.
    handed_over: oneshot::Receiver<()>,
    target: Box<Connection>,
}

/// How a tunnel ended.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The client was gone before the 101.
    #[error("tunnel: the client left before it was open")]
    Unopened,
    /// A side broke off.
    #[error("tunnel: {0}")]
    Io(#[from] io::Error),
    /// A request timeout.
    #[error("tunnel: {0}")]
    Expired(Limit),
}

/// One direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Flows,
    /// Its source has ended; its sink is to be told.
    Ends,
    Ended,
}

impl Tunnel {
    pub(crate) fn new(client: Origin, target: Box<Connection>) -> Self {
        let handed_over = client.hand_over();
        Self { client, handed_over, target }
    }

    /// Copies until both sides have closed or a limit is reached. Returns the bytes to the target and to the client.
    /// Must run beside the response, not before it: the client's side opens once the 101 is written.
    pub async fn run(self, mut deadline: Deadline) -> Result<(u64, u64), TunnelError> {
        let Self { client, handed_over, mut target } = self;
        handed_over.await.map_err(|_| TunnelError::Unopened)?;
        deadline.started();
        let (up, down) = (Cell::new(0), Cell::new(0));
        let mut directions = (Direction::Flows, Direction::Flows);
        let target = target.wire();
        let copy = poll_fn(|cx| {
            client.with_wire(|client| {
                let upwards = flow(&mut directions.0, client, target, &up, cx)?;
                let downwards = flow(&mut directions.1, target, client, &down, cx)?;
                if upwards.is_ready() && downwards.is_ready() { Poll::Ready(io::Result::Ok(())) } else { Poll::Pending }
            })
        });
        match deadline.run_while_moving(copy, || up.get().wrapping_add(down.get())).await {
            Ok(done) => Ok(done.map(|()| (up.get(), down.get()))?),
            Err(limit) => Err(TunnelError::Expired(limit)),
        }
    }
}

/// Moves what there is in one direction; ready when that direction has ended.
fn flow(
    direction: &mut Direction,
    from: &mut Wire,
    to: &mut Wire,
    moved: &Cell<u64>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    if *direction == Direction::Flows {
        let mut bytes = 0;
        let ended = from.poll_move(to, &mut bytes, cx);
        moved.set(moved.get().wrapping_add(bytes));
        ready!(ended)?;
        *direction = Direction::Ends;
    }
    if *direction == Direction::Ends {
        ready!(to.poll_shutdown(cx))?;
        *direction = Direction::Ended;
    }
    Poll::Ready(Ok(()))
}
