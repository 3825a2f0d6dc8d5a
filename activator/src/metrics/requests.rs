//! Requests as they are measured: labels as small numbers, cells per thread, and their sums.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use http::{Request, StatusCode};
use http_body::Body;
use telemetry::labels::{MethodLabel, VersionLabel};

use super::cells::{Durations, List, Sizes, Spread};

/// The labels of a request, its revision apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    /// Status sent.
    pub status: u16,
    /// Method.
    pub method: MethodLabel,
    /// Version of HTTP.
    pub version: VersionLabel,
    /// Whether it came over TLS.
    pub https: bool,
}

/// The labels of a request to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodLabels {
    /// What the pod gave: its status, or 0.
    pub status: u16,
    /// A word for why there is no status; else empty.
    pub error: &'static str,
    /// Method.
    pub method: MethodLabel,
    /// Version of HTTP.
    pub version: VersionLabel,
}

/// What is noted of a request until its last byte.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    method: MethodLabel,
    version: VersionLabel,
    https: bool,
    /// Size of its body, if it was announced.
    body: Option<u64>,
    /// Body bytes sent.
    bytes: u64,
    start: Instant,
    asked: Option<Instant>,
    answer: Option<(Duration, Result<StatusCode, &'static str>)>,
    /// Sent; what upstream's metrics say of clients that leave before an answer is 500.
    status: StatusCode,
}

impl Measure {
    /// A request arrives. `https`: whether over TLS.
    pub fn arrive<B: Body>(request: &Request<B>, https: bool, now: Instant) -> Self {
        Self {
            method: MethodLabel::of(request.method()),
            version: VersionLabel::of(request.version()),
            https,
            body: request.body().size_hint().exact(),
            bytes: 0,
            start: now,
            asked: None,
            answer: None,
            status: StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// When it arrived.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// A pod is asked, or another one after the last could not be told anything.
    pub fn asks(&mut self, now: Instant) {
        (self.asked, self.answer) = (Some(now), None);
    }

    /// Whether a pod was asked.
    pub fn has_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Whether a pod is asked that has not answered.
    pub fn unanswered(&self) -> bool {
        self.asked.is_some() && self.answer.is_none()
    }

    /// The pod has answered, or why it has not.
    pub fn pod_answers(&mut self, status: Result<StatusCode, &'static str>, now: Instant) {
        if let Some(asked) = self.asked {
            self.answer = Some((now.saturating_duration_since(asked), status));
        }
    }

    /// The status that goes to the client.
    pub fn answers(&mut self, status: StatusCode) {
        self.status = status;
    }

    /// Body bytes went out.
    pub fn data(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    fn labels(&self) -> Labels {
        let Self { method, version, https, status, .. } = *self;
        Labels { status: status.as_u16(), method, version, https }
    }
}

/// What one thread has measured of the requests of one revision, or of those of none.
#[derive(Debug, Default)]
pub struct Requests {
    known: List<Labels, Cells>,
    /// Those whose labels were too many.
    others: OnceLock<Box<Cells>>,
}

#[derive(Debug, Default)]
struct Cells {
    duration: Durations,
    request: Sizes,
    response: Sizes,
}

impl Requests {
    /// Records a request that is over; for the one writer.
    pub fn record(&self, measure: &Measure, now: Instant) {
        let cells = self.known.get(measure.labels()).unwrap_or_else(|| self.others.get_or_init(Box::default));
        cells.duration.observe(now.saturating_duration_since(measure.start));
        cells.response.observe(measure.bytes);
        if let Some(body) = measure.body {
            cells.request.observe(body);
        }
    }

    /// Adds all of it up.
    pub fn add_to(&self, sums: &mut BTreeMap<Option<Labels>, Sums>) {
        let known = self.known.iter().map(|(labels, cells)| (Some(labels), cells));
        for (labels, cells) in known.chain(self.others.get().map(|cells| (None, &**cells))) {
            let sum = sums.entry(labels).or_default();
            sum.duration.add_durations(&cells.duration);
            sum.request.add_sizes(&cells.request);
            sum.response.add_sizes(&cells.response);
        }
    }
}

/// Sums over all threads.
#[derive(Debug, Default)]
pub struct Sums {
    /// From arrival to the last byte.
    pub duration: Spread,
    /// Bodies of requests.
    pub request: Spread,
    /// Bodies of answers.
    pub response: Spread,
}

/// What one thread has measured of its requests to pods.
#[derive(Debug, Default)]
pub struct PodRequests {
    known: List<PodLabels, PodCells>,
}

#[derive(Debug, Default)]
struct PodCells {
    duration: Durations,
    request: Sizes,
}

impl PodRequests {
    /// Records a request that is over, if a pod was asked and had its say; for the one writer. There are few words for
    /// errors, and whatever apps say beyond a [`List`] is not counted here: [`Requests`] has it.
    pub fn record(&self, measure: &Measure) {
        let Some((after, answer)) = measure.answer else { return };
        let (status, error) = match answer {
            Ok(status) => (status.as_u16(), ""),
            Err(word) => (0, word),
        };
        let labels = PodLabels { status, error, method: measure.method, version: measure.version };
        let Some(cells) = self.known.get(labels) else { return };
        cells.duration.observe(after);
        if let Some(body) = measure.body {
            cells.request.observe(body);
        }
    }

    /// Adds all of it up: durations, sizes of bodies.
    pub fn add_to(&self, sums: &mut BTreeMap<PodLabels, (Spread, Spread)>) {
        for (labels, cells) in self.known.iter() {
            let (duration, request) = sums.entry(labels).or_default();
            duration.add_durations(&cells.duration);
            request.add_sizes(&cells.request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cells::MOST_KEYS;
    use super::*;
    use http_body_util::Full;

    fn measure(method: &str, status: u16) -> Measure {
        let request = Request::builder().method(method).body(Full::new(bytes::Bytes::from_static(b"1234567"))).unwrap();
        let mut measure = Measure::arrive(&request, false, Instant::now());
        measure.answers(StatusCode::from_u16(status).unwrap());
        measure
    }

    #[test]
    fn statuses_and_methods_of_clients_and_apps_are_bounded() {
        let requests = Requests::default();
        for n in 0..2000_u16 {
            let measure = measure(&format!("M{}", n % 7), 200 + n % 700);
            requests.record(&measure, measure.start());
        }
        let mut sums = BTreeMap::new();
        requests.add_to(&mut sums);
        assert_eq!(sums.len(), MOST_KEYS + 1);
        assert_eq!(sums.values().map(|sum| sum.duration.count()).sum::<u64>(), 2000, "none is lost");
    }

    #[test]
    fn a_pod_that_had_no_say_is_not_measured() {
        let pods = PodRequests::default();
        let mut one = measure("GET", 200);
        pods.record(&one);
        let asked = one.start() + Duration::from_millis(10);
        one.asks(asked);
        pods.record(&one);
        let mut sums = BTreeMap::new();
        pods.add_to(&mut sums);
        assert!(sums.is_empty());
        one.pod_answers(Err("connect"), asked + Duration::from_millis(1));
        one.asks(asked);
        one.pod_answers(Ok(StatusCode::OK), asked + Duration::from_millis(30));
        pods.record(&one);
        pods.add_to(&mut sums);
        let (labels, (duration, request)) = sums.into_iter().next().unwrap();
        assert_eq!((labels.status, labels.error, labels.method.name()), (200, "", "GET"));
        assert_eq!((duration.count(), duration.sum(), request.sum()), (1, 0.030, 7.0));
    }
}
