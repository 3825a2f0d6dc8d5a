//! From a request to a response of some pod: take a slot or wait for one, send, and try another pod while nothing has
//! been sent, or what was sent may be sent again.

use std::net::IpAddr;
use std::time::Duration;

use api::activation::FairShare;
use api::headers::PASSTHROUGH_LB;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version};
use proxy::clock;
use proxy::headers::Headers;
use proxy::{Added, Answer, Body, Extra, Fault, forward};

use super::account::{Account, Queued};
use super::{Client, Door};
use crate::feed::Event;
use crate::revision::Revision;
use crate::throttle::ask::Ask;
use crate::throttle::queue::Full;
use crate::throttle::{Admission, Permit, Wait};

/// Pods tried for one request. Each failed one is out until it passes a probe, so this is not reached unless pods
/// answer probes and refuse requests in turn.
const MOST_TRIES: usize = 8;

/// Sends a request, with these lines if there are any, to a pod of its revision. `has_policy`: whether the revision has
/// one. Dropping the future leaves the line, or the pod, at once.
pub async fn serve(
    door: &Door,
    client: &Client,
    request: &mut Request<Body>,
    added: Option<&Added>,
    has_policy: bool,
    account: &mut Account,
) -> Result<Answer, Fault> {
    let mut at_once = if has_policy { None } else { account.revision().throttle.enter_at_once() };
    let Terms { ask, patience } = match at_once {
        Some(_) => Terms { ask: Ask::DEFAULT, patience: None },
        None => terms(door, client, request, account),
    };
    let mut repeat = None;
    let mut repeated = false;
    for attempt in 1.. {
        let throttle = &account.revision().throttle;
        let admission = match at_once.take() {
            Some(permit) => Admission::Admitted(permit),
            None if attempt == 1 => throttle.enter(&ask),
            None => throttle.enter_again(&ask),
        };
        let permit = match admission {
            Admission::Admitted(permit) => permit,
            Admission::Waiting(wait, asleep) => Box::pin(in_line(door, account, wait, asleep, patience)).await?,
            Admission::Full(bound) => return Err(full(bound)),
        };
        let pod = account.admitted(permit).target();
        let (address, host, passed_through) = (pod.connect(), pod.host().clone(), pod.is_passed_through());
        let endpoint = door.pool.endpoint_over(address, pod.tls());
        account.asks(address);
        let sent = match repeat.take() {
            None => {
                if added.is_none() {
                    forward::set_host(request, host.clone())?;
                }
                if attempt == 1 && passed_through {
                    // Of all targets of a revision, or of none.
                    request.headers_mut().append(PASSTHROUGH_LB, HeaderValue::from_static("true"));
                }
                endpoint.forward(request, added.map(|added| Extra { host: &host, added })).await
            }
            Some(repeat) => Box::pin(endpoint.repeat(repeat)).await,
        };
        let error = match sent {
            Ok(answer) => {
                account.pod_answers(Ok(answer.status()));
                return Ok(answer);
            }
            Err(error) => error,
        };
        account.pod_answers(Err(if error.is_dial() { "connect" } else { "broken" }));
        let fault = Fault::from(&error);
        let (unsent, nobody_there) = (error.is_unsent(), error.is_dial());
        if error.is_gone() {
            set_aside(door, account);
        }
        repeat = error.into_repeat();
        // What may have arrived somewhere is sent once more and no oftener: it may be what the pod died of.
        let again = unsent || (repeat.is_some() && (nobody_there || !repeated));
        if !again || attempt == MOST_TRIES {
            return Err(fault);
        }
        repeated |= repeat.is_some();
        account.turned_away(if unsent { "unsent" } else { "unanswered" });
    }
    Err(Fault::Dial("no pod took the request".to_owned()))
}

/// What a request asks for at the door, and how long it may stand there.
struct Terms {
    ask: Ask,
    patience: Option<Duration>,
}

/// Reads them from the policy of the revision; a session that begins is noted in the account.
fn terms(door: &Door, client: &Client, request: &Request<Body>, account: &mut Account) -> Terms {
    let bytes = bytes_held(request);
    let settings = account.revision().settings.load();
    let Some(policy) = settings.policy.as_deref() else {
        return Terms { ask: Ask::plain(bytes), patience: None };
    };
    let whose = match policy.fair_share {
        Some(FairShare::Ip) => client_ip(door, client, request.headers()),
        _ => client.peer.address.ip(),
    };
    let ask = Ask::of(Some(policy), request.headers(), whose, bytes);
    let cookie = ask.set_cookie(policy, client.entrance.is_secure());
    let patience = policy.queue_timeout;
    drop(settings);
    if let Some(cookie) = cookie {
        account.session_begins(cookie);
    }
    Terms { ask, patience }
}

/// What a waiting request holds here, about: its head, and as much of its body as is taken in before a pod takes it.
fn bytes_held(request: &Request<Body>) -> usize {
    /// HTTP/1 takes in no longer body than this; of one of unknown length nothing, so this is too much.
    const BODY: u64 = 16 << 10;
    /// h2 takes in as much as a stream's window.
    const BODY_H2: u64 = 1 << 20;
    let lines = Headers::of(request).bytes();
    let target = request.uri().path_and_query().map_or(1, |target| target.as_str().len());
    let body = match (http_body::Body::size_hint(request.body()).exact(), request.version()) {
        (Some(length), Version::HTTP_2) => length.min(BODY_H2),
        (Some(length), _) if length <= BODY => length,
        (Some(_), _) => 0,
        (None, _) => BODY,
    };
    lines + target + body as usize
}

/// The client's address: behind a gateway the one that it saw, which it has appended before ours was.
fn client_ip(door: &Door, client: &Client, headers: &HeaderMap) -> IpAddr {
    let peer = client.peer.address.ip();
    if door.is_gateway() {
        return peer;
    }
    let line = headers.get_all("x-forwarded-for").iter().next_back().and_then(|line| line.to_str().ok());
    let seen = line.and_then(|line| line.rsplit(',').nth(1)).and_then(|ip| ip.trim().parse().ok());
    seen.unwrap_or(peer)
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
async fn in_line(
    door: &Door,
    account: &mut Account,
    wait: Wait,
    asleep: bool,
    patience: Option<Duration>,
) -> Result<Permit, Fault> {
    let start = clock::now().into_std();
    account.joins(start);
    let revision = account.revision();
    if asleep {
        revision.wake.queued(&revision.key, &door.shared.observer, start);
    }
    door.shared.reporter.waits(revision, start);
    let permit = InLine::new(door, revision, wait).turn(patience).await;
    account.waited(start, clock::now().into_std());
    permit.ok_or_else(|| Fault::Other {
        status: StatusCode::SERVICE_UNAVAILABLE,
        reason: "queue-timeout",
        body: format!("waited in line for longer than {} allows\n", api::activation::QUEUE_TIMEOUT).into(),
        retry_after: Some(1),
    })
}

/// Upstream's text and status; the reason says which bound it was.
fn full(bound: Full) -> Fault {
    let reason = match bound {
        Full::Length => "queue-full",
        Full::Bytes => "queue-bytes",
        Full::TotalLength => "queue-full-total",
        Full::TotalBytes => "queue-bytes-total",
    };
    Fault::Other {
        status: StatusCode::SERVICE_UNAVAILABLE,
        reason,
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

    /// `None`: it took too long, and the place is given up.
    async fn turn(mut self, patience: Option<Duration>) -> Option<Permit> {
        self.wait.take()?.within(patience).await
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
