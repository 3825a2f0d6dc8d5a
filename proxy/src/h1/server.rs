//! The client's side of HTTP/1: head → service → answer, until one of the two sides has had enough.
//!
//! One task per connection, in which the service runs as well. While a request is under way its client is watched: one
//! that hangs up takes the request with it. A connection that rests is parked: everything but the socket goes.
//!
//! The request's [`Body`] and whoever forwards it share the connection as [`Origin`]; the borrow of it never lasts
//! over a call into foreign code.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use http::header::CONNECTION;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::service::Service;
use tokio::time::sleep;

use super::decode::Decoder;
use super::encode::{self, Ending, Keep};
use super::fields;
use super::framing::Framing;
use super::head::{self, Malformed, RequestHead};
use super::origin::Origin;
use super::outgoing::Outgoing;
use super::rest::Rest;
use super::wire::{HeadError, ReadHead, Wire};
use crate::BoxError;
use crate::accept::ServerConfig;
use crate::body::{AnswerBody, Body};
use crate::drain::Drain;
use crate::errors::Fault;
use crate::headers::{expects_continue, lists};
use crate::stream::Stream;

/// Requests that a client sends ahead are kept up to this; then it has to wait.
const AHEAD: usize = 64 * 1024;
/// A body of at most this length is taken in while its request waits.
const TAKEN_IN: u64 = 16 * 1024;
/// What is left of a body that nobody wanted is read and forgotten up to this, to save the connection.
const FORGOTTEN: usize = 256 * 1024;
/// How long a closing connection still listens, so that what the client was sending does not turn our last answer
/// into a reset.
const LINGER: Duration = Duration::from_millis(500);

/// Serves requests until the connection ends.
pub(crate) async fn serve<S, B>(stream: Stream, config: &ServerConfig, drain: &Drain, service: &S)
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: AnswerBody + Unpin,
    B::Error: Into<BoxError>,
{
    let origin = Origin::new(stream, config.title_case_headers);
    loop {
        // Boxed, so that a parked connection does not keep the room of a busy one.
        let ended = Box::pin(Busy { origin: &origin, config, drain }.serve(service)).await;
        if !matches!(ended, Ended::Resting) {
            origin.give_up();
        }
        match ended {
            Ended::Resting => {}
            Ended::Closing => return linger(&origin).await,
            Ended::Gone => return,
        }
        origin.with_wire(Wire::shrink);
        let bytes_came = tokio::select! {
            // In this order: a request that is here already is served.
            biased;
            came = poll_fn(|cx| origin.with_wire(|wire| wire.poll_bytes_come(cx))) => came,
            () = drain.started() => false,
        };
        if !bytes_came {
            return;
        }
    }
}

/// Closes so that the client gets all that was written: says so, and listens for a moment.
async fn linger(origin: &Origin) {
    let farewell = async {
        poll_fn(|cx| origin.with_wire(|wire| wire.poll_shutdown(cx))).await?;
        while poll_fn(|cx| origin.with_wire(|wire| wire.poll_fill(cx))).await? > 0 {
            origin.with_wire(|wire| wire.input.clear());
        }
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LINGER, farewell).await;
}

/// Why a connection is not busy any more.
enum Ended {
    /// No request for a while.
    Resting,
    /// The last answer is out.
    Closing,
    /// Nobody is there any more, or the connection belongs to somebody else.
    Gone,
}

/// A connection with requests on it.
struct Busy<'a> {
    origin: &'a Origin,
    config: &'a ServerConfig,
    drain: &'a Drain,
}

