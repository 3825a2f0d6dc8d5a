//! Which image a tag means at this moment: asked of its registry once for a Revision, so that every pod of it runs the
//! same. Called by [`crate::revision`], which runs nothing before it is known.
//!
//! 1. [`image`]: what there is to ask for a name; pure.
//! 2. [`ledger`]: which Revisions wait for an answer, and when one that failed is tried again; pure.
//! 3. [`credentials`]: what pull secrets say for a registry; pure.
//! 4. [`registry`]: one question over the network. This file runs those questions beside the reconcilers.
//!
//! Upstream's counterpart is `pkg/reconciler/revision/{background,resolve}.go`; its keychains of cloud vendors are not
//! here.

pub mod credentials;
pub mod image;
pub mod ledger;
pub mod registry;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use api::serving::Revision;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::{Api, Client, ResourceExt};
use tokio::sync::Semaphore;

use self::{
    credentials::Credentials,
    image::Wanted,
    ledger::{Answer, Ledger},
    registry::Registry,
};
use crate::{
    engine::world::{Key, World},
    settings::Settings,
};

/// Questions under way at the same time (upstream's number).
const AT_ONCE: usize = 100;

/// See the module.
pub struct Digests {
    client: Client,
    world: Arc<World>,
    registry: Registry,
    ledger: Mutex<Ledger<Key>>,
    permits: Semaphore,
}

/// What one Revision asks for.
struct Question {
    namespace: String,
    account: String,
    secrets: Vec<String>,
    images: Vec<image::Reference>,
    timeout: Duration,
}

impl Digests {
    /// Has asked nothing yet. `authority` is PEM of the cluster's CA, trusted beside the system's.
    pub fn new(client: Client, world: Arc<World>, authority: Option<Vec<u8>>) -> Self {
        Self {
            client,
            world,
            registry: Registry::new(authority),
            ledger: Mutex::default(),
            permits: Semaphore::new(AT_ONCE),
        }
    }

    /// Digests by image, as far as they are known; what is not known is asked for, and `key` is woken by the answer.
    pub fn of(self: &Arc<Self>, key: &Key, revision: &Revision, settings: &Settings) -> Answer {
        let pod = &revision.spec.pod;
        let images: BTreeSet<&str> = pod
            .init_containers
            .iter()
            .flatten()
            .chain(&pod.containers)
            .map(|container| container.image.as_deref().unwrap_or_default())
            .collect();
        let mut known = BTreeMap::new();
        let mut asked = Vec::new();
        for image in images {
            match image::wanted(image, &settings.deployment.registries_skipping_tag_resolving) {
                Ok(Wanted::Known(digest)) => drop(known.insert(image.to_owned(), digest)),
                Ok(Wanted::Ask(reference)) => asked.push(reference),
                Err(error) => return Answer::Failed { why: failed(image, &error), again: ledger::LONGEST },
            }
        }
        if asked.is_empty() {
            return Answer::Known(known);
        }
        let (answer, ask) = self.ledger().ask(key, Instant::now());
        if ask {
            let question = Question {
                namespace: key.namespace.clone(),
                account: pod.service_account_name.clone().filter(|name| !name.is_empty()).unwrap_or("default".into()),
                secrets: pod.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()).collect(),
                images: asked,
                timeout: settings.deployment.digest_resolution_timeout,
            };
            let (this, key) = (Arc::clone(self), key.clone());
            tokio::spawn(async move {
                let answered = this.answer(question).await.map(|digests| known.into_iter().chain(digests).collect());
                this.ledger().answered(&key, answered);
                this.world.work.add(key);
            });
        }
        answer
    }

    /// Nobody will ask for this again.
    pub fn forget(&self, key: &Key) {
        self.ledger().forget(key);
    }

    async fn answer(&self, question: Question) -> Result<BTreeMap<String, String>, String> {
        let credentials = self.credentials(&question).await;
        let asked = question.images.iter().map(async |image| {
            // It is never closed.
            let _permit = self.permits.acquire().await;
            let auth = credentials.of(image);
            let asked = self.registry.digest(image, &auth);
            let digest = match tokio::time::timeout(question.timeout, asked).await {
                Ok(Ok(digest)) => digest,
                Ok(Err(error)) => return Err(failed(image.written(), &error)),
                Err(_) => {
                    let why = format!("{} did not answer within {:?}", image.registry(), question.timeout);
                    return Err(failed(image.written(), &why));
                }
            };
            Ok((image.written().to_owned(), image.with_digest(&digest)))
        });
        try_join_all(asked).await.map(|digests| digests.into_iter().collect())
    }

    /// What the Revision's own secrets and those of its account say. What cannot be read says nothing: the registry may
    /// be open to everybody, and says so itself if it is not.
    async fn credentials(&self, question: &Question) -> Credentials {
        let mut names: BTreeSet<String> = question.secrets.iter().cloned().collect();
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &question.namespace);
        match accounts.get_opt(&question.account).await {
            Ok(account) => {
                let secrets = account.and_then(|account| account.image_pull_secrets).unwrap_or_default();
                names.extend(secrets.into_iter().map(|secret| secret.name));
            }
            Err(error) => tracing::warn!(
                namespace = question.namespace, name = question.account, %error,
                "cannot read a ServiceAccount; its pull secrets are not used"
            ),
        }
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &question.namespace);
        let mut credentials = Credentials::default();
        for name in names {
            match secrets.get_opt(&name).await {
                Ok(Some(secret)) => {
                    if let Err(error) = credentials.add(&secret) {
                        let name = secret.name_any();
                        tracing::warn!(namespace = question.namespace, name, %error, "pull secret not used");
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(namespace = question.namespace, name, %error, "cannot read a pull secret");
                }
            }
        }
        credentials
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger<Key>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Upstream's words.
fn failed(image: &str, why: &dyn std::fmt::Display) -> String {
    format!("Unable to fetch image {image:?}: failed to resolve image to digest: {why}")
}
