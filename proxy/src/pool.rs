//! Connections to targets, kept and reused.
//!
//! A target is an address, with or without TLS. HTTP/1: a stack per target. The most recently used connection is taken first, so that a falling load lets the rest
//! go idle and die. A connection that rested is looked at again before it is trusted, which catches the target that has
//! closed its keep-alive side: upstream's most reported 502. h2: one shared connection per target.
//!
//! The protocol follows the request's version. What the pool never does: convert protocols, balance, wait for slots.
//!
//! # Repeating
//! - Nothing was written: the request goes to another connection, body and all. If a *new* connection cannot be
//!   opened, the caller has its request back as it was.
//! - Something may have been written on a *reused* HTTP/1 connection that died before the first byte of the answer:
//!   repeated once on a new connection if there is no body and the method is safe (or carries an idempotency key).
//! - Everything else is an error. If it says so ([`SendError::into_repeat`]), the request may be sent once more, to any
//!   target ([`Endpoint::repeat`]).

mod error;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

use futures::future::Either;
use hashbrown::HashMap;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use crate::body::Body;
use crate::clock;
use crate::dial::{DialPolicy, dial};
use crate::h1::client::{Connection, Failure, Reading};
pub use crate::h1::client::{ExchangeError, Repeat};
use crate::h1::{Added, Extra};
use crate::runtime::LocalExecutor;
use crate::stream::Stream;
use crate::tls::client::Secure;
pub use error::{SendError, SendFault};

/// How many connections to keep and for how long.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// Idle HTTP/1 connections kept in all.
    pub max_idle: usize,
    /// Idle HTTP/1 connections kept per target.
    pub max_idle_per_target: usize,
    /// How long an idle HTTP/1 connection is kept, unless the target announced less in `Keep-Alive: timeout=`.
    pub idle_lifetime: Duration,
    /// How new connections are opened.
    pub dial: DialPolicy,
    /// Header names on HTTP/1 as `X-Lower` rather than `x-lower`; some apps still compare by case.
    pub title_case_headers: bool,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            max_idle: usize::MAX,
            max_idle_per_target: 1000,
            idle_lifetime: Duration::from_secs(90),
            dial: DialPolicy::default(),
            title_case_headers: true,
        }
    }
}

/// A connection that rested at least this long may just be closed by its target for that, so the socket itself is asked
/// before it is trusted. For a shorter time it is enough that the event loop has heard nothing, which costs no system
/// call.
const TRUSTED_FOR: Duration = Duration::from_millis(100);
/// How often idle connections are looked at, so that those which the target has closed do not linger.
const SWEEP: Duration = Duration::from_secs(5);

/// The pool of one thread: targets by address.
#[derive(Debug, Clone)]
pub struct Pool {
    inner: Rc<PoolInner>,
}

#[derive(Debug)]
struct PoolInner {
    config: Rc<PoolConfig>,
    endpoints: RefCell<HashMap<SocketAddr, Endpoint>>,
    /// Idle connections of all targets.
    idle: Rc<Cell<usize>>,
}

impl Pool {
    /// An empty pool.
    pub fn new(config: PoolConfig) -> Self {
        let config = Rc::new(config);
        Self { inner: Rc::new(PoolInner { config, endpoints: RefCell::default(), idle: Rc::default() }) }
    }

    /// The target's own stack, without TLS; keep it where the target is known to save the look-up.
    pub fn endpoint(&self, target: SocketAddr) -> Endpoint {
        self.endpoint_over(target, None)
    }

    /// The same, over TLS or not. An address has one stack: another kind of connection replaces it.
    pub fn endpoint_over(&self, target: SocketAddr, tls: Option<&Secure>) -> Endpoint {
        if let Some(endpoint) = self.inner.endpoints.borrow().get(&target)
            && endpoint.inner.tls.as_ref() == tls
        {
            return endpoint.clone();
        }
        let endpoint = Endpoint::within(&self.inner, target, tls.cloned());
        let replaced = self.inner.endpoints.borrow_mut().insert(target, endpoint.clone());
        if let Some(replaced) = replaced {
            replaced.retire();
        }
        endpoint
    }

    /// Sends a request to a target; see [`Endpoint::send`].
    pub async fn send(&self, target: SocketAddr, request: &mut Request<Body>) -> Result<Response<Body>, SendError> {
        self.endpoint(target).send(request).await
    }

