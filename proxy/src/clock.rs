//! The time, as one turn of a connection's task sees it: it stands still from poll to poll, as in any event loop.
//!
//! A request asks for the time half a dozen times within microseconds, and each look at the clock costs more than most of
//! what is done in between. Whoever measures long work within a turn, or decides whether a timer is due, asks the clock
//! itself.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::time::Instant;

thread_local! {
    static TURN: Cell<Turn> = const { Cell::new(Turn::None) };
}

#[derive(Clone, Copy)]
enum Turn {
    /// Nobody's, and the clock itself is asked.
    None,
    /// Nobody has asked yet.
    Begun,
    /// Somebody has.
    At(Instant),
}

/// Now, or when this was first asked in this turn.
pub fn now() -> Instant {
    match TURN.get() {
        Turn::At(now) => now,
        Turn::None => Instant::now(),
        Turn::Begun => {
            let now = Instant::now();
            TURN.set(Turn::At(now));
            now
        }
    }
}

pin_project! {
    /// A future each poll of which is a turn.
    pub(crate) struct Turns<F> {
        #[pin]
        future: F,
    }
}

/// Makes each poll of a future a turn.
pub(crate) fn turns<F: Future>(future: F) -> Turns<F> {
    Turns { future }
}

impl<F: Future> Future for Turns<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        /// However the poll ends.
        struct End;
        impl Drop for End {
            fn drop(&mut self) {
                TURN.set(Turn::None);
            }
        }
        TURN.set(Turn::Begun);
        let _end = End;
        self.project().future.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn time_stands_still_within_a_turn_and_nowhere_else() {
        let passes = || tokio::time::advance(Duration::from_secs(1));
        let before = now();
        passes().await;
        assert!(now() > before);
        turns(async {
            let (began, mut rest) = (now(), std::pin::pin!(passes()));
            // Time passes within the first poll of it.
            std::future::poll_fn(|cx| {
                let _ = rest.as_mut().poll(cx);
                assert!(Instant::now() > now() && now() == began);
                Poll::Ready(())
            })
            .await;
            tokio::task::yield_now().await;
            assert!(now() > began);
        })
        .await;
        assert_eq!(now(), Instant::now());
    }
}
