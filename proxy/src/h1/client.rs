//! The target's side of HTTP/1: one exchange after the other on one connection.
//!
//! There is no task behind a connection. Whoever waits for the answer also pumps the request's body, and whoever reads
//! the answer's body goes on pumping: bytes flow both ways at once, and an idle connection is a socket and a few words.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::added::Extra;
use super::decode::Decoder;
use super::encode::{self, Ending};
use super::framing::{self, Framing};
use super::head::{self, Malformed};
use super::lines::{self, Lines, Simple};
use super::origin::Origin;
use super::outgoing::Outgoing;
use super::wire::{HeadError, ReadHead, Wire};
use crate::BoxError;
use crate::body::Body;
use crate::headers::{Headers, Present, expects_continue};
use crate::stream::Stream;

/// A target that does not know `Expect: 100-continue` gets the body after this long.
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);
/// Rounds of reading and writing a request's body in one go; then the answer, the clock and others have their turn.
const ROUNDS: usize = 8;
/// Largest head of an answer.
const MOST_HEAD: usize = 10 << 20;

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The target closed before it answered.
    #[error("EOF")]
    Eof,
    /// The connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What came is no HTTP.
    #[error("malformed HTTP response: {0}")]
    Malformed(String),
    /// The request's body broke off.
    #[error("request body: {0}")]
    RequestBody(BoxError),
}

/// A failed exchange, and what may be done about it.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing was written: the request is whole and may go anywhere.
    Unsent(ExchangeError),
    /// Written, and the target ended before the first byte of an answer. `Some` if it may be repeated.
    Died(ExchangeError, Option<Box<Repeat>>),
    /// Anything later.
    Broken(ExchangeError),
}

/// A request without a body that may be sent once more, as it was written.
#[derive(Debug)]
pub struct Repeat {
    head: Vec<u8>,
    asker: Asker,
}

/// What is remembered of a request for its answer.
#[derive(Debug)]
struct Asker {
    method: Method,
    /// Where answers before the answer go.
    origin: Option<Origin>,
    reading: Reading,
}

/// What is wanted of an answer's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Its headers as a map.
    Headers,
    /// Its lines as they are, if it is simple; they go with the answer's body.
    Lines,
}

/// A connection to a target.
#[derive(Debug)]
pub(crate) struct Connection {
    wire: Wire,
    title_case: bool,
    /// The body of the answer under way.
    decoder: Decoder,
    /// The body of the request under way.
    sending: Option<Sending>,
    reusable: bool,
    lifetime: Option<Duration>,
    /// The head of the answer under way, but for its lines if they were not read. Here, because it is handed on a dozen
    /// times on its way.
    head: Response<()>,
    lines: Option<Lines>,
}

#[derive(Debug)]
struct Sending {
    body: Body,
    outgoing: Outgoing,
    /// The body is held back until the target asks for it, or this is over.
    hold: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    pub(crate) fn new(stream: Stream, title_case: bool) -> Self {
        let (wire, decoder) = (Wire::new(stream), Decoder::default());
        Self {
            wire,
            title_case,
            decoder,
            sending: None,
            reusable: true,
            lifetime: None,
            head: Response::new(()),
            lines: None,
        }
    }

    /// Whether a connection can be trusted with another exchange; see [`Wire::is_quiet`].
    pub(crate) fn is_quiet(&mut self, rested: bool) -> bool {
        self.wire.is_quiet(rested)
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        self.head.status()
    }

    /// The head of the answer.
    pub(crate) fn take_head(&mut self) -> Response<()> {
        std::mem::take(&mut self.head)
    }

    /// The header lines of the answer, if they were not read.
    pub(crate) fn take_lines(&mut self) -> Option<Lines> {
        self.lines.take()
    }

    /// How long the target said it would keep the connection.
    pub(crate) fn announced_lifetime(&self) -> Option<Duration> {
        self.lifetime
    }