    /// Headers made ready for [`Endpoint::forward`], written as this pool writes names; see [`Added::of`].
    pub fn added(&self, headers: &HeaderMap) -> Option<Added> {
        Added::of(headers, self.inner.config.title_case_headers)
    }

    /// Forgets a target that is gone: idle connections close now, busy ones at the end of their request.
    pub fn forget(&self, target: SocketAddr) {
        if let Some(endpoint) = self.inner.endpoints.borrow_mut().remove(&target) {
            endpoint.retire();
        }
    }

    /// Forgets all targets the test rejects.
    pub fn retain(&self, mut keep: impl FnMut(SocketAddr) -> bool) {
        self.inner.endpoints.borrow_mut().retain(|target, endpoint| {
            let keep = keep(*target);
            if !keep {
                endpoint.retire();
            }
            keep
        });
    }

    /// Targets known.
    pub fn len(&self) -> usize {
        self.inner.endpoints.borrow().len()
    }

    /// Whether no target is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Idle HTTP/1 connections of all targets.
    pub fn idle(&self) -> usize {
        self.inner.idle.get()
    }
}

impl PoolInner {
    /// Closes the idle connections that rested longest: the older half of the time since the oldest was used. Looking
    /// at all targets pays off, since it is not done again before about as many have come to rest.
    fn make_room(&self) {
        let endpoints = self.endpoints.borrow();
        // In each stack the oldest is at the bottom.
        let oldest = endpoints.values().filter_map(|one| one.inner.idle.borrow().first().map(|idle| idle.since)).min();
        let Some(oldest) = oldest else { return };
        let newest_to_go = oldest + oldest.elapsed() / 2;
        for endpoint in endpoints.values() {
            endpoint.inner.idle.borrow_mut().retain(|idle| idle.since > newest_to_go);
        }
    }
}

