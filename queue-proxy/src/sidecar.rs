//! What the handlers share: limit, counts, readiness, drain, the pool to the app. One per process, one thread.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use prost::Message;
use proxy::body::{End, Observe};
use proxy::clock;
use proxy::deadline::{Limits, Timers};
use proxy::{Drain, Endpoint, Pool, PoolConfig};
use telemetry::Identity;
use telemetry::otlp::outbox::Outbox;
use telemetry::request_log::{Entry, RequestLog};
use telemetry::traces::{Trace, Traces};
use tokio::sync::Notify;

use crate::breaker::{Breaker, Slot};
use crate::broadcast::Broadcast;
use crate::config::Config;
use crate::drainer::Drainer;
use crate::metrics::{Answer, Arrival, Metrics, Outcome};
use crate::readiness::Gate;
use crate::stats::Window;
use crate::traces;

/// How often the stat is renewed.
pub const REPORT_PERIOD: Duration = Duration::from_secs(1);

/// The shared state.
#[derive(Debug)]
pub struct Sidecar {
    /// The app.
    pub app: Endpoint,
    /// Where it listens.
    pub app_address: SocketAddr,
    /// Host for requests that have none.
    pub app_host: HeaderValue,
    /// The concurrency limit, if there is one.
    pub breaker: Option<Breaker>,
    /// Readiness.
    pub gate: Gate,
    /// The quiet period.
    pub drainer: Drainer,
    /// The end of the main port.
    pub drain: Drain,
    /// Request timeouts.
    pub limits: Limits,
    /// Their timers.
    pub timers: Timers,
    /// The user's metrics, if wanted.
    pub metrics: Option<Metrics>,
    /// The request log, if wanted.
    pub log: Option<Arc<RequestLog>>,
    /// Tracing, if wanted.
    pub traces: Option<Traces>,
    /// Where traced requests are handed in.
    pub outbox: Option<Arc<Outbox>>,
    /// Whose requests these are.
    pub identity: Arc<Identity>,
    /// Autoscalers that listen.
    pub broadcast: Broadcast,
    epoch: Instant,
    window: RefCell<Window>,
    stat: RefCell<Bytes>,
    active: Cell<usize>,
    no_active: Notify,
}

impl Sidecar {
    /// The state for a configuration.
    pub fn new(config: &Config, metrics: Option<Metrics>) -> Rc<Self> {
        let pool = Pool::new(PoolConfig {
            max_idle_per_target: match config.container_concurrency {
                0 => 1000,
                limit => limit as usize,
            },
            ..PoolConfig::default()
        });
        let hop = traces::hop(config.container_concurrency > 0);
        let wanted = config.telemetry.traces.as_ref();
        let outbox = wanted.map(|traces| Arc::new(Outbox::new(traces.batch)));
        let traced = wanted.zip(outbox.clone());
        let fresh = crate::stats::Report::default().to_stat(&config.identity.pod, REPORT_PERIOD, Duration::ZERO);
        Rc::new(Self {
            app: pool.endpoint(config.user),
            app_address: config.user,
            app_host: host_of(config.user),
            breaker: (config.container_concurrency > 0).then(|| Breaker::new(config.container_concurrency)),
            gate: Gate::new(config.readiness.clone()),
            drainer: Drainer::new(config.drain_quiet),
            drain: Drain::default(),
            limits: config.limits,
            timers: Timers::default(),
            metrics,
            log: RequestLog::start(config.observability.request_log.as_ref()),
            traces: traced.map(|(traces, outbox)| Traces::new(hop, traces.sampler, outbox)),
            outbox,
            identity: Arc::new(config.identity.clone()),
            epoch: Instant::now(),
            window: RefCell::default(),
            stat: RefCell::new(fresh.encode_to_vec().into()),
            broadcast: Broadcast::new(fresh),
            active: Cell::new(0),
            no_active: Notify::new(),
        })
    }

    /// The last full window as the autoscaler reads it.
    pub fn stat(&self) -> Bytes {
        self.stat.borrow().clone()
    }

    /// Closes the window, renews the stat, and tells who listens.
    pub fn report(&self) {
        let now = self.epoch.elapsed();
        let stat = self.window.borrow_mut().report(now).to_stat(&self.identity.pod, REPORT_PERIOD, now);
        *self.stat.borrow_mut() = stat.encode_to_vec().into();
        self.broadcast.window(&stat);
    }

    /// Requests in flight, upgraded connections not among them.
    pub fn active(&self) -> usize {
        self.active.get()
    }