    /// Sends a request and waits for the head of the answer. The connection comes back with it: the answer's body is
    /// read from it, and after a 101 it is the tunnel's.
    pub(crate) async fn exchange(
        mut self: Box<Self>,
        request: &mut Request<Body>,
        reading: Reading,
        extra: Option<Extra<'_>>,
    ) -> Result<Box<Self>, Failure> {
        let mut whole = None;
        let ending = self.put_head(request, extra, &mut whole);
        if let Err(error) = poll_fn(|cx| self.wire.poll_write_some(cx)).await {
            if let Some(whole) = whole {
                request.body_mut().put_back(whole);
            }
            return Err(Failure::Unsent(error.into()));
        }
        let repeatable = whole.is_none() && request.body().is_empty() && may_be_repeated(request);
        // Not needed any more, and an answer may take long.
        if let Some(fields) = request.body_mut().take_fields() {
            fields.recycle();
        }
        let asker = Asker { method: std::mem::take(request.method_mut()), origin: request.body().origin(), reading };
        if whole.is_none() && !request.body().is_empty() {
            let body = std::mem::take(request.body_mut());
            let hold = expects_continue(request.headers()).then(|| Box::pin(sleep(CONTINUE_PATIENCE)));
            self.sending = Some(Sending { body, outgoing: Outgoing::new(ending), hold });
        }
        if !request.headers().is_empty() {
            *request.headers_mut() = HeaderMap::new();
        }
        if repeatable { self.send_repeatable(asker).await } else { self.answer(asker, None).await }
    }

    /// Puts a request's head on the wire, and `whole`, its body, if it is small and here already.
    fn put_head(&mut self, request: &mut Request<Body>, extra: Option<Extra<'_>>, whole: &mut Option<Bytes>) -> Ending {
        let waits = !request.body().is_empty() && expects_continue(request.headers());
        if !waits {
            *whole = request.body_mut().take_whole();
        }
        let ending = ending(request.method(), request.body(), whole.as_ref());
        self.reusable = true;
        self.wire.forget_written();
        self.wire.small().reserve(512);
        encode::request(self.wire.small(), request, request.body().fields(), extra, ending, self.title_case);
        if let Some(whole) = whole {
            let after = encode::before_data(self.wire.small(), whole, ending);
            self.wire.put(whole.clone(), after);
        }
        ending
    }

    /// Sends a request once more, on a connection that has not been used yet.
    pub(crate) async fn repeat(mut self: Box<Self>, repeat: Repeat) -> Result<Box<Self>, Failure> {
        *self.wire.small() = repeat.head;
        self.send_repeatable(repeat.asker).await
    }

    /// Keeps what is written until there is an answer.
    async fn send_repeatable(mut self: Box<Self>, asker: Asker) -> Result<Box<Self>, Failure> {
        let written = poll_fn(|cx| self.wire.poll_write_out(cx)).await;
        let head = self.wire.take_small();
        match written {
            Ok(()) => self.answer(asker, Some(head)).await,
            Err(error) => Err(Failure::Died(error.into(), Some(Box::new(Repeat { head, asker })))),
        }
    }

