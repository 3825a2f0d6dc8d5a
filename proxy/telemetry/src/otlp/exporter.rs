//! The two tasks that send: spans in batches, metrics at intervals. Local tasks; a request never waits for them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prometheus::proto::MetricFamily;
use prost::Message;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::messages::{ExportMetrics, ExportTraces, Resource, ResourceMetrics, ResourceSpans, Scope, ScopeSpans};
use super::outbox::Outbox;
use super::resource::VERSION;
use super::retry::{Backoff, Failure, Health, News};
use super::settings::{BatchLimits, Push, Target};
use super::snapshot::{self, Catalog};
use crate::traces::record::Record;
use crate::traces::unix_nanos;

/// Records turned into messages before requests get their turn again.
const AT_A_TIME: usize = 16;

/// Sends to one collector, again and again.
#[derive(Debug)]
pub(super) struct Exporter {
    client: Client,
    health: Health,
    ending: CancellationToken,
}

impl Exporter {
    pub(super) fn new(target: Target, ending: CancellationToken) -> Self {
        Self { client: Client::new(target), health: Health::default(), ending }
    }

    /// Sends a message of some items; tries again while that makes sense.
    async fn export(&mut self, message: Bytes, items: u64, patience: Duration) {
        let (mut backoff, since) = (Backoff::new(patience), Instant::now());
        loop {
            let failing_before = self.health.failing();
            let left = patience.saturating_sub(since.elapsed());
            let attempt = tokio::time::timeout(left, self.client.export(&message)).await;
            let failure = match attempt {
                Ok(Ok(rejected)) => {
                    self.health.lost(rejected);
                    let news = self.health.worked(Instant::now().into_std());
                    return self.say(news, None);
                }
                Ok(Err(failure)) => failure,
                Err(_late) => Failure::transport(format!("not through within {patience:?}")),
            };
            let news = self.health.failed();
            self.say(news, Some(&failure));
            let pause = backoff.pause(&failure, since.elapsed(), fastrand::f64());
            // At the end of the process a collector that was away before gets one attempt, no more.
            let hopeless = failing_before && self.ending.is_cancelled();
            let Some(pause) = pause.filter(|_| !hopeless) else {
                self.health.lost(items);
                return;
            };
            if self.ending.is_cancelled() {
                tokio::time::sleep(pause).await;
            } else {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.ending.cancelled() => {}
                }
            }
        }
    }

    fn say(&self, news: Option<News>, failure: Option<&Failure>) {
        let Target { signal, endpoint, .. } = self.client.target();
        match (news, failure) {
            (Some(News::Failing), Some(error)) => {
                tracing::warn!(%signal, %endpoint, %error, "telemetry cannot be sent; this is said once");
            }
            (Some(News::Recovered(lost)), _) => tracing::info!(%signal, %endpoint, lost, "telemetry is sent again"),
            (Some(News::Losing(lost)), _) => tracing::warn!(%signal, %endpoint, lost, "telemetry was lost"),
            _ => {}
        }
    }

    /// Says what was lost and nobody has heard of yet.
    fn end(mut self) {
        let lost = self.health.all_lost();
        if lost > 0 {
            self.say(Some(News::Losing(lost)), None);
        }
    }
}

/// Sends what comes into the outbox until the end, and then what is left of it.
pub(super) async fn send_traces(outbox: Arc<Outbox>, mut exporter: Exporter, resource: Resource, batch: BatchLimits) {
    let ending = exporter.ending.clone();
    loop {
        tokio::select! {
            () = outbox.due() => {}
            () = ending.cancelled() => {}
        }
        let records = outbox.take();
        exporter.health.lost(outbox.lost());
        if records.is_empty() {
            if ending.is_cancelled() {
                return exporter.end();
            }
            continue;
        }
        let items = records.iter().map(|record| record.spans() as u64).sum();
        let message = batch_message(records, &resource).await;
        exporter.export(message, items, batch.patience).await;
    }
}

/// A batch, encoded.
async fn batch_message(records: Vec<Record>, resource: &Resource) -> Bytes {
    let (mut http, mut own) = (Vec::new(), Vec::new());
    // All of a process are of one hop.
    let (http_scope, own_scope) =
        records.first().map(|record| (record.hop.http_scope, record.hop.own_scope)).unwrap_or_default();
    for some in records.chunks(AT_A_TIME) {
        for record in some {
            http.extend(record.http_spans());
            own.extend(record.own_spans());
        }
        tokio::task::yield_now().await;
    }
    let scoped = |name, spans| ScopeSpans { scope: Some(scope(name)), spans };
    let scope_spans = vec![scoped(http_scope, http), scoped(own_scope, own)];
    let resource_spans = vec![ResourceSpans { resource: Some(resource.clone()), scope_spans }];
    ExportTraces { resource_spans }.encode_to_vec().into()
}

/// Sends the metrics at intervals until the end, and then once more.
pub(super) async fn send_metrics(
    metrics: impl Fn() -> Option<Vec<MetricFamily>>,
    catalog: &'static Catalog,
    mut exporter: Exporter,
    resource: Resource,
    push: Push,
) {
    let (ending, started) = (exporter.ending.clone(), unix_nanos(SystemTime::now()));
    loop {
        tokio::select! {
            () = tokio::time::sleep(push.interval) => {}
            () = ending.cancelled() => {}
        }
        let last = ending.is_cancelled();
        if let Some(families) = metrics() {
            let scope_metrics = snapshot::scopes(catalog, &families, started, unix_nanos(SystemTime::now()));
            // What a push that fails has carried, the next one carries too; only the last is lost for good.
            let items = if last { snapshot::points(&scope_metrics) } else { 0 };
            let resource_metrics = vec![ResourceMetrics { resource: Some(resource.clone()), scope_metrics }];
            let message = ExportMetrics { resource_metrics }.encode_to_vec();
            drop(families);
            exporter.export(message.into(), items, push.patience).await;
        }
        if last {
            return exporter.end();
        }
    }
}

pub(super) fn scope(name: &str) -> Scope {
    Scope { name: name.into(), version: VERSION.into() }
}
