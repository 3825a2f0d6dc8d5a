//! Certificates of the gateway's TLS: one place for each Secret that an Ingress names.
//!
//! The routing table's entries hold the places, so that a handshake finds its certificate where its requests will find
//! their route, and a renewed Secret is used from the next handshake on. Which Secrets are wanted is told to
//! [`crate::watch`], which asks the API server for them and no others.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use k8s_openapi::api::core::v1::Secret;
use proxy::tls::{Certificate, TlsError};
use tokio::sync::watch;

use crate::shared::Shared;
use crate::table::{Visibility, normalize};

/// Namespace and name of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretName {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl SecretName {
    /// The name of `namespace/name`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Why a Secret cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum BadSecret {
    /// An entry is not there.
    #[error("has no {0}; a Secret of type kubernetes.io/tls has tls.crt and tls.key")]
    Missing(&'static str),
    /// The entries make no certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The place of a certificate: there while an Ingress names its Secret, filled while the Secret is good.
#[derive(Debug)]
pub struct CertificateSlot {
    name: SecretName,
    current: ArcSwapOption<Certificate>,
    /// Who names it. Changed by the control thread only.
    users: AtomicUsize,
    /// Whether it is known what the Secret holds.
    seen: AtomicBool,
}

impl CertificateSlot {
    /// Which Secret.
    pub fn name(&self) -> &SecretName {
        &self.name
    }

    /// The certificate, if there is one.
    pub fn get(&self) -> Option<Certificate> {
        self.current.load().as_deref().cloned()
    }
}

/// All certificates by Secret. Written by the control thread only.
#[derive(Debug)]
pub struct Certificates {
    /// Off the request path, and off the handshake's.
    slots: Mutex<HashMap<SecretName, Arc<CertificateSlot>>>,
    wanted: watch::Sender<BTreeSet<SecretName>>,
    /// Slots whose Secret was not seen yet.
    unseen: watch::Sender<usize>,
    /// For names that have no certificate of their own.
    default: Option<Arc<CertificateSlot>>,
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Certificates {
    /// None yet. `default`: the Secret for names without one.
    pub fn new(default: Option<SecretName>) -> Self {
        let mut this = Self {
            slots: Mutex::default(),
            wanted: watch::Sender::default(),
            unseen: watch::Sender::default(),
            default: None,
        };
        this.default = default.map(|name| this.name(&name));
        this
    }

    /// An Ingress names a Secret; to be taken back by [`Certificates::unname`].
    pub fn name(&self, name: &SecretName) -> Arc<CertificateSlot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(name.clone()).or_insert_with(|| {
            self.wanted.send_modify(|wanted| {
                wanted.insert(name.clone());
            });
            self.unseen.send_modify(|unseen| *unseen += 1);
            Arc::new(CertificateSlot {
                name: name.clone(),
                current: ArcSwapOption::empty(),
                users: AtomicUsize::default(),
                seen: AtomicBool::default(),
            })
        });
        slot.users.fetch_add(1, Ordering::Relaxed);
        Arc::clone(slot)
    }

    /// Whoever named a Secret is gone.
    pub fn unname(&self, slot: &CertificateSlot) {
        if slot.users.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(&slot.name);
        self.see(slot);
        self.wanted.send_modify(|wanted| {
            wanted.remove(&slot.name);
        });
    }

    /// What a Secret holds now; `None` = it is gone. One that cannot be used leaves the certificate as it was.
    pub fn apply(&self, name: &SecretName, secret: Option<&Secret>) -> Result<(), BadSecret> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = slots.get(name) else { return Ok(()) };
        // The certificate first, then the news of it.
        let certificate = secret.map(read).transpose();
        if let Ok(certificate) = &certificate {
            slot.current.store(certificate.clone().map(Arc::new));
        }
        self.see(slot);
        certificate.map(drop)
    }

    fn see(&self, slot: &CertificateSlot) {
        if !slot.seen.swap(true, Ordering::Relaxed) {
            self.unseen.send_modify(|unseen| *unseen -= 1);
        }
    }

    /// Waits until it is known of every Secret what it holds; before that "no certificate" could be wrong.
    pub async fn settled(&self) {
        let _ = self.unseen.subscribe().wait_for(|unseen| *unseen == 0).await;
    }

    /// The Secrets that are named.
    pub fn wanted(&self) -> watch::Receiver<BTreeSet<SecretName>> {
        self.wanted.subscribe()
    }
}

fn read(secret: &Secret) -> Result<Certificate, BadSecret> {
    let entry = |name: &'static str| {
        let found = secret.data.as_ref().and_then(|data| data.get(name));
        found.map(|bytes| bytes.0.as_slice()).ok_or(BadSecret::Missing(name))
    };
    Ok(Certificate::from_pem(entry("tls.crt")?, entry("tls.key")?)?)
}

/// Certificates by the hosts of the routing table, for the TLS of external listeners.
#[derive(Debug)]
pub struct ByHost(pub Arc<Shared>);

impl proxy::tls::Certificates for ByHost {
    fn find(&self, name: Option<&str>) -> Option<Certificate> {
        let own = name.and_then(|name| {
            let table = self.0.table.load();
            let entry = table.entry(&normalize(name))?;
            let external = entry.route.visibility == Visibility::External;
            entry.certificate.as_ref().filter(|_| external)?.get()
        });
        own.or_else(|| self.0.certificates.default.as_ref()?.get())
    }
}
