//! What one request holds from its arrival to its last byte: its place in the counts, its slot, its metrics.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode};
use proxy::body::{End, Observe};

use super::Door;
use crate::report::InFlight;
use crate::revision::Revision;
use crate::throttle::Permit;
use crate::throttle::target::Target;

/// The account of one request. Everything it holds is given back when it is dropped, the slot first, so that the next in
/// line does not wait for our bookkeeping.
#[derive(Debug)]
pub struct Account {
    permit: Option<Permit>,
    door: Rc<Door>,
    in_flight: InFlight,
    start: Instant,
    /// In line, all turns together; `None` = not at all.
    waited: Option<Duration>,
    status: StatusCode,
}

impl Account {
    /// A request for a revision arrives.
    pub fn open(door: &Rc<Door>, revision: Arc<Revision>) -> Self {
        let start = Instant::now();
        Self {
            permit: None,
            door: Rc::clone(door),
            in_flight: door.shared.reporter.arrive(revision, start),
            start,
            waited: None,
            // What upstream's metrics say of clients that leave before an answer.
            status: StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The revision that is asked.
    pub fn revision(&self) -> &Arc<Revision> {
        self.in_flight.revision()
    }

    /// A pod works on it from now on.
    pub fn admitted(&mut self, permit: Permit) -> &Permit {
        self.revision().metrics(&self.door.shared.metrics).active.inc();
        self.permit.insert(permit)
    }

    /// The pod that works on it.
    pub fn pod(&self) -> Option<&Target> {
        self.permit.as_ref().map(|permit| &**permit.target())
    }

    /// It stood in line.
    pub fn waited(&mut self, time: Duration) {
        self.waited = Some(self.waited.unwrap_or_default() + time);
    }

    /// The head of the pod's answer is there.
    pub fn answer_begins(&self) {
        let (revision, shared) = (self.revision(), &self.door.shared);
        if self.waited.is_some()
            && let Some(phases) = revision.wake.first_byte(&revision.key, &shared.observer, Instant::now())
        {
            shared.metrics.woken(phases);
        }
    }

    /// Where the time went until now, as a `Server-Timing` header.
    pub fn timing(&self) -> Option<HeaderValue> {
        let waited = self.waited.unwrap_or_default();
        let pod = self.start.elapsed().saturating_sub(waited);
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        HeaderValue::try_from(format!("dormouse-wait;dur={:.3}, dormouse-pod;dur={:.3}", ms(waited), ms(pod))).ok()
    }

    /// The pod was not there; its slot is free again.
    pub fn turned_away(&mut self) {
        if self.permit.take().is_some()
            && let Some(metrics) = self.revision().metrics_if_any()
        {
            metrics.active.dec();
        }
    }

    /// The status that goes to the client.
    pub fn answers(&mut self, status: StatusCode) {
        self.status = status;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.turned_away();
        let metrics = self.revision().metrics(&self.door.shared.metrics);
        metrics.ended(self.status, self.start.elapsed().as_secs_f64());
    }
}

/// The account of an answer, if it has one: answers of our own to what is no request for a revision have none.
#[derive(Debug, Default)]
pub struct Accounting(Option<Account>);

impl From<Account> for Accounting {
    fn from(account: Account) -> Self {
        Self(Some(account))
    }
}

impl Observe for Accounting {
    fn end(self, _end: End) {
        drop(self.0);
    }
}
