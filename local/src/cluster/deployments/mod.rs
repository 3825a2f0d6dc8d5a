//! Deployment → Pods, without ReplicaSets between.
//!
//! One task holds what the watches tell. For a deployment that changed, or whose pods did, it makes the [`plan`] and
//! carries it out: all creations and deletions of a plan at the same time, one plan of a deployment at a time. The
//! answers go into the cache before the next plan, so nothing is made twice. [`status`] is written beside.

mod plan;
mod pods;
mod status;

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, future::join_all};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::{sync::mpsc::UnboundedReceiver, task::JoinSet, time::Instant};

use super::{
    cache::{Cache, Change, Key, key, shared},
    pods::PodEvent,
};

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Runs until dropped.
pub(super) async fn run(client: Client, mut pods: UnboundedReceiver<PodEvent>) {
    let mut deployments =
        pin!(watcher(Api::<Deployment>::all(client.clone()), watcher::Config::default()).default_backoff());
    let mut controller = Controller::new(client);
    loop {
        let alarm = controller.alarm();
        tokio::select! {
            Some(event) = deployments.next() => match event {
                Ok(event) => controller.deployments_changed(event),
                Err(error) => tracing::warn!(%error, "watch of deployments failed"),
            },
            Some(event) = pods.recv() => controller.pods_changed(event),
            Some(Ok(outcome)) = controller.tasks.join_next() => controller.done(outcome),
            () = async { match alarm { Some(at) => tokio::time::sleep_until(at).await, None => std::future::pending().await } } => {}
        }
        controller.work();
    }
}

/// What a task of ours has done.
enum Outcome {
    Acted { key: Key, created: Vec<Pod>, deleted: Vec<Key>, failure: Option<String> },
    Wrote { key: Key, failed: bool },
}

/// What we know of a deployment beside the object.
#[derive(Default)]
struct Course {
    hash: String,
    /// The template changed and no status has said so yet.
    template_is_new: bool,
    acting: bool,
    writing: bool,
    /// The status of the last write; the watch may not have told it yet.
    wrote: Option<DeploymentStatus>,
    failure: Option<String>,
    retry: Duration,
    look_again: Option<Instant>,
}

struct Controller {
    client: Client,
    deployments: Cache<Deployment>,
    pods: Cache<Pod>,
    /// Pods by the uid of their deployment.
    owned: HashMap<String, HashSet<Key>>,
    courses: HashMap<Key, Course>,
    dirty: HashSet<Key>,
    /// Pods that went while a creation was under way: its answer must not bring them back.
    gone: HashSet<String>,
    tasks: JoinSet<Outcome>,
}

/// The deployment a pod belongs to: (uid, key).
fn owner(pod: &Pod) -> Option<(String, Key)> {
    let owner = pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    let namespace = pod.namespace().unwrap_or_default();
    (owner.kind == "Deployment").then(|| (owner.uid.clone(), format!("{namespace}/{}", owner.name)))
}

impl Controller {
    fn new(client: Client) -> Self {
        Self {
            client,
            deployments: Cache::default(),
            pods: Cache::default(),
            owned: HashMap::new(),
            courses: HashMap::new(),
            dirty: HashSet::new(),
            gone: HashSet::new(),
            tasks: JoinSet::new(),
        }
    }

    fn alarm(&self) -> Option<Instant> {
        self.courses.values().filter(|course| !course.acting).filter_map(|course| course.look_again).min()
    }

    fn deployments_changed(&mut self, event: watcher::Event<Deployment>) {
        for (old, new) in self.deployments.take(shared(event)) {
            match (old, new) {
                (old, Some(new)) => {
                    let key = key(&*new);
                    let course = self.courses.entry(key.clone()).or_default();
                    let same = old.is_some_and(|old| old.metadata.generation == new.metadata.generation);
                    if !same || course.hash.is_empty() {
                        let hash = pods::template_hash(&new);
                        course.template_is_new |= !course.hash.is_empty() && course.hash != hash;
                        course.hash = hash;
                    }
                    self.dirty.insert(key);
                }
                (Some(old), None) => {
                    self.courses.remove(&key(&*old));
                    self.remove_pods_of(&old);
                }
                (None, None) => {}
            }
        }
    }

    fn pods_changed(&mut self, event: PodEvent) {
        for change in self.pods.take(event) {
            self.pod_changed(&change);
        }
    }

    fn pod_changed(&mut self, (old, new): &Change<Pod>) {
        let Some(pod) = new.as_ref().or(old.as_ref()) else { return };
        let Some((uid, deployment)) = owner(pod) else { return };
        if new.is_some() {
            self.owned.entry(uid).or_default().insert(key(&**pod));
        } else {
            if let Some(pods) = self.owned.get_mut(&uid) {
                pods.remove(&key(&**pod));
                if pods.is_empty() {
                    self.owned.remove(&uid);
                }
            }
            self.gone.extend(pod.uid());
        }
        self.dirty.insert(deployment);
    }

    /// The API server removes what a deployment owned; should it not, nothing may run on without a master.
    fn remove_pods_of(&mut self, deployment: &Deployment) {
        let uid = deployment.uid().unwrap_or_default();
        let delete: Vec<Key> = self.owned.get(&uid).into_iter().flatten().cloned().collect();
        if !delete.is_empty() {
            self.act(key(deployment), Vec::new(), delete);
        }
    }

