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
use crate::h1::Lines;
use crate::h1::client::Connection;
use crate::h1::fields::Fields;
use crate::h1::origin::Origin;
use crate::pool::Lease;

/// A request or response body.
///
/// The body of a response from a [`crate::Pool`] carries its connection: read to the end, the connection goes back to
/// the pool; dropped before, the connection is closed, which is how the target learns that nobody listens any more.
pub struct Body {
    kind: Kind,
    /// The connection that the request came by, which also carries what is said before its answer.
    origin: Option<Origin>,
    /// Header lines of the answer that nobody has looked at.
    lines: Option<Lines>,
    /// Headers of the request that are not in its map.
    fields: Option<Box<Fields>>,
}

enum Kind {
    Empty,
    Full(Bytes),
    /// Of an HTTP/1 request; read through `origin`.
    Request,
    /// Of an HTTP/1 answer.
    Answer(Box<Connection>, Lease),
    /// None, but the connection of a 101.
    Switched(Box<Connection>),
    H2(Incoming),
    Boxed(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError>>>),
}

impl Body {
    /// No body.
    pub const fn empty() -> Self {
        Self::of(Kind::Empty)
    }

    const fn of(kind: Kind) -> Self {
        Self { kind, origin: None, lines: None, fields: None }
    }

    /// A body of known bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::of(if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) })
    }

    /// A body as it arrives from an h2 connection.
    pub fn incoming(incoming: Incoming) -> Self {
        // An ended body is kept as "empty" so that it can be sent twice (see the pool's replay rule).
        if http_body::Body::is_end_stream(&incoming) { Self::empty() } else { Self::of(Kind::H2(incoming)) }
    }

    /// Any other body; costs an allocation and a virtual call per frame.
    pub fn boxed<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + 'static,
        B::Error: Into<BoxError>,
    {
        Self::of(Kind::Boxed(Box::pin(http_body_util::BodyExt::map_err(body, Into::into))))
    }

    /// Whether this is certainly no body at all (not merely an unknown length that may turn out to be zero).
    pub fn is_empty(&self) -> bool {
        matches!(self.kind, Kind::Empty | Kind::Switched(_))
    }

    /// The body of a request that came by this connection.
    pub(crate) fn from_origin(origin: Origin, empty: bool, fields: Option<Box<Fields>>) -> Self {
        Self { kind: if empty { Kind::Empty } else { Kind::Request }, origin: Some(origin), lines: None, fields }
    }

    /// The headers that came with it as lines.
    pub(crate) fn fields(&self) -> Option<&Fields> {
        self.fields.as_deref()
    }

    /// The same, to be changed.
    pub(crate) fn fields_mut(&mut self) -> Option<&mut Fields> {
        self.fields.as_deref_mut()
    }

    /// The same, to be kept elsewhere.
    pub(crate) fn take_fields(&mut self) -> Option<Box<Fields>> {
        self.fields.take()
    }

    /// The connection that the request came by, if it is HTTP/1.
    pub(crate) fn origin(&self) -> Option<Origin> {
        self.origin.clone()
    }

    /// Takes the whole body out, if all of it is here already and its length is known.
    pub(crate) fn take_whole(&mut self) -> Option<Bytes> {
        let whole = match (&mut self.kind, &self.origin) {
            (Kind::Full(bytes), _) => std::mem::take(bytes),
            (Kind::Request, Some(origin)) => origin.take_whole()?,
            _ => return None,
        };
        self.kind = Kind::Empty;
        Some(whole)
    }

    /// Undoes [`Body::take_whole`].
    pub(crate) fn put_back(&mut self, whole: Bytes) {
        self.kind = Kind::Full(whole);
    }

    /// The body of an answer. The connection goes back at once if there is nothing to read.
    pub(crate) fn answer(mut connection: Box<Connection>, lease: Lease) -> Self {
        let lines = connection.take_lines();
        let kind = if connection.is_done() {
            lease.give_back(connection);
            Kind::Empty
        } else {
            Kind::Answer(connection, lease)
        };
        Self { kind, origin: None, lines, fields: None }
    }

    pub(crate) fn switched(connection: Box<Connection>) -> Self {
        Self::of(Kind::Switched(connection))
    }

    /// The connection of a 101.
    pub(crate) fn into_switched(self) -> Option<Box<Connection>> {
        match self.kind {
            Kind::Switched(connection) => Some(connection),
            _ => None,
        }
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
            Kind::Request => "Request",
            Kind::Answer(..) => "Answer",
            Kind::Switched(_) => "Switched",
            Kind::H2(_) => "H2",
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
        match &mut this.kind {
            Kind::Empty | Kind::Switched(_) => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Request => match &this.origin {
                Some(origin) => origin.poll_frame(cx).map_err(Into::into),
                None => Poll::Ready(None),
            },
            Kind::Answer(connection, _) => {
                let frame = ready!(connection.poll_frame(cx));
                if matches!(frame, Some(Err(_))) || connection.is_done() {
                    let Kind::Answer(connection, lease) = std::mem::replace(&mut this.kind, Kind::Empty) else {
                        return Poll::Ready(frame);
                    };
                    // After an error it is dropped, and closed by that.
                    if !matches!(frame, Some(Err(_))) {
                        lease.give_back(connection);
                    }
                }
                Poll::Ready(frame)
            }
            Kind::H2(incoming) => Pin::new(incoming).poll_frame(cx).map_err(Into::into),
            Kind::Boxed(boxed) => boxed.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty | Kind::Switched(_) => true,
            Kind::Full(_) => false,
            Kind::Request => self.origin.as_ref().is_none_or(Origin::is_done),
            Kind::Answer(connection, _) => connection.is_done(),
            Kind::H2(incoming) => incoming.is_end_stream(),
            Kind::Boxed(boxed) => boxed.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty | Kind::Switched(_) => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Request => self.origin.as_ref().map_or_else(|| SizeHint::with_exact(0), Origin::size_hint),
            Kind::Answer(connection, _) => connection.size_hint(),
            Kind::H2(incoming) => incoming.size_hint(),
            Kind::Boxed(boxed) => boxed.size_hint(),
        }
    }
}

/// A body that a server can answer with.
pub trait AnswerBody: http_body::Body<Data = Bytes> {
    /// Takes the header lines that come with the body, if its answer was passed on unread.
    fn take_lines(&mut self) -> Option<Lines> {
        None
    }

    /// Asked in place of a frame while the client takes nothing, so that a limit is one for slow clients too: ready when
    /// one is reached. `moved`: the client has taken something since.
    fn poll_overdue(self: Pin<&mut Self>, _moved: bool, _cx: &mut Context<'_>) -> Poll<BoxError> {
        Poll::Pending
    }
}

impl AnswerBody for Body {
    fn take_lines(&mut self) -> Option<Lines> {
        self.lines.take()
    }
}

impl<B: AnswerBody + Unpin, G: Observe + Unpin> AnswerBody for Tracked<B, G>
where
    Self: http_body::Body<Data = Bytes>,
{
    fn take_lines(&mut self) -> Option<Lines> {
        self.body.take_lines()
    }

    fn poll_overdue(mut self: Pin<&mut Self>, moved: bool, cx: &mut Context<'_>) -> Poll<BoxError> {
        let error = ready!(Pin::new(&mut self.body).poll_overdue(moved, cx));
        self.finish(End::Broken);
        Poll::Ready(error)
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