    async fn answer(mut self: Box<Self>, asker: Asker, mut head: Option<Vec<u8>>) -> Result<Box<Self>, Failure> {
        // There may be any number of answers before the answer: the clock and the client have their turn in between.
        let mut pause = false;
        loop {
            let answered = poll_fn(|cx| {
                if std::mem::take(&mut pause) {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                self.poll_head(&asker, cx)
            });
            match answered.await {
                Ok(()) => {}
                Err(error) if !error.is_end() || !self.wire.input.is_empty() => return Err(Failure::Broken(error)),
                Err(error) => {
                    return Err(Failure::Died(error, head.map(|head| Box::new(Repeat { head, asker }))));
                }
            }
            // From here on there has been an answer, and the buffer may serve again.
            if let Some(head) = head.take() {
                self.wire.give_small(head);
            }
            if self.lines.is_some() {
                return Ok(self);
            }
            match self.head.status() {
                StatusCode::SWITCHING_PROTOCOLS => return Ok(self),
                StatusCode::CONTINUE => {
                    if let Some(sending) = &mut self.sending {
                        sending.hold = None;
                    }
                }
                status if status.is_informational() => {
                    if let Some(origin) = &asker.origin {
                        origin.interim(status, &end_to_end(self.head.headers()));
                    }
                }
                _ => return self.begin_body(&asker.method),
            }
            pause = true;
        }
    }

    fn begin_body(mut self: Box<Self>, method: &Method) -> Result<Box<Self>, Failure> {
        let response = &self.head;
        let framing = framing::of_answer(method, response.status(), response.version(), response.headers());
        let (framing, reusable) = framing.map_err(|why| Failure::Broken(ExchangeError::Malformed(why.into())))?;
        let keep_alive = response.headers().get("keep-alive");
        self.lifetime = keep_alive.and_then(|value| framing::announced_lifetime(value.as_bytes()));
        self.expect_body(framing, reusable);
        Ok(self)
    }

    fn begin_simple(&mut self, simple: Simple) {
        self.lifetime = simple.lifetime;
        self.expect_body(simple.framing, simple.reusable);
        // What an answer before the answer said was for then.
        if !self.head.headers().is_empty() {
            *self.head.headers_mut() = HeaderMap::new();
        }
        *self.head.status_mut() = simple.status;
        *self.head.version_mut() = simple.version;
        self.lines = Some(simple.lines);
    }

    fn expect_body(&mut self, framing: Framing, reusable: bool) {
        self.decoder = Decoder::new(framing);
        self.reusable &= reusable;
        if self.sending.as_ref().is_some_and(|sending| sending.hold.is_some()) {
            // Answered without asking for the body: it is never sent, and the client's side may end.
            self.sending = None;
            self.reusable = false;
        }
    }

    /// The next head: with [`Connection::lines`] if it is simple, and then its body is expected as well.
    fn poll_head(&mut self, asker: &Asker, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        self.pump(cx)?;
        let mut reader = Reader { asker, title_case: self.title_case, simple: None, head: &mut self.head };
        match ready!(self.wire.poll_head(cx, MOST_HEAD, &mut reader)) {
            Ok(()) => {
                if let Some(simple) = reader.simple {
                    self.begin_simple(simple);
                }
                Poll::Ready(Ok(()))
            }
            Err(HeadError::Eof { begun: false }) => Poll::Ready(Err(ExchangeError::Eof)),
            Err(HeadError::Eof { begun: true }) => {
                Poll::Ready(Err(ExchangeError::Malformed("unexpected EOF in the head".into())))
            }
            Err(HeadError::Malformed(malformed)) => Poll::Ready(Err(malformed.into())),
            Err(HeadError::Io(error)) => Poll::Ready(Err(error.into())),
        }
    }

    /// Goes on with the request: its head, then its body. What the target no longer takes is not waited for, since its
    /// answer may be there already.
    fn pump(&mut self, cx: &mut Context<'_>) -> Result<(), ExchangeError> {
        let pumped = match &mut self.sending {
            Some(sending) => sending.poll(&mut self.wire, self.title_case, cx),
            None if self.wire.is_flushed() => return Ok(()),
            None => self.wire.poll_flush(cx).map_err(ExchangeError::Io),
        };
        match pumped {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.sending = None,
            Poll::Ready(Err(error @ ExchangeError::RequestBody(_))) => return Err(error),
            Poll::Ready(Err(_)) => {
                self.sending = None;
                self.wire.take_small();
                self.reusable = false;
            }
        }
        Ok(())
    }

    /// The next frame of the answer's body.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.pump(cx)?;
        self.decoder.poll_frame(&mut self.wire, cx).map_err(Into::into)
    }

    /// Whether the answer's body is over.
    pub(crate) fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// What is known of the length of the rest of the body.
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.decoder.size_hint()
    }

    /// Whether another exchange may follow, now that this one is over.
    pub(crate) fn is_reusable(&self) -> bool {
        self.reusable && self.sending.is_none() && self.wire.is_flushed() && self.wire.input.is_empty()
    }

    /// The bytes of a connection that has switched protocols.
    pub(crate) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }
}

/// Reads the head of an answer.
struct Reader<'a> {
    asker: &'a Asker,
    title_case: bool,
    simple: Option<Simple>,
    /// If it is not simple.
    head: &'a mut Response<()>,
}

impl ReadHead for Reader<'_> {
    fn read_simple(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.asker.reading != Reading::Lines {
            return None;
        }
        let (simple, length) = lines::read(bytes, &self.asker.method, self.title_case)?;
        self.simple = Some(simple);
        Some(length)
    }

    fn read(&mut self, head: &[u8]) -> Result<(), Malformed> {
        *self.head = head::response(head)?;
        Ok(())
    }
}

