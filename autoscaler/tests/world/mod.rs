//! One revision in a simulated cluster in virtual time: hours in milliseconds, to the second.

#![allow(dead_code)] // each test crate uses its part

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use api::{
    autoscaling::{Metric, PodAutoscaler, PodAutoscalerSpec, ScaleTargetRef},
    conditions,
    networking::{ServerlessService, ServerlessServiceStatus},
    settings,
    stat::{Stat, WireStatMessage, WireStatMessages},
};
use autoscaler::{
    collect::{Heard, PodPhase, PodView},
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
    /// The network controller has not seen the ServerlessService yet.
    pub(crate) network_is_slow: bool,
    /// Writes of this kind fail.
    pub(crate) broken: Option<&'static str>,
    /// (second since start, replicas) of every scale write.
    pub(crate) scales: Vec<(i64, i32)>,
    pub(crate) status_writes: usize,
    /// Reasons that `Active` was written with, each once in a row.
    pub(crate) reasons: Vec<String>,
    pub(crate) modes: Vec<String>,
    pub(crate) decided: usize,
    /// What pods answer; by default everything came through activators, and they reported it.
    pub(crate) scraped: Stat,
    /// Pods that were asked.
    pub(crate) asked: usize,
    /// Pods do not answer.
    pub(crate) frozen: bool,
    /// Listened to, and the answer to the first question is this, if it is not what is scraped.
    pub(crate) listened: BTreeMap<IpAddr, usize>,
    pub(crate) hushed: Vec<IpAddr>,
    pub(crate) first_answer: Option<Heard>,
    /// What all ready pods share.
    pub(crate) shared: Option<(f64, f64)>,
    /// What another source answers, and what it was asked.
    pub(crate) measured: Option<f64>,
    pub(crate) queries: Vec<String>,
    /// Revisions that were handed to a HorizontalPodAutoscaler.
    pub(crate) horizontal: Vec<Key>,
}

pub(crate) fn key() -> Key {
    Key::new("ns", "rev")
}

fn stat(concurrency: f64, count: f64) -> Stat {
    Stat { average_concurrent_requests: concurrency, request_count: count, ..Stat::default() }
}

pub(crate) fn address(pod: i32) -> IpAddr {
    [127, 1, (pod / 250) as u8, 1 + (pod % 250) as u8].into()
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
            network_is_slow: false,
            broken: None,
            scales: Vec::new(),
            status_writes: 0,
            reasons: Vec::new(),
            modes: Vec::new(),
            decided: 0,
            horizontal: Vec::new(),
            scraped: Stat::default(),
            asked: 0,
            frozen: false,
            listened: BTreeMap::new(),
            hushed: Vec::new(),
            first_answer: None,
            shared: None,
            measured: None,
            queries: Vec::new(),
        }
    }

    /// Pods can be listened to.
    pub(crate) fn listening(mut self) -> Self {
        self.engine = self.engine.listening();
        self
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
                        let all = self.shared.map(|(concurrency, count)| stat(concurrency, count));
                        self.send(Event::Scraped(key(), Some(all.unwrap_or_else(|| self.scraped.clone()))));
                    }
                }
                Effect::Listen { pod, .. } => {
                    let times = self.listened.entry(pod).or_default();
                    *times += 1;
                    // A new pod has nothing yet of what the others share.
                    let is_new = *times == 1 && self.shared.is_some() && self.ready > 1;
                    let stat = if is_new { Stat::default() } else { self.scraped.clone() };
                    self.hear(pod, self.first_answer.clone().unwrap_or(Heard::Told(stat)));
                }
                Effect::Hush(_, pod) => self.hushed.push(pod),
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
                let reason = self.active().1.to_owned();
                if self.reasons.last() != Some(&reason) {
                    self.reasons.push(reason);
                }
                self.pa.metadata.resource_version = Some(self.next_version());
                self.send(Event::Wrote(key(), Written::Status(Ok(Box::new(self.pa.clone())))));
            }
        }
    }

    /// The network controller, in no time.
    pub(crate) fn set_sks(&mut self, mut sks: ServerlessService) {
        self.modes.push(sks.spec.mode.clone().unwrap());
        if self.network_is_slow {
            self.sks = Some(sks.clone());
            return self.send(Event::Wrote(key(), Written::Sks(Ok(Box::new(sks)))));
        }
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
            self.listened.remove(&address(pod));
            self.send(Event::Pod(Change::Deleted(Key::new("ns", &format!("rev-{pod}")))));
        }
        self.share_anew();
    }

    pub(crate) fn pods_get_ready(&mut self) {
        let due: Vec<i32> = self.pods.iter().filter(|(_, at)| **at <= self.now).map(|(pod, _)| *pod).collect();
        for pod in due {
            if pod >= self.ready {
                self.ready = pod + 1;
                self.send(Event::Pod(Change::Applied(PodView {
                    pod: Key::new("ns", &format!("rev-{pod}")),
                    revision: key(),
                    address: Some(address(pod)),
                    started: self.now,
                    phase: Some(PodPhase::Ready),
                    deletion_cost: 0,
                })));
                self.share_anew();
            }
        }
    }

    pub(crate) fn hear(&mut self, pod: IpAddr, heard: Heard) {
        self.send(Event::Heard(key(), pod, heard));
    }

    /// All ready pods share this from now on, and say so.
    pub(crate) fn share(&mut self, concurrency: f64, count: f64) {
        self.shared = Some((concurrency, count));
        self.share_anew();
    }

    fn share_anew(&mut self) {
        let Some((concurrency, count)) = self.shared else { return };
        let pods = f64::from(self.ready.max(1));
        self.scraped = stat(concurrency / pods, count / pods);
        for pod in (0..self.ready).map(address) {
            if self.listened.contains_key(&pod) {
                self.hear(pod, Heard::Told(self.scraped.clone()));
            }
        }
    }

    pub(crate) fn report(&mut self, concurrency: f64, count: f64) {
        let stat = Some(stat(concurrency, count));
        let message = WireStatMessage { namespace: "ns".into(), name: "rev".into(), stat };
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
        self.condition("Active")
    }

    /// Status and reason of a condition.
    pub(crate) fn condition(&self, name: &str) -> (&str, &str) {
        let status = self.pa.status.as_ref().unwrap();
        let c = conditions::get(&status.conditions, name).unwrap();
        (c.status.as_str(), c.reason.as_deref().unwrap_or(""))
    }

    /// Mode and number of activators.
    pub(crate) fn path(&self) -> (&str, i32) {
        let spec = &self.sks.as_ref().unwrap().spec;
        (spec.mode.as_deref().unwrap(), spec.num_activators.unwrap())
    }
}
