//! Ingress of our own class → ready as soon as our gateway says that it serves this very version.
//!
//! The gateway builds its table from the same Ingress objects; nothing is configured here, only watched for. It is
//! asked at once, then every few milliseconds, then ever more seldom.

pub mod probe;
pub mod status;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use api::networking::ingress_hash;

use crate::{
    context::{Context, ReconcileError},
    engine::{
        queue::Outcome,
        status::{begin, finish},
        world::Key,
    },
    route::desired::{Gateway, gateway_domain, is_ours},
};

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// Ingresses that the gateway was asked about and does not serve yet.
#[derive(Default)]
pub struct Probing(Mutex<HashMap<Key, Attempt>>);

struct Attempt {
    hash: String,
    since: Instant,
    pause: Duration,
}

impl Probing {
    /// Notes a vain attempt; how long to wait before the next one.
    fn missed(&self, key: &Key, hash: &str, now: Instant) -> Duration {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = all.entry(key.clone()).or_insert_with(|| Attempt::new(hash, now));
        if attempt.hash != hash {
            *attempt = Attempt::new(hash, now);
        }
        let pause = attempt.pause;
        // Half as long again each time: about 20 attempts in the first second, then fewer.
        attempt.pause = pause.mul_f64(1.5).min(LAST_PAUSE);
        pause
    }

    /// It serves (or is gone); since when it was waited for.
    fn end(&self, key: &Key) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key).map(|a| a.since)
    }
}

impl Attempt {
    fn new(hash: &str, now: Instant) -> Self {
        Self { hash: hash.to_owned(), since: now, pause: FIRST_PAUSE }
    }
}

/// Brings one Ingress's status up to date.
pub async fn reconcile(context: &Context, key: &Key) -> Result<Outcome, ReconcileError> {
    let ingress = context.world.ingresses.get(&key.namespace, &key.name);
    let Some(ingress) = ingress.filter(|i| i.metadata.deletion_timestamp.is_none() && is_ours(i)) else {
        context.probing.end(key);
        context.forget(key);
        return Ok(Outcome::Settled);
    };
    if status::is_ready(&ingress) {
        return Ok(Outcome::Settled);
    }
    let hash = ingress_hash(&ingress);
    let started = Instant::now();
    let missing = match context.gateways() {
        Some(gateways) => {
            let asked = gateways.iter().map(|gateway| probe::ask(*gateway, &ingress, &hash));
            futures::future::join_all(asked).await.into_iter().find_map(Result::err).map(|why| why.to_string())
        }
        None => Some("there is no gateway".to_owned()),
    };

    let now = Context::now();
    let mut status = ingress.status.clone().unwrap_or_default();
    begin(&mut status, status::CONDITIONS, ingress.metadata.generation, now);
    if missing.is_none() {
        let settings = context.settings.load();
        let around = Gateway { settings: &settings, system_namespace: &context.world.system_namespace };
        status::served(&mut status, gateway_domain(around), now);
    } else {
        status::not_served(&mut status, now);
    }
    let before = ingress.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    finish(&mut status, before, ingress.metadata.generation);
    let written = context.write_status(key, ingress.as_ref(), status).await?;
    match missing {
        None => {
            let since = context.probing.end(key).unwrap_or(started);
            context.metrics.ingress_ready_seconds.observe(since.elapsed().as_secs_f64());
            Ok(written)
        }
        Some(why) => {
            let pause = context.probing.missed(key, &hash, started);
            tracing::debug!(namespace = %key.namespace, ingress = %key.name, %why, ?pause, "not served yet");
            Ok(match written {
                Outcome::Again(sooner) => Outcome::Again(sooner.min(pause)),
                _ => Outcome::Again(pause),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::world::Kind;

    #[test]
    fn pauses_grow_and_start_anew_with_a_new_version() {
        let key = Key { kind: Kind::Ingress, namespace: "ns".into(), name: "x".into() };
        let (probing, now) = (Probing::default(), Instant::now());
        assert_eq!(probing.missed(&key, "a", now), FIRST_PAUSE);
        let pauses: Vec<Duration> = (0..30).map(|_| probing.missed(&key, "a", now)).collect();
        assert!(pauses.windows(2).all(|w| w[0] <= w[1]));
        assert_eq!(pauses.last(), Some(&LAST_PAUSE));
        assert_eq!(probing.missed(&key, "b", now), FIRST_PAUSE);
        assert_eq!(probing.end(&key), Some(now));
        assert_eq!(probing.end(&key), None);
    }
}