    /// Resolves when no request is in flight.
    pub async fn no_active(&self) {
        loop {
            let notified = self.no_active.notified();
            if self.active() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// The metrics as they are now, for those who read them.
    pub fn metrics_now(&self) -> Option<&Metrics> {
        if let (Some(metrics), Some(breaker)) = (&self.metrics, &self.breaker) {
            metrics.queue_depth(breaker.depth());
        }
        self.metrics.as_ref()
    }
}

fn host_of(app: SocketAddr) -> HeaderValue {
    HeaderValue::try_from(app.to_string()).unwrap_or(HeaderValue::from_static("127.0.0.1"))
}

/// One user request from its arrival to its last byte. Everything it holds is given back when it is dropped.
#[derive(Debug)]
pub struct InFlight {
    sidecar: Rc<Sidecar>,
    proxied: bool,
    active: bool,
    slot: Option<Slot>,
    /// Boxed, since most pods are not asked for metrics and every request moves it.
    measure: Option<Box<Measure>>,
}

#[derive(Debug)]
struct Measure {
    arrival: Arrival,
    since: Instant,
    running_since: Option<Instant>,
    answer: Option<Answer>,
    status: StatusCode,
    bytes: u64,
}

impl InFlight {
    /// Counts an arrival.
    pub fn arrive(sidecar: &Rc<Sidecar>, proxied: bool, arrival: Option<Arrival>) -> Self {
        let now = clock::now().into_std();
        sidecar.window.borrow_mut().arrive(now.duration_since(sidecar.epoch), proxied);
        sidecar.active.set(sidecar.active.get() + 1);
        let measure = arrival.map(|arrival| {
            Box::new(Measure {
                arrival,
                since: now,
                running_since: None,
                answer: None,
                // What is recorded if the client leaves before there is a status (nginx's word for it).
                status: StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
                bytes: 0,
            })
        });
        Self { sidecar: Rc::clone(sidecar), proxied, active: true, slot: None, measure }
    }

    /// The app may be asked now.
    pub fn runs(&mut self, slot: Option<Slot>) {
        self.slot = slot;
        if let Some(measure) = &mut self.measure {
            measure.running_since = Some(clock::now().into_std());
        }
    }

    /// The app has answered, or why it has not.
    pub fn app_answers(&mut self, status: Result<StatusCode, &'static str>) {
        if let Some(measure) = &mut self.measure
            && let Some(since) = measure.running_since
        {
            measure.answer = Some(Answer { status, after: clock::now().into_std().duration_since(since) });
        }
    }

    /// The status that goes to the client.
    pub fn answers(&mut self, status: StatusCode) {
        if let Some(measure) = &mut self.measure {
            measure.status = status;
        }
    }

    /// From here on it is a tunnel: it keeps its slot and its counts, but nobody waits for it at the end of a pod.
    pub fn upgraded(&mut self) {
        if std::mem::replace(&mut self.active, false) {
            self.sidecar.active.set(self.sidecar.active.get() - 1);
            if self.sidecar.active.get() == 0 {
                self.sidecar.no_active.notify_waiters();
            }
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let now = clock::now().into_std();
        drop(self.slot.take());
        self.sidecar.window.borrow_mut().leave(now.duration_since(self.sidecar.epoch), self.proxied);
        self.upgraded();
        if let (Some(measure), Some(metrics)) = (self.measure.take(), &self.sidecar.metrics) {
            let outcome = Outcome {
                status: measure.status,
                bytes: measure.bytes,
                total: now.duration_since(measure.since),
                invocation: measure.running_since.map(|since| now.duration_since(since)),
                answer: measure.answer,
            };
            metrics.record(measure.arrival, &outcome);
        }
    }
}

/// Ends the accounting of a request with its response body. Empty for answers that are neither counted nor logged.
#[derive(Debug, Default)]
pub struct Accounting {
    /// Its counts, slot and metrics.
    pub in_flight: Option<InFlight>,
    /// Its line in the log.
    pub log: Option<Box<Entry>>,
    /// Its spans, if it is traced.
    pub trace: Option<Box<Trace>>,
}

impl Accounting {
    /// The app is asked.
    pub fn asks(&mut self, app: SocketAddr) {
        if let Some(trace) = &mut self.trace {
            trace.asks(app);
        }
    }

    /// The app has answered, or why it has not.
    pub fn app_answers(&mut self, status: Result<StatusCode, &'static str>) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.app_answers(status);
        }
        if let Some(trace) = &mut self.trace {
            trace.next_answers(status);
        }
    }

    /// The status that goes to the client.
    pub fn answers(&mut self, status: StatusCode) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.answers(status);
        }
        if let Some(entry) = &mut self.log {
            entry.answers(status);
        }
        if let Some(trace) = &mut self.trace {
            trace.answers(status);
        }
    }
}

impl Observe for Accounting {
    fn data(&mut self, bytes: usize) {
        if let Some(measure) = self.in_flight.as_mut().and_then(|in_flight| in_flight.measure.as_mut()) {
            measure.bytes += bytes as u64;
        }
        if let Some(entry) = &mut self.log {
            entry.data(bytes);
        }
        if let Some(trace) = &mut self.trace {
            trace.data(bytes);
        }
    }

    fn end(mut self, end: End) {
        if end == End::Broken {
            // A trace tells what was sent and that it broke off.
            if let Some(mut trace) = self.trace.take() {
                trace.broken();
            }
            self.answers(StatusCode::INTERNAL_SERVER_ERROR);
            if let Some(entry) = &mut self.log {
                entry.broken();
            }
        }
    }
}
