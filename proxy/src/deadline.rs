//! The three request timeouts: whole request, first response byte, longest silence.
//!
//! [`Watch`] is the pure part: what expires when. [`Deadline`] drives it with one timer per request, which moves from
//! the wait for the response ([`Deadline::run`]) into its body ([`Limited`]) or its tunnel. Once a response has begun
//! an expiry *aborts* it: the client sees a broken message, never a complete-looking one with foreign text at its end.
//!
//! [`Timers`] keeps timers for the next request, still set: nearly all requests end long before their limit, and to set a
//! timer and take it back costs more than all the rest of a deadline. A timer that fires too early is moved.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use crate::BoxError;
use crate::body::AnswerBody;
use crate::clock;
use crate::h1::Lines;

/// The limits of a request; `None` is off, zero expires at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// From the start of the request to the last byte of its response.
    pub total: Option<Duration>,
    /// From the start to the response head.
    pub response_start: Option<Duration>,
    /// Longest time without a byte of the response; the time before the first byte counts.
    pub idle: Option<Duration>,
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The whole request.
    Total,
    /// The first byte of the response.
    ResponseStart,
    /// The gap between bytes.
    Idle,
}

impl Limit {
    /// The stable word for logs, metrics and the error header.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Total => "timeout",
            Self::ResponseStart => "response-start-timeout",
            Self::Idle => "idle-timeout",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

/// What has happened to one request so far, as far as its limits care.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    start: Instant,
    total_at: Option<Instant>,
    /// `None` also once the response has started.
    response_start_at: Option<Instant>,
    idle: Option<Duration>,
    last_byte: Instant,
}

impl Watch {
    /// A request that starts now.
    pub fn new(limits: Limits, now: Instant) -> Self {
        Self {
            start: now,
            total_at: limits.total.map(|limit| now + limit),
            response_start_at: limits.response_start.map(|limit| now + limit),
            idle: limits.idle,
            last_byte: now,
        }
    }

    /// The response head is out.
    pub fn started(&mut self, now: Instant) {
        self.response_start_at = None;
        self.last_byte = now;
    }

    /// A byte of the response went out.
    pub fn moved(&mut self, now: Instant) {
        self.last_byte = now;
    }

    /// Whether there is any limit.
    pub fn is_limited(&self) -> bool {
        self.total_at.is_some() || self.response_start_at.is_some() || self.idle.is_some()
    }

    /// Which limit comes first, and when.
    pub fn next(&self) -> Option<(Instant, Limit)> {
        let mut first = self.total_at.map(|at| (at, Limit::Total));
        let idle_at = self.idle.map(|limit| self.last_byte + limit);
        for (at, limit) in [(self.response_start_at, Limit::ResponseStart), (idle_at, Limit::Idle)] {
            if let Some(at) = at
                && first.is_none_or(|(first, _)| at < first)
            {
                first = Some((at, limit));
            }
        }
        first
    }

    /// The limit that is reached at this time, if any.
    pub fn expired(&self, now: Instant) -> Option<Limit> {
        self.next().filter(|(at, _)| *at <= now).map(|(_, limit)| limit)
    }
}

/// Timers that were used and may be used again; one per runtime, since a timer belongs to its runtime. Clones share them.
#[derive(Debug, Clone, Default)]
#[allow(clippy::vec_box)] // a deadline takes its box along
pub struct Timers(Rc<RefCell<Vec<Box<Timed>>>>);

/// A [`Watch`] with its timer. Boxed: it goes along with requests and answers, from hand to hand.
#[derive(Debug)]
struct Timed {
    watch: Watch,
    /// Made when first waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Timers {
    /// Kept at most.
    const MOST: usize = 256;

    /// Starts the clock of a request.
    pub fn start(&self, limits: Limits) -> Deadline {
        self.start_at(limits, clock::now().into_std())
    }

    /// The same for a request that started then, when somebody has looked at the clock already.
    pub fn start_at(&self, limits: Limits, start: std::time::Instant) -> Deadline {
        let watch = Watch::new(limits, start.into());
        let timed = watch.is_limited().then(|| match self.0.borrow_mut().pop() {
            Some(mut timed) => {
                timed.watch = watch;
                timed
            }
            None => Box::new(Timed { watch, timer: None }),
        });
        Deadline { timed, spare: Some(self.clone()) }
    }

    fn give_back(&self, timed: Box<Timed>) {
        let mut timers = self.0.borrow_mut();
        if timers.len() < Self::MOST {
            timers.push(timed);
        }
    }
}

/// The limits of one request, and its timer. `None`: there are none.
#[derive(Debug)]
pub struct Deadline {
    timed: Option<Box<Timed>>,
    /// Where the timer comes from and goes to.
    spare: Option<Timers>,
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let (Some(timed), Some(spare)) = (self.timed.take(), &self.spare) {
            spare.give_back(timed);
        }
    }
}

