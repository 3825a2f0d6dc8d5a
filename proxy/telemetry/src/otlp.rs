//! Telemetry over OTLP: spans in batches, metrics at intervals, to a collector.
//!
//! 1. [`settings`] joins the configuration with the `OTEL_*` variables; [`endpoint`] reads where to, [`resource`] says
//!    who we are.
//! 2. [`outbox`] keeps a bounded number of traced requests; [`snapshot`] translates the metrics as they are.
//! 3. `exporter` makes [`messages`] of them and sends them by `client` (TLS: `trust`); [`retry`] says what follows
//!    from a failure.
//!
//! It is a task per signal on the thread that starts it and nothing at all while a signal is off. What a collector does,
//! or does not, is never felt by a request: what cannot be sent is lost and counted.

mod client;
pub mod endpoint;
mod exporter;
pub mod messages;
pub mod outbox;
pub mod resource;
pub mod retry;
pub mod settings;
pub mod snapshot;
mod trust;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use prometheus::proto::MetricFamily;

use crate::request_log::writer::Writer;
use crate::traces::stdout;
use exporter::Exporter;
use outbox::Outbox;
use settings::Telemetry;
use snapshot::Catalog;

/// At the end of the process, what is kept must be sent within this time.
const FLUSH: Duration = Duration::from_secs(10);

/// The tasks that send.
#[derive(Debug)]
pub struct Sending {
    ending: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Sending {
    /// Starts a task for each signal that is on, on the current local runtime. `outbox`: where traced requests are handed
    /// in; `metrics`: what there is now, `None` when there is nobody left to ask.
    pub fn start(
        telemetry: &Telemetry,
        outbox: Option<Arc<Outbox>>,
        catalog: &'static Catalog,
        metrics: impl Fn() -> Option<Vec<MetricFamily>> + 'static,
    ) -> Self {
        let Telemetry { traces, metrics: push, resource, ignored } = telemetry;
        if !ignored.is_empty() {
            tracing::warn!(variables = ignored.join(", "), "passed over: their values make no sense");
        }
        let ending = CancellationToken::new();
        let mut tasks = Vec::new();
        if let (Some(traces), Some(outbox)) = (traces, outbox) {
            match &traces.target {
                Some(target) => {
                    let exporter = Exporter::new(target.clone(), ending.clone());
                    let resource = resource::message(resource);
                    let task = exporter::send_traces(outbox, exporter, resource, traces.batch);
                    tasks.push(tokio::task::spawn_local(task));
                }
                None => match Writer::new(io::stdout()) {
                    Ok(writer) => {
                        let print = print(outbox, writer, resource.clone(), ending.clone());
                        tasks.push(tokio::task::spawn_local(print));
                    }
                    Err(error) => tracing::error!(%error, "no traces on stdout"),
                },
            }
        }
        if let Some(push) = push {
            let exporter = Exporter::new(push.target.clone(), ending.clone());
            let resource = resource::message(resource);
            let task = exporter::send_metrics(metrics, catalog, exporter, resource, push.clone());
            tasks.push(tokio::task::spawn_local(task));
        }
        Self { ending, tasks }
    }

    /// Sends what is left, for at most ten seconds.
    pub async fn end(self) {
        if self.tasks.is_empty() {
            return;
        }
        self.ending.cancel();
        if tokio::time::timeout(FLUSH, futures::future::join_all(self.tasks)).await.is_err() {
            tracing::warn!(within = ?FLUSH, "telemetry could not be sent to the end");
        }
    }
}

/// Prints spans as they come, until the end.
async fn print(outbox: Arc<Outbox>, writer: Writer, resource: BTreeMap<String, String>, ending: CancellationToken) {
    loop {
        tokio::select! {
            () = outbox.due() => {}
            () = ending.cancelled() => {}
        }
        let records = outbox.take();
        if records.is_empty() && ending.is_cancelled() {
            return;
        }
        for record in records {
            for span in record.http_spans() {
                writer.line(stdout::line(&span, record.hop.http_scope, &resource).as_bytes());
            }
            for span in record.own_spans() {
                writer.line(stdout::line(&span, record.hop.own_scope, &resource).as_bytes());
            }
            tokio::task::yield_now().await;
        }
    }
}
