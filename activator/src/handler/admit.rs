//! From a request to a response of some pod: take a slot or wait for one, send, and try another pod while nothing has
//! been sent, or what was sent may be sent again.

use std::time::Instant;

use api::headers::PASSTHROUGH_LB;
use http::{HeaderValue, Request, Response, StatusCode};
use proxy::{Body, Fault, forward};

use super::Door;
use super::account::{Account, Queued};
use crate::feed::Event;
use crate::revision::Revision;
use crate::throttle::ask::Ask;
use crate::throttle::{Admission, Permit, Wait};

/// Pods tried for one request. Each failed one is out until it passes a probe, so this is not reached unless pods
/// answer probes and refuse requests in turn.
const MOST_TRIES: usize = 8;

/// Sends a request to a pod of its revision. Dropping the future leaves the line, or the pod, at once.
pub async fn serve(door: &Door, request: &mut Request<Body>, account: &mut Account) -> Result<Response<Body>, Fault> {
    let mut repeat = None;
    let mut repeated = false;
    for attempt in 1.. {
        let throttle = &account.revision().throttle;
        let admission = if attempt == 1 { throttle.enter(&Ask::DEFAULT) } else { throttle.enter_again(&Ask::DEFAULT) };
        let permit = match admission {
            Admission::Admitted(permit) => permit,
            Admission::Waiting(wait, asleep) => Box::pin(in_line(door, account, wait, asleep)).await,
            Admission::Full(_) => return Err(queue_full()),
        };
        let pod = account.admitted(permit).target();
        let (address, host, passed_through) = (pod.connect(), pod.host().clone(), pod.is_passed_through());
        let endpoint = door.pool.endpoint_over(address, pod.tls());
        account.asks(address);
        let sent = match repeat.take() {
            None => {
                forward::set_host(request, host)?;
                if attempt == 1 && passed_through {
                    // Of all targets of a revision, or of none.
                    request.headers_mut().append(PASSTHROUGH_LB, HeaderValue::from_static("true"));
                }
                endpoint.forward(request).await
            }
            Some(repeat) => Box::pin(endpoint.repeat(repeat)).await,
        };
        let error = match sent {
            Ok(response) => {
                account.pod_answers(Ok(response.status()));
                return Ok(response);
            }
            Err(error) => error,
        };
        account.pod_answers(Err(if error.is_dial() { "connect" } else { "broken" }));
        let fault = Fault::from(&error);
        let unsent = error.is_unsent() && !repeated;
        if error.is_gone() {
            set_aside(door, account);
        }
        repeat = error.into_repeat();
        // What may have arrived somewhere is tried once more and no oftener: it may be what the pod died of.
        let again = unsent || (repeat.is_some() && !repeated);
        if !again || attempt == MOST_TRIES {
            return Err(fault);
        }
        repeated |= repeat.is_some();
        account.turned_away(if unsent { "unsent" } else { "unanswered" });
    }
    Err(Fault::Dial("no pod took the request".to_owned()))
}

/// Takes the pod out before its slot is given back: nobody else in line shall run into it.
fn set_aside(door: &Door, account: &Account) {
    let revision = account.revision();
    let Some(target) = account.pod() else { return };
    if revision.throttle.set_aside(target) {
        revision.metrics(&door.shared.metrics).at(door.shard).set_aside.add(1);
        door.shared.feed.send(Event::SetAside(revision.key.clone(), target.address));
    }
}

/// Waits for the turn. In a function of its own, and boxed by its caller, because most requests do not wait.
async fn in_line(door: &Door, account: &mut Account, wait: Wait, asleep: bool) -> Permit {
    let start = Instant::now();
    account.joins(start);
    let revision = account.revision();
    if asleep {
        revision.wake.queued(&revision.key, &door.shared.observer, start);
    }
    door.shared.reporter.waits(revision, start);
    let permit = InLine::new(door, revision, wait).turn().await;
    account.waited(start, Instant::now());
    permit
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
    _queued: Queued<'a>,
}

impl<'a> InLine<'a> {
    fn new(door: &Door, revision: &'a Revision, wait: Wait) -> Self {
        Self { revision, wait: Some(wait), _queued: Queued::new(door, revision) }
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
