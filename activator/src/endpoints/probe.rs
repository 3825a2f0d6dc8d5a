//! Asking one pod whether it can serve, until it can.
//!
//! Our queue-proxy holds the answer back until the app is ready (`Dormouse-Hold`) and then gives it at once; upstream's
//! answers "not yet" at once and is asked again in upstream's rhythm. A refused connection means that the sidecar is
//! just being started: asked again within milliseconds, for a while.
//!
//! Always HTTP/1.1 in clear text on the data port, also for h2c and with internal TLS, as upstream. Each pod has its own
//! task; [`Turns`] bounds the questions, and with them the sockets, that are open at once.

use std::io;
use std::time::Duration;

use api::{headers, probe};
use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::pods::Look;
use crate::throttle::target::Target;

/// Questions open at once. Each is a socket; a thousand starting pods are many, and file descriptors are needed for
/// requests too.
const MOST_OPEN: usize = 4096;
/// While more than this are open nobody is asked to hold: a turn then ends within the patience of a connection and of
/// an answer, so that a mass start goes on in upstream's rhythm instead of waiting for turns that are held.
const MOST_HELD: usize = MOST_OPEN / 2;

/// What stands before pods of a mesh answers so by itself.
const MESHED: [StatusCode; 2] = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE];

/// How pods are asked.
#[derive(Debug, Clone, Copy)]
pub struct Rhythm {
    /// How long a pod may hold its answer back; zero = do not ask it to.
    pub hold: Duration,
    /// Patience for a pod that does not hold, and for opening a connection (`PROBE_TIMEOUT`).
    pub timeout: Duration,
    /// Pause between questions to a pod that says "not yet" (`PROBE_FREQUENCY`).
    pub every: Duration,
    /// First pause after a refused connection.
    pub refused_first: Duration,
    /// Longest pause after a refused connection, while it is new.
    pub refused_most: Duration,
    /// How long a refusal counts as "just being started".
    pub refused_while: Duration,
    /// Pause instead of [`Rhythm::every`] while requests go to the cluster IP: will pods answer by themselves again?
    pub behind_mesh: Duration,
}

impl Default for Rhythm {
    fn default() -> Self {
        Self {
            hold: Duration::from_secs(10),
            timeout: Duration::from_millis(300),
            every: Duration::from_millis(200),
            refused_first: Duration::from_millis(1),
            refused_most: Duration::from_millis(20),
            refused_while: Duration::from_secs(10),
            behind_mesh: Duration::from_secs(10),
        }
    }
}

/// What one question brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It can serve.
    Ready,
    /// It answered something else, after so long.
    NotYet(StatusCode, Duration),
    /// Nobody listens.
    Refused,
    /// No answer, or a broken one, after so long.
    Silent(Duration),
}

impl Outcome {
    /// Whether it looks like a mesh in between; `None` for the good answer.
    fn look(self) -> Option<Look> {
        match self {
            Self::Ready => None,
            Self::NotYet(status, _) if !MESHED.contains(&status) => Some(Look::Other),
            Self::NotYet(..) | Self::Refused | Self::Silent(_) => Some(Look::Mesh),
        }
    }
}

/// Whose turn it is to ask: first come, first served.
#[derive(Debug)]
pub struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(MOST_OPEN))
    }
}

impl Turns {
    /// Waits for a turn; says too whether the question may be held.
    async fn next(&self) -> (Option<SemaphorePermit<'_>>, bool) {
        // It is never closed.
        let turn = self.0.acquire().await.ok();
        (turn, self.0.available_permits() >= MOST_OPEN - MOST_HELD)
    }
}

impl Rhythm {
    /// The rhythm of pods while requests go to the cluster IP.
    #[must_use]
    pub fn while_behind_mesh(self) -> Self {
        Self { every: self.behind_mesh, refused_while: Duration::ZERO, ..self }
    }

    /// How long to wait before the next question; `None` = it is ready. `refusals` counts those in a row before this.
    pub fn pause(&self, outcome: Outcome, refusals: u32, since_start: Duration) -> Option<Duration> {
        match outcome {
            Outcome::Ready => None,
            // It has held the question (or let it hang) for longer than the rhythm: ask again at once.
            Outcome::NotYet(_, took) | Outcome::Silent(took) => Some(self.every.saturating_sub(took)),
            Outcome::Refused if since_start > self.refused_while => Some(self.every),
            Outcome::Refused => {
                let grown = self.refused_first.mul_f64(1.25_f64.powi(i32::try_from(refusals.min(64)).unwrap_or(64)));
                Some(grown.min(self.refused_most))
            }
        }
    }
}

