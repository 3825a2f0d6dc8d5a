//! Asking one pod whether it can serve, until it can.
//!
//! Our queue-proxy holds the answer back until the app is ready (`Dormouse-Hold`) and then gives it at once; upstream's
//! answers "not yet" at once and is asked again in upstream's rhythm. A refused connection means that the sidecar is
//! just being started: asked again within milliseconds, for a while.

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
use tokio::time::Instant;

use crate::throttle::target::Target;

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
        }
    }
}

/// What one question brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It can serve.
    Ready,
    /// It answered something else, after so long.
    NotYet(Duration),
    /// Nobody listens.
    Refused,
    /// No answer, or a broken one, after so long.
    Silent(Duration),
}

impl Rhythm {
    /// How long to wait before the next question; `None` = it is ready. `refusals` counts those in a row before this.
    pub fn pause(&self, outcome: Outcome, refusals: u32, since_start: Duration) -> Option<Duration> {
        match outcome {
            Outcome::Ready => None,
            // It has held the question (or let it hang) for longer than the rhythm: ask again at once.
            Outcome::NotYet(took) | Outcome::Silent(took) => Some(self.every.saturating_sub(took)),
            Outcome::Refused if since_start > self.refused_while => Some(self.every),
            Outcome::Refused => {
                let grown = self.refused_first.mul_f64(1.25_f64.powi(i32::try_from(refusals.min(64)).unwrap_or(64)));
                Some(grown.min(self.refused_most))
            }
        }
    }
}

/// Asks until the pod can serve.
pub async fn until_ready(target: &Target, rhythm: Rhythm) {
    let start = Instant::now();
    let mut refusals = 0;
    loop {
        let outcome = ask(target, rhythm).await;
        let Some(pause) = rhythm.pause(outcome, refusals, start.elapsed()) else { return };
        refusals = if outcome == Outcome::Refused { refusals + 1 } else { 0 };
        tokio::time::sleep(pause).await;
    }
}

async fn ask(target: &Target, rhythm: Rhythm) -> Outcome {
    let start = Instant::now();
    let stream = match tokio::time::timeout(rhythm.timeout, TcpStream::connect(target.address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return Outcome::Refused,
        Ok(Err(_)) | Err(_) => return Outcome::Silent(start.elapsed()),
    };
    match tokio::time::timeout(rhythm.hold + rhythm.timeout, exchange(stream, target, rhythm.hold)).await {
        Ok(Ok(true)) => Outcome::Ready,
        Ok(Ok(false)) => Outcome::NotYet(start.elapsed()),
        // Accepted and dropped: a sidecar that is going down, or a port that is passed on before it is served.
        Ok(Err(_)) | Err(_) => Outcome::Silent(start.elapsed()),
    }
}

/// One question on one connection: whether the answer was the good one.
async fn exchange(stream: TcpStream, target: &Target, hold: Duration) -> Result<bool, proxy::BoxError> {
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::get(probe::PATH)
        .header(HOST, target.host())
        .header(USER_AGENT, probe::ACTIVATOR_USER_AGENT)
        .header(headers::NETWORK_PROBE, probe::QUEUE);
    if !hold.is_zero() {
        request = request.header(headers::HOLD, hold.as_millis().to_string());
    }
    let answer = async {
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        if response.status() != StatusCode::OK {
            return Ok(false);
        }
        let body = Limited::new(response.into_body(), probe::QUEUE.len()).collect().await?;
        Ok::<_, proxy::BoxError>(body.to_bytes() == probe::QUEUE)
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
            (Outcome::NotYet(ms(5)), 0, ms(5), Some(ms(195))),
            (Outcome::NotYet(LONG), 0, LONG, Some(ms(0))),
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
}
