//! Metrics as OTLP: the same series that a Prometheus page shows, under OpenTelemetry's names and units. Pure.

use prometheus::proto::{LabelPair, Metric as Series, MetricFamily, MetricType};

use super::exporter::scope;
use super::messages::{CUMULATIVE, Data, Distribution, Gauge, Histogram, KeyValue, Metric, Number, ScopeMetrics, Sum};

/// What a process measures, in both languages.
#[derive(Debug)]
pub struct Catalog {
    /// The metrics; what is not here is not sent.
    pub names: &'static [Name],
    /// The labels. Those that are not here name the process, which is the resource's part.
    pub labels: &'static [Label],
    /// Name under which HTTP itself, and the process, are measured.
    pub http_scope: &'static str,
    /// The name that the metrics beginning with `kn.` carry, upstream's.
    pub own_scope: &'static str,
}

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Name {
    /// On a Prometheus page.
    pub prometheus: &'static str,
    /// In OpenTelemetry.
    pub otel: &'static str,
    /// UCUM.
    pub unit: &'static str,
    /// Whether a Prometheus gauge is a count of what there is now, which OpenTelemetry tells from a gauge: sums of them
    /// over processes make sense.
    pub up_down: bool,
}

impl Name {
    /// A metric of the same kind in both.
    pub const fn new(prometheus: &'static str, otel: &'static str, unit: &'static str) -> Self {
        Self { prometheus, otel, unit, up_down: false }
    }

    /// A count that goes up and down.
    pub const fn up_down(prometheus: &'static str, otel: &'static str, unit: &'static str) -> Self {
        Self { prometheus, otel, unit, up_down: true }
    }
}

/// A label.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    /// On a Prometheus page.
    pub prometheus: &'static str,
    /// In OpenTelemetry.
    pub otel: &'static str,
    /// Whether its values are numbers.
    pub number: bool,
}

impl Label {
    /// One of text.
    pub const fn text(prometheus: &'static str, otel: &'static str) -> Self {
        Self { prometheus, otel, number: false }
    }

    /// One of numbers.
    pub const fn number(prometheus: &'static str, otel: &'static str) -> Self {
        Self { prometheus, otel, number: true }
    }
}

impl Catalog {
    /// The metrics and labels of some families that this catalog does not know: for tests.
    pub fn unknown<'a>(&self, families: &'a [MetricFamily]) -> Vec<&'a str> {
        let names = families.iter().map(MetricFamily::name);
        let names = names.filter(|name| !self.names.iter().any(|known| known.prometheus == *name));
        let labels =
            families.iter().flat_map(MetricFamily::get_metric).flat_map(Series::get_label).map(LabelPair::name);
        let labels = labels.filter(|name| !self.labels.iter().any(|known| known.prometheus == *name));
        names.chain(labels).collect()
    }
}

/// All metrics at a time. Both times are Unix nanoseconds.
pub fn scopes(catalog: &Catalog, families: &[MetricFamily], started: u64, now: u64) -> Vec<ScopeMetrics> {
    let (mut own, mut http) = (Vec::new(), Vec::new());
    for family in families {
        let Some(name) = catalog.names.iter().find(|name| name.prometheus == family.name()) else { continue };
        let series = family.get_metric().iter();
        let numbers = |since, value: fn(&Series) -> f64| {
            let number = |series| number(catalog, series, value(series), since, now);
            family.get_metric().iter().map(number).collect()
        };
        let sum = |value, is_monotonic| {
            let data_points = numbers(started, value);
            Data::Sum(Sum { data_points, aggregation_temporality: CUMULATIVE, is_monotonic })
        };
        let data = match family.get_field_type() {
            MetricType::GAUGE if name.up_down => sum(|series| series.get_gauge().get_value(), false),
            MetricType::GAUGE => {
                Data::Gauge(Gauge { data_points: numbers(0, |series| series.get_gauge().get_value()) })
            }
            MetricType::COUNTER => sum(|series| series.get_counter().get_value(), true),
            MetricType::HISTOGRAM => Data::Histogram(Histogram {
                data_points: series.map(|series| distribution(catalog, series, started, now)).collect(),
                aggregation_temporality: CUMULATIVE,
            }),
            _ => continue,
        };
        let Name { otel, unit, .. } = *name;
        let metric =
            Metric { name: otel.into(), description: family.help().into(), unit: unit.into(), data: Some(data) };
        if otel.starts_with("kn.") { own.push(metric) } else { http.push(metric) }
    }
    [(catalog.http_scope, http), (catalog.own_scope, own)]
        .into_iter()
        .filter(|(_, metrics)| !metrics.is_empty())
        .map(|(name, metrics)| ScopeMetrics { scope: Some(scope(name)), metrics })
        .collect()
}

/// How many data points there are.
pub(super) fn points(scopes: &[ScopeMetrics]) -> u64 {
    let metrics = scopes.iter().flat_map(|scope| &scope.metrics);
    let points = metrics.map(|metric| match &metric.data {
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        None => 0,
    });
    points.sum::<usize>() as u64
}

