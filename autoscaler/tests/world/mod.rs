//! One revision in a simulated cluster in virtual time: hours in milliseconds, to the second.

#![allow(dead_code)] // each test crate uses its part

use std::{collections::BTreeMap, time::Duration};

use api::{
    autoscaling::{Metric, PodAutoscaler, PodAutoscalerSpec, ScaleTargetRef},
    conditions,
    networking::{ServerlessService, ServerlessServiceStatus},
    settings,
    stat::{Stat, WireStatMessage, WireStatMessages},
};
use autoscaler::{
    collect::{PodPhase, PodView},
    decider::{Change, Effect, Engine, Event, Kind, Settings, Write, Written},
    key::Key,
    metrics::Metrics,
    moment::Moment,
    ownership::Ownership,
};
use kube::api::ObjectMeta;

pub(crate) const START: i64 = 1_800_000_000;

/// One revision in a cluster that does at once what it is told; pods take `pod_start` to get ready.
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) now: Moment,
    pub(crate) version: u64,
    pub(crate) pa: PodAutoscaler,
    pub(crate) sks: Option<ServerlessService>,
    pub(crate) metric: Option<Metric>,
    pub(crate) replicas: i32,
    pub(crate) pods: BTreeMap<i32, Moment>,
    pub(crate) ready: i32,
    pub(crate) pod_start: Duration,
    pub(crate) activator_answers: bool,
    /// Writes of this kind fail.
    pub(crate) broken: Option<&'static str>,
    /// (second since start, replicas) of every scale write.
    pub(crate) scales: Vec<(i64, i32)>,
    pub(crate) status_writes: usize,
    pub(crate) modes: Vec<String>,
    pub(crate) decided: usize,
    /// What pods answer; by default everything came through activators, and they reported it.
    pub(crate) scraped: Stat,
    /// Pods that were asked.
    pub(crate) asked: usize,
    /// Pods do not answer.
    pub(crate) frozen: bool,
    /// What another source answers, and what it was asked.
    pub(crate) measured: Option<f64>,
    pub(crate) queries: Vec<String>,
    /// Revisions that were handed to a HorizontalPodAutoscaler.
    pub(crate) horizontal: Vec<Key>,
}

pub(crate) fn key() -> Key {
    Key::new("ns", "rev")
}

impl World {
    pub(crate) fn new(annotations: &[(&str, &str)]) -> Self {
        Self::with(annotations, |_| {})
    }

    pub(crate) fn with(annotations: &[(&str, &str)], edit: impl FnOnce(&mut PodAutoscaler)) -> Self {
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let mut all =
            BTreeMap::from([("autoscaling.knative.dev/class".to_owned(), "kpa.autoscaling.knative.dev".to_owned())]);
        all.extend(annotations.iter().map(|(k, v)| {
            (if k.contains('/') { (*k).to_owned() } else { format!("autoscaling.knative.dev/{k}") }, (*v).to_owned())
        }));
        let mut pa = PodAutoscaler {
            metadata: ObjectMeta {
                name: Some("rev".into()),
                namespace: Some("ns".into()),
                uid: Some("pa-uid".into()),
                generation: Some(1),
                annotations: Some(all),
                ..ObjectMeta::default()
            },
            spec: PodAutoscalerSpec {
                scale_target_ref: ScaleTargetRef { name: Some("rev-deployment".into()), ..ScaleTargetRef::default() },
                protocol_type: "http1".into(),
                ..PodAutoscalerSpec::default()
            },
            status: None,
        };
        edit(&mut pa);
        Self {
            engine: Engine::new(Ownership::All, metrics),
            now: Moment::from_seconds(START),
            version: 1,
            pa,
            sks: None,
            metric: None,
            replicas: 1,
            pods: BTreeMap::new(),
            ready: 0,
            pod_start: Duration::from_secs(1),
            activator_answers: true,
            broken: None,
            scales: Vec::new(),
            status_writes: 0,
            modes: Vec::new(),
            decided: 0,
            horizontal: Vec::new(),
            scraped: Stat::default(),
            asked: 0,
            frozen: false,
            measured: None,
            queries: Vec::new(),
        }
    }

    pub(crate) fn start(&mut self, settings: settings::Autoscaler) {
        let settings = Settings { autoscaler: settings, ..Settings::default() };
        self.send(Event::Settings(settings.into()));
        for kind in [Kind::Metric, Kind::Pod, Kind::Target, Kind::Settings] {
            self.send(Event::Synced(kind));
        }
        if let Some(sks) = self.sks.clone() {
            self.send(Event::Sks(Change::Applied(Box::new(sks))));
        }
        self.send(Event::Synced(Kind::ServerlessService));
        self.set_replicas(self.replicas);
        self.send(Event::PodAutoscaler(Change::Applied(Box::new(self.pa.clone()))));
        self.send(Event::Synced(Kind::PodAutoscaler));
    }

    pub(crate) fn second(&self) -> i64 {
        self.now.seconds() - START
    }

    pub(crate) fn send(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.engine.handle(event, self.now, &mut effects);
        self.perform(effects);
    }

