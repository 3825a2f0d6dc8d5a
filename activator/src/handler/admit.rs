//! From a request to a response of some pod: take a slot or wait for one, send, and try another pod while nothing has
//! been sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use proxy::{Body, Fault, Pool, forward};

use super::reply::Up;
use crate::feed::Event;
use crate::revision::Revision;
use crate::shared::Shared;
use crate::throttle::ask::Ask;
use crate::throttle::{Admission, Permit, Wait};

/// Pods tried for one request. Each failed one is out until it passes a probe, so this is not reached unless pods
/// answer probes and refuse requests in turn.
const MOST_TRIES: usize = 8;

/// A response, the slot it is made on, and how long the request waited for it.
#[derive(Debug)]
pub struct Served {
    /// The pod's response.
    pub response: Response<Body>,
    /// Its slot.
    pub permit: Permit,
    /// Counts it as active.
    pub active: Up,
    /// Waited in line; `None` = not at all.
    pub waited: Option<Duration>,
}

/// Sends a request to a pod of a revision. Dropping the future leaves the line, or the pod, at once.
pub async fn serve(
    shared: &Shared,
    pool: &Pool,
    revision: &Arc<Revision>,
    mut request: Request<Body>,
) -> Result<Served, Fault> {
    let metrics = revision.metrics(&shared.metrics);
    let mut waited = None;
    for attempt in 0..MOST_TRIES {
        let ask = Ask::default();
        let admission = if attempt == 0 { revision.throttle.enter(&ask) } else { revision.throttle.enter_again(&ask) };
        let permit = match admission {
            Admission::Admitted(permit) => permit,
            Admission::Waiting(wait, asleep) => {
                let start = Instant::now();
                if asleep {
                    revision.wake.queued(&revision.key, &shared.observer, start);
                }
                let permit = InLine::new(revision, wait, Up::new(&metrics.queued)).turn().await;
                waited = Some(waited.unwrap_or(Duration::ZERO) + start.elapsed());
                permit
            }
            Admission::Full(_) => return Err(queue_full()),
        };
        let active = Up::new(&metrics.active);
        forward::set_host(&mut request, permit.target().host().clone())?;
        match pool.forward(permit.target().address, &mut request).await {
            Ok(response) => return Ok(Served { response, permit, active, waited }),
            Err(error) => {
                let fault = Fault::from(&error);
                if !error.is_unsent() {
                    return Err(fault);
                }
                // Out before the slot is given back: nobody else in line shall run into the same pod.
                if revision.throttle.set_aside(permit.target()) {
                    metrics.set_aside.inc();
                    shared.feed.send(Event::SetAside(revision.key.clone(), permit.target().address));
                }
                if attempt + 1 == MOST_TRIES {
                    return Err(fault);
                }
            }
        }
    }
    Err(Fault::Dial("no pod took the request".to_owned()))
}

/// Upstream's text and status.
fn queue_full() -> Fault {
    Fault::Other {
        status: StatusCode::SERVICE_UNAVAILABLE,
        reason: "queue-full",
        body: "pending request queue full\n".into(),
        retry_after: Some(1),
    }
}

/// A request in line. Left early, the last one out ends the wake-up that nobody waits for any more.
struct InLine<'a> {
    revision: &'a Revision,
    wait: Option<Wait>,
    _queued: Up,
}

impl<'a> InLine<'a> {
    fn new(revision: &'a Revision, wait: Wait, queued: Up) -> Self {
        Self { revision, wait: Some(wait), _queued: queued }
    }

    async fn turn(mut self) -> Permit {
        let Some(wait) = self.wait.as_mut() else { return std::future::pending().await };
        wait.await
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.wait = None;
        if self.revision.throttle.waiting() == 0 {
            // Only if no pod has come yet; a wake-up that has its pod goes on to its first byte.
            self.revision.wake.abandoned();
        }
    }
}
