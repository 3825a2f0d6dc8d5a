//! Opening a connection to a target: short attempts that grow, with a pause between, because a starting pod's
//! network may swallow the first SYN. A refusal is final at once: somebody is there and says no.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// How long to try, and how often.
#[derive(Debug, Clone, PartialEq)]
pub struct DialPolicy {
    /// Patience of the first attempt.
    pub first_timeout: Duration,
    /// Each attempt is this much more patient than the last.
    pub factor: f64,
    /// Share of the timeout added at random.
    pub jitter: f64,
    /// Attempts in all.
    pub attempts: u32,
    /// Pause between attempts: at least this, at most twice this.
    pub pause: Duration,
    /// TCP keep-alive idle time and interval.
    pub keep_alive: Duration,
}

impl Default for DialPolicy {
    fn default() -> Self {
        Self {
            first_timeout: Duration::from_millis(50),
            factor: 1.4,
            jitter: 0.1,
            attempts: 15,
            pause: Duration::from_millis(30),
            keep_alive: Duration::from_secs(5),
        }
    }
}

impl DialPolicy {
    /// Patience of attempt `n` (from 0), given a random number in 0..1.
    pub fn timeout(&self, n: u32, random: f64) -> Duration {
        let grown = self.first_timeout.as_secs_f64() * self.factor.powi(i32::try_from(n).unwrap_or(i32::MAX));
        Duration::try_from_secs_f64(grown * (1.0 + self.jitter * random)).unwrap_or(Duration::MAX)
    }

    /// Pause after a failed attempt, given a random number in 0..1.
    pub fn pause(&self, random: f64) -> Duration {
        self.pause.mul_f64(1.0 + random.clamp(0.0, 1.0))
    }
}

/// Opens a connection with `TCP_NODELAY` and keep-alive set. Only timeouts are tried again.
pub async fn dial(target: SocketAddr, policy: &DialPolicy) -> io::Result<TcpStream> {
    for attempt in 0..policy.attempts.max(1) {
        let patience = policy.timeout(attempt, fastrand::f64());
        match tokio::time::timeout(patience, TcpStream::connect(target)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                let keep_alive = TcpKeepalive::new().with_time(policy.keep_alive).with_interval(policy.keep_alive);
                SockRef::from(&stream).set_tcp_keepalive(&keep_alive)?;
                return Ok(stream);
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {}
            Ok(Err(error)) => return Err(error),
            Err(_elapsed) => {}
        }
        if attempt + 1 < policy.attempts {
            tokio::time::sleep(policy.pause(fastrand::f64())).await;
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {} attempts", policy.attempts.max(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_grows_by_the_factor_and_jitter_only_adds() {
        let policy = DialPolicy::default();
        assert_eq!(policy.timeout(0, 0.0), Duration::from_millis(50));
        assert_eq!(policy.timeout(1, 0.0), Duration::from_millis(70));
        assert_eq!(policy.timeout(0, 1.0), Duration::from_millis(55));
        for n in 1..policy.attempts {
            assert!(policy.timeout(n, 0.0) > policy.timeout(n - 1, 1.0));
        }
        assert_eq!(policy.pause(0.0), Duration::from_millis(30));
        assert_eq!(policy.pause(1.0), Duration::from_millis(60));
    }

    #[tokio::test]
    async fn a_refusal_is_final_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        drop(listener);
        let error = dial(target, &DialPolicy::default()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