    pub(crate) fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Decided(_) => self.decided += 1,
                Effect::Write { write, .. } => self.write(write),
                Effect::Scrape { round, .. } => {
                    self.asked += round.wanted;
                    if !self.frozen {
                        self.send(Event::Scraped(key(), Some(self.scraped.clone())));
                    }
                }
                Effect::Horizontal(key, _) => self.horizontal.push(key),
                Effect::Forward(..) => panic!("there is nobody else"),
                Effect::Fetch(_) => self.send(Event::Fetched(key(), Some(Box::new(self.pa.clone())))),
                Effect::Measure { query, .. } => {
                    self.queries.push(query);
                    self.send(Event::Measured(key(), self.measured));
                }
                Effect::Probe { .. } => self.send(Event::Probed(key(), self.activator_answers)),
            }
        }
    }

    pub(crate) fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    pub(crate) fn write(&mut self, write: Write) {
        let away = || "the API server is away".to_owned();
        match (self.broken, &write) {
            (Some("scale"), Write::Scale { .. }) => return self.send(Event::Wrote(key(), Written::Scale(Err(away())))),
            (Some("status"), Write::Status(_)) => return self.send(Event::Wrote(key(), Written::Status(Err(away())))),
            (Some("forgets"), Write::Status(_)) => {
                self.status_writes += 1;
                return self.send(Event::Wrote(key(), Written::Status(Ok(Box::new(self.pa.clone())))));
            }
            _ => {}
        }
        match write {
            Write::Scale { replicas, .. } => {
                self.scales.push((self.second(), replicas));
                self.version += 1;
                self.send(Event::Wrote(key(), Written::Scale(Ok((replicas, self.version)))));
                self.set_replicas(replicas);
            }
            Write::CreateSks(sks) => self.set_sks(*sks),
            Write::PatchSks(spec) => {
                let mut sks = self.sks.clone().unwrap();
                sks.spec = *spec;
                self.set_sks(sks);
            }
            Write::CreateMetric(metric) => {
                self.metric = Some((*metric).clone());
                self.send(Event::Wrote(key(), Written::Metric(Ok(metric))));
            }
            Write::PatchMetric(spec) => {
                let mut metric = self.metric.clone().unwrap();
                metric.spec = *spec;
                metric.metadata.resource_version = Some(self.next_version());
                self.metric = Some(metric.clone());
                self.send(Event::Wrote(key(), Written::Metric(Ok(Box::new(metric)))));
            }
            Write::Status(status) => {
                self.status_writes += 1;
                self.pa.status = Some(*status);
                self.pa.metadata.resource_version = Some(self.next_version());
                self.send(Event::Wrote(key(), Written::Status(Ok(Box::new(self.pa.clone())))));
            }
        }
    }

    /// The network controller, in no time.
    pub(crate) fn set_sks(&mut self, mut sks: ServerlessService) {
        self.modes.push(sks.spec.mode.clone().unwrap());
        let set = conditions::ConditionSet { dependents: &["EndpointsPopulated"] };
        let mut status = ServerlessServiceStatus {
            service_name: Some("rev".into()),
            private_service_name: Some("rev-private".into()),
            ..sks.status.take().unwrap_or_default()
        };
        let mut editor = set.manage(&mut status.conditions, self.now.timestamp());
        editor.initialize().mark_true("EndpointsPopulated");
        match sks.spec.mode.as_deref() {
            Some("Proxy") => editor.mark_true("ActivatorEndpointsPopulated"),
            _ => editor.mark_false("ActivatorEndpointsPopulated", "ServeMode", "x"),
        };
        sks.status = Some(status);
        sks.metadata.resource_version = Some(self.next_version());
        self.sks = Some(sks.clone());
        self.send(Event::Wrote(key(), Written::Sks(Ok(Box::new(sks)))));
    }

    pub(crate) fn set_replicas(&mut self, replicas: i32) {
        self.replicas = replicas;
        self.version += 1;
        let target = Key::new("ns", "rev-deployment");
        self.send(Event::Target(Change::Applied((target, replicas, self.version))));
        for i in 0..replicas {
            self.pods.entry(i).or_insert(self.now.plus(self.pod_start));
        }
        for (pod, _) in self.pods.split_off(&replicas) {
            self.ready = self.ready.min(replicas);
            self.send(Event::Pod(Change::Deleted(Key::new("ns", &format!("rev-{pod}")))));
        }
    }

    pub(crate) fn pods_get_ready(&mut self) {
        let due: Vec<i32> = self.pods.iter().filter(|(_, at)| **at <= self.now).map(|(pod, _)| *pod).collect();
        for pod in due {
            if pod >= self.ready {
                self.ready = pod + 1;
                self.send(Event::Pod(Change::Applied(PodView {
                    pod: Key::new("ns", &format!("rev-{pod}")),
                    revision: key(),
                    address: Some([127, 0, 0, 1].into()),
                    started: self.now,
                    phase: Some(PodPhase::Ready),
                    deletion_cost: 0,
                })));
            }
        }
    }

    pub(crate) fn report(&mut self, concurrency: f64, count: f64) {
        let stat = Stat { average_concurrent_requests: concurrency, request_count: count, ..Stat::default() };
        let message = WireStatMessage { namespace: "ns".into(), name: "rev".into(), stat: Some(stat) };
        self.send(Event::Frame(WireStatMessages { messages: vec![message] }));
    }

    /// Lets `seconds` pass in steps of 100 ms; at each whole second the activator reports what `load` says, if anything.
    pub(crate) fn run(&mut self, seconds: i64, mut load: impl FnMut(i64) -> Option<(f64, f64)>) {
        let end = self.second() + seconds;
        while self.second() < end {
            let before = self.second();
            self.now = self.now.plus(Duration::from_millis(100));
            self.pods_get_ready();
            let mut effects = Vec::new();
            self.engine.run_due(self.now, usize::MAX, &mut effects);
            self.perform(effects);
            if self.second() > before
                && let Some((concurrency, count)) = load(self.second())
            {
                self.report(concurrency, count);
            }
        }
    }

    pub(crate) fn idle(&mut self, seconds: i64) {
        self.run(seconds, |_| None);
    }

    pub(crate) fn active(&self) -> (&str, &str) {
        let status = self.pa.status.as_ref().unwrap();
        let c = conditions::get(&status.conditions, "Active").unwrap();
        (c.status.as_str(), c.reason.as_deref().unwrap_or(""))
    }
}