fn number(catalog: &Catalog, series: &Series, value: f64, since: u64, now: u64) -> Number {
    Number {
        start_time_unix_nano: since,
        time_unix_nano: now,
        as_double: Some(value),
        attributes: attributes(catalog, series.get_label()),
    }
}

fn distribution(catalog: &Catalog, series: &Series, started: u64, now: u64) -> Distribution {
    let histogram = series.get_histogram();
    let (mut bounds, mut counts, mut below) = (Vec::new(), Vec::new(), 0);
    for bucket in histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite()) {
        bounds.push(bucket.upper_bound());
        counts.push(bucket.cumulative_count().saturating_sub(below));
        below = bucket.cumulative_count();
    }
    let count = histogram.get_sample_count();
    counts.push(count.saturating_sub(below));
    Distribution {
        start_time_unix_nano: started,
        time_unix_nano: now,
        count,
        sum: Some(histogram.get_sample_sum()),
        bucket_counts: counts,
        explicit_bounds: bounds,
        attributes: attributes(catalog, series.get_label()),
    }
}

fn attributes(catalog: &Catalog, labels: &[LabelPair]) -> Vec<KeyValue> {
    let attribute = |label: &LabelPair| {
        let Label { otel, number, .. } = catalog.labels.iter().find(|known| known.prometheus == label.name())?;
        match (label.value(), number) {
            ("", _) => None,
            (value, true) => value.parse::<i64>().ok().map(|value| KeyValue::int(otel, value)),
            (value, false) => Some(KeyValue::text(otel, value)),
        }
    };
    labels.iter().filter_map(attribute).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{Gauge, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

    const CATALOG: Catalog = Catalog {
        names: &[
            Name::new("http_duration_seconds", "http.duration", "s"),
            Name::new("kn_errors_total", "kn.errors", "{error}"),
            Name::up_down("kn_queued", "kn.queued", "{request}"),
            Name::new("kn_depth", "kn.depth", "{request}"),
        ],
        labels: &[Label::number("code", "http.code"), Label::text("kind", "kn.kind")],
        http_scope: "ours",
        own_scope: "theirs",
    };

    #[test]
    fn every_kind_is_translated() {
        let registry = Registry::new();
        let options = HistogramOpts::new("http_duration_seconds", "h").buckets(vec![1.0, 10.0]);
        let duration = HistogramVec::new(options, &["code", "pod"]).unwrap();
        let errors = IntCounterVec::new(Opts::new("kn_errors_total", "e"), &["kind"]).unwrap();
        let queued = IntGauge::new("kn_queued", "q").unwrap();
        let depth = Gauge::new("kn_depth", "d").unwrap();
        let other = IntGauge::new("other", "not known").unwrap();
        let all: [Box<dyn prometheus::core::Collector>; 5] = [
            Box::new(duration.clone()),
            Box::new(errors.clone()),
            Box::new(queued.clone()),
            Box::new(depth.clone()),
            Box::new(other),
        ];
        for collector in all {
            registry.register(collector).unwrap();
        }
        duration.with_label_values(&["200", "p"]).observe(20.0);
        errors.with_label_values(&["k"]).inc_by(3);
        errors.with_label_values(&[""]).inc();
        queued.set(-2);
        depth.set(2.5);
        let families = registry.gather();
        assert_eq!(CATALOG.unknown(&families), ["other", "pod"]);
        let scopes = scopes(&CATALOG, &families, 1, 2);
        assert_eq!(scopes.iter().map(|scope| scope.metrics.len()).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(points(&scopes), 5);
        let find = |name: &str| {
            let metric = scopes.iter().flat_map(|scope| &scope.metrics).find(|metric| metric.name == name);
            metric.and_then(|metric| metric.data.clone()).unwrap()
        };
        let Data::Histogram(histogram) = find("http.duration") else { panic!() };
        let point = &histogram.data_points[0];
        assert_eq!(histogram.aggregation_temporality, CUMULATIVE);
        assert_eq!((point.count, point.sum), (1, Some(20.0)));
        assert_eq!(
            (point.bucket_counts.as_slice(), point.explicit_bounds.as_slice()),
            (&[0, 0, 1][..], &[1.0, 10.0][..])
        );
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1, 2));
        assert_eq!(point.attributes, [KeyValue::int("http.code", 200)], "the pod is the resource");
        let Data::Sum(errors) = find("kn.errors") else { panic!() };
        assert!(errors.is_monotonic);
        let shown: Vec<_> = errors.data_points.iter().map(|point| (point.as_double, point.attributes.len())).collect();
        assert_eq!(shown, [(Some(1.0), 0), (Some(3.0), 1)], "an empty label is left out");
        let Data::Sum(queued) = find("kn.queued") else { panic!() };
        assert_eq!((queued.is_monotonic, queued.data_points[0].as_double), (false, Some(-2.0)));
        let Data::Gauge(depth) = find("kn.depth") else { panic!() };
        assert_eq!((depth.data_points[0].as_double, depth.data_points[0].start_time_unix_nano), (Some(2.5), 0));
    }
}