impl Deadline {
    /// Starts the clock of a request.
    pub fn start(limits: Limits) -> Self {
        let watch = Watch::new(limits, Instant::now());
        Self { timed: watch.is_limited().then(|| Box::new(Timed { watch, timer: None })), spare: None }
    }

    /// No limits at all.
    pub fn unlimited() -> Self {
        Self { timed: None, spare: None }
    }

    /// The response head is out: the response-start limit is met.
    pub fn started(&mut self) {
        let Some(Timed { watch, .. }) = self.timed.as_deref_mut() else { return };
        // Without an idle limit nobody asks when.
        watch.started(if watch.idle.is_some() { clock::now() } else { watch.last_byte });
    }

    /// Runs a future until it ends or a limit is reached.
    pub fn run<F: Future>(&mut self, future: F) -> Run<'_, F, fn() -> u64> {
        self.run_while_moving(future, || 0)
    }

    /// Like [`Deadline::run`]; a change of the counter counts as a byte.
    pub fn run_while_moving<F: Future, C: Fn() -> u64>(&mut self, future: F, counter: C) -> Run<'_, F, C> {
        let seen = counter();
        Run { deadline: self, future, counter, seen }
    }

    fn byte(&mut self) {
        if let Some(Timed { watch, .. }) = self.timed.as_deref_mut()
            && watch.idle.is_some()
        {
            watch.moved(clock::now());
        }
    }

    /// Whether a timer runs.
    fn is_armed(&self) -> bool {
        self.timed.as_ref().is_some_and(|timed| timed.timer.is_some())
    }

    /// Ready when a limit is reached. The timer is moved only when it fires, not at each byte.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<Limit> {
        let Some(Timed { watch, timer }) = self.timed.as_deref_mut() else { return Poll::Pending };
        loop {
            let Some((at, limit)) = watch.next() else { return Poll::Pending };
            if at == watch.start {
                return Poll::Ready(limit); // a limit of zero; timers are a millisecond late
            }
            let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            if at < timer.deadline() {
                timer.as_mut().reset(at);
            }
            ready!(timer.as_mut().poll(cx));
            if at <= Instant::now() {
                return Poll::Ready(limit);
            }
            timer.as_mut().reset(at);
        }
    }
}

pin_project! {
    /// A future under a deadline; see [`Deadline::run`]. Written out because an `async fn` would keep its argument
    /// twice, and each connection reserves room for one.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Run<'a, F, C> {
        deadline: &'a mut Deadline,
        #[pin]
        future: F,
        counter: C,
        seen: u64,
    }
}

impl<F: Future, C: Fn() -> u64> Future for Run<'_, F, C> {
    type Output = Result<F::Output, Limit>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        let count = (this.counter)();
        if count != *this.seen {
            *this.seen = count;
            this.deadline.byte();
        }
        this.deadline.poll_expired(cx).map(Err)
    }
}

/// The error of a response body that ran into a limit.
#[derive(Debug, thiserror::Error)]
#[error("response aborted: {0}")]
pub struct Expired(pub Limit);

/// A response body under its request's limits; aborted when one is reached.
#[derive(Debug)]
pub struct Limited<B> {
    body: B,
    deadline: Deadline,
    on_expiry: Option<fn(Limit)>,
}

impl<B> Limited<B> {
    /// The body of a response whose head is on its way.
    pub fn new(body: B, mut deadline: Deadline) -> Self {
        deadline.started();
        Self { body, deadline, on_expiry: None }
    }

    /// Calls a function (a log line, a counter) when a limit aborts the body.
    #[must_use]
    pub fn on_expiry(mut self, call: fn(Limit)) -> Self {
        self.on_expiry = Some(call);
        self
    }
}