/// Asks until the pod can serve. `tell` hears what it met until then, whenever that is something else than before.
pub async fn until_ready(target: &Target, rhythm: Rhythm, turns: &Turns, mut tell: impl FnMut(Look)) {
    let mut told = None;
    let mut tell = |look| {
        if told != Some(look) {
            told = Some(look);
            tell(look);
        }
    };
    let start = Instant::now();
    let mut refusals = 0;
    loop {
        let (turn, may_hold) = turns.next().await;
        let hold = if may_hold { rhythm.hold } else { Duration::ZERO };
        let question = ask(target, rhythm.timeout, hold);
        tokio::pin!(question);
        let outcome = tokio::select! {
            biased;
            outcome = &mut question => outcome,
            // Held, or swallowed by a mesh: nobody can tell, so this is silence too.
            () = tokio::time::sleep(rhythm.timeout * 2) => {
                tell(Look::Mesh);
                question.await
            }
        };
        drop(turn);
        if let Some(look) = outcome.look() {
            tell(look);
        }
        let Some(pause) = rhythm.pause(outcome, refusals, start.elapsed()) else { return };
        refusals = if outcome == Outcome::Refused { refusals + 1 } else { 0 };
        tokio::time::sleep(pause).await;
    }
}

async fn ask(target: &Target, patience: Duration, hold: Duration) -> Outcome {
    let start = Instant::now();
    let stream = match tokio::time::timeout(patience, TcpStream::connect(target.address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return Outcome::Refused,
        Ok(Err(_)) | Err(_) => return Outcome::Silent(start.elapsed()),
    };
    match tokio::time::timeout(hold + patience, exchange(stream, target, hold)).await {
        Ok(Ok(None)) => Outcome::Ready,
        Ok(Ok(Some(status))) => Outcome::NotYet(status, start.elapsed()),
        // Accepted and dropped: a sidecar that is going down, or a port that is passed on before it is served.
        Ok(Err(_)) | Err(_) => Outcome::Silent(start.elapsed()),
    }
}

/// One question on one connection: the status of the answer, unless it was the good one.
async fn exchange(stream: TcpStream, target: &Target, hold: Duration) -> Result<Option<StatusCode>, proxy::BoxError> {
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::get(probe::PATH)
        .header(HOST, target.host())
        .header(USER_AGENT, probe::ACTIVATOR_USER_AGENT)
        .header(headers::NETWORK_PROBE, probe::QUEUE);
    if target.is_passed_through() {
        request = request.header(headers::PASSTHROUGH_LB, "true");
    }
    if !hold.is_zero() {
        request = request.header(headers::HOLD, hold.as_millis().to_string());
    }
    let answer = async {
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let status = response.status();
        if status != StatusCode::OK {
            return Ok(Some(status));
        }
        // Longer than the good answer is not the good answer.
        let body = Limited::new(response.into_body(), probe::QUEUE.len()).collect().await;
        let good = body.is_ok_and(|body| body.to_bytes() == probe::QUEUE);
        Ok::<_, proxy::BoxError>((!good).then_some(status))
    };
    // The connection is driven here, not spawned: whoever drops the probe drops its socket.
    tokio::pin!(connection, answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // What came before the end is still there to be read.
        _ = &mut connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn pauses() {
        let rhythm = Rhythm::default();
        let ms = Duration::from_millis;
        let cases = [
            (Outcome::Ready, 0, ms(1), None),
            (Outcome::NotYet(StatusCode::OK, ms(5)), 0, ms(5), Some(ms(195))),
            (Outcome::NotYet(StatusCode::OK, LONG), 0, LONG, Some(ms(0))),
            (Outcome::Silent(ms(300)), 0, ms(300), Some(ms(0))),
            (Outcome::Silent(ms(1)), 0, ms(1), Some(ms(199))),
            (Outcome::Refused, 0, ms(0), Some(ms(1))),
            (Outcome::Refused, 100, ms(500), Some(ms(20))),
            (Outcome::Refused, u32::MAX, LONG, Some(ms(200))),
        ];
        for (outcome, refusals, since, expected) in cases {
            assert_eq!(rhythm.pause(outcome, refusals, since), expected, "{outcome:?} {refusals} {since:?}");
        }
        assert_eq!(rhythm.pause(Outcome::Refused, 1, ms(0)), Some(Duration::from_micros(1250)));
    }

    #[test]
    fn looks_like_a_mesh() {
        let answered = |status| Outcome::NotYet(StatusCode::from_u16(status).unwrap(), LONG).look();
        assert_eq!([502, 503].map(answered), [Some(Look::Mesh); 2]);
        assert_eq!([200, 400, 404, 500, 504].map(answered), [Some(Look::Other); 5]);
        assert_eq!([Outcome::Refused, Outcome::Silent(LONG)].map(Outcome::look), [Some(Look::Mesh); 2]);
        assert_eq!(Outcome::Ready.look(), None);
    }

    #[tokio::test]
    async fn with_many_open_nobody_is_asked_to_hold_and_turns_come_in_order() {
        let turns = Turns::default();
        let mut open = Vec::new();
        for n in 0..MOST_OPEN {
            let (turn, may_hold) = turns.next().await;
            assert_eq!(may_hold, n < MOST_HELD, "{n}");
            open.push(turn);
        }
        tokio::task::yield_now().await; // a fresh budget, so that only turns make us wait
        let (mut first, mut second) = (Box::pin(turns.next()), Box::pin(turns.next()));
        assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
        drop(open.pop());
        assert!(futures::poll!(&mut second).is_pending(), "the first comes first");
        assert!(futures::poll!(&mut first).is_ready());
    }
}
