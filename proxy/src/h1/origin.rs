//! The connection a request came by, as its body, its forwarder and its tunnel see it.
//!
//! [`super::server`] owns the connection and serves it; what is here is lent to the request under way. All of it runs on
//! one thread, and the borrow never lasts over a call into foreign code.

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;

use super::decode::Decoder;
use super::encode;
use super::wire::Wire;
use crate::stream::Stream;

/// A request's hold on its connection. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(super) side: Rc<RefCell<Side>>,
    /// Which of the connection's requests. One that is over has no say any more.
    request: u64,
}

pub(super) struct Side {
    pub(super) wire: Wire,
    /// The request under way, counted from the first.
    pub(super) request: u64,
    /// Its body.
    pub(super) decoder: Decoder,
    /// Whoever waits for more of it.
    pub(super) reader: Option<Waker>,
    /// The client waits for 100 before it sends that body.
    pub(super) continue_due: bool,
    /// HTTP/1.1, and the answer has not begun: a 1xx may be sent.
    pub(super) interim: bool,
    pub(super) title_case: bool,
    /// Who wants the connection once 101 is out.
    pub(super) hand_over: Option<oneshot::Sender<()>>,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Origin")
    }
}

impl Origin {
    /// A connection without a request yet.
    pub(super) fn new(stream: Stream, title_case: bool) -> Self {
        let side = Side {
            wire: Wire::new(stream),
            request: 0,
            decoder: Decoder::default(),
            reader: None,
            continue_due: false,
            interim: false,
            title_case,
            hand_over: None,
        };
        Self { side: Rc::new(RefCell::new(side)), request: 0 }
    }

    /// Requests that have come by the connection.
    pub(super) fn requests(&self) -> u64 {
        self.side.borrow().request
    }

    /// The same connection for its current request.
    pub(super) fn of_current(&self) -> Self {
        Self { side: Rc::clone(&self.side), request: self.requests() }
    }

    /// The connection, as long as this request is under way on it.
    fn current(&self) -> Option<RefMut<'_, Side>> {
        let side = self.side.borrow_mut();
        (side.request == self.request).then_some(side)
    }

    /// The next frame of the request's body; asks the client for it first if it waits to be asked.
    pub(crate) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(mut side) = self.current() else {
            return Poll::Ready(Some(Err(io::Error::other("the request of this body is over"))));
        };
        let side = &mut *side;
        if std::mem::take(&mut side.continue_due) && side.interim {
            encode::interim(side.wire.small(), StatusCode::CONTINUE, &HeaderMap::new(), false);
        }
        if side.interim && !side.wire.is_flushed() {
            // Not waited for: the task of the connection goes on with it.
            let _ = side.wire.poll_flush(cx)?;
        }
        let frame = side.decoder.poll_frame(&mut side.wire, cx);
        if frame.is_pending() && !side.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            side.reader = Some(cx.waker().clone());
        }
        frame
    }

    /// Whether the request's body is over.
    pub(crate) fn is_done(&self) -> bool {
        self.current().is_none_or(|side| side.decoder.is_done())
    }

    /// What is known of the length of the rest of the body.
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.current().map_or_else(|| SizeHint::with_exact(0), |side| side.decoder.size_hint())
    }

    /// The rest of the body, if all of it is here already.
    pub(crate) fn take_whole(&self) -> Option<Bytes> {
        let side = &mut *self.current()?;
        let Decoder::Length(left) = side.decoder else { return None };
        if side.continue_due || !side.decoder.is_read(&side.wire) {
            return None;
        }
        side.decoder = Decoder::default();
        Some(side.wire.input.split_to(usize::try_from(left).ok()?).freeze())
    }

    /// Sends an answer before the answer (1xx), unless it is too late for one or the client is too old.
    pub(crate) fn interim(&self, status: StatusCode, headers: &HeaderMap) {
        let Some(mut side) = self.current() else { return };
        let side = &mut *side;
        if side.interim && side.wire.takes_more() {
            encode::interim(side.wire.small(), status, headers, side.title_case);
        }
    }

    /// Asks for the connection itself; comes true once a 101 is written.
    pub(crate) fn hand_over(&self) -> oneshot::Receiver<()> {
        let (handed, receiver) = oneshot::channel();
        if let Some(mut side) = self.current() {
            side.hand_over = Some(handed);
        }
        receiver
    }

    /// The connection ends without a 101: whoever asked for it is told so, though they hold on to it themselves.
    pub(super) fn give_up(&self) {
        self.side.borrow_mut().hand_over = None;
    }

    /// The bytes of the connection; for after [`Origin::hand_over`].
    pub(crate) fn with_wire<T>(&self, work: impl FnOnce(&mut Wire) -> T) -> T {
        work(&mut self.side.borrow_mut().wire)
    }
}
