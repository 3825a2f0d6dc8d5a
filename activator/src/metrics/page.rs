//! What has been counted, added up and named, when somebody looks: today's names, and those of before July 2025
//! (OpenCensus), which have milliseconds, other labels and no methods.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};
use telemetry::Identity;

use super::cells::{BYTES, MILLISECONDS, Spread};
use super::requests::{Labels, PodLabels, Sums};
use super::{Metrics, RevisionMetrics};

/// Bounds of durations under today's names, in milliseconds; they are shown in seconds.
const TODAYS: [u32; 14] = [5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000];
/// Bounds of latencies under the old names, in milliseconds.
const OLD: [u32; 26] = [
    5, 10, 20, 40, 60, 80, 100, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700, 800, 900, 1000, 2000, 5000, 10000,
    20000, 50000, 100_000,
];

/// One revision, all threads together. Two of one name, of which one is gone but for its last requests, are one.
#[derive(Debug, Default)]
struct Revision {
    queued: i64,
    active: i64,
    concurrency: f64,
    set_aside: u64,
    queue_full: u64,
    requests: BTreeMap<Option<Labels>, Sums>,
}

impl Revision {
    fn add(&mut self, metrics: &RevisionMetrics) {
        self.concurrency += f64::from_bits(metrics.concurrency.load(Ordering::Relaxed));
        for cells in metrics.threads.iter() {
            self.queued += cells.queued.get();
            self.active += cells.active.get();
            self.set_aside += cells.set_aside.get();
            self.queue_full += cells.queue_full.get();
            cells.requests.add_to(&mut self.requests);
        }
    }
}

type Revisions<'a> = BTreeMap<&'a Identity, Revision>;

impl Metrics {
    /// Today's metrics as they are now.
    pub fn families(&self) -> Vec<MetricFamily> {
        let alive = self.alive();
        self.todays(&sums(&alive))
    }

    /// The page, in Prometheus' text format.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let alive = self.alive();
        let revisions = sums(&alive);
        let mut families = self.todays(&revisions);
        if self.wanted.old_names {
            families.extend(old(&revisions, &self.wanted.pod));
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn todays(&self, revisions: &Revisions<'_>) -> Vec<MetricFamily> {
        let mut families = self.registry.gather();
        families.extend(of_revisions(revisions));
        let mut lost = BTreeMap::new();
        let (mut pods, mut faults, mut retries) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for cells in self.threads.iter() {
            cells.lost.add_to(&mut lost);
            cells.pods.add_to(&mut pods);
            for (counts, sums) in [(&cells.faults, &mut faults), (&cells.retries, &mut retries)] {
                for (reason, count) in counts.iter() {
                    *sums.entry(reason).or_insert(0) += count.get();
                }
            }
        }
        families.extend(server(revisions, &lost));
        families.extend(client(&pods));
        let by_reason = |sums: BTreeMap<&'static str, u64>| {
            sums.into_iter().map(|(reason, sum)| counter(vec![label("reason", reason)], sum)).collect()
        };
        let counters = [
            ("dormouse_activator_faults_total", "Answers the activator made itself, by reason", by_reason(faults)),
            ("dormouse_activator_retries_total", "Requests sent to another pod, by reason", by_reason(retries)),
        ];
        families.extend(counters.into_iter().filter_map(|(n, help, m)| family(n, help, MetricType::COUNTER, m)));
        families
    }
}

fn sums(alive: &[std::sync::Arc<RevisionMetrics>]) -> Revisions<'_> {
    let mut revisions = Revisions::new();
    for metrics in alive {
        revisions.entry(metrics.identity()).or_default().add(metrics);
    }
    revisions
}