impl<B> http_body::Body for Limited<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if matches!(frame, Some(Ok(_))) {
                this.deadline.byte();
                // A body that is always ready must not outrun the total limit; look at the clock only if there is more to
                // come, and if the timer is armed anyway.
                if this.deadline.is_armed()
                    && !this.body.is_end_stream()
                    && let Poll::Ready(limit) = this.deadline.poll_expired(cx)
                {
                    return Poll::Ready(Some(Err(this.expire(limit))));
                }
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let limit = ready!(this.deadline.poll_expired(cx));
        Poll::Ready(Some(Err(this.expire(limit))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: AnswerBody + Unpin> AnswerBody for Limited<B>
where
    Self: http_body::Body<Data = Bytes>,
{
    fn take_lines(&mut self) -> Option<Lines> {
        self.body.take_lines()
    }

    fn poll_overdue(mut self: Pin<&mut Self>, moved: bool, cx: &mut Context<'_>) -> Poll<BoxError> {
        if moved {
            self.deadline.byte();
        }
        let limit = ready!(self.deadline.poll_expired(cx));
        Poll::Ready(self.expire(limit))
    }
}

impl<B> Limited<B> {
    fn expire(&mut self, limit: Limit) -> BoxError {
        if let Some(call) = self.on_expiry.take() {
            call(limit);
        }
        Expired(limit).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};

    const fn limits(total: u64, response_start: u64, idle: u64) -> Limits {
        const fn seconds(n: u64) -> Option<Duration> {
            if n == 0 { None } else { Some(Duration::from_secs(n)) }
        }
        Limits { total: seconds(total), response_start: seconds(response_start), idle: seconds(idle) }
    }

    #[test]
    fn the_earliest_limit_wins() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let table = [
            (limits(0, 0, 0), None),
            (limits(10, 0, 0), Some((at(10), Limit::Total))),
            (limits(10, 3, 0), Some((at(3), Limit::ResponseStart))),
            (limits(10, 3, 2), Some((at(2), Limit::Idle))),
            (limits(10, 0, 20), Some((at(10), Limit::Total))),
        ];
        for (limits, expected) in table {
            assert_eq!(Watch::new(limits, now).next(), expected, "{limits:?}");
        }
    }

    #[test]
    fn a_started_response_is_past_its_start_limit() {
        let now = Instant::now();
        let mut watch = Watch::new(limits(0, 3, 0), now);
        assert_eq!(watch.expired(now + Duration::from_secs(3)), Some(Limit::ResponseStart));
        watch.started(now);
        assert_eq!(watch.expired(now + Duration::from_secs(30)), None);
    }

    #[test]
    fn bytes_keep_the_idle_limit_away_and_only_that() {
        let now = Instant::now();
        let mut watch = Watch::new(limits(5, 0, 2), now);
        watch.started(now);
        for second in 1..5 {
            let now = now + Duration::from_secs(second);
            assert_eq!(watch.expired(now), None);
            watch.moved(now);
        }
        assert_eq!(watch.expired(now + Duration::from_secs(5)), Some(Limit::Total));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quick_future_is_left_alone_and_a_slow_one_is_cut() {
        let mut deadline = Deadline::start(limits(2, 0, 0));
        assert_eq!(deadline.run(async { 7 }).await, Ok(7));
        assert_eq!(deadline.run(tokio::time::sleep(Duration::from_secs(9))).await, Err(Limit::Total));
    }

    #[tokio::test(start_paused = true)]
    async fn a_used_timer_fires_when_its_next_request_says() {
        let timers = Timers::default();
        for limit in [50, 90, 3, 20] {
            assert_eq!(timers.start(limits(limit, 0, 0)).run(tokio::time::sleep(Duration::from_secs(1))).await, Ok(()));
            let started = Instant::now();
            let expired = timers.start(limits(limit, 0, 0)).run(std::future::pending::<()>()).await;
            assert_eq!((expired, started.elapsed().as_secs()), (Err(Limit::Total), limit));
        }
        assert_eq!(timers.0.borrow().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn zero_expires_at_once() {
        let zero = Limits { total: Some(Duration::ZERO), ..Limits::default() };
        assert_eq!(Deadline::start(zero).run(std::future::pending::<()>()).await, Err(Limit::Total));
    }

    fn ticking(every: u64, count: usize) -> impl http_body::Body<Data = Bytes, Error = BoxError> + Unpin {
        let frames = futures::stream::unfold(0, move |n| async move {
            if n == count {
                return None;
            }
            tokio::time::sleep(Duration::from_secs(every)).await;
            Some((Ok(Frame::data(Bytes::from_static(b"x"))), n + 1))
        });
        StreamBody::new(Box::pin(frames))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_keeps_moving_survives_the_idle_limit() {
        let body = Limited::new(ticking(1, 5), Deadline::start(limits(0, 0, 2)));
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_past_a_limit_is_aborted_not_ended() {
        for limits in [limits(0, 0, 2), limits(2, 0, 0)] {
            let body = Limited::new(ticking(3, 2), Deadline::start(limits));
            let error = body.collect().await.unwrap_err();
            assert!(error.downcast_ref::<Expired>().is_some(), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_moving_counter_counts_as_bytes() {
        let moved = std::cell::Cell::new(0);
        let work = async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                moved.set(moved.get() + 1);
            }
        };
        let mut deadline = Deadline::start(limits(0, 0, 2));
        assert_eq!(deadline.run_while_moving(work, || moved.get()).await, Ok(()));
        let silent = tokio::time::sleep(Duration::from_secs(5));
        assert_eq!(Deadline::start(limits(0, 0, 2)).run_while_moving(silent, || 0).await, Err(Limit::Idle));
    }
}
