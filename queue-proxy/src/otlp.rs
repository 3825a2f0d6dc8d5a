//! Telemetry over OTLP: spans in batches, metrics at intervals, to a collector.
//!
//! 1. [`settings`] joins `OBSERVABILITY_CONFIG` with the `OTEL_*` variables; [`endpoint`] reads where to,
//!    [`resource`] says who we are.
//! 2. [`outbox`] keeps a bounded number of traced requests; `snapshot` takes the metrics as they are.
//! 3. `exporter` makes [`messages`] of them and sends them by `client` (TLS: `trust`); [`retry`] says what follows
//!    from a failure.
//!
//! It is a task per signal on the sidecar's own thread and nothing at all while a signal is off. What a collector does,
//! or does not, is never felt by a request: what cannot be sent is lost and counted.

mod client;
pub mod endpoint;
mod exporter;
pub mod messages;
pub mod outbox;
pub mod resource;
pub mod retry;
pub mod settings;
mod snapshot;
mod trust;

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::request_log::writer::Writer;
use crate::sidecar::Sidecar;
use crate::traces::stdout;
use exporter::Exporter;
use outbox::Outbox;
use settings::Telemetry;

/// At the end of the process, what is kept must be sent within this time.
const FLUSH: Duration = Duration::from_secs(10);

/// The tasks that send.
#[derive(Debug)]
pub struct Sending {
    ending: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Sending {
    /// Starts a task for each signal that is on.
    pub fn start(config: &Config, sidecar: &Rc<Sidecar>) -> Self {
        let Telemetry { traces, metrics, resource, ignored } = &config.telemetry;
        if !ignored.is_empty() {
            tracing::warn!(variables = ignored.join(", "), "passed over: their values make no sense");
        }
        let ending = CancellationToken::new();
        let mut tasks = Vec::new();
        if let (Some(traces), Some(handed_in)) = (traces, &sidecar.traces) {
            let outbox = handed_in.outbox();
            match &traces.target {
                Some(target) => {
                    let exporter = Exporter::new(target.clone(), ending.clone());
                    let resource = resource::message(resource);
                    let task = exporter::send_traces(outbox, exporter, resource, traces.batch, config.user);
                    tasks.push(tokio::task::spawn_local(task));
                }
                None => match Writer::new(io::stdout()) {
                    Ok(writer) => {
                        let print = print(outbox, writer, resource.clone(), ending.clone(), config.user);
                        tasks.push(tokio::task::spawn_local(print));
                    }
                    Err(error) => tracing::error!(%error, "no traces on stdout"),
                },
            }
        }
        if let Some(push) = metrics {
            let exporter = Exporter::new(push.target.clone(), ending.clone());
            let (sidecar, resource) = (Rc::downgrade(sidecar), resource::message(resource));
            tasks.push(tokio::task::spawn_local(exporter::send_metrics(sidecar, exporter, resource, push.clone())));
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
async fn print(
    outbox: Rc<Outbox>,
    writer: Writer,
    resource: BTreeMap<String, String>,
    ending: CancellationToken,
    app: std::net::SocketAddr,
) {
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
            for span in record.http_spans(app) {
                writer.line(stdout::line(&span, resource::SCOPE, &resource).as_bytes());
            }
            for span in record.own_spans() {
                writer.line(stdout::line(&span, resource::UPSTREAM_SCOPE, &resource).as_bytes());
            }
            tokio::task::yield_now().await;
        }
    }
}
