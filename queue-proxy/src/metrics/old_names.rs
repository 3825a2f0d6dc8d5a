//! The names that upstream used before v1.19 (OpenCensus), for dashboards that still ask for them. Same events as
//! today's names, other units and labels; on by default, off with `DORMOUSE_OLD_METRIC_NAMES=false`.

use std::collections::HashMap;

use prometheus::local::{LocalHistogram, LocalIntCounter};
use prometheus::{Gauge, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use super::Outcome;
use crate::config::Identity;

/// Bounds of latencies in milliseconds.
const MILLISECONDS: [f64; 26] = [
    5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 150.0, 200.0, 250.0, 300.0, 350.0, 400.0, 450.0, 500.0, 600.0, 700.0,
    800.0, 900.0, 1000.0, 2000.0, 5000.0, 10000.0, 20000.0, 50000.0, 100_000.0,
];

/// The handles.
#[derive(Debug)]
pub(super) struct OldNames {
    pub(super) registry: Registry,
    requests: IntCounterVec,
    latencies: HistogramVec,
    app_requests: IntCounterVec,
    app_latencies: HistogramVec,
    queue_depth: Gauge,
}

/// What one set of labels has counted since it was last flushed.
#[derive(Debug)]
pub(super) struct Series {
    requests: LocalIntCounter,
    latencies: LocalHistogram,
    app_requests: LocalIntCounter,
    app_latencies: LocalHistogram,
}

impl OldNames {
    pub(super) fn new(identity: &Identity) -> Result<Self, prometheus::Error> {
        let pod_labels: HashMap<String, String> = [
            ("namespace_name", identity.namespace.as_str()),
            ("service_name", &identity.service),
            ("configuration_name", &identity.configuration),
            ("revision_name", &identity.revision),
            ("pod_name", &identity.pod),
            ("container_name", "queue-proxy"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
        let registry = Registry::new_custom(None, Some(pod_labels))?;
        let of_requests = ["response_code", "response_code_class", "route_tag"];
        let of_app = ["response_code", "response_code_class"];
        let latencies = |name: &str, help: &str, labels: &[&str]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(MILLISECONDS.to_vec()), labels)
        };
        let this = Self {
            registry,
            requests: IntCounterVec::new(
                Opts::new("revision_request_count", "Requests that reached the sidecar."),
                &of_requests,
            )?,
            latencies: latencies(
                "revision_request_latencies",
                "Milliseconds of requests to the sidecar.",
                &of_requests,
            )?,
            app_requests: IntCounterVec::new(
                Opts::new("revision_app_request_count", "Requests that reached the user container."),
                &of_app,
            )?,
            app_latencies: latencies(
                "revision_app_request_latencies",
                "Milliseconds of requests to the user container.",
                &of_app,
            )?,
            queue_depth: Gauge::new("revision_queue_depth", "Requests running and waiting at this pod.")?,
        };
        this.registry.register(Box::new(this.requests.clone()))?;
        this.registry.register(Box::new(this.latencies.clone()))?;
        this.registry.register(Box::new(this.app_requests.clone()))?;
        this.registry.register(Box::new(this.app_latencies.clone()))?;
        this.registry.register(Box::new(this.queue_depth.clone()))?;
        Ok(this)
    }

    pub(super) fn queue_depth(&self, depth: f64) {
        self.queue_depth.set(depth);
    }

    /// `tag` is today's value of the route tag.
    pub(super) fn resolve(&self, status: u16, tag: &str) -> Series {
        let (code, class) = (status.to_string(), format!("{}xx", status / 100));
        let tag = match tag.strip_prefix("kn:") {
            Some(word) => word.to_ascii_uppercase(),
            None => tag.to_string(),
        };
        let (of_requests, of_app) = ([code.as_str(), &class, &tag], [code.as_str(), &class]);
        Series {
            requests: self.requests.with_label_values(&of_requests).local(),
            latencies: self.latencies.with_label_values(&of_requests).local(),
            app_requests: self.app_requests.with_label_values(&of_app).local(),
            app_latencies: self.app_latencies.with_label_values(&of_app).local(),
        }
    }
}

impl Series {
    pub(super) fn record(&self, outcome: &Outcome) {
        self.requests.inc();
        self.latencies.observe(outcome.total.as_secs_f64() * 1000.0);
        if let Some(invocation) = outcome.invocation {
            self.app_requests.inc();
            self.app_latencies.observe(invocation.as_secs_f64() * 1000.0);
        }
    }

    pub(super) fn flush(&self) {
        self.requests.flush();
        self.latencies.flush();
        self.app_requests.flush();
        self.app_latencies.flush();
    }
}