fn of_revisions(revisions: &Revisions<'_>) -> impl Iterator<Item = MetricFamily> {
    let two = |id: &Identity| vec![label("k8s_namespace_name", &id.namespace), label("kn_revision_name", &id.revision)];
    let gauges = |name, help, labels: &dyn Fn(&Identity) -> Vec<LabelPair>, value: &dyn Fn(&Revision) -> f64| {
        let all = revisions.iter().map(|(id, revision)| gauge(labels(id), value(revision)));
        family(name, help, MetricType::GAUGE, all.collect())
    };
    let counters = |name, help, value: &dyn Fn(&Revision) -> u64| {
        let all = revisions.iter().map(|(id, revision)| counter(two(id), value(revision)));
        family(name, help, MetricType::COUNTER, all.collect())
    };
    [
        gauges(
            "kn_revision_request_concurrency",
            "Concurrent requests as last reported to the autoscaler",
            &four,
            &|revision| revision.concurrency,
        ),
        gauges("kn_revision_request_queued", "Requests that wait for a slot on a pod", &two, &|revision| {
            revision.queued as f64
        }),
        gauges("kn_revision_request_active", "Requests that a pod works on", &two, &|revision| revision.active as f64),
        counters(
            "dormouse_activator_pods_set_aside_total",
            "Pods taken out because they did not answer",
            &|revision| revision.set_aside,
        ),
        counters(
            "dormouse_activator_queue_full_total",
            "Requests refused because a bound of the line was reached",
            &|revision| revision.queue_full,
        ),
    ]
    .into_iter()
    .flatten()
}

/// The four labels of a revision.
fn four(id: &Identity) -> Vec<LabelPair> {
    vec![
        label("k8s_namespace_name", &id.namespace),
        label("kn_configuration_name", &id.configuration),
        label("kn_revision_name", &id.revision),
        label("kn_service_name", &id.service),
    ]
}

fn server(revisions: &Revisions<'_>, lost: &BTreeMap<Option<Labels>, Sums>) -> impl Iterator<Item = MetricFamily> {
    let known = revisions.iter().flat_map(|(id, revision)| revision.requests.iter().map(|one| (Some(*id), one)));
    let all = known.chain(lost.iter().map(|one| (None, one)));
    let (mut durations, mut requests, mut responses) = (Vec::new(), Vec::new(), Vec::new());
    for (id, (labels, sums)) in all.filter(|(_, (_, sums))| sums.duration.count() > 0) {
        let of_request = || {
            let mut all = id.map(four).unwrap_or_default();
            match labels {
                Some(labels) => all.extend([
                    label("http_request_method", labels.method.name()),
                    label("http_response_status_code", &labels.status.to_string()),
                    label("network_protocol_name", "http"),
                    label("network_protocol_version", labels.version.name()),
                    label("url_scheme", if labels.https { "https" } else { "http" }),
                ]),
                None => all.push(label("otel_metric_overflow", "true")),
            }
            all
        };
        durations.push(seconds(of_request(), &sums.duration));
        responses.push(bytes(of_request(), &sums.response));
        if sums.request.count() > 0 {
            requests.push(bytes(of_request(), &sums.request));
        }
    }
    [
        ("http_server_request_duration_seconds", "Time from request to last byte", durations),
        ("http_server_request_body_size_bytes", "Size of request bodies", requests),
        ("http_server_response_body_size_bytes", "Size of response bodies", responses),
    ]
    .into_iter()
    .filter_map(|(name, help, metrics)| family(name, help, MetricType::HISTOGRAM, metrics))
}

fn client(pods: &BTreeMap<PodLabels, (Spread, Spread)>) -> impl Iterator<Item = MetricFamily> {
    let (mut durations, mut requests) = (Vec::new(), Vec::new());
    for (labels, (duration, request)) in pods {
        let of_request = || {
            let answer = match labels.error {
                "" => label("http_response_status_code", &labels.status.to_string()),
                error => label("error_type", error),
            };
            vec![
                answer,
                label("http_request_method", labels.method.name()),
                label("network_protocol_name", "http"),
                // HTTP/1.0 goes on as 1.1.
                label("network_protocol_version", if labels.version.name() == "2" { "2" } else { "1.1" }),
                label("url_scheme", "http"),
            ]
        };
        durations.push((of_request(), duration));
        if request.count() > 0 {
            requests.push((of_request(), request));
        }
    }
    let durations = merged(durations).into_iter().map(|(labels, spread)| seconds(labels, &spread)).collect();
    let requests = merged(requests).into_iter().map(|(labels, spread)| bytes(labels, &spread)).collect();
    [
        ("http_client_request_duration_seconds", "Time from request to a pod to the head of its answer", durations),
        ("http_client_request_body_size_bytes", "Size of request bodies to pods", requests),
    ]
    .into_iter()
    .filter_map(|(name, help, metrics)| family(name, help, MetricType::HISTOGRAM, metrics))
}

