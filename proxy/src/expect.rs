//! `Expect: 100-continue` through a hop: the client is asked for its body only when the target asks us.
//!
//! The server side answers 100 when the body is first read, so holding the read back is all it takes. A target that
//! answers finally without a 100 gets no body, and the client sends none. One that says nothing gets it after a second.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::task::AtomicWaker;
use http::header::EXPECT;
use http::{HeaderMap, Request, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;

use crate::BoxError;
use crate::body::Body;

/// A target that does not know the expectation gets the body after this long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether a request waits for 100 before it sends its body.
pub fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Holds a request's body back until the target says 100.
pub fn hold_body(request: Request<Body>) -> Request<Body> {
    let hold = Hold::default();
    let (parts, body) = request.into_parts();
    let held = Held { body, waiting: Some((hold.clone(), Box::pin(tokio::time::sleep(PATIENCE)))) };
    let mut request = Request::from_parts(parts, Body::boxed(held));
    request.extensions_mut().insert(hold.clone());
    hyper::ext::on_informational(&mut request, move |response| {
        if response.status() == StatusCode::CONTINUE {
            hold.settle(WANTED);
        }
    });
    request
}

const OPEN: u8 = 0;
const WANTED: u8 = 1;
const UNWANTED: u8 = 2;

/// What the target has said so far; travels with the request so that the pool can tell it about the final answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hold(Arc<State>);

#[derive(Debug, Default)]
struct State {
    said: AtomicU8,
    waker: AtomicWaker,
}

impl Hold {
    /// The final answer is here: a body that is still held back is never sent.
    pub(crate) fn answered(&self) {
        self.settle(UNWANTED);
    }

    /// The first word counts.
    fn settle(&self, said: u8) {
        if self.0.said.compare_exchange(OPEN, said, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.0.waker.wake();
        }
    }
}

struct Held {
    body: Body,
    /// `None` once the body may flow.
    waiting: Option<(Hold, Pin<Box<Sleep>>)>,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some((hold, patience)) = &mut this.waiting {
            hold.0.waker.register(cx.waker());
            match hold.0.said.load(Ordering::Acquire) {
                OPEN => {
                    ready!(patience.as_mut().poll(cx));
                    hold.settle(WANTED);
                }
                WANTED => {}
                _ => {
                    // Letting go of the client's body lets its connection end. The target's side stays open until
                    // its answer has been read: an error here would cut that answer off.
                    this.body = Body::empty();
                    return Poll::Pending;
                }
            }
            this.waiting = None;
        }
        Pin::new(&mut this.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