/// One idle connection in the sum of all.
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(sum: &Rc<Cell<usize>>) -> Self {
        sum.set(sum.get() + 1);
        Self(Rc::clone(sum))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// One target and its connections.
#[derive(Clone)]
pub struct Endpoint {
    inner: Rc<EndpointInner>,
}

struct EndpointInner {
    target: SocketAddr,
    tls: Option<Secure>,
    pool: Weak<PoolInner>,
    all_idle: Rc<Cell<usize>>,
    config: Rc<PoolConfig>,
    idle: RefCell<Vec<Idle>>,
    sweeping: Cell<bool>,
    retired: Cell<bool>,
    h2: RefCell<Option<http2::SendRequest<Body>>>,
    /// Held while an h2 connection is opened, so that a burst opens one.
    h2_opening: tokio::sync::Mutex<()>,
}

struct Idle {
    connection: Box<Connection>,
    _counted: Counted,
    since: Instant,
    lifetime: Duration,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("target", &self.inner.target)
            .field("idle", &self.idle())
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// A target without connections, outside any [`Pool`] and without TLS.
    pub fn new(target: SocketAddr, config: Rc<PoolConfig>) -> Self {
        Self::with(target, None, config, Weak::new(), Rc::default())
    }

    fn within(pool: &Rc<PoolInner>, target: SocketAddr, tls: Option<Secure>) -> Self {
        Self::with(target, tls, Rc::clone(&pool.config), Rc::downgrade(pool), Rc::clone(&pool.idle))
    }

    fn with(
        target: SocketAddr,
        tls: Option<Secure>,
        config: Rc<PoolConfig>,
        pool: Weak<PoolInner>,
        all_idle: Rc<Cell<usize>>,
    ) -> Self {
        Self {
            inner: Rc::new(EndpointInner {
                target,
                tls,
                pool,
                all_idle,
                config,
                idle: RefCell::default(),
                sweeping: Cell::new(false),
                retired: Cell::new(false),
                h2: RefCell::default(),
                h2_opening: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// The address.
    pub fn target(&self) -> SocketAddr {
        self.inner.target
    }

    /// Idle HTTP/1 connections.
    pub fn idle(&self) -> usize {
        self.inner.idle.borrow().len()
    }

    /// Sends a request and returns when the response head is there; its body streams on.
    ///
    /// An HTTP/1 request must be in origin form (path and query only) with a Host header. What is sent is taken out of
    /// the request; after an error that says [`SendError::is_unsent`] it is whole and may go elsewhere. Dropping the
    /// future cancels the request at the target.
    pub async fn send(&self, request: &mut Request<Body>) -> Result<Response<Body>, SendError> {
        self.exchange(request, Reading::Headers, None).await.map(Answer::into_response)
    }

    /// The same for an answer that goes on to the client as it is: the header lines of an HTTP/1 answer then mostly
    /// travel with its body, unread, and its header map holds only the rest. A server takes them from there.
    /// `extra`: for HTTP/1 only; of an h2 request all headers are in its map.
    pub fn forward<'a>(
        &'a self,
        request: &'a mut Request<Body>,
        extra: Option<Extra<'a>>,
    ) -> impl Future<Output = Result<Answer, SendError>> + 'a {
        self.exchange(request, Reading::Lines, extra)
    }

    /// Written without `async`, and with the request lent, so that what every connection reserves stays small.
    fn exchange<'a>(
        &'a self,
        request: &'a mut Request<Body>,
        reading: Reading,
        extra: Option<Extra<'a>>,
    ) -> impl Future<Output = Result<Answer, SendError>> + 'a {
        if request.version() == Version::HTTP_2 {
            Either::Left(Box::pin(self.exchange_h2(request)))
        } else {
            Either::Right(self.exchange_h1(request, reading, extra))
        }
    }

    async fn exchange_h1(
        &self,
        request: &mut Request<Body>,
        reading: Reading,
        extra: Option<Extra<'_>>,
    ) -> Result<Answer, SendError> {
        loop {
            let (connection, reused) = match self.checkout() {
                Some(connection) => (connection, true),
                None => (Box::pin(self.open_h1()).await.map_err(SendError::unsent)?, false),
            };
            match connection.exchange(request, reading, extra).await {
                Ok(connection) => return Ok(self.lease(connection)),
                Err(Failure::Unsent(_)) if reused => {}
                Err(Failure::Died(_, Some(repeat))) if reused => return Box::pin(self.repeat(repeat)).await,
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    /// Sends what another exchange left unanswered ([`SendError::into_repeat`]), byte by byte as it was, on a connection
    /// that has not been used yet.
    pub async fn repeat(&self, repeat: Box<Repeat>) -> Result<Answer, SendError> {
        match self.open_h1().await {
            Ok(connection) => Ok(self.lease(connection.repeat(*repeat).await?)),
            Err(fault) => Err(SendError::unanswered(fault, Some(repeat))),
        }
    }

    async fn exchange_h2(&self, request: &mut Request<Body>) -> Result<Answer, SendError> {
        // Twice: a shared connection may have gone away since it was last used; a new one has no such excuse.
        loop {
            let (mut sender, reused) = self.h2_sender().await.map_err(SendError::unsent)?;
            match sender.try_send_request(std::mem::take(request)).await {
                Ok(response) => return Ok(Answer(Answered::Http2(Box::new(response.map(Body::incoming))))),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => {
                        *request = unsent;
                        if !reused {
                            return Err(SendError::unsent(SendFault::H2(error.into_error())));
                        }
                    }
                    None => return Err(SendError::sent(SendFault::H2(error.into_error()))),
                },
            }
        }
    }

    /// The most recently used connection that is still good.
    fn checkout(&self) -> Option<Box<Connection>> {
        loop {
            let mut idle = self.inner.idle.borrow_mut().pop()?;
            let rested = clock::now().saturating_duration_since(idle.since);
            if rested <= idle.lifetime && idle.connection.is_quiet(rested >= TRUSTED_FOR) {
                return Some(idle.connection);
            }
        }
    }

    fn lease(&self, connection: Box<Connection>) -> Answer {
        let kept = self.inner.config.idle_lifetime;
        let lifetime = connection.announced_lifetime().map_or(kept, |announced| announced.min(kept));
        Answer(Answered::Http1(connection, Lease { endpoint: Rc::downgrade(&self.inner), lifetime }))
    }

    async fn open_h1(&self) -> Result<Box<Connection>, SendFault> {
        Ok(Box::new(Connection::new(self.open().await?, self.inner.config.title_case_headers)))
    }

    async fn open(&self) -> Result<Stream, SendFault> {
        let target = self.inner.target;
        let stream =
            dial(target, &self.inner.config.dial).await.map_err(|source| SendFault::Dial { target, source })?;
        let Some(tls) = &self.inner.tls else { return Ok(Stream::Plain(stream)) };
        // Boxed: the common case should not reserve room for a handshake.
        let stream = Box::pin(tls.connect(stream)).await.map_err(|source| SendFault::Tls { target, source })?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }

    async fn h2_sender(&self) -> Result<(http2::SendRequest<Body>, bool), SendFault> {
        if let Some(sender) = self.live_h2() {
            return Ok((sender, true));
        }
        let _opening = self.inner.h2_opening.lock().await;
        if let Some(sender) = self.live_h2() {
            return Ok((sender, true));
        }
        let stream = self.open().await?;
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(64 << 20)
            .max_header_list_size(10 << 20)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(SendFault::H2)?;
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        if !self.inner.retired.get() {
            *self.inner.h2.borrow_mut() = Some(sender.clone());
        }
        Ok((sender, false))
    }

    fn live_h2(&self) -> Option<http2::SendRequest<Body>> {
        let mut slot = self.inner.h2.borrow_mut();
        match &*slot {
            Some(sender) if !sender.is_closed() => Some(sender.clone()),
            _ => {
                *slot = None;
                None
            }
        }
    }

    fn retire(&self) {
        self.inner.retired.set(true);
        self.inner.idle.borrow_mut().clear();
        self.inner.h2.borrow_mut().take();
    }
}

/// An answer whose head is there. Handed on as a few words; a [`Response`] is large.
#[derive(Debug)]
pub struct Answer(Answered);

#[derive(Debug)]
enum Answered {
    /// The connection has the head.
    Http1(Box<Connection>, Lease),
    Http2(Box<Response<Body>>),
}

impl Answer {
    /// Its status.
    pub fn status(&self) -> StatusCode {
        match &self.0 {
            Answered::Http1(connection, _) => connection.status(),
            Answered::Http2(response) => response.status(),
        }
    }

    /// The same as a response; its body streams on.
    pub fn into_response(self) -> Response<Body> {
        match self.0 {
            Answered::Http1(mut connection, lease) => {
                let head = connection.take_head();
                let switches = head.status() == StatusCode::SWITCHING_PROTOCOLS;
                head.map(|()| if switches { Body::switched(connection) } else { Body::answer(connection, lease) })
            }
            Answered::Http2(response) => *response,
        }
    }
}

/// Where the connection of an answer goes when its body is over.
#[derive(Debug)]
pub(crate) struct Lease {
    endpoint: Weak<EndpointInner>,
    lifetime: Duration,
}

impl Lease {
    /// The answer is complete; the connection may serve another, if it can.
    pub(crate) fn give_back(self, connection: Box<Connection>) {
        let Some(endpoint) = self.endpoint.upgrade() else { return };
        if endpoint.retired.get() || !connection.is_reusable() {
            return;
        }
        if endpoint.all_idle.get() >= endpoint.config.max_idle {
            if let Some(pool) = endpoint.pool.upgrade() {
                pool.make_room();
            }
            if endpoint.all_idle.get() >= endpoint.config.max_idle {
                return; // no room for any
            }
        }
        {
            let mut idle = endpoint.idle.borrow_mut();
            if idle.len() >= endpoint.config.max_idle_per_target {
                return;
            }
            let counted = Counted::new(&endpoint.all_idle);
            idle.push(Idle { connection, _counted: counted, since: clock::now(), lifetime: self.lifetime });
        }
        if !endpoint.sweeping.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(&endpoint), endpoint.config.idle_lifetime.min(SWEEP)));
        }
    }
}

/// Closes connections that rested too long or that the target has closed. Runs only while there are any.
async fn sweep(endpoint: Weak<EndpointInner>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(endpoint) = endpoint.upgrade() else { return };
        let mut idle = endpoint.idle.borrow_mut();
        idle.retain_mut(|idle| idle.since.elapsed() < idle.lifetime && idle.connection.is_quiet(true));
        if idle.is_empty() {
            idle.shrink_to_fit();
            endpoint.sweeping.set(false);
            return;
        }
    }
}