impl Busy<'_> {
    async fn serve<S, B>(self, service: &S) -> Ended
    where
        S: Service<Request<Body>, Response = Response<B>>,
        S::Error: Into<BoxError>,
        B: AnswerBody + Unpin,
        B::Error: Into<BoxError>,
    {
        let mut rest = pin!(Rest::new(self.origin.requests()));
        loop {
            let (asked, request) = {
                // Read into this place: heads and answers are large, and to hand them on costs more than to look at them.
                let mut head = None;
                match poll_fn(|cx| self.poll_head(&mut head, rest.as_mut(), cx)).await {
                    Next::Head => {}
                    Next::Refused(malformed) => return self.refuse(malformed).await,
                    Next::Ended(ended) => return ended,
                }
                let Some(head) = head else { return Ended::Gone };
                (Asked::of(&head), self.begin(head))
            };
            let mut answer = None;
            {
                let mut call = pin!(service.call(request));
                poll_fn(|cx| match call.as_mut().poll(cx) {
                    Poll::Ready(answered) => {
                        answer = Some(answered);
                        Poll::Ready(())
                    }
                    Poll::Pending => self.poll_hang_up(cx),
                })
                .await;
            }
            if let Some(Ok(answer)) = &mut answer {
                match self.answer(&asked, answer).await {
                    None => continue,
                    Some(ended) => return ended,
                }
            }
            // A client that is gone is told nothing; dropping the call has ended what it asked for.
            if let Some(Err(error)) = answer {
                tracing::debug!(error = %error.into(), "connection ended by its service");
            }
            return Ended::Gone;
        }
    }

    /// The next head, or why there is none. Nothing but a resting connection waits long for its first byte.
    fn poll_head(&self, head: &mut Option<RequestHead>, mut rest: Pin<&mut Rest>, cx: &mut Context<'_>) -> Poll<Next> {
        let most = self.config.max_header_bytes;
        let mut reader =
            Reader { head, keep_lines: self.config.keep_lines, title_case: self.config.title_case_headers };
        let side = &mut *self.origin.side.borrow_mut();
        match side.wire.poll_head(cx, most, &mut reader) {
            Poll::Ready(Ok(())) => {
                rest.head_timer = None;
                return Poll::Ready(Next::Head);
            }
            Poll::Ready(Err(HeadError::Malformed(malformed))) => return Poll::Ready(Next::Refused(malformed)),
            Poll::Ready(Err(HeadError::Eof { .. } | HeadError::Io(_))) => {
                return Poll::Ready(Next::Ended(Ended::Gone));
            }
            Poll::Pending => {}
        }
        if !side.wire.input.is_empty() {
            let timeout = self.config.header_read_timeout;
            let timer = rest.head_timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
            return timer.as_mut().poll(cx).map(|()| Next::Ended(Ended::Closing));
        }
        rest.poll(side.request, cx).map(|()| Next::Ended(Ended::Resting))
    }

    /// The request for the service; its body is read from the connection.
    fn begin(&self, head: RequestHead) -> Request<Body> {
        let RequestHead { request, framing, fields, .. } = head;
        let empty = framing == Framing::Length(0);
        {
            let side = &mut *self.origin.side.borrow_mut();
            side.request += 1;
            side.decoder = Decoder::new(framing);
            side.interim = request.version() == Version::HTTP_11;
            side.continue_due = !empty && expects_continue(request.headers());
        }
        request.map(|()| Body::from_origin(self.origin.of_current(), empty, fields))
    }

    /// Ready when the client has gone. What it sends ahead is kept within bounds.
    fn poll_hang_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        let side = &mut *self.origin.side.borrow_mut();
        if !side.wire.is_flushed() && matches!(side.wire.poll_flush(cx), Poll::Ready(Err(_))) {
            return Poll::Ready(());
        }
        // A small body is taken in, so that it is seen when the client leaves while its request waits in a line. What is
        // still to come of a larger one is for its reader.
        let small = !side.continue_due && matches!(side.decoder, Decoder::Length(left) if left <= TAKEN_IN);
        while (small || side.decoder.is_read(&side.wire)) && side.wire.input.len() < AHEAD {
            ready!(side.wire.poll_readable(cx));
            match ready!(side.wire.poll_fill(cx)) {
                Ok(1..) => {
                    if let Some(reader) = side.reader.take() {
                        reader.wake();
                    }
                }
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Writes an answer; `None` if the connection goes on.
    async fn answer<B>(&self, asked: &Asked, answer: &mut Response<B>) -> Option<Ended>
    where
        B: AnswerBody + Unpin,
        B::Error: Into<BoxError>,
    {
        let status = answer.status();
        let ending = encode::ending(&asked.method, asked.version, status, answer.body().size_hint().exact());
        let keep = self.keep(asked, answer.headers(), ending);
        {
            let passed = answer.body_mut().take_lines();
            let side = &mut *self.origin.side.borrow_mut();
            side.interim = false;
            let title_case = side.title_case;
            side.wire.small().reserve(512);
            let out = side.wire.small();
            encode::response(out, status, answer.headers(), passed.as_ref(), ending, keep, title_case);
            if let Some(passed) = passed {
                passed.recycle();
            }
        }
        // Not needed any more, and a body may take long.
        if !answer.headers().is_empty() {
            *answer.headers_mut() = HeaderMap::new();
        }
        let (mut body, mut outgoing) = (Pin::new(answer.body_mut()), Outgoing::new(ending));
        if let Err(error) = poll_fn(|cx| self.poll_answer(body.as_mut(), &mut outgoing, cx)).await {
            tracing::debug!(%error, "answer broke off");
            return Some(Ended::Gone);
        }
        if status == StatusCode::SWITCHING_PROTOCOLS {
            let handed = self.origin.side.borrow_mut().hand_over.take();
            return Some(handed.map_or(Ended::Closing, |handed| {
                let _ = handed.send(());
                Ended::Gone
            }));
        }
        if keep == Keep::Close || !(self.origin.side.borrow().decoder.is_done() || self.forget_body().await) {
            Some(Ended::Closing)
        } else {
            None
        }
    }

    /// Whether the client may send another request after this answer.
    fn keep(&self, asked: &Asked, headers: &HeaderMap, ending: Ending) -> Keep {
        let closing = !asked.keep_alive
            || ending == Ending::Close
            || self.drain.begun()
            // It was never asked for its body, so nobody knows whether it will send it.
            || self.origin.side.borrow().continue_due
            || (headers.contains_key(CONNECTION) && lists(headers, &CONNECTION, "close"));
        match (closing, asked.version) {
            (true, _) => Keep::Close,
            (false, Version::HTTP_10) => Keep::Alive,
            (false, _) => Keep::Silent,
        }
    }

    /// Writes what there is of an answer; ready when all of it is out.
    fn poll_answer<B>(
        &self,
        mut body: Pin<&mut B>,
        outgoing: &mut Outgoing,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BoxError>>
    where
        B: AnswerBody,
        B::Error: Into<BoxError>,
    {
        loop {
            let mut waits = false;
            while !outgoing.ended() && self.origin.with_wire(|wire| wire.takes_more()) {
                let Poll::Ready(frame) = body.as_mut().poll_frame(cx) else {
                    waits = true;
                    break;
                };
                let frame = match frame.transpose() {
                    Ok(frame) => frame,
                    Err(error) => {
                        // What came before still goes out, so that the client sees how far it got.
                        let _ = self.origin.with_wire(|wire| wire.poll_flush(cx));
                        return Poll::Ready(Err(error.into()));
                    }
                };
                let side = &mut *self.origin.side.borrow_mut();
                outgoing.put(frame, &mut side.wire, side.title_case)?;
            }
            if self.origin.with_wire(|wire| wire.poll_flush(cx))?.is_pending() {
                let moved = self.origin.with_wire(|wire| outgoing.moved(wire));
                return body.as_mut().poll_overdue(moved, cx).map(Err);
            }
            if outgoing.ended() {
                return Poll::Ready(Ok(()));
            }
            if waits {
                return self.poll_hang_up(cx).map(|()| Err("the client has gone".into()));
            }
        }
    }

    /// Reads past what is left of a request's body, within bounds; false if there is too much of it or it is not here.
    async fn forget_body(&self) -> bool {
        let mut forgotten = 0;
        poll_fn(|cx| {
            let side = &mut *self.origin.side.borrow_mut();
            while !side.decoder.is_done() && forgotten < FORGOTTEN {
                match side.decoder.poll_frame(&mut side.wire, cx) {
                    Poll::Ready(Some(Ok(frame))) => forgotten += frame.data_ref().map_or(0, Buf::remaining),
                    Poll::Ready(None) => {}
                    Poll::Ready(Some(Err(_))) | Poll::Pending => break,
                }
            }
            Poll::Ready(side.decoder.is_done())
        })
        .await
    }

    /// Answers what is no request, and ends.
    async fn refuse(&self, malformed: Malformed) -> Ended {
        let fault = match malformed {
            Malformed::Shape(why) => Fault::BadRequest(why),
            Malformed::TooLarge => Fault::HeadTooLarge,
        };
        let asked = Asked { method: Method::GET, version: Version::HTTP_11, keep_alive: false };
        self.answer(&asked, &mut fault.response(self.config.hop)).await.unwrap_or(Ended::Closing)
    }
}

/// Reads the head of a request.
struct Reader<'a> {
    head: &'a mut Option<RequestHead>,
    keep_lines: bool,
    title_case: bool,
}

impl ReadHead for Reader<'_> {
    fn read_simple(&mut self, bytes: &[u8]) -> Option<usize> {
        if !self.keep_lines {
            return None;
        }
        fields::read(bytes, self.title_case, self.head)
    }

    fn read(&mut self, head: &[u8]) -> Result<(), Malformed> {
        *self.head = Some(head::request(head)?);
        Ok(())
    }
}