    fn done(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Wrote { key, failed } => {
                if let Some(course) = self.courses.get_mut(&key) {
                    course.writing = false;
                    if failed {
                        course.wrote = None;
                        course.look_again = Some(Instant::now() + FIRST_RETRY);
                        return;
                    }
                    self.dirty.insert(key);
                }
            }
            Outcome::Acted { key: deployment, created, deleted, failure } => {
                for pod in created {
                    if !self.gone.contains(&pod.uid().unwrap_or_default()) {
                        if let Some((uid, _)) = owner(&pod) {
                            self.owned.entry(uid).or_default().insert(key(&pod));
                        }
                        self.pods.put(pod);
                    }
                }
                for pod in deleted {
                    let now = || Time(Timestamp::now());
                    self.pods.touch(&pod, |pod| {
                        pod.metadata.deletion_timestamp.get_or_insert_with(now);
                    });
                }
                if let Some(course) = self.courses.get_mut(&deployment) {
                    course.acting = false;
                    course.retry = match failure {
                        None => Duration::ZERO,
                        Some(_) => (course.retry * 2).clamp(FIRST_RETRY, LAST_RETRY),
                    };
                    course.look_again = failure.is_some().then(|| Instant::now() + course.retry);
                    course.failure = failure;
                    self.dirty.insert(deployment);
                }
                if !self.courses.values().any(|course| course.acting) {
                    self.gone.clear();
                }
            }
        }
    }

    /// Looks at every deployment for which something is new.
    fn work(&mut self) {
        if !self.deployments.synced() || !self.pods.synced() {
            return;
        }
        let now = Instant::now();
        let due = self.courses.iter().filter(|(_, course)| course.look_again.is_some_and(|at| at <= now));
        self.dirty.extend(due.map(|(key, _)| key.clone()));
        for key in std::mem::take(&mut self.dirty) {
            self.reconcile(key, now);
        }
    }

    fn reconcile(&mut self, key: Key, at: Instant) {
        let Some(deployment) = self.deployments.get(&key).map(Arc::clone) else { return };
        let Some(course) = self.courses.get_mut(&key) else { return };
        if deployment.metadata.deletion_timestamp.is_some() {
            return;
        }
        let uid = deployment.uid().unwrap_or_default();
        let owned: Vec<Arc<Pod>> =
            self.owned.get(&uid).into_iter().flatten().filter_map(|key| self.pods.get(key)).map(Arc::clone).collect();
        let now = Timestamp::now();
        let waits = course.failure.is_some() && course.look_again.is_some_and(|again| again > at);

        if !course.writing {
            // Until the watch tells, the last write is what is there.
            let mut known = (*deployment).clone();
            if let Some(wrote) = &course.wrote {
                known.status = Some(wrote.clone());
            }
            let failure = course.failure.as_deref();
            let (status, again) = status::status(&known, &course.hash, course.template_is_new, &owned, failure, now);
            if !waits {
                let wait = |again: Timestamp| Duration::try_from(again.duration_since(now)).unwrap_or_default();
                course.look_again = again.map(|again| at + wait(again).max(Duration::from_millis(1)));
            }
            if known.status.as_ref() != Some(&status) {
                course.writing = true;
                course.template_is_new = false;
                course.wrote = Some(status.clone());
                let api: Api<Deployment> =
                    Api::namespaced(self.client.clone(), &deployment.namespace().unwrap_or_default());
                let (name, key) = (deployment.name_any(), key.clone());
                self.tasks.spawn(async move {
                    let patch = serde_json::json!({"status": status});
                    let result = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
                    if let Err(error) = &result {
                        tracing::debug!(deployment = name, %error, "deployment status not written");
                    }
                    Outcome::Wrote { key, failed: result.is_err() }
                });
            }
        }

        let course = self.courses.get(&key);
        if waits || course.is_none_or(|course| course.acting) {
            return;
        }
        let hash = course.map(|course| course.hash.clone()).unwrap_or_default();
        let plan = plan::plan(&deployment, &hash, &owned, now);
        if plan == plan::Plan::default() {
            return;
        }
        if plan.create > 0 {
            tracing::info!(deployment = key, count = plan.create, "pods created");
        }
        let namespace = deployment.namespace().unwrap_or_default();
        let create = (0..plan.create).map(|_| pods::pod(&deployment, &hash)).collect();
        let delete = plan.delete.iter().map(|name| format!("{namespace}/{name}")).collect();
        self.act(key, create, delete);
    }

    fn act(&mut self, deployment: Key, create: Vec<Pod>, delete: Vec<Key>) {
        if let Some(course) = self.courses.get_mut(&deployment) {
            course.acting = true;
        }
        let namespace = deployment.split('/').next().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        self.tasks.spawn(async move {
            let parameters = PostParams::default();
            let creations = join_all(create.iter().map(|pod| api.create(&parameters, pod)));
            let deletions = join_all(delete.iter().map(|key| {
                let api = api.clone();
                let name = key.split('/').next_back().unwrap_or_default();
                async move {
                    match api.delete(name, &DeleteParams::default()).await {
                        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
                        other => other.map(drop),
                    }
                }
            }));
            let (creations, deletions) = tokio::join!(creations, deletions);
            let mut failure = None;
            let mut created = Vec::new();
            for result in creations {
                match result {
                    Ok(pod) => created.push(pod),
                    Err(error) => failure = Some(error.to_string()),
                }
            }
            let mut deleted = Vec::new();
            for (key, result) in delete.iter().zip(deletions) {
                match result {
                    Ok(()) => deleted.push(key.clone()),
                    Err(error) => failure = Some(error.to_string()),
                }
            }
            if let Some(error) = &failure {
                tracing::warn!(deployment, error, "pods not changed");
            }
            Outcome::Acted { key: deployment, created, deleted, failure }
        });
    }
}
