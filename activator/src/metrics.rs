//! Every metric of the activator, declared once. Names and meaning of the `kn_` and `http_` ones are upstream's.

use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::revision::{RevisionKey, Settings};
use crate::wake::Phases;

const REVISION: &[&str] = &["k8s_namespace_name", "kn_revision_name"];
const REVISION_AND_PARENTS: &[&str] =
    &["kn_service_name", "kn_configuration_name", "kn_revision_name", "k8s_namespace_name"];
const REVISION_AND_CLASS: &[&str] = &["k8s_namespace_name", "kn_revision_name", "http_response_status_class"];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const REQUEST_SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const WAKE_SECONDS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    concurrency: GaugeVec,
    queued: IntGaugeVec,
    active: IntGaugeVec,
    duration: HistogramVec,
    set_aside: IntCounterVec,
    wake: HistogramVec,
    faults: IntCounterVec,
    /// Whether the autoscaler's websocket is up.
    pub autoscaler_reachable: IntGauge,
    /// How often it was lost.
    pub autoscaler_errors: IntCounter,
    /// Hosts in the routing table.
    pub hosts: IntGauge,
    /// Revisions known.
    pub revisions: IntGauge,
}

/// The metrics of one revision: resolved once, removed when dropped.
#[derive(Debug)]
pub struct RevisionMetrics {
    /// Set each second from the report.
    pub concurrency: prometheus::Gauge,
    /// Requests that wait for a slot.
    pub queued: IntGauge,
    /// Requests that have one.
    pub active: IntGauge,
    /// Pods taken out because they did not answer.
    pub set_aside: IntCounter,
    /// Seconds per request, by class of status.
    duration: [Histogram; 5],
    vectors: (GaugeVec, IntGaugeVec, IntGaugeVec, IntCounterVec, HistogramVec),
    labels: [String; 4],
}

impl Metrics {
    /// Declares everything in a registry of its own.
    pub fn new() -> Result<Self, prometheus::Error> {
        let seconds =
            |name: &str, help: &str, buckets: &[f64]| HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let this = Self {
            registry: Registry::new(),
            concurrency: GaugeVec::new(
                Opts::new("kn_revision_request_concurrency", "Concurrent requests as last reported to the autoscaler"),
                REVISION_AND_PARENTS,
            )?,
            queued: IntGaugeVec::new(
                Opts::new("kn_revision_request_queued", "Requests that wait for a slot on a pod"),
                REVISION,
            )?,
            active: IntGaugeVec::new(
                Opts::new("kn_revision_request_active", "Requests that a pod works on"),
                REVISION,
            )?,
            duration: HistogramVec::new(
                seconds("http_server_request_duration_seconds", "Time from request to last byte", REQUEST_SECONDS),
                REVISION_AND_CLASS,
            )?,
            set_aside: IntCounterVec::new(
                Opts::new("dormouse_activator_pods_set_aside_total", "Pods taken out because they did not answer"),
                REVISION,
            )?,
            wake: HistogramVec::new(
                seconds("dormouse_activator_wake_seconds", "Wake-ups by phase: to_ready, to_first_byte", WAKE_SECONDS),
                &["phase"],
            )?,
            faults: IntCounterVec::new(
                Opts::new("dormouse_activator_faults_total", "Answers the activator made itself, by reason"),
                &["reason"],
            )?,
            autoscaler_reachable: IntGauge::with_opts(
                Opts::new("kn_activator_stats_conn_reachable", "Whether the autoscaler is connected (1) or not (0)")
                    .const_label("peer", "autoscaler"),
            )?,
            autoscaler_errors: IntCounter::with_opts(
                Opts::new("kn_activator_stats_conn_errors_total", "Connections to the autoscaler that were lost")
                    .const_label("peer", "autoscaler"),
            )?,
            hosts: IntGauge::new("dormouse_activator_hosts", "Hosts in the routing table")?,
            revisions: IntGauge::new("dormouse_activator_revisions", "Revisions known")?,
        };
        let all: [Box<dyn prometheus::core::Collector>; 11] = [
            Box::new(this.concurrency.clone()),
            Box::new(this.queued.clone()),
            Box::new(this.active.clone()),
            Box::new(this.duration.clone()),
            Box::new(this.set_aside.clone()),
            Box::new(this.wake.clone()),
            Box::new(this.faults.clone()),
            Box::new(this.autoscaler_reachable.clone()),
            Box::new(this.autoscaler_errors.clone()),
            Box::new(this.hosts.clone()),
            Box::new(this.revisions.clone()),
        ];
        for collector in all {
            this.registry.register(collector)?;
        }
        Ok(this)
    }