impl Sending {
    fn poll(&mut self, wire: &mut Wire, title_case: bool, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        for _ in 0..ROUNDS {
            let mut waits = false;
            if let Some(hold) = &mut self.hold {
                waits = hold.as_mut().poll(cx).is_pending();
                if !waits {
                    self.hold = None;
                }
            }
            while !waits && !self.outgoing.ended() && wire.takes_more() {
                match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Ready(frame) => {
                        let frame = frame.transpose().map_err(ExchangeError::RequestBody)?;
                        self.outgoing.put(frame, wire, title_case).map_err(ExchangeError::RequestBody)?;
                    }
                    Poll::Pending => waits = true,
                }
            }
            ready!(wire.poll_flush(cx))?;
            if self.outgoing.ended() {
                return Poll::Ready(Ok(()));
            }
            if waits {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl ExchangeError {
    /// Whether the connection ended, as one does that the target closed while we wrote.
    fn is_end(&self) -> bool {
        match self {
            Self::Eof => true,
            Self::Io(error) => matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted
            ),
            Self::Malformed(_) | Self::RequestBody(_) => false,
        }
    }
}

impl From<Malformed> for ExchangeError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.to_string())
    }
}

/// How the body of a request ends on the wire.
fn ending(method: &Method, body: &Body, whole: Option<&Bytes>) -> Ending {
    if let Some(whole) = whole {
        return Ending::Length(whole.len() as u64);
    }
    if body.is_empty() {
        // Some servers wait for a length where a body is usual (RFC 9110 §8.6).
        let usual = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
        return if usual { Ending::Length(0) } else { Ending::None };
    }
    body.size_hint().exact().map_or(Ending::Chunked, Ending::Length)
}

/// Upstream's rule (Go's `net/http`) for a request without a body: a safe method or an idempotency key.
fn may_be_repeated(request: &Request<Body>) -> bool {
    const KEYS: [HeaderName; 2] =
        [HeaderName::from_static("idempotency-key"), HeaderName::from_static("x-idempotency-key")];
    matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
        || KEYS.iter().any(|key| Headers::of(request).get(key).is_some())
}

fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    let present = Present::of(&headers);
    crate::headers::remove_hop_by_hop(&mut headers, present);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_requests_and_those_with_a_key_may_be_repeated() {
        let repeated = |method: Method, key: Option<&str>| {
            let mut request = Request::new(Body::empty());
            *request.method_mut() = method;
            if let Some(key) = key {
                request
                    .headers_mut()
                    .insert(http::HeaderName::from_bytes(key.as_bytes()).unwrap(), "1".parse().unwrap());
            }
            may_be_repeated(&request)
        };
        for safe in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE] {
            assert!(repeated(safe.clone(), None), "{safe}");
        }
        for unsafe_method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            assert!(!repeated(unsafe_method.clone(), None), "{unsafe_method}");
            assert!(repeated(unsafe_method.clone(), Some("idempotency-key")), "{unsafe_method} with a key");
            assert!(repeated(unsafe_method.clone(), Some("x-idempotency-key")), "{unsafe_method} with a key");
        }
    }

    #[test]
    fn a_request_says_how_its_body_ends() {
        let of = |method: Method, body: Body, whole: Option<&'static str>| {
            ending(&method, &body, whole.map(|whole| Bytes::from_static(whole.as_bytes())).as_ref())
        };
        let stream = || Body::boxed(http_body_util::StreamBody::new(futures::stream::empty::<Result<_, BoxError>>()));
        for (method, body, whole, expected) in [
            (Method::GET, Body::empty(), None, Ending::None),
            (Method::DELETE, Body::empty(), None, Ending::None),
            (Method::POST, Body::empty(), None, Ending::Length(0)),
            (Method::GET, Body::empty(), Some("abc"), Ending::Length(3)),
            (Method::POST, Body::full("ab"), None, Ending::Length(2)),
            (Method::POST, stream(), None, Ending::Chunked),
        ] {
            assert_eq!(of(method.clone(), body, whole), expected, "{method}");
        }
    }
}
