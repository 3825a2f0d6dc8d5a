//! The websocket to the autoscaler: one binary message per frame, pings, and a new connection whenever one is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::Reporter;
use crate::metrics::Metrics;

const HANDSHAKE: Duration = Duration::from_secs(3);
const PING_EVERY: Duration = Duration::from_millis(3_333);
const SILENCE: Duration = Duration::from_secs(10);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Pause before attempt `n` (from 0) to connect, given a random number in 0..1: upstream's steps, without its rare very
/// long ones, because a wake-up may be waiting.
pub fn pause(n: u32, random: f64) -> Duration {
    let grown = 0.1 * 1.3_f64.powi(i32::try_from(n.min(15)).unwrap_or(15));
    Duration::from_secs_f64(grown.min(3.0) * (1.0 + 0.5 * random.clamp(0.0, 1.0)))
}

/// Keeps a connection and sends what comes through `frames`, for ever.
pub async fn run(url: String, reporter: Arc<Reporter>, mut frames: UnboundedReceiver<Bytes>, metrics: Arc<Metrics>) {
    let (mut attempt, mut first) = (0, true);
    loop {
        match tokio::time::timeout(HANDSHAKE, connect_async_with_config(&url, None, true)).await {
            Ok(Ok((socket, _))) => {
                // Left over from the last connection; `connected_now` says again what still holds of it.
                while let Ok(frame) = frames.try_recv() {
                    reporter.unsent(&frame);
                }
                tracing::info!(%url, "connected to the autoscaler");
                metrics.autoscaler_reachable.set(1);
                reporter.connected_now(Instant::now(), first);
                (attempt, first) = (0, false);
                let why = serve(socket, &reporter, &mut frames).await;
                reporter.disconnected();
                metrics.autoscaler_reachable.set(0);
                metrics.autoscaler_errors.inc();
                tracing::warn!(%url, why, "lost the autoscaler; wake-ups wait until it is back");
                continue;
            }
            Ok(Err(error)) => tracing::debug!(%url, %error, attempt, "autoscaler not reached"),
            Err(_) => tracing::debug!(%url, attempt, "autoscaler: no answer to the handshake"),
        }
        tokio::time::sleep(pause(attempt, fastrand::f64())).await;
        attempt += 1;
    }
}

/// Uses one connection until it ends; says why it did.
async fn serve(mut socket: Socket, reporter: &Reporter, frames: &mut UnboundedReceiver<Bytes>) -> &'static str {
    let mut ping = tokio::time::interval(PING_EVERY);
    let mut heard = tokio::time::Instant::now();
    loop {
        tokio::select! {
            frame = frames.recv() => {
                let Some(frame) = frame else { return "stopped" };
                if socket.send(Message::Binary(frame.clone())).await.is_err() {
                    reporter.unsent(&frame);
                    return "sending failed";
                }
            }
            message = socket.next() => match message {
                Some(Ok(Message::Close(_))) | None => return "closed",
                Some(Ok(_)) => heard = tokio::time::Instant::now(),
                Some(Err(_)) => return "broken",
            },
            _ = ping.tick() => {
                if heard.elapsed() > SILENCE {
                    return "silent";
                }
                if socket.send(Message::Ping(Bytes::new())).await.is_err() {
                    return "sending failed";
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        assert_eq!(pause(0, 0.0), Duration::from_millis(100));
        assert_eq!(pause(1, 1.0), Duration::from_millis(195));
        assert!(pause(u32::MAX, 1.0) <= Duration::from_millis(4_500));
    }
}
