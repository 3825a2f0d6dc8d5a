//! Internal TLS (`system-internal-tls`): one certificate for our TLS port, and whose certificates pods must have.
//!
//! Both come from the Secret `routing-serving-certs` of the system namespace; further authorities from every ConfigMap
//! there with the label `networking.knative.dev/trust-bundle`. All of it is followed while the process runs: the next
//! handshake uses the newest, open connections stay. What cannot be used is said, and the last good one holds. Sources:
//! upstream `pkg/activator/certificate`, `knative.dev/networking/pkg/certificates`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use api::labels::networking::TRUST_BUNDLE;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use proxy::tls::client::{Authorities, Secure, Trust};
use proxy::tls::{Options, Tls, TlsError};

use crate::feed::Change;

/// The Secret.
pub const SECRET: &str = "routing-serving-certs";
/// What every certificate of the data plane is for; also the SNI.
const DATA_PLANE: &str = "data-plane.knative.dev";
/// What a pod's certificate is for too, with its namespace behind it.
const USER: &str = "kn-user-";

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITY: &str = "ca.crt";

/// Certificate and authorities as they are now.
#[derive(Debug)]
pub struct InternalTls {
    server: Tls,
    trust: Trust,
    authorities: Mutex<Texts>,
}

/// The authorities' certificates as texts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Texts {
    /// Of the Secret.
    secret: Vec<u8>,
    /// By ConfigMap.
    bundles: BTreeMap<String, Vec<String>>,
}

impl Texts {
    /// Takes over ConfigMaps; whether anything changed.
    fn config_maps(&mut self, change: &Change<ConfigMap>) -> bool {
        let before = self.clone();
        let mut put = |map: &ConfigMap| {
            if map.labels().contains_key(TRUST_BUNDLE) {
                self.bundles.insert(map.name_any(), map.data.iter().flatten().map(|(_, text)| text.clone()).collect());
            } else {
                self.bundles.remove(&map.name_any());
            }
        };
        match change {
            Change::Applied(map) => put(map),
            Change::Listed(maps) => {
                for map in maps {
                    put(map);
                }
                self.bundles.retain(|name, _| maps.iter().any(|map| map.name_any() == *name));
            }
            Change::Deleted(map) => drop(self.bundles.remove(&map.name_any())),
        }
        *self != before
    }

    /// All that can be used; what cannot is named.
    fn authorities(&self) -> (Authorities, Vec<String>) {
        let (mut all, mut bad) = (Authorities::default(), Vec::new());
        if !self.secret.is_empty() && all.add(&self.secret).is_err() {
            bad.push(format!("Secret {SECRET}"));
        }
        for (name, texts) in &self.bundles {
            if texts.iter().any(|text| all.add(text.as_bytes()).is_err()) {
                bad.push(format!("ConfigMap {name}"));
            }
        }
        (all, bad)
    }
}

fn part<'a>(secret: &'a Secret, key: &str) -> &'a [u8] {
    secret.data.as_ref().and_then(|data| data.get(key)).map_or(&[], |bytes| &bytes.0)
}

impl InternalTls {
    /// From the Secret and the ConfigMaps of the system namespace as they are at the start.
    pub fn new(options: &Options, secret: &Secret, config_maps: Vec<ConfigMap>) -> Result<Self, TlsError> {
        let server = Tls::new(options, part(secret, CERTIFICATE), part(secret, KEY))?;
        let mut texts = Texts { secret: part(secret, AUTHORITY).to_vec(), bundles: BTreeMap::new() };
        texts.config_maps(&Change::Listed(config_maps));
        let trust = Trust::new(DATA_PLANE, said(&texts))?;
        Ok(Self { server, trust, authorities: Mutex::new(texts) })
    }

    /// For the listener.
    pub fn server(&self) -> Tls {
        self.server.clone()
    }

    /// How pods of a namespace are spoken to.
    pub fn pods_of(&self, namespace: &str) -> Secure {
        self.trust.also_named(&format!("{USER}{}", namespace.to_lowercase()))
    }