/// What is remembered of a request for its answer.
struct Asked {
    method: Method,
    version: Version,
    keep_alive: bool,
}

impl Asked {
    fn of(head: &RequestHead) -> Self {
        let RequestHead { request, keep_alive, .. } = head;
        Self { method: request.method().clone(), version: request.version(), keep_alive: *keep_alive }
    }
}

enum Next {
    Head,
    Refused(Malformed),
    Ended(Ended),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use tokio::net::{TcpListener, TcpStream};

    /// Else its tunnel would wait for ever, with its slot.
    #[tokio::test]
    async fn who_asked_for_a_connection_hears_that_it_ended_without_a_101() {
        for fails in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let asked = RefCell::new(None);
            let service = hyper::service::service_fn(|request: Request<Body>| {
                let origin = request.body().origin().unwrap();
                *asked.borrow_mut() = Some((origin.hand_over(), origin));
                std::future::ready(if fails { Err("no answer") } else { Ok(Response::new(Body::full("no 101"))) })
            });
            let head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            tokio::io::AsyncWriteExt::write_all(&mut client, head).await.unwrap();
            let (config, drain) = (ServerConfig::default(), Drain::default());
            let serving = serve(Stream::Plain(stream), &config, &drain, &service);
            tokio::join!(serving, async { drop(client) });
            let (handed, _held) = asked.take().unwrap();
            assert!(tokio::time::timeout(Duration::from_secs(10), handed).await.unwrap().is_err());
        }
    }
}