    /// The handles of one revision.
    pub fn revision(&self, key: &RevisionKey, settings: &Settings) -> RevisionMetrics {
        let (namespace, name) = (&*key.namespace, &*key.name);
        let two = [namespace, name];
        let four = [settings.service.as_str(), settings.configuration.as_str(), name, namespace];
        RevisionMetrics {
            concurrency: self.concurrency.with_label_values(&four),
            queued: self.queued.with_label_values(&two),
            active: self.active.with_label_values(&two),
            set_aside: self.set_aside.with_label_values(&two),
            duration: CLASSES.map(|class| self.duration.with_label_values(&[namespace, name, class])),
            vectors: (
                self.concurrency.clone(),
                self.queued.clone(),
                self.active.clone(),
                self.set_aside.clone(),
                self.duration.clone(),
            ),
            labels: four.map(str::to_owned),
        }
    }

    /// A wake-up is over.
    pub fn woken(&self, phases: Phases) {
        self.wake.with_label_values(&["to_ready"]).observe(phases.to_ready.as_secs_f64());
        self.wake.with_label_values(&["to_first_byte"]).observe(phases.to_first_byte.as_secs_f64());
    }

    /// The activator answered itself; reasons are a fixed set of words.
    pub fn fault(&self, reason: &str) {
        self.faults.with_label_values(&[reason]).inc();
    }

    /// All of it in Prometheus' text format.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

impl RevisionMetrics {
    /// A request ended with a status after so many seconds.
    pub fn ended(&self, status: http::StatusCode, seconds: f64) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        if let Some(histogram) = self.duration.get(class) {
            histogram.observe(seconds);
        }
    }
}

impl Drop for RevisionMetrics {
    fn drop(&mut self) {
        let [service, configuration, name, namespace] = self.labels.each_ref().map(String::as_str);
        let (concurrency, queued, active, set_aside, duration) = &self.vectors;
        // Not there any more is just as well.
        let _ = concurrency.remove_label_values(&[service, configuration, name, namespace]);
        let _ = queued.remove_label_values(&[namespace, name]);
        let _ = active.remove_label_values(&[namespace, name]);
        let _ = set_aside.remove_label_values(&[namespace, name]);
        for class in CLASSES {
            let _ = duration.remove_label_values(&[namespace, name, class]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy::deadline::Limits;

    #[test]
    fn series_of_a_revision_vanish_with_it() {
        let metrics = Metrics::new().unwrap();
        let settings = Settings {
            container_concurrency: 0,
            protocol: crate::revision::Protocol::Http1,
            limits: Limits::default(),
            trust_early_probe: true,
            policy: None,
            service: "hello".into(),
            configuration: "hello".into(),
        };
        let revision = metrics.revision(&RevisionKey::new("default", "hello-00001"), &settings);
        revision.queued.inc();
        revision.ended(http::StatusCode::OK, 0.001);
        let text = metrics.render().unwrap();
        assert!(
            text.contains(
                r#"kn_revision_request_queued{k8s_namespace_name="default",kn_revision_name="hello-00001"} 1"#
            ),
            "{text}"
        );
        drop(revision);
        assert!(!metrics.render().unwrap().contains("hello-00001"));
    }
}
