//! Stats for autoscalers that listen: sent by the pod when there is something new to say (`api::stat::STREAM`), so that a
//! pod whose load stays as it is costs its autoscaler next to nothing.
//!
//! Fed once per window by [`crate::sidecar`]; [`crate::side_ports`] hands its streams to whoever asks.

use std::cell::{Cell, RefCell};

use api::stat::{HEARTBEAT, Stat};
use bytes::Bytes;
use futures::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message;
use proxy::Body;
use tokio::sync::watch;

use crate::sidecar::REPORT_PERIOD;

/// Listeners at once: a few autoscalers, old ones' connections among them, and someone who looks.
const MAX_LISTENERS: usize = 16;
/// Windows after which the same is said again.
const REPEAT: u32 = (HEARTBEAT.as_millis() / REPORT_PERIOD.as_millis()) as u32;
/// Change that nobody needs to know, as a part of what was told last.
const RELATIVE: f64 = 0.02;
/// The same of requests in flight for pods with next to none.
const IN_FLIGHT: f64 = 0.01;
/// Load below this is rounding.
const NOTHING: f64 = 1e-6;

/// Whether a pod that has told the one must tell the other: what it adds to its revision's load came up, is gone, or has
/// moved by more than two percent.
pub fn is_news(told: &Stat, now: &Stat) -> bool {
    let ((in_flight, rate), (in_flight_now, rate_now)) = (told.direct(), now.direct());
    let moved = |told: f64, now: f64, least: f64| {
        (told.abs() < NOTHING) != (now.abs() < NOTHING) || (told - now).abs() > (told.abs() * RELATIVE).max(least)
    };
    moved(in_flight, in_flight_now, IN_FLIGHT) || moved(rate, rate_now, NOTHING)
}

/// What listeners are told.
#[derive(Debug)]
pub struct Broadcast {
    /// The newest message, length first; `None` once there will be no more.
    messages: RefCell<Option<watch::Sender<Bytes>>>,
    told: RefCell<Stat>,
    /// Windows since.
    silent: Cell<u32>,
}

impl Broadcast {
    /// Begins with what there is to say.
    pub fn new(stat: Stat) -> Self {
        let (messages, _) = watch::channel(stat.encode_length_delimited_to_vec().into());
        Self { messages: RefCell::new(Some(messages)), told: RefCell::new(stat), silent: Cell::new(0) }
    }

    /// A window is over.
    pub fn window(&self, stat: &Stat) {
        self.silent.set(self.silent.get() + 1);
        if self.silent.get() < REPEAT && !is_news(&self.told.borrow(), stat) {
            return;
        }
        if let Some(messages) = &*self.messages.borrow() {
            messages.send_replace(stat.encode_length_delimited_to_vec().into());
        }
        stat.clone_into(&mut self.told.borrow_mut());
        self.silent.set(0);
    }

    /// A body that goes on until [`Broadcast::end`]; `None` where too many listen already.
    pub fn listen(&self) -> Option<Body> {
        let messages = self.messages.borrow();
        let messages = messages.as_ref().filter(|messages| messages.receiver_count() < MAX_LISTENERS)?;
        let mut listener = messages.subscribe();
        listener.mark_changed();
        let frames = stream::unfold(listener, |mut listener| async {
            // What a slow listener missed is old: it gets the newest.
            listener.changed().await.ok()?;
            let message = listener.borrow_and_update().clone();
            Some((Ok::<_, std::convert::Infallible>(Frame::data(message)), listener))
        });
        Some(Body::boxed(StreamBody::new(frames)))
    }

    /// Ends all streams.
    pub fn end(&self) {
        self.messages.take();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn stat(in_flight: f64, rate: f64) -> Stat {
        // As much again came through an activator, and is no news.
        Stat {
            average_concurrent_requests: 2.0 * in_flight,
            average_proxied_concurrent_requests: in_flight,
            request_count: 2.0 * rate,
            proxied_request_count: rate,
            ..Stat::default()
        }
    }

    #[test]
    fn news_is_what_moves_a_revisions_load() {
        for (told, now, news) in [
            ((0.0, 0.0), (0.0, 0.0), false),
            ((0.0, 0.0), (1e-9, 0.0), false),
            ((0.0, 0.0), (0.001, 0.0), true),
            ((0.001, 0.0), (0.0, 0.0), true),
            ((0.001, 0.0), (0.01, 0.0), false),
            ((0.02, 0.0), (0.031, 0.0), true),
            ((10.0, 50.0), (10.19, 50.0), false),
            ((10.0, 50.0), (10.21, 50.0), true),
            ((10.0, 50.0), (9.7, 50.0), true),
            ((10.0, 50.0), (10.0, 51.0), false),
            ((10.0, 50.0), (10.0, 52.0), true),
            ((10.0, 1.0), (10.0, 0.0), true),
            ((0.0, 0.0), (0.0, 1.0), true),
        ] {
            assert_eq!(is_news(&stat(told.0, told.1), &stat(now.0, now.1)), news, "{told:?} {now:?}");
        }
        let proxied =
            |n: f64| Stat { average_concurrent_requests: n, average_proxied_concurrent_requests: n, ..Stat::default() };
        assert!(!is_news(&proxied(1.0), &proxied(100.0)), "activators tell of that");
    }

    async fn next(body: &mut Body) -> Option<Stat> {
        let frame = body.frame().await?.ok()?;
        Some(Stat::decode_length_delimited(frame.into_data().ok()?).unwrap())
    }

    #[tokio::test]
    async fn listeners_hear_news_and_a_heartbeat() {
        let broadcast = Broadcast::new(stat(0.0, 0.0));
        let mut body = broadcast.listen().unwrap();
        assert_eq!(next(&mut body).await, Some(stat(0.0, 0.0)), "where things stand");
        broadcast.window(&stat(0.0, 0.0));
        broadcast.window(&stat(3.0, 0.0));
        assert_eq!(next(&mut body).await, Some(stat(3.0, 0.0)));
        for _ in 0..14 {
            broadcast.window(&stat(3.01, 0.0));
            assert!(futures::FutureExt::now_or_never(next(&mut body)).is_none(), "nothing to say");
        }
        broadcast.window(&stat(3.01, 0.0));
        assert_eq!(next(&mut body).await, Some(stat(3.01, 0.0)), "after fifteen seconds");
        broadcast.end();
        assert_eq!(next(&mut body).await, None);
        assert!(broadcast.listen().is_none());
    }

    #[test]
    fn listeners_are_bounded() {
        let broadcast = Broadcast::new(Stat::default());
        let mut bodies: Vec<Body> = (0..MAX_LISTENERS).map(|_| broadcast.listen().unwrap()).collect();
        assert!(broadcast.listen().is_none());
        bodies.pop();
        assert!(broadcast.listen().is_some());
    }
}
