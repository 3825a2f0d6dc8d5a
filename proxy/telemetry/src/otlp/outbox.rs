//! Traced requests that wait to be sent: bounded, and what does not fit is lost and counted.
//!
//! Several threads may hand in, one takes out. The lock is in the way of traced requests only, and held for a push.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::settings::BatchLimits;
use crate::traces::record::Record;

/// The pure part: records in order, counted in spans.
#[derive(Debug)]
struct Queue {
    limits: BatchLimits,
    records: VecDeque<Record>,
    spans: usize,
    lost: u64,
}

impl Queue {
    /// Takes a record in; whether this makes a first record or a full batch.
    fn push(&mut self, record: Record) -> bool {
        let spans = record.spans();
        if self.spans + spans > self.limits.queue {
            self.lost += spans as u64;
            return false;
        }
        let before = self.spans;
        self.spans += spans;
        self.records.push_back(record);
        before == 0 || (before < self.limits.batch && self.spans >= self.limits.batch)
    }

    /// The oldest records, as many as a batch holds, but one at least.
    fn take(&mut self) -> Vec<Record> {
        let (mut taken, mut spans) = (Vec::new(), 0);
        while let Some(record) = self.records.front() {
            if spans > 0 && spans + record.spans() > self.limits.batch {
                break;
            }
            spans += record.spans();
            taken.extend(self.records.pop_front());
        }
        self.spans -= spans;
        taken
    }
}

/// The queue with its alarm.
#[derive(Debug)]
pub struct Outbox {
    queue: Mutex<Queue>,
    grown: Notify,
}

impl Outbox {
    /// An empty one.
    pub fn new(limits: BatchLimits) -> Self {
        let queue = Queue { limits, records: VecDeque::new(), spans: 0, lost: 0 };
        Self { queue: Mutex::new(queue), grown: Notify::new() }
    }

    /// Hands in a request that is over.
    pub fn push(&self, record: Record) {
        if self.lock().push(record) {
            self.grown.notify_one();
        }
    }

    /// The next batch; empty if there is none.
    pub(super) fn take(&self) -> Vec<Record> {
        self.lock().take()
    }

    /// Spans lost since this was last asked.
    pub(super) fn lost(&self) -> u64 {
        std::mem::take(&mut self.lock().lost)
    }

    /// Resolves when there is a full batch, or when the oldest record has waited long enough. For one caller.
    pub(super) async fn due(&self) {
        self.holds(1).await;
        let (batch, delay) = {
            let queue = self.lock();
            (queue.limits.batch, queue.limits.delay)
        };
        let _ = tokio::time::timeout(delay, self.holds(batch)).await;
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn holds(&self, spans: usize) {
        while self.lock().spans < spans {
            self.grown.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::hop::{Hop, Lasts, MAX_STAGES, Stage};
    use crate::traces::ids::{SpanId, TraceId};
    use futures::FutureExt;
    use std::time::Duration;

    /// A request of three spans.
    fn record(n: u8) -> Record {
        static HOP: Hop = Hop {
            http_scope: "",
            own_scope: "",
            b3: false,
            route_tag: false,
            stages: &[Stage { name: "s", within: None, lasts: Lasts::WholeRequest }],
            client_name: |_| String::new(),
        };
        Record {
            hop: &HOP,
            trace: TraceId([n; 16]),
            caller: None,
            state: String::new(),
            server: SpanId([1; 8]),
            stages: [SpanId([1; 8]); MAX_STAGES],
            client: SpanId([1; 8]),
            started: 0,
            asked: Some(Duration::ZERO),
            sent: Some((Duration::ZERO, ([127, 0, 0, 1], 1).into())),
            answered: None,
            refused: String::new(),
            ended: Duration::ZERO,
            status: None,
            broken: false,
            bytes: 0,
            request: crate::traces::record::Facts::default(),
            subject: None,
            events: Vec::new(),
        }
    }

    fn outbox(queue: usize, batch: usize) -> Outbox {
        Outbox::new(BatchLimits { queue, batch, ..BatchLimits::default() })
    }

    fn traces(records: &[Record]) -> Vec<u8> {
        records.iter().map(|record| record.trace.0[0]).collect()
    }

    #[test]
    fn what_does_not_fit_is_lost_and_counted() {
        let outbox = outbox(7, 6);
        for n in 0..4 {
            outbox.push(record(n));
        }
        assert_eq!((outbox.lost(), outbox.lost()), (6, 0));
        assert_eq!(traces(&outbox.take()), [0, 1]);
        outbox.push(record(9));
        assert_eq!(traces(&outbox.take()), [9]);
        assert!(outbox.take().is_empty());
    }

    #[test]
    fn batches_keep_their_size_and_the_order() {
        let outbox = outbox(100, 8);
        for n in 0..5 {
            outbox.push(record(n));
        }
        let batches = [outbox.take(), outbox.take(), outbox.take()];
        assert_eq!(batches.map(|batch| traces(&batch)), [vec![0, 1], vec![2, 3], vec![4]]);
        let outbox = super::tests::outbox(100, 1);
        outbox.push(record(7));
        assert_eq!(traces(&outbox.take()), [7], "a request larger than a batch goes alone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_batch_is_due_at_once_and_a_single_span_after_the_delay() {
        let outbox = outbox(100, 6);
        assert!(outbox.due().now_or_never().is_none(), "nothing is never due");
        outbox.push(record(0));
        let before = tokio::time::Instant::now();
        outbox.due().await;
        assert_eq!(before.elapsed().as_secs(), 5);
        outbox.push(record(1));
        assert!(outbox.due().now_or_never().is_some());
    }
}