/// Series that turned out to have the same labels become one: a page with a series twice is refused as a whole.
fn merged(series: Vec<(Vec<LabelPair>, &Spread)>) -> Vec<(Vec<LabelPair>, Spread)> {
    let mut all: Vec<(Vec<LabelPair>, Spread)> = Vec::new();
    for (labels, spread) in series {
        match all.iter_mut().find(|(known, _)| *known == labels) {
            Some((_, sum)) => sum.merge(spread),
            None => all.push((labels, spread.clone())),
        }
    }
    all
}

fn old(revisions: &Revisions<'_>, pod: &str) -> impl Iterator<Item = MetricFamily> {
    let six = |id: &Identity| {
        vec![
            label("configuration_name", &id.configuration),
            label("container_name", "activator"),
            label("namespace_name", &id.namespace),
            label("pod_name", pod),
            label("revision_name", &id.revision),
            label("service_name", &id.service),
        ]
    };
    let concurrency = revisions.iter().map(|(id, revision)| gauge(six(id), revision.concurrency)).collect();
    let (mut counts, mut latencies) = (Vec::new(), Vec::new());
    for (id, revision) in revisions {
        let mut by_status = BTreeMap::<u16, Spread>::new();
        for (labels, sums) in &revision.requests {
            // Those of too many labels are under a status that is none.
            by_status.entry(labels.map_or(0, |labels| labels.status)).or_default().merge(&sums.duration);
        }
        for (status, spread) in by_status {
            let of_request = || {
                let class = format!("{}xx", status / 100);
                let mut all = six(id);
                all.extend([label("response_code", &status.to_string()), label("response_code_class", &class)]);
                all
            };
            counts.push(counter(of_request(), spread.count()));
            let up_to = OLD.iter().map(|bound| f64::from(*bound)).zip(spread.up_to(&MILLISECONDS, &OLD));
            latencies.push(histogram(of_request(), up_to, spread.count(), spread.sum() * 1000.0));
        }
    }
    [
        ("activator_request_concurrency", "Concurrent requests as last reported", MetricType::GAUGE, concurrency),
        ("activator_request_count", "Requests for revisions", MetricType::COUNTER, counts),
        ("activator_request_latencies", "Milliseconds of requests for revisions", MetricType::HISTOGRAM, latencies),
    ]
    .into_iter()
    .filter_map(|(name, help, kind, metrics)| family(name, help, kind, metrics))
}

fn seconds(labels: Vec<LabelPair>, spread: &Spread) -> Metric {
    let bounds = TODAYS.iter().map(|bound| f64::from(*bound) / 1000.0);
    histogram(labels, bounds.zip(spread.up_to(&MILLISECONDS, &TODAYS)), spread.count(), spread.sum())
}

fn bytes(labels: Vec<LabelPair>, spread: &Spread) -> Metric {
    let bounds = BYTES.iter().map(|bound| f64::from(*bound));
    histogram(labels, bounds.zip(spread.up_to(&BYTES, &BYTES)), spread.count(), spread.sum())
}

/// No series, no family: an empty one is an error to the encoder.
fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> Option<MetricFamily> {
    let mut family = MetricFamily::default();
    family.set_name(name.into());
    family.set_help(help.into());
    family.set_field_type(kind);
    let any = !metrics.is_empty();
    family.set_metric(metrics);
    any.then_some(family)
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.into());
    pair.set_value(value.into());
    pair
}

/// Labels in the order of their names, as everywhere on the page.
fn metric(mut labels: Vec<LabelPair>) -> Metric {
    labels.sort_by(|one, other| one.name().cmp(other.name()));
    Metric::from_label(labels)
}

fn gauge(labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = metric(labels);
    metric.set_gauge(gauge);
    metric
}

fn counter(labels: Vec<LabelPair>, value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = metric(labels);
    metric.set_counter(counter);
    metric
}

fn histogram(labels: Vec<LabelPair>, up_to: impl Iterator<Item = (f64, u64)>, count: u64, sum: f64) -> Metric {
    let bucket = |(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    };
    let mut histogram = Histogram::default();
    histogram.set_bucket(up_to.map(bucket).collect());
    histogram.set_sample_count(count);
    histogram.set_sample_sum(sum);
    let mut metric = metric(labels);
    metric.set_histogram(histogram);
    metric
}
