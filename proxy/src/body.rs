//! One body type for requests and responses, and the wrapper that ends accounting with it.
//!
//! Bodies are streamed frame by frame (data and trailers), never collected: memory does not grow with their size.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use crate::BoxError;
use crate::pool::Lease;

/// A request or response body.
///
/// The body of a response from a [`crate::Pool`] carries its connection: read to the end, the connection goes back to
/// the pool; dropped before, the connection is closed, which is how the target learns that nobody listens any more.
pub struct Body {
    kind: Kind,
    lease: Option<Lease>,
}

enum Kind {
    Empty,
    Full(Bytes),
    Incoming(Incoming),
    Boxed(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError>>>),
}

impl Body {
    /// No body.
    pub const fn empty() -> Self {
        Self { kind: Kind::Empty, lease: None }
    }

    /// A body of known bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { kind: if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) }, lease: None }
    }

    /// A body as it arrives from a connection.
    pub fn incoming(incoming: Incoming) -> Self {
        // An ended body is kept as "empty" so that it can be sent twice (see the pool's replay rule).
        if http_body::Body::is_end_stream(&incoming) {
            Self::empty()
        } else {
            Self { kind: Kind::Incoming(incoming), lease: None }
        }
    }

    /// Any other body; costs an allocation and a virtual call per frame.
    pub fn boxed<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + 'static,
        B::Error: Into<BoxError>,
    {
        Self { kind: Kind::Boxed(Box::pin(http_body_util::BodyExt::map_err(body, Into::into))), lease: None }
    }

    /// Whether this is certainly no body at all (not merely an unknown length that may turn out to be zero).
    pub fn is_empty(&self) -> bool {
        matches!(self.kind, Kind::Empty)
    }

    pub(crate) fn leased(incoming: Incoming, lease: Lease) -> Self {
        let mut body = Self::incoming(incoming);
        if body.is_empty() {
            lease.give_back();
        } else {
            body.lease = Some(lease);
        }
        body
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "Empty",
            Kind::Full(_) => "Full",
            Kind::Incoming(_) => "Incoming",
            Kind::Boxed(_) => "Boxed",
        };
        f.debug_tuple("Body").field(&kind).finish()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let (frame, ended) = match &mut this.kind {
            Kind::Empty => return Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.kind = Kind::Empty;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Kind::Incoming(incoming) => {
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
                (frame.map(|frame| frame.map_err(BoxError::from)), http_body::Body::is_end_stream(incoming))
            }
            Kind::Boxed(boxed) => {
                let frame = ready!(boxed.as_mut().poll_frame(cx));
                let ended = boxed.is_end_stream();
                (frame, ended)
            }
        };
        match &frame {
            Some(Ok(_)) if !ended => {}
            Some(Err(_)) => drop(this.lease.take()),
            Some(Ok(_)) | None => {
                if let Some(lease) = this.lease.take() {
                    lease.give_back();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Incoming(incoming) => incoming.is_end_stream(),
            Kind::Boxed(boxed) => boxed.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Incoming(incoming) => incoming.size_hint(),
            Kind::Boxed(boxed) => boxed.size_hint(),
        }
    }
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every frame was handed on.
    Complete,
    /// The source broke off.
    Broken,
    /// The reader went away first.
    Dropped,
}

/// Accounting that lives as long as a body: slots, in-flight counts, sizes, logs.
pub trait Observe {
    /// Bytes were handed on.
    fn data(&mut self, _bytes: usize) {}
    /// The body is over; called exactly once.
    fn end(self, _end: End)
    where
        Self: Sized,
    {
    }
}

impl Observe for () {}

/// A body with its accounting: the observer is told the end exactly once, at the last frame, the error, or the drop.
#[derive(Debug)]
pub struct Tracked<B, G: Observe> {
    body: B,
    guard: Option<G>,
}

impl<B, G: Observe> Tracked<B, G>
where
    B: http_body::Body,
{
    /// Wraps a body. One that has already ended ends its accounting here.
    pub fn new(body: B, guard: G) -> Self {
        let mut this = Self { body, guard: Some(guard) };
        if this.body.is_end_stream() {
            this.finish(End::Complete);
        }
        this
    }
}

impl<B, G: Observe> Tracked<B, G> {
    fn finish(&mut self, end: End) {
        if let Some(guard) = self.guard.take() {
            guard.end(end);
        }
    }
}

impl<B, G: Observe> Drop for Tracked<B, G> {
    fn drop(&mut self) {
        self.finish(End::Dropped);
    }
}

impl<B, G> http_body::Body for Tracked<B, G>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    G: Observe + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(data), Some(guard)) = (frame.data_ref(), this.guard.as_mut()) {
                    guard.data(data.len());
                }
                if this.body.is_end_stream() {
                    this.finish(End::Complete);
                }
            }
            Some(Err(_)) => this.finish(End::Broken),
            None => this.finish(End::Complete),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[derive(Clone, Default)]
    struct Log(Rc<RefCell<(usize, Vec<End>)>>);

    impl Observe for Log {
        fn data(&mut self, bytes: usize) {
            self.0.borrow_mut().0 += bytes;
        }
        fn end(self, end: End) {
            self.0.borrow_mut().1.push(end);
        }
    }

    #[tokio::test]
    async fn the_end_is_told_once_with_all_bytes_counted() {
        let log = Log::default();
        let body = Tracked::new(Body::full("hello"), log.clone());
        body.collect().await.unwrap();
        assert_eq!(*log.0.borrow(), (5, vec![End::Complete]));
    }

    #[tokio::test]
    async fn an_empty_body_ends_at_once() {
        let log = Log::default();
        let body = Tracked::new(Body::empty(), log.clone());
        assert_eq!(log.0.borrow().1, [End::Complete]);
        drop(body);
        assert_eq!(log.0.borrow().1.len(), 1);
    }

    #[tokio::test]
    async fn a_reader_that_leaves_ends_it() {
        let log = Log::default();
        drop(Tracked::new(Body::full("never read"), log.clone()));
        assert_eq!(*log.0.borrow(), (0, vec![End::Dropped]));
    }

    #[tokio::test]
    async fn a_broken_source_is_told_as_broken() {
        let stream = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"ab"))), Err(BoxError::from("gone"))]);
        let log = Log::default();
        let body = Tracked::new(Body::boxed(http_body_util::StreamBody::new(stream)), log.clone());
        assert!(body.collect().await.is_err());
        assert_eq!(*log.0.borrow(), (2, vec![End::Broken]));
    }
}