    /// The Secret is now this.
    pub fn secret(&self, secret: &Secret) {
        match self.server.replace(part(secret, CERTIFICATE), part(secret, KEY)) {
            Ok(()) => tracing::info!("certificate of internal TLS read"),
            Err(error) => tracing::error!(%error, "Secret {SECRET}: the certificate is not used, the old one stays"),
        }
        let mut texts = self.texts();
        if texts.secret != part(secret, AUTHORITY) {
            texts.secret = part(secret, AUTHORITY).to_vec();
            self.believe(&texts);
        }
    }

    /// ConfigMaps changed.
    pub fn config_maps(&self, change: &Change<ConfigMap>) {
        let mut texts = self.texts();
        if texts.config_maps(change) {
            self.believe(&texts);
        }
    }

    fn believe(&self, texts: &Texts) {
        match self.trust.replace(said(texts)) {
            Ok(()) => tracing::info!(bundles = texts.bundles.len(), "authorities of internal TLS read"),
            Err(error) => tracing::error!(%error, "the authorities of internal TLS are not used, the old ones stay"),
        }
    }

    fn texts(&self) -> MutexGuard<'_, Texts> {
        self.authorities.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// [`Texts::authorities`], with what is bad in the log.
fn said(texts: &Texts) -> Authorities {
    let (authorities, bad) = texts.authorities();
    for bad in bad {
        tracing::error!("{bad}: not all of its authorities can be used; the others are");
    }
    authorities
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use serde_json::json;

    const FIRST: &str = include_str!("../../proxy/tests/certificates/authority.crt");
    const SECOND: &str = include_str!("../../proxy/tests/certificates/authority-2.crt");
    const POD: &str = include_str!("../../proxy/tests/certificates/pod.crt");
    const POD_KEY: &str = include_str!("../../proxy/tests/certificates/pod.key");

    fn secret(parts: &[(&str, &str)]) -> Secret {
        let data = parts.iter().map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec()))).collect();
        Secret { data: Some(data), ..Secret::default() }
    }

    fn bundle(name: &str, labelled: bool, text: &str) -> ConfigMap {
        let labels = if labelled { json!({ TRUST_BUNDLE: "true" }) } else { json!({}) };
        serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels }, "data": { "x": text } }))
            .unwrap()
    }

    #[test]
    fn authorities_are_the_secrets_and_those_of_labelled_config_maps() {
        let mut texts = Texts { secret: FIRST.into(), ..Texts::default() };
        let listed = vec![bundle("a", true, SECOND), bundle("b", false, "no matter"), bundle("c", true, "junk")];
        assert!(texts.config_maps(&Change::Listed(listed)));
        assert_eq!(texts.bundles.keys().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(texts.authorities().1, ["ConfigMap c"]);
        assert!(!texts.config_maps(&Change::Applied(bundle("a", true, SECOND))), "no news");
        assert!(texts.config_maps(&Change::Applied(bundle("a", false, SECOND))), "its label is gone");
        assert!(texts.config_maps(&Change::Deleted(bundle("c", true, ""))));
        assert!(texts.bundles.is_empty() && texts.authorities().1.is_empty());
        assert!(texts.config_maps(&Change::Applied(bundle("d", true, ""))));
        assert!(texts.config_maps(&Change::Listed(vec![])), "gone while nobody watched");
    }

    #[test]
    fn the_start_needs_all_three_parts() {
        let options = Options::default();
        let whole = [(CERTIFICATE, POD), (KEY, POD_KEY), (AUTHORITY, FIRST)];
        InternalTls::new(&options, &secret(&whole), vec![]).unwrap();
        for missing in 0..3 {
            let parts: Vec<_> =
                whole.iter().enumerate().filter(|(n, _)| *n != missing).map(|(_, part)| *part).collect();
            assert!(InternalTls::new(&options, &secret(&parts), vec![]).is_err(), "without {}", whole[missing].0);
        }
        // Authorities may all be elsewhere.
        InternalTls::new(&options, &secret(&whole[..2]), vec![bundle("a", true, FIRST)]).unwrap();
    }

    #[test]
    fn pods_are_named_by_their_namespace_in_lower_case() {
        let whole = secret(&[(CERTIFICATE, POD), (KEY, POD_KEY), (AUTHORITY, FIRST)]);
        let tls = InternalTls::new(&Options::default(), &whole, vec![]).unwrap();
        assert_eq!(tls.pods_of("Team-A"), tls.trust.also_named("kn-user-team-a"));
        assert_ne!(tls.pods_of("a"), tls.pods_of("b"));
    }
}
